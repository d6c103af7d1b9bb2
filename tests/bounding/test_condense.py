"""Multiplying out what is decided changes neither the function on the region nor the bounds."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import condense as module
from boundsmith.verify.bounding.alpha import Ascent, Base
from boundsmith.verify.bounding.alpha_crown import alpha_crown
from boundsmith.verify.bounding.condense import condense
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bounding.test_columns import boxes, convolutional
from tests.networks import dense, pooled, residual, samples

NETWORKS = {
    "convolutional": lambda seed: convolutional(seed, activations=("Relu",)),
    "dense": lambda seed: dense((4, 12, 12, 12, 3), seed),
    "residual": residual,
}
LARGEST = [1e-4, 0.05, 0.5]


@pytest.fixture
def always(monkeypatch):
    """Condensing is never too dear."""
    monkeypatch.setattr(module, "_cost_as_is", lambda *_: float("inf"))
    monkeypatch.setattr(module, "BLOCK", 300)


def close_boxes(graph, count, seed, largest):
    """Boxes about one point, so that some neurons are decided on all of them."""
    lower, upper = boxes(graph, count, seed, largest)
    middle = 0.5 * (lower[:1] + upper[:1])
    radius = 0.5 * (upper - lower)
    return middle - radius, middle + radius


def condensed(graph, lower, upper):
    plan = make_plan(graph)
    state = relax(plan, lower, upper)
    return state, *condense(plan, dict(enumerate(state.intervals)))


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from(LARGEST), count=st.integers(1, 3))
def test_the_same_function_on_the_boxes(always, kind, seed, largest, count):
    graph = NETWORKS[kind](seed)
    lower, upper = close_boxes(graph, count, seed, largest)
    state, small, bounds = condensed(graph, lower, upper)
    relus = [node.inputs[0] for node in graph.nodes if node.op == "Relu"]
    ends = [tuple(end.reshape(count, -1) for end in state.intervals[source]) for source in relus]
    undecided = sum(int((~(low >= 0).all(axis=0) & (high > 0).any(axis=0)).sum()) for low, high in ends)
    assert sum(node.size for node in small.nodes if node.op == "Relu") == undecided
    for points in samples(lower, upper, 15, seed):
        np.testing.assert_allclose(output_vector(small, points), output_vector(graph, points), rtol=1e-9, atol=1e-9)
        values = evaluate(small, [points], range(len(small.nodes)))
        for index, (low, high) in bounds.items():
            assert (values[index] >= low.reshape(values[index].shape) - 1e-9).all()
            assert (values[index] <= high.reshape(values[index].shape) + 1e-9).all()


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from(LARGEST))
def test_the_same_bounds(always, kind, seed, largest):
    graph = NETWORKS[kind](seed)
    lower, upper = close_boxes(graph, 1, seed, largest)
    state, small, bounds = condensed(graph, lower, upper)
    output = graph.nodes[graph.outputs[0]]
    seeds = np.eye(output.size).reshape(output.size, *output.shape)
    found = []
    for base in (
        Base(make_plan(graph), lower, upper, dict(enumerate(state.intervals))),
        Base(make_plan(small), lower, upper, bounds),
    ):
        ascent = Ascent(base, base.plan.output, seeds)
        ascent.evaluate()
        ascent.improve(np.ones(output.size))
        ascent.evaluate()
        found.append((ascent.last, ascent.minimiser()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-8, atol=1e-8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from([1e-5, 1e-3, 1e-2]))
def test_float32_stays_below_float64(always, seed, largest):
    """Where all is decided the bound is the minimum, which rounding must not exceed."""
    rough = Backend("float32").graph(NETWORKS["convolutional"](seed))
    exact = Backend("float64").graph(rough)
    lower, upper = (end.astype(np.float32) for end in close_boxes(exact, 1, seed, largest))
    plan = make_plan(rough)
    state = relax(plan, lower, upper)
    small, bounds = condense(plan, dict(enumerate(state.intervals)))
    output = rough.nodes[rough.outputs[0]]
    seeds = np.concatenate([np.eye(output.size), -np.eye(output.size)]).astype(np.float32)
    ascent = Ascent(
        Base(make_plan(small), lower, upper, bounds), len(small.nodes) - 1, seeds.reshape(-1, *output.shape)
    )
    found = ascent.evaluate()
    corners = ascent.minimiser().astype(np.float64)
    reached = (seeds * output_vector(exact, corners)).sum(axis=1)
    assert (found <= reached).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_bounds_of_rows_hold(always, kind):
    graph = NETWORKS[kind](5)
    lower, upper = close_boxes(graph, 2, 5, 0.3)
    size = graph.nodes[graph.outputs[0]].size
    bound = alpha_crown(make_plan(graph), lower, upper, np.eye(size), steps=5)
    for points in samples(lower, upper, 30, 5):
        assert (bound <= output_vector(graph, points) + 1e-9).all()


def test_only_where_it_pays():
    """A network that stays dear, one with another nonlinear operator, and one with large matrices are left alone."""
    for graph in (dense((40, 6, 6, 2), 0), pooled(0), dense((4, 12, 3), 0, activation="Sigmoid")):
        plan = make_plan(graph)
        lower, upper = boxes(graph, 1, 0, 3.0)
        assert condense(plan, dict(enumerate(relax(plan, lower, upper).intervals))) is None


def test_large_matrices_are_not_made(always, monkeypatch):
    graph = dense((4, 12, 12, 3), 0)
    lower, upper = boxes(graph, 1, 0, 1.0)
    monkeypatch.setattr(module, "LARGEST", 10)
    plan = make_plan(graph)
    assert condense(plan, dict(enumerate(relax(plan, lower, upper).intervals))) is None


def test_the_same_with_torch(always):
    graph = NETWORKS["convolutional"](3)
    backend = Backend("float64", "cpu")
    lower, upper = close_boxes(graph, 2, 3, 0.1)
    _, ours, _ = condensed(graph, lower, upper)
    _, theirs, _ = condensed(backend.graph(graph), backend.array(lower), backend.array(upper))
    assert [node.shape for node in ours.nodes] == [node.shape for node in theirs.nodes]
    for one, two in zip(ours.nodes, theirs.nodes, strict=True):
        for key, value in one.params.items():
            if key.endswith("_error"):
                continue  # numpy bounds errors by norms, in fewer passes
            np.testing.assert_allclose(two.params[key].numpy(), value, rtol=1e-9, atol=1e-12)
