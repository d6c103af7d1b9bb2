"""Leaving inactive neurons out changes nothing on the region."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.shrink import shrink
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, residual, samples


def boxes(graph, count, seed, largest):
    rng = np.random.default_rng(seed)
    size = graph.nodes[graph.inputs[0]].size
    centre, radius = rng.normal(size=(1, size)), largest * rng.random((count, size))
    return centre - radius, centre + radius


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-3, 0.1, 0.5]), count=st.integers(1, 3))
def test_the_same_function_on_the_boxes(seed, largest, count):
    graph = dense((4, 12, 12, 12, 3), seed)
    lower, upper = boxes(graph, count, seed, largest)
    state = relax(make_plan(graph), lower, upper)
    smaller = shrink(graph, state.intervals)[0]
    for before, after in zip(graph.nodes, smaller.nodes, strict=True):
        if before.op == "Linear" and before.shape != (3,):
            high = state.intervals[graph.nodes.index(before)][1]
            assert after.size == max(1, int((high > 0).any(axis=0).sum()))
    for points in samples(lower, upper, 20, seed):
        np.testing.assert_allclose(output_vector(smaller, points), output_vector(graph, points), rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_bounds_stay_as_tight(seed):
    graph = dense((4, 12, 12, 3), seed)
    lower, upper = boxes(graph, 2, seed, 0.3)
    state = relax(make_plan(graph), lower, upper)
    rows, offsets = np.eye(3)[None], np.zeros((1, 3))
    small = relax(make_plan(shrink(graph, state.intervals)[0]), lower, upper)
    np.testing.assert_allclose(
        row_bounds(small, rows, offsets).lower, row_bounds(state, rows, offsets).lower, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("make", [residual, pooled])
def test_other_chains_stay(make):
    """A layer that is read past its ReLU, or that is no dense layer, is left alone."""
    graph = make(1)
    lower, upper = boxes(graph, 2, 1, 1e-3)
    smaller = shrink(graph, relax(make_plan(graph), lower, upper).intervals)[0]
    for points in samples(lower, upper, 8):
        np.testing.assert_allclose(output_vector(smaller, points), output_vector(graph, points), rtol=1e-12)


def test_a_dead_layer_keeps_one_neuron():
    weight = {"weight": -np.ones((3, 2)), "bias": np.zeros(3)}
    top = {"weight": np.ones((1, 3)), "bias": np.array([7.0])}
    nodes = (
        node("x", "Input", (), (2,)),
        node("z", "Linear", (0,), (3,), weight),
        node("h", "Relu", (1,), (3,)),
        node("y", "Linear", (2,), (1,), top),
    )
    graph = Graph(nodes, (0,), (3,))
    lower, upper = np.ones((1, 2)), np.full((1, 2), 2.0)
    smaller = shrink(graph, relax(make_plan(graph), lower, upper).intervals)[0]
    assert smaller.nodes[1].shape == (1,)
    assert output_vector(smaller, lower) == 7.0


def test_nothing_to_leave_out_and_torch():
    graph = dense((3, 6, 6, 2), 0)
    low, high = np.full((1, 3), -9.0), np.full((1, 3), 9.0)
    assert shrink(graph, relax(make_plan(graph), low, high, refine=False).intervals)[0] is graph
    backend = Backend("float64", "cpu")
    lower, upper = boxes(graph, 1, 0, 1e-3)
    ours = shrink(graph, relax(make_plan(graph), lower, upper).intervals)[0]
    tensors = backend.graph(graph)
    theirs = shrink(tensors, relax(make_plan(tensors), backend.array(lower), backend.array(upper)).intervals)[0]
    assert [one.shape for one in ours.nodes] == [two.shape for two in theirs.nodes]
    assert any(one.shape != two.shape for one, two in zip(ours.nodes, graph.nodes, strict=True))
