"""Bounds of narrow graphs: samples lie inside and above the lines, float32 stays below float64, and they are as tight
as the general backward bounds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import crown, narrow
from boundsmith.verify.bounding.backward import Relaxed
from boundsmith.verify.bounding.compact import LARGEST
from boundsmith.verify.bounding.narrow import Narrowed, relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline, MemoryBudget, TimeUp
from boundsmith.verify.errors import UndefinedOnRegion
from boundsmith.verify.graph import Graph
from boundsmith.verify.kernels.relaxation import Step
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, products, residual, samples

GRAPHS = {
    "dense": lambda seed: dense((3, 8, 8, 4), seed),
    "sigmoid": lambda seed: dense((3, 6, 6, 2), seed, "Sigmoid", scale=3.0),
    "sine": lambda seed: dense((3, 6, 6, 2), seed, "Sin", scale=3.0),
    "residual": residual,
    "products": products,
}


def boxes(count, seed, largest):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(count, 3))
    radius = largest * rng.random((count, 3))
    return centre - radius, centre + radius


def some_rows(graph, seed, count=3):
    """Rows of one group: coefficients ``[1, S, m]`` and offsets ``[1, S]``."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(1, count, graph.nodes[graph.outputs[0]].size)), rng.normal(size=(1, count))


def narrowed(graph, lower, upper, **options):
    """The relaxation, which must be this module's kind."""
    state = relax(make_plan(graph), lower, upper, **options)
    assert isinstance(state, Narrowed)
    return state


def as_dtype(x, dtype):
    """Arrays, and tuples of them, in a dtype."""
    if isinstance(x, tuple):
        return tuple(as_dtype(part, dtype) for part in x)
    return None if x is None else x.astype(dtype)


def in_float64(state, plan):
    """A relaxation with the same lines and bounds in float64, for a plan in float64; nothing is lost to rounding."""
    ends = state.lower.astype(np.float64), state.upper.astype(np.float64)
    if isinstance(state, Relaxed):
        steps = {index: Step(*as_dtype(tuple(step), np.float64)) for index, step in state.steps.items()}
        return Relaxed(plan, *ends, [as_dtype(pair, np.float64) for pair in state.intervals], steps)
    steps = {
        index: replace(
            type(step)(*(as_dtype(getattr(step, field.name), np.float64) for field in fields(step))),
            charge=None,
            charges=(None,) * len(step.charges),
        )
        for index, step in state.steps.items()
    }
    reaches = as_dtype(tuple(state.reaches.values()), np.float64)
    intervals = {index: as_dtype(pair, np.float64) for index, pair in state.intervals.items()}
    return Narrowed(plan, plan.compact, *ends, intervals, steps, dict(zip(state.reaches, reaches, strict=True)))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-6, 0.01, 0.3, 3.0]))
def test_samples_lie_inside_and_above_the_lines(kind, dtype, seed, largest):
    graph = Backend(dtype).graph(GRAPHS[kind](seed))
    lower, upper = (end.astype(dtype) for end in boxes(5, seed, largest))
    rows, offsets = (x.astype(dtype) for x in some_rows(graph, seed))
    state = narrowed(graph, lower, upper)
    bound = row_bounds(state, rows, offsets)
    exact = Backend("float64").graph(graph)
    indices = list(state.intervals)
    for points in samples(lower.astype(np.float64), upper.astype(np.float64), 60, seed):
        for index, value in zip(indices, evaluate(exact, [points], indices), strict=True):
            low, high = state.intervals[index]
            assert (low <= value + 1e-12).all()
            assert (value <= high + 1e-12).all()
        value = output_vector(exact, points) @ rows[0].astype(np.float64).T - offsets
        line = np.einsum("bsn,bn->bs", bound.coefficients.astype(np.float64), points) + bound.constant
        allowance = 1e-12 if dtype == "float64" else 1e-5 * (1 + abs(value))
        assert (line <= value + allowance).all()
        assert (bound.lower <= value + 1e-12).all()


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-5, 0.05, 0.5, 3.0]))
def test_float32_rows_stay_below_float64_rows_on_the_same_lines(kind, seed, largest):
    """The rounding allowance of the pass from the output to the input."""
    single = Backend("float32").graph(GRAPHS[kind](seed))
    double = make_plan(Backend("float64").graph(single))
    lower, upper = (end.astype(np.float32) for end in boxes(6, seed, largest))
    rows, offsets = (x.astype(np.float32) for x in some_rows(single, seed))
    state = narrowed(single, lower, upper)
    rough = row_bounds(state, rows, offsets)
    exact = row_bounds(in_float64(state, double), rows.astype(np.float64), offsets.astype(np.float64))
    assert (rough.lower <= exact.lower + 1e-12).all()


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("form", [narrow, crown], ids=["narrow", "general"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-5, 0.05, 0.5, 3.0]))
def test_the_allowance_is_what_float32_rows_gave_away(kind, form, seed, largest):
    """With it they pass what float64 makes of the same lines, or fall short by the error that it allowed for; their
    constants tell its part in them to within that error."""
    single = Backend("float32").graph(GRAPHS[kind](seed))
    double = make_plan(Backend("float64").graph(single))
    lower, upper = (end.astype(np.float32) for end in boxes(6, seed, largest))
    rows, offsets = (x.astype(np.float32) for x in some_rows(single, seed))
    state = form.relax(make_plan(single), lower, upper)
    rough = row_bounds(state, rows, offsets)
    exact = row_bounds(in_float64(state, double), rows.astype(np.float64), offsets.astype(np.float64))
    given_away = crown.allowance(state, rough, rows, offsets)
    assert (exact.lower <= rough.lower + 2 * given_away).all()
    assert (abs(exact.constant - rough.constant - rough.lost) <= rough.lost).all()
    chosen = np.array([4, 1])
    some = rough.boxes(chosen)
    assert all((entries == getattr(rough, name)[chosen]).all() for name, entries in vars(some).items())


