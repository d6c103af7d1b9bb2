"""Files: packing, missing and damaged ones."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from boundsmith.specs import SpecError, parse_property, read_property, save_property
from spec_helpers import assert_same, box, declarations

if TYPE_CHECKING:
    from pathlib import Path

TEXT = declarations(1, 1) + box(1) + "(assert (<= Y_0 0))\n"


def test_plain_packed_and_found_by_plain_name(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.vnnlib", tmp_path / "packed.vnnlib.gz"
    plain.write_text(TEXT)
    packed.write_bytes(gzip.compress(TEXT[:50].encode()) + gzip.compress(TEXT[50:].encode()))
    misnamed = tmp_path / "misnamed.vnnlib"
    misnamed.write_bytes(gzip.compress(TEXT.encode()))
    expected = parse_property(TEXT)
    for path in (plain, str(plain), packed, tmp_path / "packed.vnnlib", misnamed):
        assert_same(read_property(path), expected)
    assert read_property(plain).source == str(plain)


def test_damaged_files(tmp_path: Path) -> None:
    content = gzip.compress(TEXT.encode() * 50)
    for name, data, message in (
        ("a.gz", TEXT.encode(), "named .gz but is not gzip"),
        ("b.gz", content[:-20], "truncated"),
        ("c.gz", content[:12] + b"\xff" * 20 + content[32:], "gzip"),
        ("d.vnnlib", content[:5], "gzip"),
        ("e.vnnlib", b"\x00\x80\x81", "not text"),
        ("f.vnnlib", b"", "is empty"),
        ("g.gz", b"", "not gzip"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(SpecError, match=message) as caught:
            read_property(path)
        assert name in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.vnnlib: cannot be read: No such file"):
        read_property(tmp_path / "missing.vnnlib")
    with pytest.raises(SpecError, match="Is a directory"):
        read_property(tmp_path)
    with pytest.raises(SpecError, match="no file name"):
        read_property("null\0byte")


def test_saving(tmp_path: Path) -> None:
    prop = parse_property(TEXT)
    save_property(prop, tmp_path / "saved.vnnlib", "2.0")
    assert_same(read_property(tmp_path / "saved.vnnlib"), prop)
    assert [path.name for path in tmp_path.iterdir()] == ["saved.vnnlib"]
    with pytest.raises(SpecError, match="cannot be written"):
        save_property(prop, tmp_path / "no" / "folder.vnnlib")
