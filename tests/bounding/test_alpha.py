"""Optimised bounds: sound at every valid parameter, gradients right, best bounds kept, libraries and dtypes agree."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.alpha import Ascent, Base, Mixture, gain_to_zero
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.loading.evaluate import output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.ascents import (
    KINDS,
    ascents_of,
    graph_of,
    randomise,
    scene_of,
)
from tests.networks import samples


def slack(values):
    return 1e-9 * (1.0 + np.where(np.isfinite(values), abs(values), 0.0))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100_000), size=st.sampled_from([0.1, 1.0, 30.0]), radius=st.sampled_from([0.05, 0.7, 3.0]))
def test_no_parameters_make_a_wrong_bound(kind, seed, size, radius):
    scene = scene_of(graph_of(kind, seed), seed, rows=4, radius=radius)
    for ascent, least in ascents_of(scene, seed):
        for draw in range(3):
            assert (ascent.evaluate() <= least + slack(least)).all()
            randomise(ascent, seed + draw, size)
        assert (ascent.evaluate() <= least + slack(least)).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_steps_stay_valid_and_the_best_never_falls(kind, seed):
    scene = scene_of(graph_of(kind, seed), seed, rows=4)
    for ascent, least in ascents_of(scene, seed):
        before = ascent.evaluate()
        for step in range(8):
            gain, momentum = gain_to_zero(ascent.last, step)
            ascent.improve(gain + (seed % 3), momentum)
            own = ascent.parameters
            for pair in own.lines.values():
                assert all(x is None or ((x >= 0) & (x <= 1)).all() for x in pair)
            assert all((beta >= 0).all() for beta in own.betas.values())
            if own.mixture is not None:
                assert (own.mixture >= 0).all()
                np.testing.assert_allclose(own.mixture.sum(axis=1), 1.0, atol=1e-9)
                assert (own.mixture[np.isinf(ascent.mixture.offsets)] == 0).all()
            assert own.side is None or (own.side >= 0).all()
            last = ascent.evaluate()
            assert (ascent.best >= before).all()
            assert (ascent.best >= last).all()
            assert (ascent.best <= least + slack(least)).all()
            before = ascent.best + 0
        ascent.parameters = ascent.best_parameters
        np.testing.assert_allclose(ascent.evaluate(), before, atol=1e-9)


@pytest.mark.parametrize("kind", ["leaky", "steep", "abs", "clip", "max", "Sigmoid"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_parameters_found_on_wider_bounds_stay_sound(kind, seed):
    """What was undecided where the parameters were found may be decided now: its line is not free any more."""
    rng = np.random.default_rng(seed)
    graph = graph_of(kind, seed)
    plan = make_plan(graph)
    centre, radius = rng.uniform(-1, 1, (1, 2)), 0.4 * rng.random()
    lower, upper = centre - radius, centre + radius
    wide, tight = relax(plan, lower - 0.5, upper + 0.5), relax(plan, lower, upper)
    mixture = Mixture(rng.normal(size=(1, 1, 2)), np.zeros((1, 1)))
    first = Ascent(Base(plan, lower, upper, dict(enumerate(wide.intervals))), plan.output, mixture=mixture)
    randomise(first, seed)
    base = Base(plan, lower, upper, dict(enumerate(tight.intervals)))
    second = Ascent(base, plan.output, mixture=mixture, parameters=first.parameters)
    points = samples(lower, upper, 300, seed)[:, 0]
    least = (output_vector(graph, points) @ mixture.rows[0, 0]).min()
    assert second.evaluate()[0] <= least + 1e-9
    second.improve(np.ones(1))
    assert second.evaluate()[0] <= least + 1e-9
