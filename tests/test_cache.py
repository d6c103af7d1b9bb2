"""Cached arrays: written once, read again, and built anew whenever the file is not what it should be."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.cache import cache_folder, cached_array


class Build:
    """Counts how often the array is built."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return np.arange(6.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "boundsmith"


def get(build, version="1"):
    array = cached_array("numbers", version, (6,), "float64", build)
    np.testing.assert_array_equal(array, np.arange(6.0))


def test_built_once_for_each_version(folder):
    build = Build()
    get(build)
    get(build)
    assert build.times == 1
    get(build, "2")
    assert build.times == 2
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an array",
        b"\x93NUMPY\x01\x00",
        b"PK\x03\x04 no archive",
        np.zeros(5).tobytes(),
    ],
)
def test_anything_else_in_the_file_is_replaced(folder, content):
    build = Build()
    get(build)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(content)
    get(build)
    assert build.times == 2
    assert file.read_bytes() == good


def test_damaged_files_are_replaced(folder):
    build = Build()
    get(build)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    for end in range(0, len(good), 7):
        file.write_bytes(good[:end])
        get(build)
        assert file.read_bytes() == good
    for place in range(0, len(good), 5):
        bent = bytearray(good)
        bent[place] ^= 1
        file.write_bytes(bytes(bent))
        get(build)
        assert file.read_bytes() == good


def test_other_shapes_and_types_are_other_files(folder):
    get(Build())
    for shape, dtype in (((2, 3), "float64"), ((6,), "float32")):
        array = cached_array("numbers", "1", shape, dtype, Build())
        assert array.shape == shape
        assert array.dtype == dtype
    assert len(list(folder.iterdir())) == 3


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    occupied = tmp_path / "file"
    occupied.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    build = Build()
    get(build)
    get(build)
    assert build.times == 2


def test_a_folder_in_the_file_s_place_is_no_error(folder):
    build = Build()
    get(build)
    (file,) = folder.iterdir()
    file.unlink()
    file.mkdir()
    get(build)
    assert build.times == 2


def test_no_home_folder_is_no_error(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    build = Build()
    get(build)
    assert build.times == 1


def test_relative_paths_are_ignored_as_the_specification_asks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert tmp_path in cache_folder().parents
