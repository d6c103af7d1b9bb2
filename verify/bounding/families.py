"""Families of lines: what the optimiser of alpha-CROWN may choose from at every nonlinear entry.

A relaxation has free lines: the slope below an undecided ReLU, the weights of a plane below a maximum, tangent points.
A family holds sound members, the lines at some values of `slope` of the operator table; every convex mixture of two
sound lines is sound. For piecewise-linear operators the lines at 0 and 1 are enough. Mixtures of tangents touch no
curve, so curved operators have `KNOTS` members, of which neighbours are mixed. Lower and upper lines have a weight
each, per row and entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import array_namespace, options_like
from ..ops import rule
from ..ops.arrays import quiet, unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Node
    from ..ops.rule import Interval, Lines


KNOTS = 9
"""Members of a curved operator's family: the gap of a mixture is a sixty-fourth of that of the tangents at the ends."""


BLOCK = 1 << 12
"""Entries whose lines are worked out at once on a CPU: with all knots they stay in the cache."""


class Knots(NamedTuple):
    """Members of a family in order: slopes ``[K, B, n]``, one array an input, and intercepts ``[K, B, n]``.

    own: the batch entry of each row, integers ``[R]``; None where rows and entries are the same, or B is 1. Many rows
    read the tables of few boxes, which a copy for every row would move out of the cache.
    """

    slopes: tuple[Array, ...]
    intercepts: Array
    own: Array | None = None

    def rows(self, index: Array) -> Knots:
        """The same tables, read by the rows at `index`."""
        if self.intercepts.shape[1] == 1:
            return self
        return self._replace(own=index if self.own is None else self.own[index])


@dataclass(frozen=True, eq=False)
class Side:
    """Lines below (or above) at weight w: slopes ``slopes[k] + w * changes[k]``, intercept ``intercept + w *
    intercept_change``; arrays ``[B, n]``. `changes` is None where the line is not free; intercepts None where zero.

    With `knots`, the line at weight w is the mixture of the two neighbours of ``(K - 1) w`` among them (`at`), and
    `changes` says how far the slopes can move; the other arrays then belong to the knots' batch entries.
    """

    slopes: tuple[Array, ...]
    intercept: Array | None
    changes: tuple[Array, ...] | None = None
    intercept_change: Array | None = None
    knots: Knots | None = None

    def rows(self, index: Array) -> Side:
        """The side for the batch entries in `index`."""
        if self.knots is not None:
            return replace(self, knots=self.knots.rows(index))

        def cut(x: Array | None) -> Array | None:
            return x if x is None or x.shape[0] == 1 else x[index]

        return Side(
            tuple(cut(x) for x in self.slopes),
            cut(self.intercept),
            None if self.changes is None else tuple(cut(x) for x in self.changes),
            cut(self.intercept_change),
        )

    def at(self, weight: Array | None) -> Side:
        """The lines ``[R, n]`` at weights ``[R, n]`` (None where they are not free), and their derivatives by the
        weights as changes."""
        if weight is None:
            return self
        if self.changes is None:
            return Side((weight,), self.intercept)
        if self.knots is not None:
            return _between(self.knots, weight)
        intercept, change = self.intercept, self.intercept_change
        if change is not None:
            intercept = weight * change if intercept is None else intercept + weight * change
        slopes = tuple(slope + weight * move for slope, move in zip(self.slopes, self.changes, strict=True))
        return Side(slopes, intercept, self.changes, change)


