"""Optimised bounds: sound at every valid parameter, gradients right, best bounds kept, libraries and dtypes agree."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import alpha
from boundsmith.verify.bounding.alpha import Ascent, Base, Mixture, Objective, Parameters, Splits, gain_to_zero
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.loading.evaluate import output_vector
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bounding.ascents import (
    KINDS,
    PIECEWISE,
    ascents_of,
    clause_of,
    graph_of,
    margins_of,
    randomise,
    scene_of,
)
from tests.networks import pooled, residual, samples


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


def family_is_fixed(family, place):
    """Whether the weight is that of a decided ReLU, which stays where it is."""
    return family.through_origin and family.free[place] == 0


@pytest.mark.parametrize("kind", [*PIECEWISE, "Sigmoid", "Mul", "Sin"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_gradients_are_finite_differences(kind, seed):
    """With fixed intervals a bound is piecewise linear in each parameter; where both one-sided differences agree, they
    are the gradient."""
    scene = scene_of(graph_of(kind, seed), seed, rows=3)
    rng = np.random.default_rng(seed)
    step = 1e-6
    for ascent, _ in ascents_of(scene, seed):
        randomise(ascent, seed)
        centre = ascent.evaluate()
        gradients = ascent.gradients(ascent.forward())
        for (position, sort), gradient in gradients.items():
            value = ascent.parameters.betas[position] if sort == alpha.BETA else ascent.parameters.lines[position][sort]
            for place in rng.permutation(value.size)[:4]:
                place = np.unravel_index(place, value.shape)
                if sort != alpha.BETA and family_is_fixed(ascent.families[position], place):
                    continue
                row = ascent.splits[position].row[place[0]] if sort == alpha.BETA else place[0]
                kept = value[place]
                value[place] = kept + step
                after = (ascent.evaluate()[row] - centre[row]) / step
                value[place] = kept - step
                before = (centre[row] - ascent.evaluate()[row]) / step
                value[place] = kept
                if abs(after - before) < 1e-5:
                    assert gradient[place] == pytest.approx(after, abs=1e-4, rel=1e-4)


@pytest.mark.parametrize("kind", ["relu", "leaky", "max", "Sigmoid", "Mul"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_rows_that_are_kept_stay_the_same(kind, seed):
    """After other rows are dropped, the next steps of a row are those that it would have taken among them."""
    scene = scene_of(graph_of(kind, seed), seed, rows=5)
    kept = np.flatnonzero(np.random.default_rng(seed).random(5) < np.array([0.5, 0.5, 0.5, 0.5, 1.1]))
    # (Rows with a side constraint are never dropped.)
    for (whole, _), (part, _) in zip(ascents_of(scene, seed)[:2], ascents_of(scene, seed)[:2], strict=True):
        for ascent in (whole, part):
            randomise(ascent, seed)
            ascent.evaluate()
            ascent.improve(np.ones(5), 0.5)
            ascent.evaluate()
        part.keep(kept)
        np.testing.assert_allclose(part.minimiser(), whole.minimiser()[kept])
        for _ in range(3):
            np.testing.assert_allclose(part.best, whole.best[kept])
            np.testing.assert_allclose(part.last, whole.last[kept])
            whole.improve(np.ones(5), 0.5)
            part.improve(np.ones(len(kept)), 0.5)
            np.testing.assert_allclose(part.evaluate(), whole.evaluate()[kept], rtol=1e-9, atol=1e-9)
        for node, (below, above) in part.best_parameters.lines.items():
            for mine, theirs in zip((below, above), whole.best_parameters.lines[node], strict=True):
                assert (mine is None) == (theirs is None)
                assert mine is None or np.allclose(mine, theirs[kept])


def converted(scene, ascent, backend):
    """The same ascent, parameters included, in another library or dtype."""
    array = backend.array
    plan = make_plan(backend.graph(scene.graph))

    def all_of(x):
        return None if x is None else array(x)

    base = Base(
        plan,
        array(scene.base.lower),
        array(scene.base.upper),
        {index: (array(low), array(high)) for index, (low, high) in scene.base.intervals.items()},
    )
    own = ascent.parameters
    parameters = Parameters(
        {index: (all_of(below), all_of(above)) for index, (below, above) in own.lines.items()},
        {index: array(beta) for index, beta in own.betas.items()},
        all_of(own.mixture),
        all_of(own.side),
    )
    mixture, objective = ascent.mixture, ascent.objective
    other = Ascent(
        base,
        ascent.start,
        all_of(ascent.seeds),
        all_of(ascent.constants),
        mixture=None if mixture is None else Mixture(array(mixture.rows), array(mixture.offsets)),
        splits={node: Splits(*(array(x) for x in split)) for node, split in ascent.splits.items()},
        objective=None if objective is None else Objective(objective.node, *(array(x) for x in objective[1:])),
    )
    # As they are: an ascent that is given parameters fixes those of decided entries first.
    other.parameters = parameters
    return other


@pytest.mark.parametrize("kind", ["relu", "leaky", "clip", "max", "Sigmoid", "Mul", "Sqrt"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_torch_gives_the_same_bounds(kind, seed):
    scene = scene_of(graph_of(kind, seed), seed, rows=3)
    for ascent, _ in ascents_of(scene, seed):
        randomise(ascent, seed)
        other = converted(scene, ascent, Backend("float64", "cpu"))
        ascent.parameters = ascent.parameters.rows(np.arange(3), {node: slice(None) for node in ascent.splits})
        for step in range(4):
            np.testing.assert_allclose(other.evaluate().numpy(), ascent.evaluate(), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(other.minimiser().numpy(), ascent.minimiser())
            ascent.improve(*gain_to_zero(ascent.last - 1.0, step))
            other.improve(*gain_to_zero(other.last - 1.0, step))
        for node, cost in ascent.costs().items():
            np.testing.assert_allclose(other.costs()[node].numpy(), cost, rtol=1e-6, atol=1e-9)
        if ascent.objective is not None:
            continue
        ascent.keep(np.array([0, 2]))
        other.keep(Backend("float64", "cpu").array(np.array([0, 2])))
        np.testing.assert_allclose(other.evaluate().numpy(), ascent.evaluate(), rtol=1e-9, atol=1e-9)


def rounded(x):
    return x.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), size=st.sampled_from([1.0, 100.0]))
def test_bounds_in_single_precision_are_below_true_values(kind, seed, size):
    """On the same single-precision network and boxes, evaluated in double precision."""
    graph = graph_of(kind, seed).map_params(rounded)
    scene = scene_of(graph, seed, rows=4)
    boxes = rounded(scene.base.lower), rounded(scene.base.upper)
    scene.base = Base(scene.base.plan, *boxes, scene.base.intervals)
    inside = ((scene.points >= boxes[0]) & (scene.points <= boxes[1])).all(axis=2)
    scene.holds &= inside
    for ascent, least in ascents_of(scene, seed):
        randomise(ascent, seed, size)
        single = converted(scene, ascent, Backend("float32"))
        # Rows, constraints and intervals are rounded inward or outward here; the search rounds them once, at its root.
        allowed = 4e-6 * size * (1.0 + np.where(np.isfinite(least), abs(least), 0.0))
        assert (single.evaluate() <= least + allowed).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["relu", "leaky", "Sigmoid", "max"])
def test_numbers_that_are_none_prove_nothing(kind, value):
    """NaN or an infinity in any of what an ascent is given: its bounds stay below true values, and are never NaN."""
    for seed in range(6):
        scene = scene_of(graph_of(kind, seed), seed, rows=3)
        rng = np.random.default_rng(seed)
        for number in range(3):
            for place in ("lines", "betas", "mixture", "side", "seeds", "family"):
                ascent, least = ascents_of(scene, seed)[number]
                randomise(ascent, seed)
                arrays = {
                    "lines": [x for pair in ascent.parameters.lines.values() for x in pair],
                    "betas": list(ascent.parameters.betas.values()),
                    "mixture": [ascent.parameters.mixture],
                    "side": [ascent.parameters.side],
                    "seeds": [ascent.seeds, ascent.constants],
                    "family": [family.upper.slopes[0] for family in ascent.families.values()],
                }[place]
                arrays = [x for x in arrays if x is not None and x.size and x.flags.writeable]
                if not arrays:
                    continue
                chosen = arrays[rng.integers(len(arrays))]
                chosen.reshape(-1)[rng.integers(chosen.size)] = value
                for step in range(3):
                    ascent.evaluate()
                    assert not np.isnan(ascent.best).any()
                    assert not np.isposinf(ascent.best).any()
                    if place not in ("seeds", "family") or np.isnan(value):
                        assert (ascent.best <= least + slack(least)).all()
                    ascent.improve(*gain_to_zero(ascent.last, step))


@pytest.mark.parametrize("make", [residual, pooled])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_residual_and_convolutional_graphs(make, seed):
    scene = scene_of(make(seed), seed, rows=3, radius=0.3, count=100)
    for ascent, least in ascents_of(scene, seed):
        randomise(ascent, seed)
        for step in range(4):
            assert (ascent.evaluate() <= least + slack(least)).all()
            ascent.improve(*gain_to_zero(ascent.last, step))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10_000_000), size=st.floats(0.0, 1e3), radius=st.floats(0.0, 20.0))
def test_no_parameters_make_a_wrong_bound_at_length(kind, seed, size, radius):
    scene = scene_of(graph_of(kind, seed), seed, rows=4, radius=radius)
    for ascent, least in ascents_of(scene, seed):
        randomise(ascent, seed, size)
        for step in range(4):
            assert (ascent.evaluate() <= least + slack(least)).all()
            ascent.improve(*gain_to_zero(ascent.last, step))


def test_points_that_count_exist():
    """The tests above mean something: every row has a point that satisfies its constraints and clause."""
    for kind in KINDS:
        scene = scene_of(graph_of(kind, 5), 5, rows=4)
        assert scene.holds[0].all()
        assert (margins_of(scene, clause_of(scene, 5))[0] <= 0).all()
        assert all(np.isfinite(least).all() for _, least in ascents_of(scene, 5))
