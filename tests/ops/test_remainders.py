"""Lines of operators whose curvature has no bound: dense samples, and a remainder that no line can cross between them.

Between neighbouring samples a and b a function with a monotone second derivative bends by at most ``(b - a)^2 max |f''|
/ 8``, which is largest at an end; a monotone one stays between its values at the ends. The smaller of both is the
remainder. Samples are spaced evenly and, where the function is steep, geometrically. All is computed in numpy's longest
float, so that not even the roundoff of float64 hides a line that is crossed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from hypothesis import given, settings
from hypothesis import strategies as st

LONG = np.longdouble


def power(exponent):
    """A power and its second derivative."""

    def f(x):
        return x ** (int(exponent) if float(exponent).is_integer() else LONG(exponent))

    def bend(x):
        return exponent * (exponent - 1) * x ** (int(exponent) - 2 if float(exponent).is_integer() else exponent - 2)

    return f, bend


OPERATORS = {
    "Exp": ("Exp", {}, np.exp, np.exp, "real"),
    "Log": ("Log", {}, np.log, lambda x: -1 / x**2, "positive"),
    "Sqrt": ("Sqrt", {}, np.sqrt, lambda x: -0.25 / x**1.5, "positive"),
    "Elu": (
        "Elu",
        {"alpha": 1.5},
        lambda x: np.where(x > 0, x, LONG(1.5) * np.expm1(np.minimum(x, 0))),
        lambda x: 1.5 * np.exp(np.minimum(x, 0)),
        "real",
    ),
    "Tan": ("Tan", {}, np.tan, lambda x: 2 * np.tan(x) * (1 + np.tan(x) ** 2), "branch"),
    "Reciprocal": ("Reciprocal", {}, lambda x: 1 / x, lambda x: 2 / x**3, "positive"),
    "Reciprocal of negatives": ("Reciprocal", {}, lambda x: 1 / x, lambda x: 2 / x**3, "negative"),
    **{
        f"Pow {exponent}": ("Pow", {"exponent": exponent}, *power(exponent), kind)
        for exponent, kind in (
            (2.0, "real"),
            (3.0, "real"),
            (5.0, "real"),
            (6.0, "real"),
            (0.5, "positive"),
            (1.5, "positive"),
            (2.7, "positive"),
            (-0.5, "positive"),
            (-1.0, "positive"),
            (-2.0, "positive"),
            (-2.0, "negative"),
            (-3.0, "negative"),
        )
    },
}
"""Operator, attributes, function, second derivative, and where it is tested."""

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
POSITIONS = st.sampled_from([None, 0.0, 0.3, 0.5, 1.0])


def ends_of(kind, seed, count, dtype):
    """Intervals ``[count]`` of every width: degenerate, tiny, wide and huge ones, to one side of zero or about it."""
    random = np.random.default_rng(seed)
    if kind == "real":
        centre = random.normal(size=count) * random.choice([0.0, 1e-3, 1.0, 10.0], size=count)
        radius = random.random(count) * random.choice([0.0, 1e-6, 1e-2, 0.5, 3.0, 30.0], size=count)
        lower, upper = centre - radius, centre + radius
        side = random.integers(0, 8, count)
        lower, upper = np.where(side == 0, 0.0, lower), np.where(side == 1, 0.0, upper)
    elif kind == "branch":
        edge = random.integers(-3, 4, count) * np.pi
        lower, upper = np.sort(random.uniform(-1.5, 1.5, (2, count)), axis=0)
        upper = lower + (upper - lower) * random.choice([0.0, 1e-6, 1e-2, 1.0], size=count)
        lower, upper = lower + edge, upper + edge
    else:
        lower = np.exp(random.uniform(-9, 5, count))
        upper = lower * (1 + random.choice([0.0, 1e-6, 1e-2, 1.0, 100.0, 1e4], size=count) * random.random(count))
        lower, upper = (lower, upper) if kind == "positive" else (-upper, -lower)
    lower, upper = np.minimum(lower, upper).astype(dtype), np.maximum(lower, upper).astype(dtype)
    return lower, upper


def grid(lower, upper, kind, count=1500):
    """Ascending samples ``[2 count, B]`` of the intervals, both ends among them."""
    low, high = lower.astype(LONG), upper.astype(LONG)
    share = np.linspace(LONG(0), LONG(1), count)[:, None]
    even = low + share * (high - low)
    if kind in ("real", "branch"):
        x = np.concatenate([even, np.clip(np.zeros_like(even[:1]), low, high)])
    else:
        x = np.concatenate([even, low * (high / low) ** share])
    return np.sort(np.clip(x, low, high), axis=0)


@pytest.mark.parametrize("name", OPERATORS)
@DTYPES
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6), position=POSITIONS)
def test_lines_hold_between_the_samples_too(name, dtype, seed, position):
    op, attributes, f, bend, kind = OPERATORS[name]
    lower, upper = ends_of(kind, seed, 40, dtype)
    node = Node("y", op, (0,), (40,), {}, attributes, ((40,),))
    slope = None if position is None else np.full((1, 40), position, dtype)
    lines = rule(op).relax(node, [(lower[None], upper[None])], slope)
    x = grid(lower, upper, kind)
    y = f(x)
    with np.errstate(all="ignore"):
        width = x[1:] - x[:-1]
        bent = width**2 * np.maximum(abs(bend(x[1:])), abs(bend(x[:-1]))) / 8
    size = (y.max(axis=0) - y.min(axis=0)) + np.finfo(dtype).eps * abs(y).max(axis=0)
    for slopes, intercept, sign in (
        (lines.lower_slopes, lines.lower_intercept, 1),
        (lines.upper_slopes, lines.upper_intercept, -1),
    ):
        slope_here, offset = slopes[0][0].astype(LONG), intercept[0].astype(LONG)
        line = slope_here * x + offset
        rest = sign * (y - line)
        blur = 4 * np.finfo(LONG).eps * (abs(y) + abs(slope_here * x) + abs(offset))
        assert (rest >= -blur).all()
        steep = abs(y[1:] - y[:-1]) + abs(slope_here) * width
        remainder = np.where(np.isfinite(bent), np.minimum(bent, steep), steep)
        least = np.minimum(rest[1:], rest[:-1]) - remainder
        assert (least >= -1e-3 * size).all()


def pairs_of(seed, count, dtype, positive):
    """Intervals of two factors, or of a numerator and a divisor of one sign."""
    kind = "real" if not positive else "positive" if seed % 2 else "negative"
    return ends_of("real", seed, count, dtype), ends_of(kind, seed + 1, count, dtype)


def relaxed(op, intervals, position, dtype):
    """Slopes, intercept and sign (1 below, -1 above) of both planes of an operator of several inputs."""
    count = len(intervals[0][0])
    node = Node("y", op, tuple(range(len(intervals))), (count,), {}, {}, ((count,),) * len(intervals))
    slope = None if position is None else np.full((1, count), position, dtype)
    lines = rule(op).relax(node, [(low[None], high[None]) for low, high in intervals], slope)
    for slopes, intercept, sign in (
        (lines.lower_slopes, lines.lower_intercept, 1),
        (lines.upper_slopes, lines.upper_intercept, -1),
    ):
        yield [k[0].astype(LONG) for k in slopes], intercept[0].astype(LONG), sign


@DTYPES
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), position=POSITIONS)
def test_planes_of_products_hold_everywhere(dtype, seed, position):
    """A product less a plane is linear in each factor alone, so that it is least at a corner: four values prove it."""
    a, b = pairs_of(seed, 40, dtype, False)
    for (k, m), offset, sign in relaxed("Mul", (a, b), position, dtype):
        for p, q in itertools.product(a, b):
            p, q = p.astype(LONG), q.astype(LONG)
            rest = sign * (p * q - k * p - m * q - offset)
            assert (rest >= -4 * np.finfo(LONG).eps * (abs(p * q) + abs(k * p) + abs(m * q) + abs(offset))).all()


@DTYPES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), position=POSITIONS)
def test_planes_of_quotients_hold_everywhere(dtype, seed, position):
    """A quotient less a plane is linear in the numerator, so that its ends are enough; along the divisor the second
    derivative is ``2 a / b^3``."""
    a, b = pairs_of(seed, 40, dtype, True)
    x = grid(*b, "positive")
    for (k, m), offset, sign in relaxed("Div", (a, b), position, dtype):
        for p in a:
            p = p.astype(LONG)
            y = p / x
            rest = sign * (y - k * p - m * x - offset)
            terms = abs(y) + abs(k * p) + abs(m * x) + abs(offset)
            assert (rest >= -4 * np.finfo(LONG).eps * terms).all()
            width = x[1:] - x[:-1]
            bent = width**2 * 2 * abs(p) / np.minimum(abs(x[1:]), abs(x[:-1])) ** 3 / 8
            size = y.max(axis=0) - y.min(axis=0) + np.finfo(dtype).eps * terms.max(axis=0)
            assert (np.minimum(rest[1:], rest[:-1]) - bent >= -1e-3 * size).all()


@DTYPES
@pytest.mark.parametrize("op", ["Max", "Min"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), position=POSITIONS, count=st.integers(2, 4))
def test_planes_of_extrema_hold_everywhere(op, dtype, seed, position, count):
    """The maximum is convex: above, corners prove a plane. Below, one whose slopes are shares that add up to no more
    than one (and so is below every mean) is proved by its intercept."""
    intervals = [ends_of("real", seed + k, 40, dtype) for k in range(count)]
    turned = op == "Min"
    for slopes, offset, sign in relaxed(op, intervals, position, dtype):
        if (sign > 0) != turned:
            assert all((k >= 0).all() for k in slopes)
            total, reach = sum(slopes), np.max([abs(end) for pair in intervals for end in pair], axis=0).astype(LONG)
            assert (sign * offset + abs(total - 1) * reach <= 4 * np.finfo(dtype).eps * reach).all()
            continue
        for corner in itertools.product(*intervals):
            values = [end.astype(LONG) for end in corner]
            y = np.max(values, axis=0) if op == "Max" else np.min(values, axis=0)
            plane = offset + sum(k * x for k, x in zip(slopes, values, strict=True))
            terms = abs(y) + abs(offset) + sum(abs(k * x) for k, x in zip(slopes, values, strict=True))
            assert (sign * (y - plane) >= -4 * np.finfo(LONG).eps * terms).all()
