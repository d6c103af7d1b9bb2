"""What some neurons depend on computes the same values and bounds of them as the whole network."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding import condense as condensing
from boundsmith.verify.bounding import cone as module
from boundsmith.verify.bounding import intermediate
from boundsmith.verify.bounding.alpha import Ascent, Base
from boundsmith.verify.bounding.condense import condense
from boundsmith.verify.bounding.cone import cone
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.intermediate import entry_rows, tighten
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bounding.test_columns import boxes, convolutional
from tests.networks import dense, pooled, residual, samples


@pytest.fixture
def always(monkeypatch):
    """Networks are always condensed, and parts of them always taken."""
    monkeypatch.setattr(condensing, "_cost_as_is", lambda *_: float("inf"))
    monkeypatch.setattr(module, "WORTH", 1.0)


def condensed(seed, largest, count=1):
    graph = convolutional(seed, activations=("Relu",))
    plan = make_plan(graph)
    lower, upper = boxes(graph, 1, seed, largest)
    lower, upper = (np.repeat(end, count, axis=0) for end in (lower, upper))
    small, bounds = condense(plan, dict(enumerate(relax(plan, lower, upper).intervals)))
    return Base(make_plan(small), lower, upper, bounds)


def ends(base, node, entries):
    return [end.reshape(end.shape[0], -1)[:, entries] for end in base.intervals[node]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from([0.05, 0.5]))
def test_the_same_values_and_bounds(always, seed, largest):
    base = condensed(seed, largest)
    graph = base.plan.graph
    rng = np.random.default_rng(seed)
    for target in base.plan.targets:
        entries = np.sort(rng.permutation(graph.nodes[target].size)[: int(rng.integers(1, 5))])
        part, places = cone(base, target, entries)
        points = samples(base.lower, base.upper, 5, seed)[0]
        columns = [int(np.flatnonzero(base.lower[0] == low)[0]) for low in part.lower[0]]
        (whole,) = evaluate(graph, [points], [target])
        np.testing.assert_allclose(
            output_vector(part.plan.graph, points[:, columns])[:, places], whole[:, entries], rtol=1e-9, atol=1e-9
        )
        for one, two in zip(ends(part, part.plan.output, places), ends(base, target, entries), strict=True):
            np.testing.assert_array_equal(one, two)
        found = []
        for about, node, chosen in ((base, target, entries), (part, part.plan.output, places)):
            start, seeds, constants = entry_rows(about.plan, about.lower, node, chosen)
            found.append(Ascent(about, start, seeds, constants).evaluate())
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-9)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000))
def test_tightened_bounds_are_the_same(always, seed):
    base = condensed(seed, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intermediate, "FEW_PAIRS", 1)
        in_parts = tighten(base, 100)
        patch.setattr(module, "WORTH", -1.0)
        at_once = tighten(base, 100)
    for target in base.plan.targets:
        for one, two in zip(in_parts.intervals[target], at_once.intervals[target], strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-7)
    for points in samples(base.lower, base.upper, 20, seed):
        for value, target in zip(
            evaluate(base.plan.graph, [points], base.plan.targets), base.plan.targets, strict=True
        ):
            low, high = in_parts.intervals[target]
            assert ((value >= low - 1e-9) & (value <= high + 1e-9)).all()


def test_only_where_it_is_less():
    """Dense networks depend on everything; what is no chain of plain layers, or is read twice, is left alone."""
    for graph in (dense((4, 8, 8, 2), 0), pooled(0), residual(0)):
        plan = make_plan(graph)
        lower, upper = boxes(graph, 1, 0, 1.0)
        base = Base(plan, lower, upper, dict(enumerate(relax(plan, lower, upper).intervals)))
        for target in plan.targets:
            assert cone(base, target, np.arange(1, graph.nodes[target].size)) is None
