"""Building blocks of elementwise relaxations: how lines are made safe.

A line below is ``slope * x + intercept``. Two principles keep every line sound in floating point:

- the slope may be any number; the intercept is then the minimum (maximum) of ``f(x) - slope * x`` over the points
  where it can be attained, so a badly rounded slope costs tightness, never soundness;
- the intercept is moved outwards by a few units of roundoff of the terms it was computed from.

An interval with an infinite end is replaced by a point before a line is built and the line by the constant range
afterwards, which also keeps NaN out of the gradients.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

from ..arrays import array_namespace
from ..graph import Array, Node
from .arrays import LIBRARY_UNITS, defined, quiet, smallest, surely_finite, unit_roundoff
from .rule import Interval, Lines, Relax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Line = tuple[Array, Array]
"""Slope and intercept, each ``[B, *shape]``."""


class BuildLines(Protocol):
    """Lines below and above of a unary function on finite intervals: ``((slope, intercept), (slope, intercept))``."""

    def __call__(self, xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]: ...


def unary_relaxation(build: BuildLines, interval: Callable[[Node, Sequence[Interval]], Interval]) -> Relax:
    """A `Relax` from a builder that needs to know finite intervals only."""

    @quiet
    def relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
        lower, upper = intervals[0]
        xp = array_namespace(lower)
        if not surely_finite(lower, upper):
            finite = xp.isfinite(lower) & xp.isfinite(upper)
            stand_in = xp.where(xp.isfinite(lower), lower, xp.where(xp.isfinite(upper), upper, 0.0))
            lower, upper = xp.where(finite, lower, stand_in), xp.where(finite, upper, stand_in)
        else:
            finite = None
        below, above = build(xp, node, lower, upper, slope)
        if finite is not None or not surely_finite(*below, *above):
            low, high = defined(*interval(node, intervals))
            below, above = _settled(xp, finite, below, low), _settled(xp, finite, above, high)
        return Lines((below[0],), below[1], (above[0],), above[1])

    return relax


def _settled(xp: Any, finite: Array | None, line: Line, bound: Array) -> Line:
    """The line where it is finite, elsewhere the constant bound."""
    usable = xp.isfinite(line[0]) & xp.isfinite(line[1])
    if finite is not None:
        usable = usable & finite
    return xp.where(usable, line[0], 0.0), xp.where(usable, line[1], bound)


def padding(xp: Any, lower: Array, upper: Array, slope: Array, *values: Array) -> Array:
    """How far rounding may have moved an intercept computed as one of ``value - slope * x`` with x in the interval: the
    value is as wrong as a library makes it, then three operations round; a tangent's slope may have underflowed."""
    unit, tiny = (LIBRARY_UNITS + 2.0) * unit_roundoff(lower), smallest(lower)
    size = (unit * abs(slope) + 2.0 * tiny) * xp.maximum(abs(lower), abs(upper))
    if values:
        size = size + unit * reduce(xp.maximum, [abs(value) for value in values])
    return size + tiny


def line_below(xp: Any, slope: Array, lower: Array, upper: Array, *points: tuple[Array, Array]) -> Line:
    """The line of the given slope under all points ``(x, f(x))``, x in the interval."""
    intercept = points[0][1] - slope * points[0][0]
    for x, y in points[1:]:
        intercept = xp.minimum(intercept, y - slope * x)
    return slope, intercept - padding(xp, lower, upper, slope, *(y for _, y in points))


def line_above(xp: Any, slope: Array, lower: Array, upper: Array, *points: tuple[Array, Array]) -> Line:
    """The line of the given slope over all points ``(x, f(x))``, x in the interval."""
    intercept = points[0][1] - slope * points[0][0]
    for x, y in points[1:]:
        intercept = xp.maximum(intercept, y - slope * x)
    return slope, intercept + padding(xp, lower, upper, slope, *(y for _, y in points))


def chord_slope(xp: Any, lower: Array, upper: Array, at_lower: Array, at_upper: Array) -> Array:
    """Slope of the chord; 0 where the interval is a point."""
    width = upper - lower
    return xp.where(width > 0, (at_upper - at_lower) / xp.where(width > 0, width, 1.0), 0.0)


def mixed(first: Line, second: Line, weight: Array) -> Line:
    """``(1 - weight) * first + weight * second``: sound where both are."""
    return (
        first[0] + weight * (second[0] - first[0]),
        first[1] + weight * (second[1] - first[1]),
    )


def better_below(xp: Any, first: Line, second: Line, centre: Array) -> Line:
    """The line with the larger value at the centre, which encloses less area."""
    wins = second[0] * centre + second[1] > first[0] * centre + first[1]
    return xp.where(wins, second[0], first[0]), xp.where(wins, second[1], first[1])


def better_above(xp: Any, first: Line, second: Line, centre: Array) -> Line:
    """The line with the smaller value at the centre, which encloses less area."""
    wins = second[0] * centre + second[1] < first[0] * centre + first[1]
    return xp.where(wins, second[0], first[0]), xp.where(wins, second[1], first[1])


def mirrored(line: Line) -> Line:
    """The line of ``-f`` from the line of ``f``."""
    return -line[0], -line[1]


def point_in(lower: Array, upper: Array, position: Array | None) -> Array:
    """The point at `position` in [0, 1] of the interval; the middle for None."""
    if position is None:
        return 0.5 * (lower + upper)
    return (lower + position * (upper - lower)).clip(lower, upper)
