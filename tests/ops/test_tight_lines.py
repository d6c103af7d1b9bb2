"""Lines of curved operators: sound to the last bit of float32, by dense samples and a remainder, and the best ones."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from hypothesis import given, settings
from hypothesis import strategies as st

CURVATURE = {
    ("Sigmoid", None): 0.0963,
    ("Tanh", None): 0.77,
    ("Arctan", None): 0.65,
    ("Erf", None): 0.968,
    ("Gelu", "none"): 0.798,
    ("Gelu", "tanh"): 0.8,
    ("Silu", None): 0.5,
    ("Softplus", None): 0.25,
    ("Sin", None): 1.0,
    ("Cos", None): 1.0,
}
"""The largest second derivative of operators that have one, by operator and form."""
FORMS = pytest.mark.parametrize(("op", "form"), CURVATURE, ids=lambda value: str(value))


def node_of(op, form):
    return Node("y", op, (0,), (1,), {}, {} if form is None else {"approximate": form}, ((1,),))


def intervals_of(seed, count, dtype):
    """Intervals of every width about every place, huge, tiny, degenerate and ending at zero."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(count, 1)) * random.choice([0.0, 1e-3, 1.0, 4.0, 300.0], size=(count, 1))
    radius = random.random((count, 1)) * random.choice([0.0, 1e-12, 1e-6, 1e-2, 0.5, 2.0, 10.0, 3e3], size=(count, 1))
    lower, upper = centre - radius, centre + radius
    side = random.integers(0, 8, (count, 1))
    lower, upper = np.where(side == 0, 0.0, lower), np.where(side == 1, 0.0, upper)
    return np.minimum(lower, upper).astype(dtype), np.maximum(lower, upper).astype(dtype)


def values_on(op, form, lower, upper, count):
    """Points ``[count, B, 1]`` across the intervals and the exact operator there, in float64."""
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    x = np.clip(low + np.linspace(0.0, 1.0, count)[:, None, None] * (high - low), low, high)
    return x, rule(op).evaluate(node_of(op, form), [x])


@FORMS
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), position=st.sampled_from([None, 0.0, 0.3, 0.5, 1.0]))
def test_lines_hold_between_the_samples_too(op, form, dtype, seed, position):
    """Between samples h apart a residual with a second derivative of at most M falls by at most h^2 M / 8, so that
    with thousands of samples no line is crossed by more than a millionth of the squared width. The float32 line is
    evaluated in float64: it has no tolerance of its own dtype."""
    count = 2001
    lower, upper = intervals_of(seed, 40, dtype)
    slope = None if position is None else np.full_like(lower, position)
    lines = rule(op).relax(node_of(op, form), [(lower, upper)], slope)
    x, y = values_on(op, form, lower, upper, count)
    step = (upper.astype(np.float64) - lower.astype(np.float64)) / (count - 1)
    remainder = step**2 * CURVATURE[op, form] / 8
    assert (remainder <= 1e-6 * np.maximum(1e-300, (upper - lower).astype(np.float64) ** 2)).all()
    for slopes, intercept, sign in (
        (lines.lower_slopes, lines.lower_intercept, 1.0),
        (lines.upper_slopes, lines.upper_intercept, -1.0),
    ):
        line = slopes[0].astype(np.float64) * x + intercept.astype(np.float64)
        # What float64 itself cannot tell; a hundred-millionth of float32's roundoff.
        blur = 8 * np.finfo(np.float64).eps * (abs(line) + abs(y) + abs(slopes[0] * x))
        assert (sign * (y - line) >= -blur).all()


def envelope_at_centre(x, y, sign):
    """The convex (sign 1) or concave (-1) envelope of samples at the middle one: the best chord across it."""
    middle = len(x) // 2
    left, right = slice(0, middle), slice(middle + 1, len(x))
    share = (x[middle] - x[left][:, None]) / (x[right][None] - x[left][:, None])
    chords = y[left][:, None] + share * (y[right][None] - y[left][:, None])
    return sign * np.minimum((sign * chords).min(axis=(0, 1)), sign * y[middle])


@FORMS
@pytest.mark.parametrize("size", [0.05, 1.0, 4.0])
def test_default_lines_reach_the_envelope_at_the_centre(op, form, size):
    random = np.random.default_rng(4)
    centre, radius = 2.0 * random.normal(size=(150, 1)), size * (0.5 + random.random((150, 1)))
    lower, upper = centre - radius, centre + radius
    lines = rule(op).relax(node_of(op, form), [(lower, upper)])
    x, y = values_on(op, form, lower, upper, 161)
    best_below, best_above = (envelope_at_centre(x, y, sign) for sign in (1.0, -1.0))
    spread = 1e-12 + best_above - best_below
    below = lines.lower_slopes[0] * centre + lines.lower_intercept
    above = lines.upper_slopes[0] * centre + lines.upper_intercept
    assert ((best_below - below) <= 0.01 * spread).all()
    assert ((above - best_above) <= 0.01 * spread).all()


@pytest.mark.parametrize("exponent", [3.0, 5.0])
def test_odd_powers_reach_the_envelope_at_the_centre(exponent):
    random = np.random.default_rng(4)
    centre, radius = random.normal(size=(150, 1)), 0.1 + random.random((150, 1))
    lower, upper = centre - radius, centre + radius
    node = Node("y", "Pow", (0,), (1,), {}, {"exponent": exponent}, ((1,),))
    lines = rule("Pow").relax(node, [(lower, upper)])
    x = lower + np.linspace(0.0, 1.0, 161)[:, None, None] * (upper - lower)
    best = envelope_at_centre(x, x**exponent, -1.0)
    above = lines.upper_slopes[0] * centre + lines.upper_intercept
    assert (above - best <= 0.02 * (best - envelope_at_centre(x, x**exponent, 1.0)) + 1e-9).all()
