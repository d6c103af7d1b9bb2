"""Rational arithmetic on the boxes that floating-point numbers leave open: ties are decided, and rightly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from boundsmith.specs.property import Box, Clause, Property
from boundsmith.verify.api import verify
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options
from boundsmith.verify.problem import join
from boundsmith.verify.search.exact import is_exact, refuted_exactly
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.networks import node
from tests.onnx_files import random_layers, save, save_dense
from tests.queries import query_of


def strictly(property, strict=True):
    """The same with strict rows."""
    clauses = tuple(Clause(c.box, c.output_rows, c.offset, np.full(len(c.offset), strict)) for c in property.clauses)
    return Property(
        clauses,
        property.input_count,
        property.output_count,
        property.input_map,
        property.networks,
        property.inputs,
        property.outputs,
        version="2.0",
    )


def positive_part(tmp_path):
    """``f(x) = relu(W x)``, so that f(0) = 0."""
    weight = np.array([[1.0, -1.0], [2.0, 1.0]], np.float32)
    nodes = [helper.make_node("MatMul", ["X", "W"], ["h"]), helper.make_node("Relu", ["h"], ["Y"])]
    arrays = [numpy_helper.from_array(weight, "W")]
    return load(save(tmp_path / "f.onnx", nodes, [("X", (1, 2))], [("Y", (1, 2))], arrays))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("low", "high", "row", "strict", "verdict"),
    [
        (0.0, 0.0, [-1.0, 0.0], True, "unsat"),
        (0.0, 0.0, [-1.0, 0.0], False, "sat"),
        (0.0, 1.0, [1.0, 0.0], True, "unsat"),
        (-1.0, 1.0, [1.0, 1.0], True, "unsat"),
        (0.0, 1.0, [-1.0, 0.0], True, "sat"),
    ],
)
def test_strict_rows_that_are_tight(tmp_path, dtype, low, high, row, strict, verdict):
    query = strictly(query_of(2, 2, [(Box(np.full(2, low), np.full(2, high)), [row], [0.0])]), strict)
    result = verify(positive_part(tmp_path), query, 20, Options(threads=1, dtype=dtype))
    assert result.verdict.value == verdict
    if verdict == "unsat":
        assert result.best_bound is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), strict=st.booleans(), shift=st.sampled_from([-1, 0, 1]))
def test_points_are_decided_as_rational_numbers_decide_them(tmp_path_factory, seed, strict, shift):
    """A threshold at the exact value of a point, and the float64 numbers next to it."""
    layers = random_layers((3, 5, 4, 1), seed)
    network = load(save_dense(tmp_path_factory.mktemp("n") / "net.onnx", layers))
    point = np.random.default_rng(seed).normal(size=3).astype(np.float32).astype(float)
    value = [Fraction(float(x)) for x in point]
    for position, (weight, bias) in enumerate(layers):
        value = [
            sum((Fraction(float(w)) * x for w, x in zip(row, value, strict=True)), Fraction(float(b)))
            for row, b in zip(weight, bias, strict=True)
        ]
        value = value if position == len(layers) - 1 else [max(x, Fraction(0)) for x in value]
    threshold = float(value[0])
    threshold = threshold if not shift else float(np.nextafter(threshold, shift * np.inf))
    query = strictly(query_of(3, 1, [(Box(point, point), [[1.0]], [threshold])]), strict)
    problem = join(query, {"N": network.graph})
    holds = value[0] < Fraction(threshold) or (not strict and value[0] == Fraction(threshold))
    assert refuted_exactly(problem.graph, problem.groups[0], point, point, np.array([0])) is not holds


def test_every_operator_contains_its_values():
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(4, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    nodes = (
        node("x", "Input", (), (4,)),
        node("z", "Linear", (0,), (4,), {"weight": weight, "bias": bias}),
        node("r", "Relu", (1,), (4,)),
        node("s", "Scale", (1,), (4,), {"scale": bias, "shift": weight[0]}),
        node("d", "Add", (2, 3), (4,), signs=(1, -1)),
        node("a", "Abs", (4,), (4,)),
        node("m", "Max", (5, 2), (4,)),
        node("n", "Min", (6, 3), (4,)),
        node("t", "Take", (7,), (3,), {"indices": np.array([2, -1, 0])}, fill=0.5),
        node("c", "Constant", (), (1,), {"value": np.array([0.25], np.float32)}),
        node("j", "Concat", (8, 9), (4,), axis=0),
        node("k", "Reshape", (10,), (2, 2)),
        node("p", "Transpose", (11,), (2, 2), perm=(1, 0)),
        node("y", "Sum", (12,), (2,), axes=(0,), keepdims=False),
    )
    graph = Graph(nodes, (0,), (13,))
    assert is_exact(graph)
    from boundsmith.verify.loading.evaluate import output_vector
    from boundsmith.verify.search.exact import _fractions, _output

    low = random.normal(size=4)
    for width in (0.0, 0.3):
        lower, upper = _output(graph, _fractions(low), _fractions(low + width))
        points = low + width * random.random((200, 4))
        values = output_vector(graph, points)
        assert (lower.astype(float) - 1e-12 <= values).all()
        assert (values <= upper.astype(float) + 1e-12).all()
        if not width:
            assert (lower == upper).all()


def test_merged_parameters_are_not_taken_for_exact():
    """Float64 parameters may be roundings of products: a tie of such numbers decides nothing."""

    def graph(dtype):
        nodes = (node("x", "Input", (), (1,)), node("y", "Linear", (0,), (1,), {"weight": np.array([[0.5]], dtype)}))
        return Graph(nodes, (0,), (1,))

    for at, decided in ((1.0, False), (0.0, True)):
        point = np.array([at])
        query = strictly(query_of(1, 1, [(Box(point, point), [[1.0]], [0.5 * at])]))
        for dtype, expected in ((np.float32, True), (np.float64, decided)):
            problem = join(query, {"N": graph(dtype)})
            assert refuted_exactly(problem.graph, problem.groups[0], point, point, np.array([0])) is expected


def test_other_operators_and_parameters_are_left_alone():
    nodes = (node("x", "Input", (), (1,)), node("y", "Sigmoid", (0,), (1,)))
    assert not is_exact(Graph(nodes, (0,), (1,)))
    params = {"weight": np.ones((1, 1), np.float32), "weight_error": np.ones((1, 1))}
    assert not is_exact(Graph((nodes[0], node("y", "Linear", (0,), (1,), params)), (0,), (1,)))
    large = {"weight": np.ones((300, 300), np.float32)}
    nodes = (node("x", "Input", (), (300,)), node("y", "Linear", (0,), (300,), large))
    assert not is_exact(Graph(nodes, (0,), (1,)))


def test_the_clauses_that_are_still_open_are_the_ones_looked_at(tmp_path):
    """Two clauses, of which bounds refute the first everywhere; the second is violated."""
    network = positive_part(tmp_path)
    box = Box(np.zeros(2), np.ones(2))
    query = strictly(query_of(2, 2, [(box, [[1.0, 0.0]], [0.0]), (box, [[-1.0, 0.0]], [-2.9])]))
    for method in ("auto", "input-split"):
        options = Options(threads=1, method=method, attack=False)
        assert verify(network, query, 20, options).verdict.value == "sat"
    query = strictly(query_of(2, 2, [(box, [[1.0, 0.0]], [-5.0]), (box, [[-1.0, 0.0]], [-3.0])]))
    assert verify(network, query, 20, Options(threads=1)).verdict.value == "unsat"
