"""Maxima as trees of differences, steps with copies of their own: the same function on the boxes, and complete."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend, to_numpy
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.parameters import Base
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import NEVER, Deadline, MemoryBudget
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.programs.encoding import encode
from boundsmith.verify.programs.highs import solve_integer
from boundsmith.verify.search.pieces import with_exact_pieces
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, residual, samples
from tests.programs.piecewise import EXTREMA, STEPS, bounded, linear, outputs, tiny
from tests.search.activation_cases import decide, margins, pooling, problem_of

BUDGET = MemoryBudget(1 << 28)


def padded(seed, op="Max"):
    """Overlapping windows of three entries over five, with a step of two and infinite padding at both ends."""
    rng = np.random.default_rng(seed)
    fill = -np.inf if op == "Max" else np.inf
    nodes = [node("x", "Input", (), (3,)), linear(rng, "a", 0, 3, 5), node("r", "Relu", (1,), (5,))]
    windows = np.array([[-1, 0, 1], [1, 2, 3], [3, 4, -1]])
    source = (1 + seed % 2,)
    nodes += [node("w", "Take", source, (3,), {"indices": window.copy()}, fill=fill) for window in windows.T]
    nodes += [node("pool", op, (3, 4, 5), (3,)), linear(rng, "y", 6, 3, 2)]
    return Graph(tuple(nodes), (0,), (7,))


def signed(seed):
    """A step whose input a scaling passes on to a ReLU: bounds of the one must not leak into the other."""
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (3,)), linear(rng, "a", 0, 3, 4), node("s", "Sign", (1,), (4,))]
    nodes += [
        node("scaled", "Scale", (1,), (4,), {"scale": rng.normal(size=4)}),
        node("r", "Relu", (3,), (4,)),
        node("sum", "Add", (2, 4), (4,), signs=(1, 1)),
        linear(rng, "y", 5, 4, 2),
    ]
    return Graph(tuple(nodes), (0,), (6,))


def decided(seed):
    """A maximum whose winners are known, so that they are only gathered, beside a ReLU that is not."""
    rng = np.random.default_rng(seed)
    nodes = [*padded(2 * seed).nodes[:7], linear(rng, "b", 0, 3, 3), node("s", "Relu", (7,), (3,))]
    nodes += [node("sum", "Add", (6, 8), (3,), signs=(1, 1)), linear(rng, "y", 9, 3, 2)]
    nodes[1].params["bias"][:] = [19.0, 0.0, 0.0, 19.0, 0.0]
    return Graph(tuple(nodes), (0,), (10,))


def base_of(graph, lower, upper, dtype="float64", device=None):
    """CROWN bounds of all nodes on boxes ``[N, n]``."""
    backend = Backend(dtype, device)
    low, high = backend.box(lower, upper)
    plan = make_plan(backend.graph(graph))
    return Base(plan, low, high, dict(enumerate(relax(plan, low, high).intervals)))


def boxes_of(graph, seed, count=2):
    rng = np.random.default_rng(seed)
    lower = rng.uniform(-1.0, 0.5, (count, graph.nodes[0].size))
    return lower, lower + rng.uniform(0.1, 1.0, lower.shape)


REWRITTEN = {
    "padded": padded,
    "padded minimum": lambda seed: padded(seed, "Min"),
    "pooled": pooled,
    "pooling": pooling,
    "maximum": lambda seed: tiny("Max", seed),
    "minimum": lambda seed: tiny("Min", seed),
    "signed": signed,
    "decided": decided,
}


@pytest.mark.parametrize("kind", REWRITTEN)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_the_function_and_its_bounds_stay(kind, dtype, seed):
    """Equal outputs on the boxes, bounds of all nodes that hold there, none wider than before."""
    graph = REWRITTEN[kind](seed)
    lower, upper = boxes_of(graph, seed)
    base = base_of(graph, lower, upper, dtype)
    new, _ = with_exact_pieces(base, NEVER, BUDGET)
    assert new is not base
    nodes = new.plan.graph.nodes
    assert not any(inner.op in EXTREMA for inner in nodes)
    slack = 1e-9 if dtype == "float64" else 1e-5
    for box in (0, 1):
        points = samples(lower[box][None], upper[box][None], 200, seed)[:, 0]
        exact = new.plan.graph.map_params(lambda x: x.astype(np.float64) if x.dtype.kind == "f" else x)
        np.testing.assert_allclose(outputs(exact, points), outputs(graph, points), atol=10 * slack)
        values = evaluate(exact, [points], range(len(nodes)))
        for index, inner in enumerate(nodes):
            low, high = (end[box if end.shape[0] > 1 else 0] for end in new.intervals[index])
            assert (values[index] >= low - slack).all(), inner.name
            assert (values[index] <= high + slack).all(), inner.name
    width = [
        float((high - low).max()) for low, high in (base.intervals[graph.outputs[0]], new.intervals[new.plan.output])
    ]
    assert width[1] <= width[0] + slack


@pytest.mark.parametrize("graph", [dense((3, 4, 2)), residual(), tiny("Sign", 1), tiny("Clip", 1)])
def test_nothing_to_rewrite(graph):
    base = base_of(graph, *boxes_of(graph, 0))
    new, fresh = with_exact_pieces(base, NEVER, BUDGET)
    assert new is base
    assert not fresh


def test_a_maximum_without_finite_bounds_stays():
    graph = tiny("Max", 0)
    base = base_of(graph, *boxes_of(graph, 0))
    unbounded = base.intervals[2][0], base.intervals[2][1] + np.inf
    broken = replace(base, intervals={**base.intervals, 2: unbounded})
    assert with_exact_pieces(broken, NEVER, BUDGET)[0] is broken


@pytest.mark.parametrize("kind", REWRITTEN)
def test_torch_rewrites_as_numpy(kind):
    pytest.importorskip("torch")
    graph = REWRITTEN[kind](5)
    boxes = boxes_of(graph, 5)
    ours, theirs = (with_exact_pieces(base_of(graph, *boxes, device=device), NEVER, BUDGET) for device in (None, "cpu"))
    assert ours[1] == theirs[1]
    for index, mine in enumerate(ours[0].plan.graph.nodes):
        other = theirs[0].plan.graph.nodes[index]
        assert (mine.op, mine.inputs, mine.shape) == (other.op, other.inputs, other.shape)
        for low, high in zip(ours[0].intervals[index], theirs[0].intervals[index], strict=True):
            np.testing.assert_allclose(low, to_numpy(high), atol=1e-12)


@pytest.mark.parametrize("kind", ["padded", "padded minimum", "pooling", "signed", "decided"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-1e-2, 1e-2]))
def test_agrees_with_mixed_integer_programming(kind, seed, shift):
    """The threshold lies to either side of the least value that HiGHS finds."""
    graph = REWRITTEN[kind](seed)
    rng = np.random.default_rng(seed)
    size = graph.nodes[0].size
    matrix, offsets = rng.normal(size=(2, 2)), rng.normal(size=2)
    box = np.full(size, -0.8), np.full(size, 0.7)
    _, intervals = bounded(graph, *box)
    model = encode(graph, *box, intervals, matrix, offsets, relaxed=False)
    least = solve_integer(model.program, Deadline.after(30.0)).objective
    problem = problem_of(graph, (*box, [(matrix, offsets + least - shift)]))
    search, witness = decide(problem)
    assert search.closed is (shift > 0)
    if witness is not None:
        assert margins(problem, 0, witness[None])[0] <= 0
    elif shift < 0:
        # At a jump the least value need not be attained.
        assert any(inner.op in STEPS for inner in graph.nodes)
