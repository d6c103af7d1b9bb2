"""Which entries rows depend on: nothing else moves the rows' values, and leaving out its bounds changes no row's."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import refine
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.relevance import relevant_entries
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.test_columns import boxes, convolutional
from tests.networks import dense, node, pooled, residual


def detector(seed):
    """Convolutions without a dense layer: an output sees a window of every layer."""
    graph = convolutional(seed, size=9)
    last = max(index for index, each in enumerate(graph.nodes) if each.op == "Reshape")
    return Graph(graph.nodes[: last + 1], (0,), (last,))


def shuffled(seed):
    """A detector whose output is permuted, partly repeated, joined with a constant, and summed by pairs."""
    rng = np.random.default_rng(seed)
    graph = detector(seed)
    size = graph.nodes[-1].size
    indices = rng.integers(-1, size, 2 * size).reshape(2, size)
    nodes = [*graph.nodes, node("some", "Take", (len(graph.nodes) - 1,), (2, size), {"indices": indices}, fill=1.0)]
    nodes.append(node("turned", "Transpose", (len(nodes) - 1,), (size, 2), perm=(1, 0)))
    nodes.append(node("one", "Constant", (), (1, 2), {"value": np.ones((1, 2))}))
    nodes.append(node("more", "Concat", (len(nodes) - 2, len(nodes) - 1), (size + 1, 2), axis=0))
    nodes.append(node("pairs", "Sum", (len(nodes) - 1,), (size + 1,), axes=(1,), keepdims=False))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


NETWORKS = {
    "detector": detector,
    "shuffled": shuffled,
    "pooled": pooled,
    "dense": lambda seed: dense((6, 20, 20, 4), seed),
    "residual": residual,
}


def some(size, seed):
    mask = np.zeros(size, dtype=bool)
    mask[np.random.default_rng(seed).permutation(size)[: 1 + seed % min(3, size)]] = True
    return mask


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_bounds_of_the_rows_need_no_other_entries(kind, seed):
    graph = NETWORKS[kind](seed)
    wanted = some(graph.nodes[-1].size, seed)
    lower, upper = boxes(graph, 2, seed)
    rows = np.random.default_rng(seed).normal(size=(1, 3, len(wanted))) * wanted
    found = []
    with pytest.MonkeyPatch.context() as patch:
        # Which sides of an entry are bounded depends on how many there are.
        patch.setattr(refine, "TWO_STEPS_FROM", 10**9)
        for plan in (make_plan(graph), make_plan(graph, wanted)):
            state = relax(plan, lower, upper)
            found.append(row_bounds(state, rows, np.zeros((1, 3))).lower)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_other_inputs_change_nothing_wanted(kind, seed):
    graph = NETWORKS[kind](seed)
    wanted = some(graph.nodes[-1].size, seed)
    needed = relevant_entries(graph, wanted).get(0, np.ones(graph.nodes[0].size, dtype=bool))
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, graph.nodes[0].size))
    points[1, needed] = points[0, needed]
    first, second = output_vector(graph, points)
    np.testing.assert_allclose(first[wanted], second[wanted], rtol=1e-12, atol=1e-12)


def test_one_pixel_of_two_convolutions_sees_five_by_five():
    weight = np.ones((1, 1, 3, 3))
    attributes = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    shape = (1, 1, 9, 9)
    nodes = [node("x", "Input", (), (81,)), node("image", "Reshape", (0,), shape)]
    for source in (1, 3):
        nodes.append(node(f"conv{source}", "Conv", (source,), shape, {"weight": weight}, **attributes))
        nodes.append(node(f"relu{source}", "Relu", (source + 1,), shape))
    nodes.append(node("y", "Reshape", (5,), (81,)))
    wanted = np.zeros(81, dtype=bool)
    wanted[4 * 9 + 4] = True
    relevant = relevant_entries(Graph(tuple(nodes), (0,), (6,)), wanted)
    assert [int(relevant[index].sum()) for index in (0, 2, 3, 4, 5, 6)] == [25, 9, 9, 1, 1, 1]
    assert relevant[0].reshape(9, 9)[2:7, 2:7].all()


def test_entries_that_do_not_count_get_no_rows(monkeypatch):
    graph = detector(3)
    wanted = some(graph.nodes[-1].size, 3)
    lower, upper = boxes(graph, 1, 3)
    counts = []
    undecided = refine._undecided
    monkeypatch.setattr(refine, "_undecided", lambda *given: counts.append(found := undecided(*given)) or found)
    totals = []
    for plan in (make_plan(graph), make_plan(graph, wanted)):
        counts.clear()
        relax(plan, lower, upper)
        totals.append(sum(found[3] for found in counts))
    assert 0 < totals[1] < 0.7 * totals[0]


def test_torch_agrees_with_numpy():
    torch = pytest.importorskip("torch")
    graph = detector(5)
    wanted = some(graph.nodes[-1].size, 5)
    lower, upper = boxes(graph, 2, 5)
    rows = np.random.default_rng(5).normal(size=(1, 3, len(wanted))) * wanted
    backend = Backend("float64", "cpu")
    plans = make_plan(graph, wanted), make_plan(backend.graph(graph), wanted)
    ours = row_bounds(relax(plans[0], lower, upper), rows, np.zeros((1, 3))).lower
    state = relax(plans[1], torch.tensor(lower), torch.tensor(upper))
    theirs = row_bounds(state, torch.tensor(rows), torch.zeros((1, 3), dtype=torch.float64)).lower
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-9, atol=1e-9)
