"""Functions that are convex or concave where they are defined: chord on one side, tangent on the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ..arrays import array_namespace
from ..errors import UndefinedOnRegion
from ..graph import Array, Node
from .arrays import product, quiet, smallest, unit_roundoff
from .functions import constant, power, sigmoid, softplus
from .lines import (
    Line,
    chord_slope,
    line_above,
    line_below,
    mirrored,
    point_in,
    unary_relaxation,
)
from .rule import Interval, OpRule
from .smooth import bent_lines

Function = Callable[[Any, Array], Array]
Lines2 = tuple[Line, Line]


def convex_lines(xp: Any, f: Function, derivative: Function, lower: Array, upper: Array, touch: Array) -> Lines2:
    """Lines of a convex function on finite intervals; the one below is the tangent at `touch`, a point of the
    interval.
    """
    at_lower, at_upper = f(xp, lower), f(xp, upper)
    chord = chord_slope(xp, lower, upper, at_lower, at_upper)
    chord = xp.minimum(xp.maximum(chord, derivative(xp, lower)), derivative(xp, upper))
    return (
        line_below(xp, derivative(xp, touch), lower, upper, (touch, f(xp, touch))),
        line_above(xp, chord, lower, upper, (lower, at_lower), (upper, at_upper)),
    )


def concave_lines(xp: Any, f: Function, derivative: Function, lower: Array, upper: Array, touch: Array) -> Lines2:
    """Lines of a concave function, from those of its negative."""
    below, above = convex_lines(xp, lambda xp, x: -f(xp, x), lambda xp, x: -derivative(xp, x), lower, upper, touch)
    return mirrored(above), mirrored(below)


def require(node: Node, valid: Array, why: str, about: int = -1) -> None:
    """Raise `UndefinedOnRegion` unless all entries hold, those of the node's input `about`."""
    if not bool(array_namespace(valid).all(valid)):
        raise UndefinedOnRegion(
            f"{node.op} node {node.name!r} is undefined on part of the region: {why}; use a smaller region",
            valid,
            about,
        )


def increasing_interval(
    evaluate: Callable[[Node, Sequence[Array]], Array],
) -> Callable[[Node, Sequence[Interval]], Interval]:
    """The interval of a non-decreasing function: its values at the ends."""

    @quiet
    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        return evaluate(node, [lower]), evaluate(node, [upper])

    return interval


# --- Exp, Log, Sqrt, Softplus ----------------------------------------------------------------------------------------


@quiet
def _exp(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).exp(xs[0])


def _exp_function(xp: Any, x: Array) -> Array:
    return xp.exp(x)


def _exp_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """By default the tangent touches less than 1 after the lower end, so that it stays positive there."""
    touch = point_in(lower, upper, slope)
    if slope is None:
        touch = xp.minimum(touch, lower + 0.99)
    return convex_lines(xp, _exp_function, _exp_function, lower, upper, touch)


def _exp_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (product(gradient, y),)


@quiet
def _log(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).log(xs[0])


def _log_defined(node: Node, lower: Array) -> None:
    require(node, lower > 0, "its input may be zero or negative")


def _log_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    _log_defined(node, lower)
    return _log(node, [lower]), _log(node, [upper])


def _log_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    _log_defined(node, lower)
    touch = xp.maximum(point_in(lower, upper, slope), 1e-3 * upper)
    return concave_lines(xp, lambda xp, x: xp.log(x), lambda xp, x: 1.0 / x, lower, upper, touch)


@quiet
def _log_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient / xs[0],)


@quiet
def _sqrt(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).sqrt(xs[0])


def _sqrt_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    require(node, lower >= 0, "its input may be negative")
    return _sqrt(node, [lower]), _sqrt(node, [upper])


def _sqrt_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    require(node, lower >= 0, "its input may be negative")
    touch = xp.maximum(point_in(lower, upper, slope), 1e-3 * upper)
    return concave_lines(xp, lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x), lower, upper, touch)


@quiet
def _sqrt_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (0.5 * gradient / y,)


@quiet
def _softplus(node: Node, xs: Sequence[Array]) -> Array:
    return softplus(array_namespace(xs[0]), xs[0])


