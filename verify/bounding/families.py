"""Families of lines: what the optimiser of alpha-CROWN may choose from at every nonlinear entry.

A relaxation has free lines: the slope below an undecided ReLU, the weights of a plane below a maximum, tangent points.
A family holds two sound members, the lines at ``slope = 0`` and at ``slope = 1`` of the operator table; every convex
mixture of two sound lines is sound. Lower and upper lines have a weight each, per row and entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..ops import rule
from ..ops.arrays import unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Node
    from ..ops.rule import Interval


@dataclass(frozen=True, eq=False)
class Side:
    """Lines below (or above) at weight w: slopes ``slopes[k] + w * changes[k]``, intercept ``intercept + w *
    intercept_change``; arrays ``[B, n]``. `changes` is None where the line is not free; intercepts None where zero.
    """

    slopes: tuple[Array, ...]
    intercept: Array
    changes: tuple[Array, ...] | None = None
    intercept_change: Array = None

    def rows(self, index: Array) -> Side:
        """The side for the batch entries in `index`."""

        def cut(x: Array | None) -> Array | None:
            return x if x is None or x.shape[0] == 1 else x[index]

        return Side(
            tuple(cut(x) for x in self.slopes),
            cut(self.intercept),
            None if self.changes is None else tuple(cut(x) for x in self.changes),
            cut(self.intercept_change),
        )


@dataclass(frozen=True, eq=False)
class Family:
    """The lines below and above of an elementwise nonlinear node on a batch of input intervals.

    through_origin   the line below is ``w x`` and the one above is not free (an undecided ReLU); decided entries have
                     fixed weights, 1 or 0, and `free` is 0 there. Weights then are slopes, and the innermost step is
                     shorter.
    start            for each side the weights ``[B, n]`` nearest to the operator's own choice, or None where the line
                     is not free.
    """

    lower: Side
    upper: Side
    through_origin: bool
    free: Array
    start: tuple[Array, Array]

    def rows(self, index: Array) -> Family:
        """The family for the batch entries in `index`."""

        def cut(x: Array | None) -> Array | None:
            return x if x is None or x.shape[0] == 1 else x[index]

        return Family(
            self.lower.rows(index),
            self.upper.rows(index),
            self.through_origin,
            cut(self.free),
            (cut(self.start[0]), cut(self.start[1])),
        )


def make_family(node: Node, intervals: Sequence[Interval]) -> Family:
    """The family of an elementwise nonlinear node from its inputs' intervals ``[B, *shape]``.

    Raises ValueError for an operator without an elementwise relaxation.
    """
    operator = rule(node.op)
    if operator.relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    if node.op == "Relu":
        return _relu(node, intervals)
    xp = array_namespace(intervals[0][0])
    shape = max((pair[0] for pair in intervals), key=lambda x: x.shape[0])
    first = operator.relax(node, intervals, xp.zeros_like(shape))
    second = operator.relax(node, intervals, xp.ones_like(shape))
    own = operator.relax(node, intervals)
    lower = _side(
        node, intervals, (first.lower_slopes, first.lower_intercept), (second.lower_slopes, second.lower_intercept), -1
    )
    upper = _side(
        node, intervals, (first.upper_slopes, first.upper_intercept), (second.upper_slopes, second.upper_intercept), 1
    )
    return Family(lower, upper, False, None, (_nearest(lower, own.lower_slopes), _nearest(upper, own.upper_slopes)))


def _nearest(side: Side, slopes: Sequence[Array]) -> Array | None:
    """The weights at which the first free slope is nearest to the given one."""
    if side.changes is None:
        return None
    xp = array_namespace(side.changes[0])
    weights = xp.full_like(side.changes[0], 0.5)
    for wanted, slope, change in zip(slopes, side.slopes, side.changes, strict=True):
        usable = change != 0
        ratio = (wanted.reshape(change.shape) - slope) / xp.where(usable, change, 1.0)
        weights = xp.where(usable & (weights == 0.5), xp.clip(ratio, 0.0, 1.0), weights)
    return xp.where(xp.isfinite(weights), weights, 0.5)


def _relu(node: Node, intervals: Sequence[Interval]) -> Family:
    low, high = (end.reshape(end.shape[0], -1) for end in intervals[0])
    operator = rule(node.op)
    lines = operator.relax(node, intervals) if operator.relax is not None else None
    if lines is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    xp = array_namespace(low)
    size = node.size
    above = lines.upper_slopes[0].reshape(-1, size)
    # An overflowing interval has the line 0 x + upper above; no other slope below than 0 keeps its products finite.
    free = xp.astype((low < 0) & (high > 0) & (above > 0), low.dtype)
    start = lines.lower_slopes[0].reshape(-1, size)
    return Family(
        Side((start,), None),
        Side((above,), lines.upper_intercept.reshape(-1, size)),
        True,
        free,
        (start, None),
    )


def _side(
    node: Node,
    intervals: Sequence[Interval],
    first: tuple[tuple[Array, ...], Array],
    second: tuple[tuple[Array, ...], Array],
    outward: int,
) -> Side:
    """Mixtures of two lines, the intercepts moved outward by what rounding can do to a mixed slope."""
    size = node.size
    slopes = tuple(x.reshape(-1, size) for x in first[0])
    intercept = first[1].reshape(-1, size)
    others = tuple(x.reshape(-1, size) for x in second[0])
    other = second[1].reshape(-1, size)
    changes = tuple(b - a for a, b in zip(slopes, others, strict=True))
    change = other - intercept
    fixed = not any(_any(x) for x in (*changes, change))
    if fixed:
        return Side(slopes, intercept if _any(intercept) else None)
    xp = array_namespace(intercept)
    reach = abs(intercept) + abs(other)
    for a, b, (low, high) in zip(slopes, others, intervals, strict=True):
        extent = xp.maximum(abs(low), abs(high)).reshape(-1, size)
        reach = reach + (abs(a) + abs(b)) * xp.where(xp.isfinite(extent), extent, 0.0)
    mixed = xp.zeros_like(change)
    for x in (*changes, change):
        mixed = xp.maximum(mixed, xp.astype(x != 0, x.dtype))
    return Side(slopes, intercept + outward * 4.0 * unit_roundoff(intercept) * reach * mixed, changes, change)


def _any(x: Array) -> bool:
    return bool((x != 0).any()) if isinstance(x, np.ndarray) else bool((x != 0).any().item())
