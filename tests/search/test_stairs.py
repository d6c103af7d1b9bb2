"""Inputs read through whole numbers only: a few points stand for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.api import verify
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.interval import node_interval
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.loading.network import load
from boundsmith.verify.ops import rule
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict
from boundsmith.verify.search.stairs import find_stairs, part, snap
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.networks import node
from tests.onnx_files import save
from tests.queries import query_of
from tests.search.test_input_split import property_of, run

STEPS = ("truncate", "Floor", "Ceil")


def stepped(kind, seed=0, also=False):
    """Three inputs, the first two through whole numbers, then a ReLU layer; `also`: the second is read itself, too."""
    random = np.random.default_rng(seed)
    nodes = [
        node("x", "Input", (), (3,)),
        node("both", "Take", (0,), (2,), {"indices": np.array([0, 1])}),
        node("rest", "Take", (0,), (2,), {"indices": np.array([1 if also else 2, 2])}),
    ]
    if kind == "truncate":
        nodes += [
            node("up", "Relu", (1,), (2,)),
            node("up floor", "Floor", (3,), (2,)),
            node("minus", "Scale", (1,), (2,), {"scale": -np.ones(2)}),
            node("down", "Relu", (5,), (2,)),
            node("down floor", "Floor", (6,), (2,)),
            node("whole", "Add", (4, 7), (2,), signs=(1, -1)),
        ]
    else:
        nodes.append(node("whole", kind, (1,), (2,)))
    nodes += [
        node("all", "Concat", (len(nodes) - 1, 2), (4,), axis=0),
        node("z", "Linear", (len(nodes),), (8,), {"weight": random.normal(size=(8, 4)), "bias": random.normal(size=8)}),
        node("h", "Relu", (len(nodes) + 1,), (8,)),
        node("y", "Linear", (len(nodes) + 2,), (1,), {"weight": random.normal(size=(1, 8)), "bias": np.zeros(1)}),
    ]
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


def every_point(stairs, lower):
    """All combinations of the stairs' values ``[P, n]``, in `lower` ``[n]``."""
    mesh = np.meshgrid(*stairs.values(), indexing="ij")
    points = np.tile(lower, (mesh[0].size, 1))
    for entry, values in zip(stairs, mesh, strict=True):
        points[:, entry] = values.reshape(-1)
    return points


ends = st.tuples(st.floats(-4, 4), st.floats(0, 5)).map(lambda p: (p[0], p[0] + p[1]))


@pytest.mark.parametrize("kind", STEPS)
@settings(max_examples=40, deadline=None)
@given(first=ends, second=ends, seed=st.integers(0, 1000))
def test_every_value_is_taken_on_a_stair(kind, first, second, seed):
    graph = stepped(kind, seed)
    lower, upper = np.array([[first[0], second[0], 0.3]]), np.array([[first[1], second[1], 0.3]])
    stairs = find_stairs(graph, lower, upper, np.array([0, 1]))
    assert set(stairs) == {0, 1}
    for entry, values in stairs.items():
        assert (np.diff(values) > 0).all()
        assert lower[0, entry] <= values[0]
        assert values[-1] <= upper[0, entry]
        # (The difference of the ends may round a whole stair away.)
        assert len(values) <= (np.ceil(upper) - np.floor(lower))[0, entry] + 1
    count = len(stairs[0]) * len(stairs[1])
    points = every_point(stairs, lower[0])
    assert len(np.unique(points, axis=0)) == count
    known = np.unique(output_vector(graph, points))
    random = np.random.default_rng(seed)
    samples = lower + random.random((200, 3)) * (upper - lower)
    values = output_vector(graph, samples)
    assert abs(values - known).min(axis=1).max() < 1e-9
    cut = np.sort(samples[:2], axis=0)
    low, high = snap(stairs, cut[:1], cut[1:])
    for entry in (0, 1):
        inside = stairs[entry][(stairs[entry] >= cut[0, entry]) & (stairs[entry] <= cut[1, entry])]
        if len(inside):
            assert (low[0, entry], high[0, entry]) == (inside[0], inside[-1])
        else:
            assert low[0, entry] > high[0, entry]
        if len(inside) > 1:
            middle = np.array([0.5 * (inside[0] + inside[-1])])
            end, begin = part(stairs, np.array([entry]), middle)
            assert end[0] <= middle[0] < begin[0]
            assert not ((stairs[entry] > end[0]) & (stairs[entry] < begin[0])).any()