def _softplus_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """The tangent of slope s has the entropy of s as its intercept, whatever the arguments' size; beyond what a unit of
    roundoff can tell from 0 and x, the lines are these. So large arguments, as behind masks, leave no large rounding.
    """
    roundoff = unit_roundoff(lower)
    share = sigmoid(xp, point_in(lower, upper, slope))
    tiny = smallest(lower)
    entropy = -share * xp.log(share.clip(tiny, None)) - (1.0 - share) * xp.log1p(
        -share.clip(None, 1.0 - 0.5 * roundoff)
    )
    below = share, (1.0 - 8.0 * roundoff) * entropy - tiny
    far = -math.log(roundoff)
    at_lower, at_upper = softplus(xp, lower), softplus(xp, upper)
    chord = chord_slope(xp, lower, upper, at_lower, at_upper).clip(0.0, 1.0)
    above = line_above(xp, chord, lower, upper, (lower, at_lower), (upper, at_upper))
    left, right = upper <= -far, lower >= far
    end = (1.0 + 8.0 * roundoff) * softplus(xp, xp.where(left, upper, -lower)) + tiny
    return below, (
        xp.where(left, 0.0, xp.where(right, 1.0, above[0])),
        xp.where(left | right, end, above[1]),
    )


@quiet
def _softplus_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * sigmoid(array_namespace(xs[0]), xs[0]),)


# --- Elu -------------------------------------------------------------------------------------------------------------


@quiet
def _elu(node: Node, xs: Sequence[Array]) -> Array:
    xp = array_namespace(xs[0])
    alpha = float(node.attributes.get("alpha", 1.0))
    return xp.where(xs[0] > 0, xs[0], alpha * xp.expm1(xs[0].clip(None, 0)))


def _elu_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """Convex up to 0 and straight beyond, with a concave kink when alpha > 1: every slope has its extrema at known
    points.
    """
    alpha = float(node.attributes.get("alpha", 1.0))
    kink = xp.minimum(xp.maximum(xp.zeros_like(lower), lower), upper)
    ends = tuple((x, _elu(node, [x])) for x in (lower, kink, upper))
    chord = chord_slope(xp, lower, upper, ends[0][1], ends[2][1])
    to_kink = chord_slope(xp, lower, kink, ends[0][1], ends[1][1])
    concave = (lower < 0) & (upper > 0) & (to_kink > 1.0)
    position = xp.astype(lower + upper < 0, lower.dtype) if slope is None else slope
    above_slope = xp.where(concave, 1.0 + (to_kink - 1.0) * position, chord)
    at = point_in(lower, upper, slope)
    below_slope = xp.where(at > 0, 1.0, alpha * xp.exp(at.clip(None, 0)))
    # On the convex part f(x) - slope x is least where f' is the slope.
    touch = xp.log(below_slope.clip(smallest(lower)) / alpha).clip(None, 0)
    touch = xp.minimum(xp.maximum(touch, lower), upper)
    return (
        line_below(xp, below_slope, lower, upper, *ends, (touch, _elu(node, [touch]))),
        line_above(xp, above_slope, lower, upper, *ends),
    )


def _elu_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    alpha = float(node.attributes.get("alpha", 1.0))
    return (gradient * array_namespace(y).where(xs[0] > 0, 1.0, y + alpha),)


# --- Pow, Reciprocal -------------------------------------------------------------------------------------------------


def _exponent(node: Node) -> float:
    return -1.0 if node.op == "Reciprocal" else float(node.attributes["exponent"])


@quiet
def _pow(node: Node, xs: Sequence[Array]) -> Array:
    return power(xs[0], _exponent(node))


def _pow_defined(node: Node, lower: Array, upper: Array) -> None:
    exponent = _exponent(node)
    if exponent < 0:
        require(node, (lower > 0) | (upper < 0), "its input may be zero")
    if not exponent.is_integer():
        require(node, lower >= 0, "its input may be negative")


@quiet
def _pow_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    _pow_defined(node, lower, upper)
    xp = array_namespace(lower)
    exponent = _exponent(node)
    at_lower, at_upper = power(lower, exponent), power(upper, exponent)
    low, high = xp.minimum(at_lower, at_upper), xp.maximum(at_lower, at_upper)
    if exponent > 0 and exponent % 2 == 0:
        low = xp.where((lower < 0) & (upper > 0), 0.0, low)
    return low, high