def _between(knots: Knots, weight: Array, second: Array | None = None) -> Side:
    """The mixtures of neighbouring knots at weights ``[R, n]``; where the mask `second` is set, of the second half of
    them."""
    xp = array_namespace(weight)
    members, batch, size = knots.intercepts.shape
    count = members if second is None else members // 2
    place = (count - 1) * weight
    # A weight that is no number must make a line that is none.
    first = xp.clip(xp.where(place > 0, xp.floor(place), 0.0), 0, count - 2)
    share = place - first
    entry = xp.arange(size, **options_like(weight))
    box = xp.arange(batch, **options_like(weight)) if knots.own is None else knots.own
    member = xp.astype(first if second is None else first + count * xp.astype(second, first.dtype), xp.int64)
    index = member * (batch * size) + (box[:, None] * size + entry)

    def pick(table: Array) -> tuple[Array, Array]:
        flat = table.reshape(-1)
        start = xp.take(flat, index.reshape(-1)).reshape(index.shape)
        change = xp.take(flat, (index + batch * size).reshape(-1)).reshape(index.shape) - start
        return start + share * change, (count - 1) * change

    pairs = [pick(table) for table in knots.slopes]
    intercept, change = pick(knots.intercepts)
    return Side(tuple(pair[0] for pair in pairs), intercept, tuple(pair[1] for pair in pairs), change)


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

    @cached_property
    def _both(self) -> Knots | None:
        """The knots of both sides, the lower first; None where the lines of a side are not mixtures of knots."""
        lower, upper = self.lower.knots, self.upper.knots
        if lower is None or upper is None or lower.intercepts.shape != upper.intercepts.shape:
            return None
        xp = array_namespace(lower.intercepts)
        slopes = tuple(xp.concat(pair) for pair in zip(lower.slopes, upper.slopes, strict=True))
        return Knots(slopes, xp.concat([lower.intercepts, upper.intercepts]), lower.own)

    def met(self, coefficients: Array, below: Array | None, above: Array | None) -> tuple[Side, Side]:
        """The lines ``[R, n]`` at the weights `below` and `above` (None where they are not free) of which coefficients
        ``[R, n]`` use the lower one where they are positive, the upper one where they are negative; what they do not
        use may be the other line."""
        if self._both is None or below is None or above is None:
            return self.lower.at(below), self.upper.at(above)
        xp = array_namespace(coefficients)
        negative = coefficients < 0
        side = _between(self._both, xp.where(negative, above, below), negative)
        return side, side


def make_family(node: Node, intervals: Sequence[Interval]) -> Family:
    """The family of an elementwise nonlinear node from its inputs' intervals ``[B, *shape]``.

    Raises ValueError for an operator without an elementwise relaxation.
    """
    operator = rule(node.op)
    if operator.relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    if node.op == "Relu":
        return _relu(node, intervals)
    own = operator.relax(node, intervals)
    members = _members(node, intervals, KNOTS if operator.curved else 2)
    lower = _side(node, intervals, members[0], -1)
    upper = _side(node, intervals, members[1], 1)
    return Family(lower, upper, False, None, (_nearest(lower, own.lower_slopes), _nearest(upper, own.upper_slopes)))


