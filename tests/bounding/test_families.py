"""Families of mixed lines: curved operators keep close to every tangent, and start at the operator's choice."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend, to_numpy
from boundsmith.verify.bounding.families import make_family
from boundsmith.verify.ops import rule

from tests.networks import node

CURVED = {
    "square": ("Pow", {"exponent": 2.0}, (-1.0, 2.0), "lower"),
    "exp": ("Exp", {}, (-1.5, 1.0), "lower"),
    "softplus": ("Softplus", {}, (-3.0, 3.0), "lower"),
    "reciprocal": ("Reciprocal", {}, (0.5, 2.0), "lower"),
    "log": ("Log", {}, (0.5, 3.0), "upper"),
    "sqrt": ("Sqrt", {}, (0.2, 3.0), "upper"),
    "tanh": ("Tanh", {}, (0.1, 1.6), "upper"),
    "sigmoid": ("Sigmoid", {}, (-3.0, -0.2), "lower"),
    "sine": ("Sin", {}, (0.2, 2.5), "upper"),
    "gelu": ("Gelu", {"approximate": "none"}, (-1.0, 1.0), "lower"),
}


def family_of(name, batch=1, dtype=np.float64):
    op, attributes, (low, high), side = CURVED[name]
    y = node("y", op, (0,), (3,), **attributes)
    shrink = np.linspace(1.0, 0.5, batch)[:, None] * np.array([[1.0, 0.9, 0.8]])
    centre, radius = 0.5 * (low + high), 0.5 * (high - low) * shrink
    interval = (centre - radius).astype(dtype), (centre + radius).astype(dtype)
    return y, interval, make_family(y, [interval]), side


@pytest.mark.parametrize("name", CURVED)
def test_some_weight_comes_close_to_the_curve_at_every_point(name):
    """Where the curve is its own envelope, the family's best line must nearly touch it; mixtures of the two tangents
    at the ends leave a gap of the size of the chord's."""
    y, (low, high), family, side = family_of(name)
    lines = getattr(family, side)
    own = rule(y.op).relax(y, [(low, high)])
    chord = (own.upper_slopes[0] - own.lower_slopes[0]) * 0.5 * (low + high)
    gap = np.max(chord + own.upper_intercept - own.lower_intercept)
    sign = 1.0 if side == "lower" else -1.0
    for share in np.linspace(0.0, 1.0, 11):
        z = low + share * (high - low)
        value = rule(y.op).evaluate(y, [z])
        best = np.full_like(z, -np.inf)
        for weight in np.linspace(0.0, 1.0, 65):
            line = lines.at(np.full_like(z, weight))
            best = np.maximum(best, sign * (line.slopes[0] * z + line.intercept))
        assert (best <= sign * value + 1e-12).all()
        assert (sign * value - best <= 0.04 * gap).all()


@pytest.mark.parametrize("name", CURVED)
def test_start_is_the_operators_choice(name):
    y, interval, family, side = family_of(name, batch=4)
    own = rule(y.op).relax(y, [interval])
    slopes = own.lower_slopes[0] if side == "lower" else own.upper_slopes[0]
    start = family.start[0 if side == "lower" else 1]
    np.testing.assert_allclose(getattr(family, side).at(start).slopes[0], slopes, atol=1e-6)


@pytest.mark.parametrize("name", CURVED)
def test_changes_are_derivatives_by_the_weight(name):
    _, _, family, side = family_of(name, batch=4)
    lines = getattr(family, side)
    weight = np.random.default_rng(0).random((4, 3)) * 0.9 + 0.05
    step = 1e-7
    here, there = lines.at(weight), lines.at(weight + step)
    np.testing.assert_allclose((there.slopes[0] - here.slopes[0]) / step, here.changes[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose((there.intercept - here.intercept) / step, here.intercept_change, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CURVED)
def test_blocks_rows_and_torch_give_the_same_lines(name, monkeypatch):
    pytest.importorskip("torch")
    y, interval, family, side = family_of(name, batch=5)
    weight = np.random.default_rng(1).random((5, 3))
    expected = getattr(family, side).at(weight)
    monkeypatch.setattr("boundsmith.verify.bounding.families.BLOCK", 6)
    blocked = getattr(make_family(y, [interval]), side).at(weight)
    backend = Backend("float64", "cpu")
    tensors = tuple(backend.array(end) for end in interval)
    by_torch = getattr(make_family(y, [tensors]), side).at(backend.array(weight))
    index = np.array([3, 1])
    picked = getattr(family.rows(index), side).at(weight[index])
    for other, rows in ((blocked, slice(None)), (by_torch, slice(None)), (picked, index)):
        np.testing.assert_allclose(to_numpy(other.slopes[0]), expected.slopes[0][rows], atol=1e-12)
        np.testing.assert_allclose(to_numpy(other.intercept), expected.intercept[rows], atol=1e-12)


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid", "Sin", "Gelu"])
@pytest.mark.parametrize("device", [None, "cpu"])
def test_lines_met_are_those_that_the_signs_choose(op, device):
    backend = Backend("float64", device)
    attributes = {"approximate": "none"} if op == "Gelu" else {}
    y = node("y", op, (0,), (3,), **attributes)
    lower = np.array([[-2.0, -1.0, 0.3], [-0.5, -3.0, -1.0]])
    interval = backend.array(lower), backend.array(lower + np.array([[3.0, 2.5, 1.0]]))
    family = make_family(y, [interval]).rows(backend.array(np.array([1, 0, 1, 1])))
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.5, 0.0, 2.0], (4, 3))
    below, above = (backend.array(rng.random((4, 3))) for _ in range(2))
    for line in family.met(backend.array(signs), below, above)[:1]:
        for side, weight, chosen in ((family.lower, below, signs > 0), (family.upper, above, signs < 0)):
            whole = side.at(weight)
            for mine, theirs in (
                (line.slopes[0], whole.slopes[0]),
                (line.intercept, whole.intercept),
                (line.changes[0], whole.changes[0]),
                (line.intercept_change, whole.intercept_change),
            ):
                np.testing.assert_allclose(to_numpy(mine)[chosen], to_numpy(theirs)[chosen], atol=1e-14)


def test_a_line_that_is_not_free_is_met_as_it_is():
    """Exp has a chord above and tangents below: only these have knots."""
    y = node("y", "Exp", (0,), (2,))
    family = make_family(y, [(np.array([[-1.0, 0.0]]), np.array([[1.0, 2.0]]))])
    assert family.upper.changes is None
    lower, upper = family.met(np.array([[1.0, -1.0]]), np.full((1, 2), 0.3), None)
    np.testing.assert_array_equal(lower.slopes[0], family.lower.at(np.full((1, 2), 0.3)).slopes[0])
    np.testing.assert_array_equal(upper.slopes[0], family.upper.slopes[0])


def test_a_weight_that_is_no_number_makes_a_line_that_is_none():
    _, _, family, _ = family_of("square")
    line = family.lower.at(np.array([[np.nan, 0.5, 2.0]]))
    assert np.isnan(line.slopes[0][0, 0])
    assert np.isfinite(line.slopes[0][0, 1])
