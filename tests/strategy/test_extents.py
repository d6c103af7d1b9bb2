"""Models that leave extents of their inputs open: the query's declarations fix them."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.cli.commands.inspect import describe, to_object
from boundsmith.specs.errors import BoundsmithError
from boundsmith.specs.read import parse_property
from boundsmith.verify import load, verify
from boundsmith.verify.budget import Deadline
from boundsmith.verify.errors import LoadError
from boundsmith.verify.options import Options
from boundsmith.verify.strategy import verify_files
from onnx import helper, numpy_helper

from tests.onnx_files import save

WEIGHT = np.array([[1.0, -1.0], [2.0, 0.5], [-1.0, 3.0]], np.float32)


@pytest.fixture
def batch(tmp_path):
    """``relu(X W)`` of a batch of rows of 3."""
    nodes = [helper.make_node("MatMul", ["X", "w"], ["h"]), helper.make_node("Relu", ["h"], ["Y"])]
    weights = [numpy_helper.from_array(WEIGHT, "w")]
    return save(tmp_path / "batch.onnx", nodes, [("X", ("batch", 3))], [("Y", ("batch", 2))], weights)


@pytest.fixture
def length(tmp_path):
    """The mean of rows of 3, times W."""
    nodes = [
        helper.make_node("ReduceMean", ["X"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["Y"]),
    ]
    weights = [numpy_helper.from_array(WEIGHT, "w")]
    return save(tmp_path / "length.onnx", nodes, [("X", (1, "length", 3))], [("Y", (1, 2))], weights)


def query(shape, outputs, condition, element="real"):
    boxes = "".join(
        f"(assert (and (>= X[{','.join(map(str, place))}] 0.0) (<= X[{','.join(map(str, place))}] 1.0)))"
        for place in np.ndindex(*shape)
    )
    return (
        f"(vnnlib-version <2.0>)(declare-network N (declare-input X {element} {list(shape)})"
        f"(declare-output Y real {list(outputs)})){boxes}(assert {condition})"
    )


def verdicts(tmp_path, file, text):
    """The answer, from files and from Python."""
    (tmp_path / "q.vnnlib").write_text(text)
    first = verify_files(tmp_path / "q.vnnlib", {"": file}, Options(threads=1), Deadline.after(20))
    second = verify(load(file), parse_property(text), 20, Options(threads=1))
    assert first.verdict is second.verdict
    return first


@pytest.mark.parametrize(("least", "verdict"), [(6.1, "unsat"), (5.9, "sat")])
@pytest.mark.parametrize("element", ["real", "float32"])
def test_a_batch_that_the_query_declares(tmp_path, batch, least, verdict, element):
    """Each row's first output reaches 3."""
    text = query((2, 3), (2, 2), f"(>= (+ Y[0,0] Y[1,0]) {least})", element)
    result = verdicts(tmp_path, batch, text)
    assert result.verdict.value == verdict
    if verdict == "sat":
        assert result.witness.inputs[0][1].shape == (2, 3)
        assert result.witness.outputs[0][1].shape == (2, 2)


@pytest.mark.parametrize("shape", [(1, 4, 3), (12,)])
@pytest.mark.parametrize(("least", "verdict"), [(3.1, "unsat"), (2.9, "sat")])
def test_a_length_that_the_query_declares(tmp_path, length, shape, least, verdict):
    assert verdicts(tmp_path, length, query(shape, (1, 2), f"(>= Y[0,0] {least})")).verdict.value == verdict


def test_extents_of_one_need_no_declaration(tmp_path, batch):
    assert verdicts(tmp_path, batch, query((1, 3), (1, 2), "(>= Y[0,0] 3.1)")).verdict.value == "unsat"


@pytest.mark.parametrize("shape", [(2, 2), (5,)])
def test_what_the_model_does_not_allow(tmp_path, batch, shape):
    text = query(shape, (2, 2), "(>= Y[0,0] 3.1)")
    (tmp_path / "q.vnnlib").write_text(text)
    with pytest.raises(BoundsmithError, match=f"declares {np.prod(shape)} input variables, but network N has 3"):
        verify_files(tmp_path / "q.vnnlib", {"": batch}, Options(threads=1), Deadline.after(20))


def test_shapes_given_to_load(batch):
    network = load(batch, shapes={"X": (4, 3)})
    assert network.inputs[0].shape == (4, 3)
    assert network.outputs[0].shape == (4, 2)
    for shape in ((4, 2), (4, 3, 1), (0, 3)):
        with pytest.raises(LoadError, match=r"input X has shape \[batch, 3\], which .* does not fit"):
            load(batch, shapes={"X": shape})
    with pytest.raises(LoadError, match="has no input Z; its inputs are X"):
        load(batch, shapes={"Z": (1, 3)})


def test_inspect_says_which_extents_are_open(batch, length):
    found = to_object(load(batch), checked=True)
    assert found["inputs"][0]["symbolic"] == {"0": "batch"}
    assert "input X float32 [1, 3] (axis 0 is batch in the model" in describe(found)
    assert "axis 1 is length" in describe(to_object(load(length), checked=True))
    assert "symbolic" not in to_object(load(batch, shapes={"X": (2, 3)}), checked=True)["inputs"][0]
