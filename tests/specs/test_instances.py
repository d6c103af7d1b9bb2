"""instances.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from boundsmith.specs import SpecError, read_instances

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str) -> Path:
    path = folder / "instances.csv"
    path.write_text(text)
    return path


def test_rows(tmp_path: Path) -> None:
    (tmp_path / "b.vnnlib.gz").touch()
    (tmp_path / "a.onnx").touch()
    path = write(
        tmp_path,
        "a.onnx,b.vnnlib,116\n\n\"[('f', 'a.onnx'), ('g', 'c.onnx')]\", b.vnnlib , 30.5\r\n",
    )
    for given in (path, tmp_path, str(tmp_path)):
        first, second = read_instances(given)
        assert first.networks == ((None, tmp_path / "a.onnx"),)
        assert first.query == tmp_path / "b.vnnlib.gz"
        assert (first.timeout, first.network_text, first.query_text) == (116, "a.onnx", "b.vnnlib")
        assert second.networks == (("f", tmp_path / "a.onnx"), ("g", tmp_path / "c.onnx"))
        assert second.timeout == 30.5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.onnx,b.vnnlib", ":2: a row reads ONNX,VNNLIB,SECONDS; this one has 2 fields"),
        (",b.vnnlib,1", ":2: a row reads"),
        ("a.onnx,b.vnnlib,soon", "the time limit 'soon' is not a positive number"),
        ("a.onnx,b.vnnlib,-1", "the time limit"),
        ("a.onnx,b.vnnlib,nan", "the time limit"),
        ("\"[('f', 'a'\",b,1", "several networks are listed as"),
        ('"[1, 2]",b,1', "several networks are listed as"),
        ('"[]",b,1', "several networks are listed as"),
    ],
)
def test_malformed_rows(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_instances(write(tmp_path, f"a.onnx,b.vnnlib,1\n{row}\n"))


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"instances\.csv: cannot be read"):
        read_instances(tmp_path)
