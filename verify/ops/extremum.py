"""Maximum and minimum of several variables (max-pooling and reductions, too)."""

from __future__ import annotations

import math
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from ..graph import Array, Node
from .arrays import quiet, same_batch, smallest, unit_roundoff
from .rule import Interval, Lines, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Plane = tuple[tuple[Array, ...], Array]


def _max(node: Node, xs: Sequence[Array]) -> Array:
    return reduce(array_namespace(*xs).maximum, xs)


def _max_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    return _max(node, [lower for lower, _ in intervals]), _max(node, [upper for _, upper in intervals])


def _aligned(intervals: Sequence[Interval]) -> list[Interval]:
    """All intervals with one batch size."""
    ends = same_batch([end for pair in intervals for end in pair])
    return list(zip(ends[::2], ends[1::2], strict=True))


@quiet
def _max_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    """Below: the input with the largest lower bound, mixed by `slope` with the one that reaches highest. Above: see
    `_above`.
    """
    intervals = _aligned(intervals)
    xp = array_namespace(*intervals[0])
    chosen = _first_largest(xp, [lower for lower, _ in intervals])
    blur = xp.zeros_like(chosen[0])
    if slope is not None:
        reaching = _first_largest(xp, [upper for _, upper in intervals])
        extent = reduce(xp.maximum, [xp.maximum(abs(lower), abs(upper)) for lower, upper in intervals])
        weight = xp.where(xp.isfinite(extent), slope, 0.0)
        chosen = tuple(p + weight * (q - p) for p, q in zip(chosen, reaching, strict=True))
        # Rounded weights need not add up to one.
        mixed = reduce(lambda p, q: p | q, [(k > 0) & (k < 1) for k in chosen])
        blur = 2.0 * unit_roundoff(extent) * xp.where(mixed, extent, 0.0)
    slopes, intercept = _above(xp, intervals, slope)
    return Lines(chosen, -blur, slopes, intercept)


def _first_largest(xp: Any, values: Sequence[Array]) -> tuple[Array, ...]:
    """For every value 1.0 where it is the first of the largest ones, else 0.0."""
    largest = reduce(xp.maximum, values)
    free = xp.ones_like(largest)
    picks = []
    for value in values:
        pick = xp.where(value == largest, free, 0.0)
        free = free - pick
        picks.append(pick)
    return tuple(picks)


def _above(xp: Any, intervals: Sequence[Interval], slope: Array | None) -> Plane:
    """The plane of `_chained`, mixed by `slope` with the constant maximum of the upper bounds; for None the one of them
    that is lower at the centres.

    One input that is never below any other is the maximum exactly.
    """
    highest = reduce(xp.maximum, [upper for _, upper in intervals])
    slopes, intercept = _chained(xp, intervals)
    at_centre = intercept
    for k, (lower, upper) in zip(slopes, intervals, strict=True):
        at_centre = at_centre + xp.where(k > 0, k * (0.5 * lower + 0.5 * upper), 0.0)
    # A comparison with NaN is false, so that an infinite end falls back to the constant, too.
    exact = reduce(lambda p, q: p | q, [k == 1.0 for k in slopes]) & (intercept == 0.0)
    usable = xp.isfinite(intercept)
    if slope is not None:
        share = xp.where(exact, 1.0, xp.where(usable, 1.0 - slope, 0.0))
        extent = reduce(xp.maximum, [xp.maximum(abs(lower), abs(upper)) for lower, upper in intervals])
        # What rounding does to the mixed slopes, times how far the inputs are from 0.
        rounding = 4.0 * unit_roundoff(share) * len(intervals) * xp.where(share > 0, extent, 0.0)
        mixed = xp.where(share > 0, share * intercept, 0.0) + xp.where(
            share < 1, (1.0 - share) * highest + rounding, 0.0
        )
        return tuple(xp.where(share > 0, share * k, 0.0) for k in slopes), mixed
    keep = exact | (usable & (at_centre < highest))
    return tuple(xp.where(keep, k, 0.0) for k in slopes), xp.where(keep, intercept, highest)


def _chained(xp: Any, intervals: Sequence[Interval]) -> Plane:
    """``max(m, x) = x + relu(m - x)``, one input after the other.

    With ``d = m - x`` in ``[dl, du]`` the line above ReLU has a slope k in [0, 1] and an intercept c, so that
    ``max(m, x) <= k m + (1 - k) x + c``, in which m's own plane may stand.
    """
    (low, high), *others = intervals
    slopes: list[Array] = [xp.ones_like(low)]
    intercept = xp.zeros_like(low)
    for lower, upper in others:
        weight, offset = _bridge(xp, low, high, lower, upper)
        slopes = [k * weight for k in slopes]
        slopes.append(1.0 - weight)
        intercept = xp.where(weight > 0, weight * intercept, 0.0) + offset
        low, high = xp.maximum(low, lower), xp.maximum(high, upper)
    return tuple(slopes), intercept


def _bridge(xp: Any, low: Array, high: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Slope and intercept of the line above ``relu(m - x)`` for m in ``[low, high]`` and x in ``[lower, upper]``."""
    first_wins, second_wins = low >= upper, lower >= high
    open_ = ~(first_wins | second_wins)
    most, least = xp.where(open_, high - lower, 1.0), xp.where(open_, low - upper, -1.0)
    width = most - least
    weight = (most / width).clip(0.0, 1.0)
    extent = xp.where(open_, xp.maximum(xp.maximum(abs(low), abs(high)), xp.maximum(abs(lower), abs(upper))), 0.0)
    offset = -weight * least + 8.0 * unit_roundoff(low) * extent + smallest(low)
    # A width that overflows leaves no line; callers fall back to the constant where the intercept is not finite.
    offset = xp.where(width < math.inf, offset, math.inf)
    return (
        xp.where(first_wins, 1.0, xp.where(second_wins, 0.0, weight)),
        xp.where(open_, offset, 0.0),
    )


def _max_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    xp = array_namespace(gradient)
    return tuple(gradient * pick for pick in _first_largest(xp, same_batch(xs)))


def _min(node: Node, xs: Sequence[Array]) -> Array:
    return reduce(array_namespace(*xs).minimum, xs)


def _min_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    return _min(node, [lower for lower, _ in intervals]), _min(node, [upper for _, upper in intervals])


def _min_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    """``min x = -max -x``."""
    lines = _max_relax(node, [(-upper, -lower) for lower, upper in intervals], slope)
    return Lines(lines.upper_slopes, -lines.upper_intercept, lines.lower_slopes, -lines.lower_intercept)


def _min_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return _max_vjp(node, [-x for x in xs], -y, gradient)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Max": OpRule(_max, _max_interval, relax=_max_relax, vjp=_max_vjp, summary="Maximum of any number of inputs."),
        "Min": OpRule(_min, _min_interval, relax=_min_relax, vjp=_min_vjp, summary="Minimum of any number of inputs."),
    }
)