@pytest.mark.parametrize("kind", GRAPHS)
def test_as_tight_as_general_backward_bounds_on_average(kind):
    gains = []
    for seed in range(6):
        graph = GRAPHS[kind](seed)
        lower, upper = boxes(20, seed, 0.3)
        rows, offsets = some_rows(graph, seed)
        ours = row_bounds(narrowed(graph, lower, upper), rows, offsets).lower
        theirs = crown.row_bounds(crown.relax(make_plan(graph), lower, upper), rows, offsets).lower
        gains.append((ours - theirs) / (1e-3 + abs(theirs)))
    assert np.mean(gains) > -1e-6


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_batch_equals_its_members_and_parts_change_nothing(kind, monkeypatch):
    graph = GRAPHS[kind](4)
    lower, upper = boxes(40, 4, 0.5)
    rows, offsets = some_rows(graph, 4)
    together = row_bounds(narrowed(graph, lower, upper), rows, offsets)
    for box in range(0, 40, 9):
        here = slice(box, box + 1)
        alone = row_bounds(narrowed(graph, lower[here], upper[here]), rows, offsets)
        np.testing.assert_allclose(alone.lower[0], together.lower[box], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(alone.coefficients[0], together.coefficients[box], rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(narrow, "PASS_BYTES", 1)
    parts = row_bounds(narrowed(graph, lower, upper), rows, offsets, memory=MemoryBudget(1))
    np.testing.assert_allclose(parts.lower, together.lower, rtol=1e-9, atol=1e-9)


def test_rows_may_differ_from_box_to_box():
    graph = residual(1)
    lower, upper = boxes(4, 1, 0.5)
    first, second = some_rows(graph, 1), some_rows(graph, 2)
    state = narrowed(graph, lower, upper)
    mixed = row_bounds(
        state,
        np.concatenate([first[0], second[0], first[0], second[0]]),
        np.concatenate([first[1], second[1], first[1], second[1]]),
    )
    for box, (rows, offsets) in enumerate([first, second, first, second]):
        expected = row_bounds(state, rows, offsets)
        np.testing.assert_allclose(mixed.lower[box], expected.lower[box], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_parent_knew_is_used(seed):
    graph = products(seed)
    plan = make_plan(graph)
    lower, upper = boxes(4, seed, 1.0)
    middle = 0.5 * (lower + upper)
    inside = narrowed(graph, middle - 1e-3, middle + 1e-3)
    known = {index: tuple(end.reshape(4, -1) for end in inside.intervals[index]) for index in plan.targets}
    state = narrowed(graph, lower, upper, inherited=known)
    for index in plan.targets:
        assert (state.intervals[index][0] >= inside.intervals[index][0] - 1e-9).all()
        assert (state.intervals[index][1] <= inside.intervals[index][1] + 1e-9).all()


def test_a_passed_deadline_stops():
    with pytest.raises(TimeUp):
        relax(make_plan(residual(6)), *boxes(2, 6, 1.0), deadline=Deadline.after(-1))


def test_an_undefined_operator_is_told_as_general_bounds_tell_it():
    graph = Graph(
        (
            node("x", "Input", (), (3,)),
            node("log", "Log", (0,), (3,)),
            node("product", "Mul", (1, 0), (3,)),
        ),
        (0,),
        (2,),
    )
    lower, upper = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]]), np.full((2, 3), 2.0)
    with pytest.raises(UndefinedOnRegion) as caught:
        relax(make_plan(products_of(graph)), lower, upper)
    assert caught.value.partial is not None
    np.testing.assert_array_equal(caught.value.valid.reshape(2, -1).all(axis=1), [True, False])


def products_of(graph):
    """The graph times a constant, so that it has parameters of one dtype."""
    last = len(graph.nodes) - 1
    scaled = node("y", "Scale", (last,), graph.nodes[last].shape, {"scale": np.array(2.0)})
    return Graph((*graph.nodes, scaled), graph.inputs, (last + 1,))


def test_unbounded_boxes_never_give_nan_or_claims():
    state = narrowed(products(3), np.full((1, 3), -np.inf), np.full((1, 3), np.inf))
    for low, high in state.intervals.values():
        assert not np.isnan(low).any()
        assert not np.isnan(high).any()
    assert (row_bounds(state, *some_rows(products(3), 3)).lower == -np.inf).all()


def test_wide_and_other_graphs_are_left_to_general_bounds():
    """More entries than are worth it, a maximum of several, another dtype, and no backward bounds of targets."""
    lower, upper = boxes(2, 0, 0.1)
    wide = make_plan(dense((3, LARGEST + 1, 2)))
    image = make_plan(pooled(0))
    assert not isinstance(relax(wide, lower, upper), Narrowed)
    assert not isinstance(relax(image, np.zeros((1, 36)), np.ones((1, 36))), Narrowed)
    plan = make_plan(residual(0))
    assert not isinstance(relax(plan, lower.astype(np.float32), upper.astype(np.float32)), Narrowed)
    assert not isinstance(relax(plan, lower, upper, refine=False), Narrowed)