def _pow_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    _pow_defined(node, lower, upper)
    exponent = _exponent(node)

    def f(xp: Any, x: Array) -> Array:
        return power(x, exponent)

    def derivative(xp: Any, x: Array) -> Array:
        return exponent * power(x, exponent - 1.0)

    def curve(xp: Any, x: Array) -> tuple[Array, Array]:
        return -power(x, exponent), -derivative(xp, x)

    def touching(xp: Any, anchor: Array, largest: Array, needed: Array) -> Array:
        return xp.minimum(-_touching_ratio(exponent) * constant(anchor), constant(largest))

    touch = point_in(lower, upper, slope)
    if exponent in (0.0, 1.0):
        line = (xp.full_like(lower, exponent), xp.full_like(lower, 1.0 - exponent))
        return line, line
    if exponent < 0:
        return _negative_power_lines(xp, exponent, f, derivative, lower, upper, touch)
    if exponent < 1:
        return concave_lines(xp, f, derivative, lower, upper, xp.maximum(touch, 1e-3 * upper))
    if exponent.is_integer() and exponent % 2 == 1:
        below, above = bent_lines(xp, curve, touching, 0.0, lower, upper, slope)
        return mirrored(above), mirrored(below)
    return convex_lines(xp, f, derivative, lower, upper, touch)


@lru_cache(maxsize=32)
def _touching_ratio(exponent: float) -> float:
    """The t > 0 at which the tangent of ``x^n``, n odd, passes through ``(-1, -1)``: the root of ``(n - 1) t^n + n
    t^(n - 1) - 1``, by bisection; by similarity the tangent through ``(-a, -a^n)`` touches at ``a t``."""
    low, high = 0.0, 1.0
    for _ in range(48):
        t = 0.5 * (low + high)
        beyond = (exponent - 1.0) * t**exponent + exponent * t ** (exponent - 1.0) > 1.0
        low, high = (low, t) if beyond else (t, high)
    return 0.5 * (low + high)


def _negative_power_lines(
    xp: Any, exponent: float, f: Function, derivative: Function, lower: Array, upper: Array, touch: Array
) -> Lines2:
    """Convex for positive x; for negative x the mirror image of that, with the sign of an odd power."""
    negative = upper < 0
    left, right = xp.where(negative, -upper, lower), xp.where(negative, -lower, upper)
    below, above = convex_lines(xp, f, derivative, left, right, abs(touch))
    below, above = ((xp.where(negative, -slope, slope), intercept) for slope, intercept in (below, above))
    if exponent % 2 == 0:
        return below, above
    # An odd power of a negative number is negative: the lines change places.
    return (
        (xp.where(negative, -above[0], below[0]), xp.where(negative, -above[1], below[1])),
        (xp.where(negative, -below[0], above[0]), xp.where(negative, -below[1], above[1])),
    )


def reciprocal_lines(xp: Any, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """Lines of ``1 / x`` on finite intervals without 0."""
    return _negative_power_lines(
        xp,
        -1.0,
        lambda xp, x: 1.0 / x,
        lambda xp, x: -1.0 / (x * x),
        lower,
        upper,
        point_in(lower, upper, slope),
    )


@quiet
def _pow_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    exponent = _exponent(node)
    if exponent == 0.0:
        return (array_namespace(gradient).zeros_like(gradient),)
    return (gradient * (exponent * power(xs[0], exponent - 1.0)),)


def _row(
    evaluate: Callable[[Node, Sequence[Array]], Array],
    lines: Callable[..., Lines2],
    vjp: Callable[[Node, Sequence[Array], Array, Array], tuple[Array, ...]],
    summary: str,
    interval: Callable[[Node, Sequence[Interval]], Interval] | None = None,
) -> OpRule:
    interval = interval or increasing_interval(evaluate)
    return OpRule(
        evaluate=evaluate,
        interval=interval,
        relax=unary_relaxation(lines, interval),
        curved=True,
        vjp=vjp,
        summary=summary,
    )


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Exp": _row(_exp, _exp_lines, _exp_vjp, "Exponential."),
        "Log": _row(_log, _log_lines, _log_vjp, "Natural logarithm.", _log_interval),
        "Sqrt": _row(_sqrt, _sqrt_lines, _sqrt_vjp, "Square root.", _sqrt_interval),
        "Softplus": _row(_softplus, _softplus_lines, _softplus_vjp, "log(1 + exp(x))."),
        "Elu": _row(_elu, _elu_lines, _elu_vjp, "x where positive, else alpha (exp(x) - 1)."),
        "Reciprocal": _row(_pow, _pow_lines, _pow_vjp, "1 / x.", _pow_interval),
        "Pow": _row(_pow, _pow_lines, _pow_vjp, "x to a constant exponent.", _pow_interval),
    }
)
