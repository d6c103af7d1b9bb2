"""Steps scaled entry by entry: any number of them leaves bounds sound, and they get further than none."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.alpha import Ascent, Base, Mixture
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.scaled import ScaledSteps, gain_to_zero
from boundsmith.verify.loading.evaluate import output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, residual, samples

NETWORKS = {
    "dense": lambda seed: dense((3, 10, 10, 4), seed),
    "smooth": lambda seed: dense((3, 10, 10, 4), seed, activation="Sigmoid"),
    "residual": residual,
}


def ascent_on(graph, seed, largest=1.0, **options):
    rng = np.random.default_rng(seed)
    plan = make_plan(graph)
    size = graph.nodes[plan.input].size
    centre, radius = rng.normal(size=(1, size)), largest * rng.random((1, size))
    state = relax(plan, centre - radius, centre + radius)
    base = Base(plan, state.lower, state.upper, dict(enumerate(state.intervals)))
    return Ascent(base, plan.output, np.eye(graph.nodes[plan.output].size), **options)


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), length=st.sampled_from([0.05, 0.5, 3.0]))
def test_bounds_hold_after_any_step(kind, seed, length):
    graph = NETWORKS[kind](seed)
    ascent = ascent_on(graph, seed, bounds_only=True)
    first = ascent.evaluate()
    steps = ScaledSteps(ascent)
    for _ in range(5):
        steps.step(length)
        last = ascent.evaluate()
        assert (ascent.best >= np.maximum(first, last)).all()
        for pair in ascent.parameters.lines.values():
            assert all(weight is None or ((weight >= 0) & (weight <= 1)).all() for weight in pair)
    for points in samples(ascent.base.lower, ascent.base.upper, 30, seed):
        assert (ascent.best <= output_vector(graph, points) + 1e-9).all()


@pytest.mark.parametrize("activation", ["Sigmoid", "Sin", "Tanh"])
def test_bounds_alone_take_the_same_steps(activation):
    """Only the lines that the coefficients' signs choose are worked out where nothing but bounds is wanted."""
    for seed in range(5):
        graph = dense((3, 8, 8, 4), seed, activation=activation)
        full, alone = (ascent_on(graph, seed, bounds_only=only) for only in (False, True))
        for step in range(3):
            for ascent in (full, alone):
                ascent.evaluate()
                ascent.improve(*gain_to_zero(ascent.last - 10.0, step))
            np.testing.assert_allclose(alone.last, full.last, rtol=1e-9)
        assert (full.best > full.last - 1e-9).all()


def test_steps_gain():
    gains = []
    for seed in range(10):
        ascent = ascent_on(NETWORKS["dense"](seed), seed, bounds_only=True)
        first = ascent.evaluate()
        steps = ScaledSteps(ascent)
        for number in range(6):
            steps.step(0.7 * 0.7**number)
            ascent.evaluate()
        gains.append((ascent.best - first).mean())
    assert np.mean(gains) > 0.02


def test_an_evaluation_goes_on_where_nothing_changes():
    """What comes before the first weight is computed once; the bounds are those of an ascent that starts afresh."""
    for kind, make in NETWORKS.items():
        ascent = ascent_on(make(7), 7, bounds_only=True)
        ascent.evaluate()
        steps = ScaledSteps(ascent)
        steps.step(0.3)
        again = ascent.evaluate()
        fresh = ascent_on(make(7), 7, parameters=ascent.parameters)
        np.testing.assert_allclose(fresh.evaluate(), again, rtol=1e-12, err_msg=kind)
        ascent.keep(np.array([1]))
        np.testing.assert_allclose(ascent.evaluate(), again[1:2], rtol=1e-12)


def test_numbers_that_are_none_move_nothing():
    ascent = ascent_on(NETWORKS["dense"](1), 1, bounds_only=True)
    ascent.evaluate()
    before = {node: pair[0].copy() for node, pair in ascent.parameters.lines.items()}
    gradients = {(node, 0): np.full_like(weight, np.nan) for node, weight in before.items()}
    ascent.gradients = lambda values: gradients
    ScaledSteps(ascent).step(0.5)
    for node, weight in before.items():
        np.testing.assert_array_equal(ascent.parameters.lines[node][0], weight)


def test_mixtures_are_refused():
    graph = NETWORKS["dense"](0)
    ascent = ascent_on(graph, 0)
    mixed = Ascent(ascent.base, ascent.start, mixture=Mixture(np.eye(4)[None], np.zeros((1, 4))))
    with pytest.raises(ValueError, match="lines alone"):
        ScaledSteps(mixed)
