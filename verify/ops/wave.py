"""Periodic functions. For sine any slope will do: all extrema of ``sin z - k z`` are known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from .arrays import outwards, quiet, unit_roundoff
from .convex import require
from .functions import constant
from .lines import Line, mirrored, unary_relaxation
from .rule import Interval, OpRule
from .smooth import bent_lines, bent_touch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Array, Node

PERIOD = 2.0 * math.pi
SLOPE_STEPS = 11
"""Bisections of the slope within the range of the derivative."""


def _extent(xp: Any, lower: Array, upper: Array) -> Array:
    return xp.maximum(abs(lower), abs(upper))


def _reaches(xp: Any, lower: Array, upper: Array, phase: float) -> Array:
    """Whether the interval contains ``phase`` plus a multiple of the period; in doubt, or with an infinite end, yes."""
    slack = 4.0 * unit_roundoff(lower) * (1.0 + _extent(xp, lower, upper))
    first = xp.ceil((lower - slack - phase) / PERIOD)
    last = xp.floor((upper + slack - phase) / PERIOD)
    return ~(first > last) | ~xp.isfinite(upper - lower)


def _wave_interval(xp: Any, lower: Array, upper: Array, function: Callable[[Array], Array], peak: float) -> Interval:
    """The range of a sine or cosine with its maximum at `peak`, rounded outwards."""
    at_lower, at_upper = function(lower), function(upper)
    low, high = outwards(xp.minimum(at_lower, at_upper), xp.maximum(at_lower, at_upper))
    low = xp.where(_reaches(xp, lower, upper, peak + math.pi), -1.0, low.clip(-1.0, None))
    return low, xp.where(_reaches(xp, lower, upper, peak), 1.0, high.clip(None, 1.0))


@dataclass(frozen=True, eq=False)
class _Arc:
    """A finite interval of sine: its ends, sine at its ends, and the range of the derivative on it."""

    lower: Array
    upper: Array
    at_lower: Array
    at_upper: Array
    flattest: Array
    steepest: Array

    def pick(self, where: Array) -> _Arc:
        """The arcs that a mask names, flat."""
        ends = (self.lower, self.upper, self.at_lower, self.at_upper, self.flattest, self.steepest)
        return _Arc(*(x[where] for x in ends))

    def mirrored(self) -> _Arc:
        """The arc of ``-sin(-z)``, which is sine again."""
        return _Arc(-self.upper, -self.lower, -self.at_upper, -self.at_lower, self.flattest, self.steepest)


def _least(xp: Any, k: Array, arc: _Arc) -> tuple[Array, Array]:
    """Minimum over the arc of ``sin z - k z``, ``|k| <= 1``, and where it is attained.

    Local minima lie at ``-arccos k`` plus multiples of the period, where the value is ``-sqrt(1 - k^2) - k z``: the
    last one is the least if k is positive, the first if not, and besides it only the ends remain.
    """
    k = k.clip(-1.0, 1.0)
    minimum = -xp.acos(k)
    rising = k > 0
    end = xp.where(rising, arc.upper, arc.lower)
    turns = (end - minimum) / PERIOD
    z = minimum + PERIOD * xp.where(rising, xp.floor(turns), xp.ceil(turns))
    inside = (z >= arc.lower) & (z <= arc.upper)
    place, least = arc.lower, arc.at_lower - k * arc.lower
    # Factored, the root is as exact as the place that belongs to it.
    inner = xp.where(inside, -xp.sqrt((1.0 - k) * (1.0 + k)) - k * z, math.inf)
    for other, value in ((arc.upper, arc.at_upper - k * arc.upper), (z, inner)):
        place, least = xp.where(value < least, other, place), xp.minimum(value, least)
    return least, place


def _slopes(xp: Any, arc: _Arc, slope: Array | None) -> tuple[Array, Array]:
    """Slopes of lines below and above sine, no gradient flowing through: for None those of the lines that are closest
    to it at the centre.

    An arc of at most half a period lies within half a period of an inflection point ``j pi``, about which
    ``sin z = (-1)^j sin(z - j pi)`` is convex, then concave; longer ones are searched, and `slope` leads away from what
    is found.
    """
    turns = xp.round((arc.lower + arc.upper) / PERIOD)
    inflection = math.pi * turns
    ends = (arc.lower - inflection).clip(-math.pi, math.pi), (arc.upper - inflection).clip(-math.pi, math.pi)
    lines = bent_lines(xp, _sine_curve, _SINE_TOUCHING, 0.0, *ends, slope)
    odd = turns - 2.0 * xp.floor(0.5 * turns) > 0.5
    below, above = xp.where(odd, -lines[1][0], lines[0][0]), xp.where(odd, -lines[0][0], lines[1][0])
    long = arc.upper - arc.lower > math.pi
    if isinstance(long, np.ndarray) and not long.any():
        return below, above
    return (
        xp.where(long, _spread(xp, arc, _searched_where(xp, arc, long), slope), below),
        xp.where(long, _spread(xp, arc, _searched_where(xp, arc.mirrored(), long), slope), above),
    )


def _searched_where(xp: Any, arc: _Arc, long: Array) -> Array:
    """The best slopes below where a mask says so; anything elsewhere."""
    if not isinstance(long, np.ndarray):
        return _searched_slope(xp, arc)
    found = np.zeros_like(arc.lower)
    found[long] = _searched_slope(xp, arc.pick(long))
    return found


def _spread(xp: Any, arc: _Arc, best: Array, slope: Array | None) -> Array:
    """The best slope of a long arc at 0.5, towards 0 and 1 those that fall and rise a few times as much as a line from
    an end to a trough."""
    if slope is None:
        return best
    reach = 4.0 / (arc.upper - arc.lower).clip(1.0, None)
    down, up = xp.minimum(best - arc.flattest, reach).clip(0), xp.minimum(arc.steepest - best, reach).clip(0)
    return best + (2.0 * slope - 1.0) * xp.where(slope < 0.5, down, up)


def _sine_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    return xp.sin(x), xp.cos(x)


_SINE_TOUCHING = bent_touch(_sine_curve, math.pi)


def _searched_slope(xp: Any, arc: _Arc) -> Array:
    """The best slope below by bisection: the line's height at the centre, ``k centre + min(sin z - k z)``, is concave
    in k with derivative ``centre - argmin``."""
    centre = 0.5 * (arc.lower + arc.upper)
    low, high = arc.flattest, arc.steepest
    for _ in range(SLOPE_STEPS):
        k = 0.5 * (low + high)
        rises = _least(xp, k, arc)[1] < centre
        low, high = xp.where(rises, k, low), xp.where(rises, high, k)
    return 0.5 * (low + high)


def _sine_below(xp: Any, arc: _Arc, k: Array) -> Line:
    """The line of a slope below sine on the arc."""
    k = k.clip(-1.0, 1.0)
    return k, _least(xp, k, arc)[0] - 8.0 * unit_roundoff(k) * (1.0 + _extent(xp, arc.lower, arc.upper))


def _shifted_sine_lines(xp: Any, lower: Array, upper: Array, slope: Array | None, shift: float) -> tuple[Line, Line]:
    """Lines of ``sin(x + shift)``; those above by ``sin z = -sin(-z)``."""
    lower, upper = lower + shift, upper + shift
    fixed = constant(lower), constant(upper)
    derivative = _wave_interval(xp, *fixed, xp.cos, 0.0)
    chosen = _slopes(xp, _Arc(*fixed, xp.sin(fixed[0]), xp.sin(fixed[1]), *derivative), slope)
    arc = _Arc(lower, upper, xp.sin(lower), xp.sin(upper), *derivative)
    k, c = _sine_below(xp, arc, chosen[0])
    mirror_k, mirror_c = _sine_below(xp, arc.mirrored(), chosen[1])
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
    """The multiple of pi about which the branch lies that contains the interval; raises where a pole may do."""
    centre = math.pi * xp.round(0.5 * (lower + upper) / math.pi)
    # The centre is rounded: a pole this close to an end may lie on either side of it.
    reach = 0.5 * math.pi - 2.0 * unit_roundoff(lower) * (2.0 + _extent(xp, lower, upper))
    require(node, (lower - centre > -reach) & (upper - centre < reach), "its input may be at a pole")
    return centre


def _tan_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    _branch(array_namespace(lower), node, lower, upper)
    return outwards(_tan(node, [lower]), _tan(node, [upper]))


def _falling_tan(xp: Any, x: Array) -> tuple[Array, Array]:
    """``-tan`` and its derivative."""
    value = xp.tan(x)
    return -value, -(1.0 + value * value)


_TAN_TOUCHING = bent_touch(_falling_tan, 0.499999 * math.pi)


def _tan_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """On a branch ``-tan`` is convex, then concave."""
    centre = _branch(xp, node, lower, upper)
    below, above = bent_lines(xp, _falling_tan, _TAN_TOUCHING, 0.0, lower - centre, upper - centre, slope)
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
