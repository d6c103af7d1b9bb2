"""ReLU and its kin: functions of one variable made of two or three straight pieces.

Reference for the triangle relaxation: Zhang et al., "Efficient Neural Network Robustness Certification with General
Activation Functions" (CROWN), 2018.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from .arrays import outwards, parameter, product, quiet, smallest_subnormal, surely_finite, unit_roundoff
from .lines import (
    Line,
    chord_slope,
    line_above,
    line_below,
    padding,
    unary_relaxation,
)
from .rule import Interval, Lines, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node

# --- ReLU ------------------------------------------------------------------------------------------------------------


def _relu(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0].clip(0)


def _relu_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    return lower.clip(0), upper.clip(0)


def _triangle(lower: Array, upper: Array) -> tuple[Line, Array]:
    """The line above ReLU through both ends of a finite interval, and the width of the part that was bridged.

    The line is exact where the neuron is stable. Its slope is rounded up (but not over 1) and its intercept, too, so
    that it is below neither end, but for what underflows: the smallest subnormal number, times the width.
    """
    outwards = 1.0 + 2.0 * unit_roundoff(lower)
    positive, negative = upper.clip(0), lower.clip(None, 0)
    width = positive - negative
    slope = (positive * outwards / array_namespace(width).where(width > 0, width, 1.0)).clip(None, 1.0)
    return (slope, slope * negative * -outwards), width


@quiet
def _relu_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    (above_slope, above_intercept), width = _triangle(lower, upper)
    if slope is None:
        below_slope = xp.astype(upper > -lower, lower.dtype)
    else:
        below_slope = xp.where(lower >= 0, 1.0, xp.where(upper <= 0, 0.0, slope))
    if not surely_finite(width):
        straddling = (lower < 0) & (upper > 0)
        unbounded = straddling & ~xp.isfinite(width)
        above_slope = xp.where(lower >= 0, 1.0, xp.where(unbounded | (upper <= 0), 0.0, above_slope))
        above_intercept = xp.where(unbounded, upper, xp.where(straddling, above_intercept, 0.0))
        below_slope = xp.where(unbounded, 0.0, below_slope)
    return Lines((below_slope,), xp.zeros_like(below_slope), (above_slope,), above_intercept)


def _relu_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * (xs[0] > 0),)


# --- LeakyReLU -------------------------------------------------------------------------------------------------------


@quiet
def _leaky(node: Node, xs: Sequence[Array]) -> Array:
    x = xs[0]
    return array_namespace(x).where(x > 0, x, x * parameter(node, "slope", x))


@quiet
def _leaky_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The ends' values, and 0 where the kink is a minimum or maximum inside the interval."""
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    alpha = parameter(node, "slope", lower)
    bent_lower, bent_upper = product(lower.clip(None, 0), alpha), product(upper.clip(None, 0), alpha)
    low, high = outwards(xp.minimum(bent_lower, bent_upper), xp.maximum(bent_lower, bent_upper), 1.0)
    # The bent part has the sign of -alpha: positive arguments and a slope of zero leave it at 0.
    low = xp.where((alpha <= 0) | (lower >= 0), low.clip(0, None), low)
    high = xp.where((alpha >= 0) | (lower >= 0), high.clip(None, 0), high)
    straight = xp.where(upper > 0, xp.maximum(high, upper), high)
    return xp.where(lower > 0, lower, low), straight


def _leaky_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """``alpha x + (1 - alpha) relu(x)``: a bridge over the kink on one side, any slope between alpha and 1 on the
    other.
    """
    alpha = parameter(node, "slope", lower)
    (relu_slope, relu_intercept), _ = _triangle(lower, upper)
    active, inactive = lower >= 0, upper <= 0
    bridge_slope = alpha + (1.0 - alpha) * relu_slope
    outwards = padding(xp, lower, upper, abs(alpha) + abs(bridge_slope)) + abs(1.0 - alpha) * smallest_subnormal(lower)
    convex = alpha <= 1
    bridge = (bridge_slope, (1.0 - alpha) * relu_intercept + xp.where(convex, outwards, -outwards))
    if slope is None:
        slope = xp.astype(upper > -lower, lower.dtype)
    # In this form the ends are met exactly, however large alpha is.
    free_slope = alpha * (1.0 - slope) + slope
    free_slope = xp.minimum(xp.maximum(free_slope, alpha.clip(None, 1.0)), alpha.clip(1.0, None))
    lines = []
    for takes_bridge in (~convex, convex):
        chosen = xp.where(takes_bridge, bridge[0], free_slope)
        chosen = xp.where(active, 1.0, xp.where(inactive, alpha, chosen))
        lines.append((chosen, xp.where(takes_bridge & ~(active | inactive), bridge[1], 0.0)))
    return lines[0], lines[1]


