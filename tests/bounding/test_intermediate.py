"""Optimised bounds of intermediate values contain the values and are within those that they started from."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.alpha import Base
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.intermediate import entry_rows, tighten
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline
from boundsmith.verify.loading.evaluate import evaluate
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.ascents import KINDS, graph_of
from tests.networks import dense, pooled, residual, samples

GRAPHS = {
    "dense": lambda seed: dense((3, 8, 8, 8, 2), seed),
    "residual": residual,
    "pooled": pooled,
    **{kind: lambda seed, kind=kind: graph_of(kind, seed) for kind in KINDS},
}


def base_of(graph, seed, boxes, largest=1.0):
    rng = np.random.default_rng(seed)
    size = graph.nodes[graph.inputs[0]].size
    centre, radius = rng.normal(size=(boxes, size)), largest * rng.random((boxes, size))
    plan = make_plan(graph)
    lower, upper = centre - radius, centre + radius
    return Base(plan, lower, upper, dict(enumerate(relax(plan, lower, upper).intervals)))


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), boxes=st.sampled_from([1, 3]), rows=st.sampled_from([1, 7, 512]))
def test_values_lie_inside(kind, seed, boxes, rows):
    graph = GRAPHS[kind](seed)
    base = base_of(graph, seed, boxes, 0.3 if kind == "pooled" else 1.0)
    tight = tighten(base, rows)
    for index, (low, high) in tight.intervals.items():
        before = base.intervals[index]
        slack = 1e-9 * (1 + abs(before[0]) + abs(before[1]))
        assert (low >= before[0] - slack).all()
        assert (high <= before[1] + slack).all()
        assert (low <= high).all()
    for points in samples(base.lower, base.upper, 60, seed):
        values = evaluate(graph, [points], range(len(graph.nodes)))
        for index, (low, high) in tight.intervals.items():
            slack = 1e-9 * (1 + abs(values[index]))
            assert (values[index] >= low - slack).all()
            assert (values[index] <= high + slack).all()


def test_they_are_tighter():
    graph = dense((3, 12, 12, 12, 2), 1)
    base = base_of(graph, 1, 2)
    tight = tighten(base, 512)
    target = max(base.plan.targets)
    before, after = base.intervals[target], tight.intervals[target]
    assert (after[1] - after[0]).sum() < 0.95 * (before[1] - before[0]).sum()


def test_the_number_of_rows_at_once_does_not_matter():
    graph = dense((3, 8, 8, 8, 2), 2)
    base = base_of(graph, 2, 3)
    one, many = tighten(base, 1), tighten(base, 512)
    for index, pair in many.intervals.items():
        np.testing.assert_allclose(one.intervals[index], pair, rtol=1e-9, atol=1e-9)


def test_a_passed_deadline_leaves_the_bounds_as_they_are():
    base = base_of(dense((3, 8, 8, 8, 2), 2), 2, 3)
    late = tighten(base, 512, Deadline.after(-1.0))
    for index in base.plan.targets:
        np.testing.assert_array_equal(late.intervals[index], base.intervals[index])


@pytest.mark.parametrize("make", [residual, pooled])
def test_rows_pick_entries(make):
    graph = make(3)
    base = base_of(graph, 3, 1)
    points = samples(base.lower, base.upper, 5, 3)[:, 0]
    for target in base.plan.sources:
        entries = np.arange(graph.nodes[target].size)[::-2].copy()
        node, seeds, constants = entry_rows(base.plan, base.lower, target, entries)
        values, wanted = evaluate(graph, [points], [node, target])
        found = values.reshape(5, -1) @ seeds.reshape(len(entries), -1).T + constants
        np.testing.assert_allclose(found, wanted.reshape(5, -1)[:, entries], rtol=1e-9, atol=1e-9)
