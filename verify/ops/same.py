"""One value written in two ways, of which every relaxation takes the better one.

Two expressions may be the same function in the reals and yet have different relaxations, none of which is always
better: the softmax through the logarithm of the sum, and through exponentials and a reciprocal. Both are kept; what
reads them reads this node, whose lines are those of either, or a mixture.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ..arrays import array_namespace
from .arrays import quiet, same_batch, smallest, unit_roundoff
from .rule import Interval, Lines, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node


def _same(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0]


def _same_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """What both inputs allow; where rounding leaves nothing, what lies between them."""
    (a_low, a_high), (b_low, b_high) = intervals
    xp = array_namespace(a_low, b_low)
    low, high = xp.maximum(a_low, b_low), xp.minimum(a_high, b_high)
    return xp.minimum(low, high), xp.maximum(low, high)


@quiet
def _same_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    """``(1 - slope) * first + slope * second`` on both sides; by default the first, unless only the second is bounded.

    Intervals say nothing else about which lines are better: what only this node reads has no backward bounds.
    """
    a_low, a_high, b_low, b_high = same_batch([end for pair in intervals for end in pair])
    xp = array_namespace(a_low)
    low, high = _same_interval(node, ((a_low, a_high), (b_low, b_high)))
    one, zero = xp.ones_like(low), xp.zeros_like(low)
    below = xp.where(xp.isfinite(a_low) | ~xp.isfinite(b_low), zero, one)
    above = xp.where(xp.isfinite(a_high) | ~xp.isfinite(b_high), zero, one)
    if slope is None:
        return Lines((1.0 - below, below), zero, (1.0 - above, above), zero)
    extent = xp.maximum(abs(low), abs(high))
    bounded = xp.isfinite(extent)
    # Rounded weights need not add up to one; where that could matter without bound, nothing is mixed.
    below, above = xp.where(bounded, slope, below), xp.where(bounded, slope, above)
    rounded = 2.0 * unit_roundoff(low) * extent + smallest(low)
    blur = xp.where(bounded & (slope > 0) & (slope < 1), rounded, 0.0)
    return Lines((1.0 - below, below), -blur, (1.0 - above, above), blur)


def _same_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return gradient, array_namespace(gradient).zeros_like(gradient)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Same": OpRule(
            _same,
            _same_interval,
            relax=_same_relax,
            vjp=_same_vjp,
            summary="One value written in two ways; its bounds are the better of both.",
        )
    }
)