def _leaky_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    x = xs[0]
    return (gradient * array_namespace(x).where(x > 0, 1.0, parameter(node, "slope", x)),)


# --- Clip ------------------------------------------------------------------------------------------------------------


def _clip_ends(node: Node) -> tuple[float, float]:
    return float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf))


def _clip(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0].clip(*_clip_ends(node))


def _rounded_limit(value: float, x: Array, towards: float) -> float:
    """A limit in the dtype of `x`, rounded up or down (to plus or minus infinity) if it is none of its numbers."""
    dtype = np.dtype(str(x.dtype).removeprefix("torch.")).type
    nearest = dtype(value)
    beyond = float(nearest) > value if towards < 0 else float(nearest) < value
    return float(np.nextafter(nearest, dtype(towards)) if beyond else nearest)


def _clip_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    low, high = intervals[0]
    down, up = ([_rounded_limit(end, low, side) for end in _clip_ends(node)] for side in (-math.inf, math.inf))
    return low.clip(*down), high.clip(*up)


def _clip_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """Convex at the lower kink, concave at the upper one: each line turns about the end that it shares with the
    function.
    """
    least, most = _clip_ends(node)
    # A kink outside of the interval is moved to its end, where it changes nothing.
    first, second = xp.clip(lower, least, None), xp.clip(upper, None, most)
    first, second = xp.minimum(first, upper), xp.maximum(second, lower)
    points = tuple((x, _clip(node, [x])) for x in (lower, first, second, upper))
    at_lower, at_first, at_second, at_upper = (y for _, y in points)
    steep_above = chord_slope(xp, lower, second, at_lower, at_second)
    steep_below = chord_slope(xp, first, upper, at_first, at_upper)
    if slope is None:
        # The envelope at the centre: the line between the shared end and the far kink, or the flat part beyond it.
        centre = 0.5 * (lower + upper)
        steep_below = xp.where(centre < first, 0.0, steep_below)
        steep_above = xp.where(centre > second, 0.0, steep_above)
    else:
        steep_below = xp.where(lower < least, slope * steep_below, steep_below)
        steep_above = xp.where(upper > most, slope * steep_above, steep_above)
    lines = (
        line_below(xp, steep_below, lower, upper, *points),
        line_above(xp, steep_above, lower, upper, *points),
    )
    inside = (lower >= _rounded_limit(least, lower, math.inf)) & (upper <= _rounded_limit(most, lower, -math.inf))
    below, above = ((xp.where(inside, 1.0, k), xp.where(inside, 0.0, c)) for k, c in lines)
    return below, above


def _clip_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    least, most = _clip_ends(node)
    return (gradient * ((xs[0] >= least) & (xs[0] <= most)),)


# --- Abs -------------------------------------------------------------------------------------------------------------


def _abs(node: Node, xs: Sequence[Array]) -> Array:
    return abs(xs[0])


def _abs_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    return xp.maximum(lower, -upper).clip(0), xp.maximum(-lower, upper)


def _abs_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """``|x| = 2 relu(x) - x``."""
    (relu_slope, relu_intercept), _ = _triangle(lower, upper)
    if slope is None:
        slope = xp.astype(upper > -lower, lower.dtype)
    free = xp.where(lower >= 0, 1.0, xp.where(upper <= 0, -1.0, 2.0 * slope - 1.0))
    above_slope = 2.0 * relu_slope - 1.0
    outwards = xp.where((lower < 0) & (upper > 0), padding(xp, lower, upper, xp.ones_like(lower)), 0.0)
    return (free, xp.zeros_like(free)), (above_slope, 2.0 * relu_intercept + outwards)


def _abs_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * array_namespace(xs[0]).sign(xs[0]),)


# --- rows ------------------------------------------------------------------------------------------------------------

ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Relu": OpRule(evaluate=_relu, interval=_relu_interval, relax=_relu_relax, vjp=_relu_vjp, summary="max(x, 0)."),
        "LeakyRelu": OpRule(
            evaluate=_leaky,
            interval=_leaky_interval,
            relax=unary_relaxation(_leaky_lines, _leaky_interval),
            vjp=_leaky_vjp,
            summary="x where positive, else slope * x (also PRelu).",
        ),
        "Clip": OpRule(
            evaluate=_clip,
            interval=_clip_interval,
            relax=unary_relaxation(_clip_lines, _clip_interval),
            vjp=_clip_vjp,
            summary="x limited to [min, max].",
        ),
        "Abs": OpRule(
            evaluate=_abs,
            interval=_abs_interval,
            relax=unary_relaxation(_abs_lines, _abs_interval),
            vjp=_abs_vjp,
            summary="Absolute value.",
        ),
    }
)