def test_an_input_that_is_read_otherwise_has_none():
    box = np.zeros((1, 3)), np.full((1, 3), 3.0)
    assert set(find_stairs(stepped("Floor"), *box, np.arange(3))) == {0, 1}
    assert set(find_stairs(stepped("Floor", also=True), *box, np.arange(3))) == {0}
    two = np.concatenate([box[0], box[0] + 0.5]), np.concatenate([box[1], box[1]])
    assert find_stairs(stepped("Floor"), *two, np.arange(3)) == {}


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("gap", [-1e-3, 1e-3])
@pytest.mark.parametrize("kind", STEPS)
def test_the_search_splits_between_stairs(kind, gap, device):
    """The least value is decided though it is attained on the edge of a stair, where halving would never end."""
    graph = stepped(kind, 3)
    backend = Backend("float64", device)
    lower, upper = np.array([[-2.5, -1.5, 0.3]]), np.array([[3.0, 4.2, 0.3]])
    stairs = find_stairs(backend.graph(graph), *map(backend.array, (lower, upper)), np.array([0, 1]))
    points = every_point(find_stairs(graph, lower, upper, np.array([0, 1])), lower[0])
    least = output_vector(graph, points).min()
    property = property_of(graph, [(lower[0], upper[0], [([[1.0]], [least + gap])])])
    report, offered = run(graph, property, backend, stairs=stairs)
    assert report.closed is (gap < 0)
    assert bool(offered) is (gap > 0)
    assert report.visited < 500


@pytest.mark.parametrize(("gap", "verdict"), [(-1e-3, Verdict.UNSAT), (1e-3, Verdict.SAT)])
def test_a_query_about_whole_numbers(tmp_path, gap, verdict):
    """``|floor(x0) - 17| + |floor(x1) - 23|`` on [0, 40]^2: one cell of 1600 attains the minimum."""
    nodes = [
        helper.make_node("Floor", ["X"], ["f"]),
        helper.make_node("Sub", ["f", "c"], ["d"]),
        helper.make_node("Abs", ["d"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["Y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([[17.0, 23.0]], np.float32), "c"),
        numpy_helper.from_array(np.ones((2, 1), np.float32), "w"),
    ]
    network = load(save(tmp_path / "net.onnx", nodes, [("X", (1, 2))], [("Y", (1, 1))], weights))
    query = query_of(2, 1, [(Box(np.zeros(2), np.full(2, 40.0)), [[1.0]], [gap])])
    result = verify(network, query, 20, Options(threads=1))
    assert result.verdict is verdict
    if verdict is Verdict.UNSAT:
        assert "whole numbers" in result.method


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_sums_of_known_whole_numbers_are_exact(seed):
    """Exact where both are known and whole; elsewhere the allowance stays."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(2):
        low = random.integers(-100, 100, size=(1, 6)) + np.where(random.random((1, 6)) < 0.3, 0.3, 0.0)
        pairs.append(tuple(np.float32(end) for end in (low, low + (random.random((1, 6)) < 0.3))))
    one = node("s", "Add", (0, 1), (6,), signs=(1, -1))
    lower, upper = node_interval(one, rule("Add"), pairs)
    known = np.all([(a == b) & (a == np.floor(a)) for a, b in pairs], axis=0)
    assert ((lower == upper) == known).all()
    assert (lower[known] == (pairs[0][0] - pairs[1][0])[known]).all()
    third = node("s", "Scale", (0,), (6,), {"scale": np.full(6, 1 / 3, np.float32)})
    lower, upper = node_interval(third, rule("Scale"), pairs[:1])
    exact = pairs[0][0].astype(float) * float(np.float32(1 / 3))
    assert (lower <= exact).all()
    assert (exact <= np.maximum(upper, pairs[0][1].astype(float) * float(np.float32(1 / 3)))).all()
