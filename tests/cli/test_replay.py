"""Replaying counterexamples from outside: whatever a network's inputs and files are like, the answer is a judgement."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from boundsmith.cli.bench.judge import Judgement, judge
from boundsmith.cli.bench.record import Record
from boundsmith.cli.bench.replay import NotReplayed, confirm, parse_assignment
from onnx import TensorProto, helper

from .conftest import make_network, query_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def cast_network(element_type: int, shape: Sequence[int | str] = (1, 2)) -> onnx.ModelProto:
    """``Y = float(X)`` for inputs of an element type."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["X"], ["Y"], to=TensorProto.FLOAT)],
        "cast",
        [helper.make_tensor_value_info("X", element_type, list(shape))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, list(shape))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """``Y_0 >= 1`` over ``[0.5, 3] x [0.5, 3]``."""
    file = tmp_path / "query.vnnlib"
    file.write_text(query_text("(>= Y_0 1.0)", 0.5, 3.0))
    return file


def replay(query: Path, model: onnx.ModelProto, lines: Sequence[str]) -> str:
    file = query.parent / "net.onnx"
    onnx.save(model, file)
    return confirm(query, {"": file}, lines)


def test_whole_numbers_are_replayed(query: Path) -> None:
    model = cast_network(TensorProto.INT64)
    assert replay(query, model, ["X int64 [1,2]", "2", "1", "Y float32 [1,2]", "2.0", "1.0"]) == ""
    assert "no box" in replay(query, model, ["X int64 [1,2]", "2", "0"]), (
        "0 is not in [0.5, 3], nor is it rounded there"
    )
    assert "no box" in replay(query, model, ["X int64 [1,2]", "2", "4"])


def test_truth_values_are_replayed(query: Path) -> None:
    model = cast_network(TensorProto.BOOL)
    assert replay(query, model, ["X bool [1,2]", "True", "True"]) == ""
    assert "no box" in replay(query, model, ["X bool [1,2]", "True", "False"])
    assert "cannot be read" in replay(query, model, ["X bool [1,2]", "True", "maybe"])


@pytest.mark.parametrize("shape", [(0, 2), ("batch", 2)])
def test_dynamic_extents_are_replayed(query: Path, shape: tuple[int | str, int]) -> None:
    model = make_network(np.eye(2), shape=shape)
    assert replay(query, model, ["X float32 [1,2]", "2.0", "1.0"]) == ""
    assert "no clause" in replay(query, model, ["X float32 [1,2]", "0.5", "1.0"])


def test_extents_that_the_query_fixes_are_taken_from_the_assignment(tmp_path: Path) -> None:
    query = tmp_path / "query.vnnlib"
    query.write_text(query_text("(>= Y_2 1.0)", 0.0, 3.0, inputs=4, outputs=4))
    model = cast_network(TensorProto.FLOAT, ("batch", 2))
    assert replay(query, model, ["X float32 [2,2]", "0.5", "0.5", "2.0", "0.5"]) == ""


def test_a_packed_network_with_weights_beside_it_is_replayed(query: Path) -> None:
    plain, packed = query.parent / "net.onnx", query.parent / "net.onnx.gz"
    graph = make_network(np.array([[0.0, 1.0], [1.0, 0.0]]))
    onnx.save(graph, plain, save_as_external_data=True, location="net.data", size_threshold=0)
    lines = ["X float32 [1,2]", "0.5", "2.0"]
    assert confirm(query, {"": plain}, lines) == ""
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert confirm(query, {"": packed}, lines) == ""
    data = query.parent / "net.data"
    (query.parent / "net.data.gz").write_bytes(gzip.compress(data.read_bytes()))
    data.unlink()
    assert confirm(query, {"": packed}, lines) == ""


def test_bytes_after_a_packed_network_do_not_matter(query: Path) -> None:
    packed = query.parent / "net.onnx.gz"
    packed.write_bytes(gzip.compress(make_network(np.eye(2)).SerializeToString()) + b"and more")
    assert confirm(query, {"": packed}, ["X float32 [1,2]", "2.0", "1.0"]) == ""


def test_names_with_spaces_are_read() -> None:
    first, second = parse_assignment(["the input float32 [1,2]", "1.0", "2.0", "Y [0] float32 []", "3.0"])
    assert first.tolist() == [[1.0, 2.0]]
    assert second.tolist() == 3.0


def test_an_input_fixed_to_a_decimal_may_be_the_nearest_number(tmp_path: Path) -> None:
    query = tmp_path / "query.vnnlib"
    query.write_text(query_text("(>= Y_0 0.05)", 0.1, 0.1))
    assert replay(query, cast_network(TensorProto.FLOAT), ["X float32 [1,2]", "0.1", "0.1"]) == ""


@pytest.mark.parametrize(
    "content",
    [b"not a network", cast_network(TensorProto.STRING).SerializeToString(), None],
    ids=["junk", "text", "gone"],
)
def test_what_cannot_be_replayed_is_said_and_not_called_wrong(query: Path, content: bytes | None) -> None:
    file = query.parent / "net.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NotReplayed, match="could not be replayed"):
        confirm(query, {"": file}, ["X float32 [1,2]", "2.0", "1.0"])


@pytest.mark.parametrize(
    ("replayed", "expected", "judgement"),
    [
        (True, "sat", Judgement.RIGHT),
        (True, "unsat", Judgement.NEW_COUNTEREXAMPLE),
        (False, "sat", Judgement.WRONG),
        (None, "sat", Judgement.UNCONFIRMED),
        (None, "unsat", Judgement.UNCONFIRMED),
    ],
)
def test_a_sat_counts_by_its_witness(replayed: bool | None, expected: str, judgement: Judgement) -> None:
    assert judge(Record("s", "n", "q", 1.0, "sat", 0.1, 1, 0, replayed), expected) is judgement


@pytest.mark.parametrize(("level", "holds"), [("ORT_ENABLE_ALL", True), ("ORT_ENABLE_BASIC", False)])
def test_what_the_file_says_decides_where_optimisations_approximate(
    query: Path, monkeypatch: pytest.MonkeyPatch, level: str, holds: bool
) -> None:
    import onnxruntime
    from boundsmith.cli.bench import replay as module

    honest = module._session

    class Off:
        def __init__(self, session: object) -> None:
            self._session = session

        def get_inputs(self) -> object:
            return self._session.get_inputs()

        def run(self, *arguments: object) -> object:
            return [0 * value for value in self._session.run(*arguments)]

    def session(file: Path, asked: object) -> object:
        found = honest(file, asked)
        return Off(found) if asked == getattr(onnxruntime.GraphOptimizationLevel, level) else found

    monkeypatch.setattr(module, "_session", session)
    assert (replay(query, make_network(np.eye(2)), ["X float32 [1,2]", "2.0", "1.0"]) == "") is holds


def test_the_numbers_of_a_tensor_are_its_own_types() -> None:
    for dtype in ("float16", "float64", "int8", "uint64"):
        values = np.array([0, 1, 100], dtype)
        (found,) = parse_assignment([f"X {dtype} [3]", *map(str, values)])
        assert found.dtype == values.dtype
        assert np.array_equal(found, values)