def _members(node: Node, intervals: Sequence[Interval], count: int) -> tuple[Knots, Knots]:
    """Lines below and above at `count` evenly spaced values of `slope`; ``K`` is 1 where they are all the same."""
    batch = max(pair[0].shape[0] for pair in intervals)
    step = max(1, BLOCK // node.size) if len(intervals) == 1 and isinstance(intervals[0][0], np.ndarray) else batch
    parts = []
    for start in range(0, batch, step):
        part = [
            (low, high) if step >= batch else (low[start : start + step], high[start : start + step])
            for low, high in intervals
        ]
        lines = _lines_at(node, part, [k / (count - 1) for k in range(count)])
        parts.append((_stacked(lines, node, True), _stacked(lines, node, False)))
    return _joined([part[0] for part in parts]), _joined([part[1] for part in parts])


def _lines_at(node: Node, intervals: Sequence[Interval], values: Sequence[float]) -> list[Lines]:
    """Lines at the values of `slope`: one set for each of them, or one with a leading axis."""
    relax = rule(node.op).relax
    if relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    like = max((pair[0] for pair in intervals), key=lambda x: x.shape[0])
    xp = array_namespace(like)
    if len(intervals) > 1:
        return [relax(node, intervals, xp.full_like(like, value)) for value in values]
    # One call, so that what does not depend on the slope is worked out once.
    positions = xp.asarray(values, dtype=like.dtype, **options_like(like))
    return [relax(node, intervals, positions.reshape(-1, *(1,) * like.ndim))]


def _stacked(lines: Sequence[Lines], node: Node, below: bool) -> Knots:
    """The lines of one side as knots."""
    xp = array_namespace(lines[0].lower_intercept)

    def stack(parts: Sequence[Array]) -> Array:
        if len(parts) > 1:
            return xp.stack(tuple(part.reshape(-1, node.size) for part in parts))
        count = parts[0].shape[0] if parts[0].ndim > len(node.shape) + 1 else 1
        return parts[0].reshape(count, -1, node.size)

    slopes = [line.lower_slopes if below else line.upper_slopes for line in lines]
    intercepts = [line.lower_intercept if below else line.upper_intercept for line in lines]
    return Knots(tuple(stack(parts) for parts in zip(*slopes, strict=True)), stack(intercepts))


def _joined(parts: Sequence[Knots]) -> Knots:
    """The knots of consecutive boxes as those of all."""
    if len(parts) == 1:
        return parts[0]
    xp = array_namespace(parts[0].intercepts)
    slopes = zip(*(part.slopes for part in parts), strict=True)
    intercepts = xp.concat([part.intercepts for part in parts], axis=1)
    return Knots(tuple(xp.concat(columns, axis=1) for columns in slopes), intercepts)


def _nearest(side: Side, slopes: Sequence[Array]) -> Array | None:
    """The weights at which the first free slope is nearest to the given one."""
    if side.changes is None:
        return None
    xp = array_namespace(side.changes[0])
    weights = xp.full_like(side.changes[0], 0.5)
    for position, (wanted, change) in enumerate(zip(slopes, side.changes, strict=True)):
        found = _place(side, position, wanted.reshape(change.shape))
        weights = xp.where((change != 0) & (weights == 0.5), xp.clip(found, 0.0, 1.0), weights)
    return xp.where(xp.isfinite(weights), weights, 0.5)


def _place(side: Side, position: int, wanted: Array) -> Array:
    """The weights ``[B, n]`` at which an input's slope is nearest to the wanted one; 0.5 where it does not move."""
    xp = array_namespace(wanted)
    table = side.knots.slopes[position] if side.knots is not None else None
    if table is None:
        change = (side.changes or ())[position]
        return xp.where(change != 0, (wanted - side.slopes[position]) / xp.where(change != 0, change, 1.0), 0.5)
    pieces = table.shape[0] - 1
    best, nearest = xp.full_like(wanted, 0.5), xp.full_like(wanted, float("inf"))
    for piece in range(pieces):
        start, change = table[piece], table[piece + 1] - table[piece]
        share = xp.clip((wanted - start) / xp.where(change != 0, change, 1.0), 0.0, 1.0)
        distance = abs(start + share * change - wanted)
        closer = distance < nearest
        best, nearest = xp.where(closer, (piece + share) / pieces, best), xp.where(closer, distance, nearest)
    return best


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


@quiet
def _side(node: Node, intervals: Sequence[Interval], members: Knots, outward: int) -> Side:
    """Mixtures of the members, their intercepts moved outward by what rounding can do to a mixed slope."""
    size = node.size
    slopes, intercepts, _ = members
    count = max(x.shape[0] for x in (*slopes, intercepts))
    xp = array_namespace(intercepts)
    tables = [xp.broadcast_to(x, (count, *x.shape[1:])) for x in (*slopes, intercepts)]
    spans = [xp.max(x, axis=0) - xp.min(x, axis=0) for x in tables]
    if not any(_any(x) for x in spans):
        return Side(tuple(x[0] for x in slopes), intercepts[0] if _any(intercepts[0]) else None)
    reach = 2.0 * xp.max(abs(tables[-1]), axis=0)
    for x, (low, high) in zip(tables, intervals, strict=False):
        extent = xp.maximum(abs(low), abs(high)).reshape(-1, size)
        reach = reach + 2.0 * xp.max(abs(x), axis=0) * xp.where(xp.isfinite(extent), extent, 0.0)
    mixed = xp.zeros_like(spans[-1])
    for x in spans:
        mixed = xp.maximum(mixed, xp.astype(x != 0, x.dtype))
    tables[-1] = tables[-1] + outward * 4.0 * unit_roundoff(intercepts) * reach * mixed
    first = [x[0] for x in tables]
    if count == 2:
        changes = [x[1] - x[0] for x in tables]
        return Side(tuple(first[:-1]), first[-1], tuple(changes[:-1]), changes[-1])
    return Side(tuple(first[:-1]), first[-1], tuple(spans[:-1]), spans[-1], Knots(tuple(tables[:-1]), tables[-1]))


def _any(x: Array) -> bool:
    return bool((x != 0).any()) if isinstance(x, np.ndarray) else bool((x != 0).any().item())
