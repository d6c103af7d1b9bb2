"""Networks with operators that have no value everywhere: `closed` means no violation and a value at every point."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import crown
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.errors import UndefinedOnRegion
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from boundsmith.verify.search import input_split
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import node
from tests.search.test_input_split import property_of, run

PARTIAL = [
    ("Div", {}),
    ("Reciprocal", {}),
    ("Log", {}),
    ("Sqrt", {}),
    ("Tan", {}),
    ("Pow", {"exponent": -1.0}),
    ("Pow", {"exponent": -2.0}),
    ("Pow", {"exponent": 0.5}),
    ("Exp", {}),
]


def layer(name, source, weight, bias):
    params = {"weight": np.asarray(weight, float), "bias": np.asarray(bias, float)}
    return node(name, "Linear", (source,), (len(bias),), params)


def network(op, attributes, seed, width=3, scale=1.0):
    """Two inputs, a hidden layer of squares or ReLUs, a partial operator of ``width`` entries, one output."""
    random = np.random.default_rng(seed)
    hidden = ("Relu", {}) if random.random() < 0.5 else ("Pow", {"exponent": 2.0})
    nodes = [
        node("x", "Input", (), (2,)),
        layer("first", 0, random.normal(size=(width, 2)), random.normal(size=width)),
        node("hidden", hidden[0], (1,), (width,), **hidden[1]),
        layer("inner", 2, scale * random.normal(size=(width, width)), random.uniform(-1, 3, size=width)),
    ]
    if op == "Div":
        nodes.append(layer("top", 2, random.normal(size=(width, width)), random.normal(size=width)))
    inputs = (4, 3) if op == "Div" else (3,)
    nodes.append(node("partial", op, inputs, (width,), **attributes))
    nodes.append(layer("y", len(nodes) - 1, random.normal(size=(1, width)), random.normal(size=1)))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


def valueless(graph, points):
    """Whether the partial operator has no value somewhere between the points of a fine grid (its inputs are
    continuous)."""
    position = next(index for index, one in enumerate(graph.nodes) if one.name == "partial")
    one = graph.nodes[position]
    last = evaluate(graph, [points], one.inputs)[-1]
    exponent = one.attributes.get("exponent", 1.0)
    if one.op in ("Div", "Reciprocal") or exponent < 0:
        return bool(((last.min(axis=0) <= 0) & (last.max(axis=0) >= 0)).any())
    if one.op == "Log":
        return bool((last <= 0).any())
    if one.op == "Tan":
        branch = np.floor(last / np.pi + 0.5)
        return bool((branch.min(axis=0) != branch.max(axis=0)).any())
    return one.op != "Exp" and bool((last < 0).any())


@pytest.mark.parametrize(("op", "attributes"), PARTIAL)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([0.1, 0.5, 2.0]),
    gap=st.sampled_from([-1.0, -0.05, 0.05]),
    dtype=st.sampled_from(["float32", "float64"]),
    scale=st.sampled_from([0.5, 1.0, 30.0]),
)
def test_verdicts_agree_with_a_fine_grid(op, attributes, seed, size, gap, dtype, scale):
    graph = network(op, attributes, seed, scale=scale)
    random = np.random.default_rng(seed + 1)
    lower = random.uniform(-1, 1, size=2)
    upper = lower + size * random.random(2)
    grid = np.stack(np.meshgrid(*np.linspace(lower, upper, 60).T), axis=-1).reshape(-1, 2)
    values = output_vector(graph, grid)[:, 0]
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return
    least = finite.min()
    threshold = least + gap * (1.0 + abs(least))
    property = property_of(graph, [(lower, upper, [([[1.0]], [threshold])])])
    report, offered = run(graph, property, Backend(dtype), seconds=1.0, batch=64)
    if report.closed:
        assert not valueless(graph, grid)
        assert threshold < least
    # (Near its largest numbers, float32 makes something else of values.)
    for point in offered[:1] if abs(threshold) < 1e30 or dtype == "float64" else ():
        assert output_vector(graph, point[None].astype(float))[0, 0] <= threshold + 1e-3 * (1.0 + abs(threshold))
    if report.undefined is not None:
        assert "'partial'" in report.undefined
        assert report.stuck
        assert not report.closed


def quotient(offset):
    """``1 / (x0 ** 2 + x1 ** 2 - x0 x1 + offset)``: only splitting (or exact bounds) shows that it has a value."""
    one = np.ones(1)
    nodes = (
        node("x", "Input", (), (2,)),
        node("a", "Take", (0,), (1,), {"indices": np.array([0])}),
        node("b", "Take", (0,), (1,), {"indices": np.array([1])}),
        node("aa", "Mul", (1, 1), (1,)),
        node("bb", "Mul", (2, 2), (1,)),
        node("ab", "Mul", (1, 2), (1,)),
        node("sum", "Add", (3, 4, 5), (1,), signs=(1, 1, -1)),
        node("shifted", "Scale", (6,), (1,), {"scale": one, "shift": offset * one}),
        node("partial", "Reciprocal", (7,), (1,)),
    )
    return Graph(nodes, (0,), (8,))


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_divisor_that_only_splitting_shows_to_be_positive(device, dtype):
    graph = quotient(0.1)
    plan = make_plan(graph)
    with pytest.raises(UndefinedOnRegion, match="partial"):
        crown.relax(plan, -np.ones((1, 2)), np.ones((1, 2)))
    for threshold, expected in ((0.2, True), (0.4, False)):
        property = property_of(graph, [([-1, -1], [1, 1], [([[1.0]], [threshold])])])
        report, offered = run(graph, property, Backend(dtype, device))
        assert report.closed is expected
        assert bool(offered) is not expected
        assert report.undefined is None


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("lower", [[-1, -1], [0, 0], [0, -1]])
def test_a_pole_ends_the_search_with_the_name(device, lower):
    """Without the offset there is a pole at the origin: inside, at a corner, on an edge."""
    graph = quotient(0.0)
    property = property_of(graph, [(lower, [1, 1], [([[1.0]], [0.2])])])
    report, offered = run(graph, property, Backend("float32", device))
    assert not offered
    assert not report.closed
    assert len(report.stuck) > 0
    assert "'partial'" in report.undefined
    assert report.visited < 300


def test_the_other_boxes_of_a_batch_are_bounded():
    """A witness in a box apart from the one with the pole is found, and bounded boxes are closed."""
    graph = quotient(0.0)
    clause = ([[1.0]], [0.5])
    property = property_of(graph, [([-0.5, -0.5], [0.5, 0.5], [clause]), ([1, 1], [3, 3], [clause])])
    assert run(graph, property)[1]
    clause = ([[1.0]], [0.01])
    property = property_of(graph, [([-0.5, -0.5], [0.5, 0.5], [clause]), ([1, 1], [3, 3], [clause])])
    report, offered = run(graph, property)
    assert not offered
    assert {int(group) for part in report.stuck for group in part.group} == {0}


@pytest.mark.parametrize(("lower", "closed"), [(0.0, False), (1e-30, True)])
def test_an_unknown_edge_is_followed_to_the_resolution(monkeypatch, lower, closed):
    """Where no point without a value is known, boxes are split until bounds show that there is none, or none can be."""
    monkeypatch.setattr(input_split, "split_advice", blind(input_split.split_advice))
    nodes = (
        node("x", "Input", (), (1,)),
        layer("shifted", 0, [[1.0]], [0.0]),
        node("partial", "Log", (1,), (1,)),
    )
    property = property_of(Graph(nodes, (0,), (2,)), [([lower], [1], [([[1.0]], [-1e9])])])
    report, _ = run(Graph(nodes, (0,), (2,)), property, Backend("float32"), batch=64)
    assert report.closed is closed
    assert bool(report.stuck) is not closed
    assert (report.undefined is None) is closed


def blind(genuine):
    """The advice without the knowledge that no split can help, except at the resolution."""

    def advice(error, boxes, lower, upper):
        scores, _ = genuine(error, boxes, lower, upper)
        middle = 0.5 * lower + 0.5 * upper
        return scores, ~((middle > lower) & (middle < upper)).any(axis=1)

    return advice
