"""Inputs of integer and boolean type: whole numbers alone, within their type's range."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.specs.read import parse_property
from boundsmith.verify import load, verify
from boundsmith.verify.errors import UnsupportedError
from boundsmith.verify.integers import with_whole_numbers
from boundsmith.verify.options import Options
from boundsmith.verify.problem import join
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_files import save
from tests.queries import query_of

METHODS = ("auto", "input-split", "activation-split", "milp", "bounds", "attack")


def cast(tmp_path, element, size=1):
    """The inputs as real numbers."""
    nodes = [helper.make_node("Cast", ["X"], ["Y"], to=TensorProto.FLOAT)]
    return load(save(tmp_path / "cast.onnx", nodes, [("X", (1, size), element)], [("Y", (1, size))]))


def table(tmp_path, rows=6, element=TensorProto.INT64):
    """Row X of a table whose row k is k."""
    values = numpy_helper.from_array(np.arange(rows, dtype=np.float32)[:, None], "T")
    nodes = [helper.make_node("Gather", ["T", "X"], ["e"]), helper.make_node("Reshape", ["e", "s"], ["Y"])]
    shape = numpy_helper.from_array(np.array([1, 1]), "s")
    return load(save(tmp_path / "table.onnx", nodes, [("X", (1, 1), element)], [("Y", (1, 1))], [values, shape]))


def asked(network, lower, upper, least, method="auto", timeout=20.0):
    """Whether Y reaches `least` on [lower, upper]."""
    text = (
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        f"(assert (>= X_0 {lower}))(assert (<= X_0 {upper}))(assert (>= Y_0 {least}))"
    )
    return verify(network, parse_property(text), timeout, Options(method=method, threads=1))


@pytest.mark.parametrize("make", [cast, table])
@pytest.mark.parametrize("element", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize(
    ("lower", "upper", "least", "verdict"),
    [(2.3, 2.7, -100, "unsat"), (0.5, 2.6, 2.5, "unsat"), (0.5, 2.6, 1.5, "sat"), (2, 2, 2, "sat")],
)
def test_boxes_are_cut_to_the_whole_numbers_in_them(tmp_path, make, element, lower, upper, least, verdict):
    network = make(tmp_path, element=element)
    result = asked(network, lower, upper, least)
    assert result.verdict.value == verdict
    if verdict == "sat":
        assert result.witness.inputs[0][1].reshape(-1).tolist() == [2]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_finds_what_is_not_there(tmp_path, method):
    assert asked(cast(tmp_path, TensorProto.INT64), 2.3, 2.7, -100, method).verdict.value == "unsat"


@pytest.mark.parametrize(
    ("element", "lower", "upper", "least", "verdict"),
    [
        (TensorProto.BOOL, -5, 5, 1.5, "unsat"),
        (TensorProto.BOOL, 0.2, 0.8, 0, "unsat"),
        (TensorProto.BOOL, 0.2, 5, 1, "sat"),
        (TensorProto.UINT8, -9, -1, -100, "unsat"),
        (TensorProto.UINT8, -9, 1000, 255.5, "unsat"),
        (TensorProto.UINT8, -9, 1000, 254.5, "sat"),
        (TensorProto.INT8, 127.5, 200, 0, "unsat"),
    ],
)
def test_types_have_ranges(tmp_path, element, lower, upper, least, verdict):
    assert asked(cast(tmp_path, element), lower, upper, least).verdict.value == verdict


@pytest.mark.parametrize("method", METHODS)
def test_no_verdict_rests_on_an_index_beyond_the_table(tmp_path, method):
    result = asked(table(tmp_path), 4, 8, 50, method, timeout=0.2 if method == "attack" else 20.0)
    assert result.verdict.value in ("unknown", "timed-out")
    if method not in ("attack", "milp"):
        assert any("node 'e' is undefined" in warning for warning in result.warnings)


def test_negative_indices_count_from_the_end(tmp_path):
    network = table(tmp_path)
    assert asked(network, -6, -1, 5.5).verdict.value == "unsat"
    assert asked(network, -6, -1, 4.5).verdict.value == "sat"
    assert asked(network, -7, -1, 5.5).verdict.value == "unknown"


def test_a_witness_beside_the_undefined_counts(tmp_path):
    result = asked(table(tmp_path), 4, 8, 4.5)
    assert result.verdict.value == "sat"
    assert result.witness.inputs[0][1].reshape(-1).tolist() == [5]


@pytest.mark.parametrize("method", ["auto", "input-split"])
@pytest.mark.parametrize("wide", [9.5, 40_000.5])
def test_a_gap_between_whole_numbers_is_closed(tmp_path, method, wide):
    """``|X0 - X1 - 0.5|`` is 0.5 at least; over the reals it is 0 on a whole line."""
    nodes = [
        helper.make_node("Cast", ["X"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["d"]),
        helper.make_node("Sub", ["d", "half"], ["s"]),
        helper.make_node("Abs", ["s"], ["Y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([[1.0], [-1.0]], np.float32), "w"),
        numpy_helper.from_array(np.array([[0.5]], np.float32), "half"),
    ]
    network = load(save(tmp_path / "n.onnx", nodes, [("X", (1, 2), TensorProto.INT64)], [("Y", (1, 1))], weights))
    box = Box(np.array([wide - 9.0, wide - 7.0]), np.array([wide, wide]))
    options = Options(method=method, threads=1)
    assert verify(network, query_of(2, 1, [(box, [[1.0]], [0.4])]), 20, options).verdict.value == "unsat"
    assert verify(network, query_of(2, 1, [(box, [[1.0]], [0.5])]), 20, options).verdict.value == "sat"


@pytest.mark.parametrize("seed", range(6))
def test_mixed_queries_agree_with_every_point(tmp_path, seed):
    """One real and two integer inputs, several boxes: the extreme over all whole numbers decides."""
    random = np.random.default_rng(seed)
    w, b = random.normal(size=(3, 5)).astype(np.float32), random.normal(size=5).astype(np.float32)
    v = random.normal(size=(5, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["K"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["X", "k"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["Y"]),
    ]
    weights = [numpy_helper.from_array(array, name) for array, name in ((w, "w"), (b, "b"), (v, "v"))]
    inputs = [("X", (1, 1)), ("K", (1, 2), TensorProto.INT64)]
    network = load(save(tmp_path / "n.onnx", nodes, inputs, [("Y", (1, 1))], weights))
    lows = [np.array([-0.5, -1.7, 0.2]), np.array([0.0, 3.1, -2.9])]
    boxes = [Box(low, low + np.array([0.0, 3.0, 2.5])) for low in lows]
    values = []
    for box in boxes:
        ends = zip(np.ceil(box.lower[1:]).astype(int), np.floor(box.upper[1:]).astype(int), strict=True)
        for point in itertools.product(*(range(first, last + 1) for first, last in ends)):
            x = np.array([box.lower[0], *point])
            values.append(float(np.maximum(x @ w.astype(float) + b, 0) @ v.astype(float)[:, 0]))
    declared = (
        "(vnnlib-version <2.0>)(declare-network N (declare-input X real [1,1])(declare-input K real [1,2])"
        "(declare-output Y real [1,1]))(assert (or"
    )
    for gap, verdict in ((-1e-3, "unsat"), (1e-3, "sat")):
        cases = " ".join(
            "(and "
            + " ".join(
                f"(>= {name} {low})(<= {name} {high})"
                for name, low, high in zip(("X[0,0]", "K[0,0]", "K[0,1]"), box.lower, box.upper, strict=True)
            )
            + f"(<= Y[0,0] {min(values) + gap}))"
            for box in boxes
        )
        result = verify(network, parse_property(declared + cases + "))"), 20, Options(threads=1))
        assert result.verdict.value == verdict


def test_boxes_without_a_whole_number_fall_away(tmp_path):
    network = cast(tmp_path, TensorProto.INT64)
    boxes = [Box(np.array([0.2]), np.array([0.8])), Box(np.array([1.5]), np.array([3.5]))]
    prop = query_of(1, 1, [(box, [[1.0]], [0.0]) for box in boxes])
    problem = with_whole_numbers(join(prop, {"N": network.graph}), {"N": network})
    assert [(group.lower[0], group.upper[0]) for group in problem.groups] == [(2.0, 3.0)]
    assert problem.whole.tolist() == [True]


def test_whole_numbers_that_doubles_merge_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"reaches beyond 2\^53"):
        asked(cast(tmp_path, TensorProto.INT64), 0, 2**60, -1)
    assert asked(cast(tmp_path, TensorProto.INT32), -1e300, 1e300, 3e9).verdict.value == "unsat"


def test_many_points_take_few_boxes(tmp_path):
    """2,401 points: the integer search looks at blocks of them."""
    nodes = [
        helper.make_node("Cast", ["X"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["Y"]),
    ]
    random = np.random.default_rng(0)
    w, v = random.normal(size=(4, 8)).astype(np.float32), random.normal(size=(8, 1)).astype(np.float32)
    weights = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")]
    network = load(save(tmp_path / "n.onnx", nodes, [("X", (1, 4), TensorProto.INT64)], [("Y", (1, 1))], weights))
    points = np.array(list(itertools.product(range(-3, 4), repeat=4)), float)
    least = float((np.maximum(points @ w.astype(float), 0) @ v.astype(float)).min())
    box = Box(np.full(4, -3.4), np.full(4, 3.4))
    result = verify(network, query_of(4, 1, [(box, [[1.0]], [least - 1e-3])]), 30, Options(threads=1))
    assert result.verdict.value == "unsat"
    assert "whole numbers" in result.method
    assert result.counters["domains"] < 2500
