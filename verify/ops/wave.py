"""Periodic functions. For sine any slope will do: all extrema of ``sin z - k z`` are known in closed form."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from ..errors import UndefinedOnRegion
from .arrays import quiet, unit_roundoff
from .functions import constant
from .lines import Line, mirrored, point_in, unary_relaxation
from .rule import Interval, OpRule
from .smooth import bent_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Array, Node

PERIOD = 2.0 * math.pi
SLOPE_STEPS = 14
"""Bisections of the slope, which lies in [-1, 1]."""


def _extent(xp: Any, lower: Array, upper: Array) -> Array:
    return xp.maximum(abs(lower), abs(upper))


def _reaches(xp: Any, lower: Array, upper: Array, phase: float) -> Array:
    """Whether the interval contains ``phase`` plus a multiple of the period; in doubt, or with an infinite end, yes."""
    slack = 4.0 * unit_roundoff(lower) * (1.0 + _extent(xp, lower, upper))
    first = xp.ceil((lower - slack - phase) / PERIOD)
    last = xp.floor((upper + slack - phase) / PERIOD)
    return ~(first > last) | ~xp.isfinite(upper - lower)


def _wave_interval(xp: Any, lower: Array, upper: Array, function: Callable[[Array], Array], peak: float) -> Interval:
    """Exact range of a sine or cosine with its maximum at `peak`."""
    at_lower, at_upper = function(lower), function(upper)
    low = xp.where(_reaches(xp, lower, upper, peak + math.pi), -1.0, xp.minimum(at_lower, at_upper))
    return low, xp.where(_reaches(xp, lower, upper, peak), 1.0, xp.maximum(at_lower, at_upper))


def _least(xp: Any, k: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Minimum over ``[lower, upper]`` of ``sin z - k z``, ``|k| <= 1``, and where it is attained.

    Minima lie at ``-arccos k`` plus multiples of the period; their values form an arithmetic sequence, so that the
    first and the last in the interval and its two ends are all there is to try.
    """
    minimum = -xp.acos(k.clip(-1.0, 1.0))
    first = minimum + PERIOD * xp.ceil((lower - minimum) / PERIOD)
    last = minimum + PERIOD * xp.floor((upper - minimum) / PERIOD)
    place, least = lower, xp.sin(lower) - k * lower
    for z in (upper, xp.minimum(xp.maximum(first, lower), upper), xp.minimum(xp.maximum(last, lower), upper)):
        value = xp.sin(z) - k * z
        place, least = xp.where(value < least, z, place), xp.minimum(value, least)
    return least, place


def _best_slope(xp: Any, lower: Array, upper: Array) -> Array:
    """The slope of the line below sine that is highest at the centre.

    Its height there, ``k centre + min(sin z - k z)``, is concave in k with derivative ``centre - argmin``.
    """
    lower, upper = constant(lower), constant(upper)
    centre = 0.5 * (lower + upper)
    low, high = xp.full_like(lower, -1.0), xp.full_like(lower, 1.0)
    for _ in range(SLOPE_STEPS):
        k = 0.5 * (low + high)
        rises = _least(xp, k, lower, upper)[1] < centre
        low, high = xp.where(rises, k, low), xp.where(rises, high, k)
    return 0.5 * (low + high)


def _sine_below(xp: Any, lower: Array, upper: Array, slope: Array | None) -> Line:
    """A line below ``sin z`` on a finite interval."""
    if slope is None:
        k = _best_slope(xp, lower, upper)
    else:
        k = xp.cos(point_in(lower, upper, slope))
    least, _ = _least(xp, k, lower, upper)
    return k, least - 8.0 * unit_roundoff(lower) * (1.0 + _extent(xp, lower, upper))


def _shifted_sine_lines(xp: Any, lower: Array, upper: Array, slope: Array | None, shift: float) -> tuple[Line, Line]:
    """Lines of ``sin(x + shift)``; those above by ``sin z = -sin(-z)``."""
    lower, upper = lower + shift, upper + shift
    k, c = _sine_below(xp, lower, upper, slope)
    mirror_k, mirror_c = _sine_below(xp, -upper, -lower, slope)
    return (k, c + k * shift), (mirror_k, -mirror_c + mirror_k * shift)


@quiet
def _sin(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).sin(xs[0])


@quiet
def _sin_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    return _wave_interval(xp, lower, upper, xp.sin, 0.5 * math.pi)


def _sin_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    return _shifted_sine_lines(xp, lower, upper, slope, 0.0)


def _sin_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * array_namespace(xs[0]).cos(xs[0]),)


@quiet
def _cos(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).cos(xs[0])


@quiet
def _cos_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    return _wave_interval(xp, lower, upper, xp.cos, 0.0)


def _cos_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    return _shifted_sine_lines(xp, lower, upper, slope, 0.5 * math.pi)


def _cos_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (-gradient * array_namespace(xs[0]).sin(xs[0]),)


# --- tangent ---------------------------------------------------------------------------------------------------------


@quiet
def _tan(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).tan(xs[0])


def _branch(xp: Any, node: Node, lower: Array, upper: Array) -> Array:
    """The multiple of pi about which the branch lies that contains the interval; raises where a pole does."""
    centre = math.pi * xp.round(0.5 * (lower + upper) / math.pi)
    inside = (lower - centre > -0.5 * math.pi) & (upper - centre < 0.5 * math.pi)
    if not bool(xp.all(inside)):
        raise UndefinedOnRegion(f"Tan node {node.name!r} has a pole in the region; use a smaller region")
    return centre


def _tan_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    _branch(array_namespace(lower), node, lower, upper)
    return _tan(node, [lower]), _tan(node, [upper])


def _tan_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """On a branch ``-tan`` is convex, then concave."""

    def curve(xp: Any, x: Array) -> tuple[Array, Array, Array]:
        value = xp.tan(x)
        derivative = 1.0 + value * value
        return -value, -derivative, -2.0 * value * derivative

    centre = _branch(xp, node, lower, upper)
    below, above = bent_lines(xp, curve, 0.0, lower - centre, upper - centre, slope)
    below, above = mirrored(above), mirrored(below)
    steepest = 1.0 + xp.maximum(abs(xp.tan(lower)), abs(xp.tan(upper))) ** 2
    moved = 4.0 * unit_roundoff(lower) * abs(centre) * steepest
    return (below[0], below[1] - below[0] * centre - moved), (above[0], above[1] - above[0] * centre + moved)


@quiet
def _tan_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * (1.0 + y * y),)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Sin": OpRule(
            _sin,
            _sin_interval,
            relax=unary_relaxation(_sin_lines, _sin_interval),
            curved=True,
            vjp=_sin_vjp,
            summary="Sine.",
        ),
        "Cos": OpRule(
            _cos,
            _cos_interval,
            relax=unary_relaxation(_cos_lines, _cos_interval),
            curved=True,
            vjp=_cos_vjp,
            summary="Cosine.",
        ),
        "Tan": OpRule(
            _tan,
            _tan_interval,
            relax=unary_relaxation(_tan_lines, _tan_interval),
            curved=True,
            vjp=_tan_vjp,
            summary="Tangent.",
        ),
    }
)
