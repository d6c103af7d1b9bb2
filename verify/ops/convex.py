"""Functions that are convex or concave where they are defined: chord on one side, tangent on the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..arrays import array_namespace
from ..errors import UndefinedOnRegion
from ..graph import Array, Node
from .arrays import outwards, product, quiet, smallest, unit_roundoff
from .functions import sigmoid, softplus
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
    evaluate: Callable[[Node, Sequence[Array]], Array], least: float = -math.inf
) -> Callable[[Node, Sequence[Interval]], Interval]:
    """The interval of a non-decreasing function: its values at the ends, rounded outwards but not below its `least`."""

    @quiet
    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        low, high = outwards(evaluate(node, [lower]), evaluate(node, [upper]))
        return low.clip(least, None), high

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
    return outwards(_log(node, [lower]), _log(node, [upper]))


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
    low, high = outwards(_sqrt(node, [lower]), _sqrt(node, [upper]), 1.0)
    return low.clip(0, None), high


def _sqrt_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    require(node, lower >= 0, "its input may be negative")
    touch = xp.maximum(point_in(lower, upper, slope), 1e-3 * upper)
    return concave_lines(xp, lambda xp, x: xp.sqrt(x), lambda xp, x: 0.5 / xp.sqrt(x), lower, upper, touch)


@quiet
def _sqrt_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (0.5 * gradient / y,)


def _threshold(node: Node) -> float:
    """The argument beyond which the node's softplus is the identity, as torch has it."""
    return float(node.attributes.get("threshold", math.inf))


def _jump(node: Node) -> float:
    """How far the function falls where it becomes the identity."""
    threshold = _threshold(node)
    return 0.0 if threshold == math.inf else 1.000001 * math.log1p(math.exp(-threshold))


@quiet
def _softplus(node: Node, xs: Sequence[Array]) -> Array:
    xp = array_namespace(xs[0])
    y = softplus(xp, xs[0])
    return y if _threshold(node) == math.inf else xp.where(xs[0] > _threshold(node), xs[0], y)


@quiet
def _softplus_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The values at the ends; about a threshold, the function's least and greatest values beside it, too."""
    lower, upper = intervals[0]
    xp, threshold = array_namespace(lower), _threshold(node)
    at_lower, at_upper = softplus(xp, lower), softplus(xp, upper)
    if threshold == math.inf:
        low, high = outwards(at_lower, at_upper)
        return low.clip(0, None), high
    passed, reached = lower > threshold, upper >= threshold
    jumps_from = threshold + math.log1p(math.exp(-threshold))
    at_lower = xp.where(reached, at_lower.clip(None, threshold), at_lower)
    at_upper = xp.where(reached, upper.clip(jumps_from, None), at_upper)
    low, high = outwards(at_lower, at_upper)
    return xp.where(passed, lower, low.clip(0, None)), xp.where(passed, upper, high)


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
    if _threshold(node) != math.inf:
        below = share, xp.where(upper >= _threshold(node), below[1] - _jump(node), below[1])
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


def _elu_alpha(node: Node) -> float:
    return float(node.attributes.get("alpha", 1.0))


@quiet
def _elu(node: Node, xs: Sequence[Array]) -> Array:
    xp = array_namespace(xs[0])
    return xp.where(xs[0] > 0, xs[0], _elu_alpha(node) * xp.expm1(xs[0].clip(None, 0)))


@quiet
def _elu_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The ends' values, and 0 where the kink is a minimum inside the interval: with a negative alpha the function
    falls up to 0."""
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    at_lower, at_upper = _elu(node, [lower]), _elu(node, [upper])
    low, high = outwards(xp.minimum(at_lower, at_upper), xp.maximum(at_lower, at_upper))
    if _elu_alpha(node) >= 0:
        return low, high
    return xp.where((lower <= 0) & (upper >= 0), 0.0, low.clip(0, None)), high


def _elu_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """Straight beyond 0; up to 0 convex, or concave with a negative alpha. The kink bends the other way when alpha > 1
    or alpha < 0. Every slope has its extrema at known points: on the curved part where the derivative is the slope.
    """
    alpha = _elu_alpha(node)
    kink = xp.minimum(xp.maximum(xp.zeros_like(lower), lower), upper)
    ends = tuple((x, _elu(node, [x])) for x in (lower, kink, upper))
    chord = chord_slope(xp, lower, upper, ends[0][1], ends[2][1])
    to_kink = chord_slope(xp, lower, kink, ends[0][1], ends[1][1])
    position = xp.astype(lower + upper < 0, lower.dtype) if slope is None else slope
    turns_back = (lower < 0) & (upper > 0) & ((to_kink > 1.0) if alpha >= 0 else (to_kink < 1.0))
    # On the side that the kink points to, the envelope runs over the kink, or is the chord.
    over_kink = xp.where(turns_back, 1.0 + (to_kink - 1.0) * position, chord)
    at = point_in(lower, upper, slope)
    tangent = xp.where(at > 0, 1.0, alpha * xp.exp(at.clip(None, 0)))
    if alpha < 0:
        steepest = alpha * xp.exp(lower.clip(None, 0))
        share = 0.5 if slope is None else slope
        across = xp.maximum(chord, steepest + share * (chord - steepest))
        tangent = xp.where(upper <= 0, tangent, xp.where(lower >= 0, 1.0, across))
    share_of_alpha = tangent / alpha if alpha else xp.zeros_like(tangent)
    touch = xp.log(share_of_alpha.clip(smallest(lower), None)).clip(None, 0)
    touch = xp.minimum(xp.maximum(touch, lower), upper)
    touched = (touch, _elu(node, [touch]))
    if alpha < 0:
        return line_below(xp, over_kink, lower, upper, *ends), line_above(xp, tangent, lower, upper, *ends, touched)
    return line_below(xp, tangent, lower, upper, *ends, touched), line_above(xp, over_kink, lower, upper, *ends)


@quiet
def _elu_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * array_namespace(y).where(xs[0] > 0, 1.0, y + _elu_alpha(node)),)


# --- rows ------------------------------------------------------------------------------------------------------------


def curved_row(
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
        "Exp": curved_row(_exp, _exp_lines, _exp_vjp, "Exponential.", increasing_interval(_exp, 0.0)),
        "Log": curved_row(_log, _log_lines, _log_vjp, "Natural logarithm.", _log_interval),
        "Sqrt": curved_row(_sqrt, _sqrt_lines, _sqrt_vjp, "Square root.", _sqrt_interval),
        "Softplus": curved_row(_softplus, _softplus_lines, _softplus_vjp, "log(1 + exp(x)).", _softplus_interval),
        "Elu": curved_row(_elu, _elu_lines, _elu_vjp, "x where positive, else alpha (exp(x) - 1).", _elu_interval),
    }
)
