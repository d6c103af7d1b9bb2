"""Domains of activation branch-and-bound: which entry was split where, what is known of the others, and the best
parameters so far; structures of arrays, so that a batch of them is a batch of rows for `bounding.alpha`.

A domain is a base (a box with root bounds), a clause, and a list of split constraints, about the columns of a `Layout`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from .rounds import take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array


@dataclass(frozen=True, eq=False)
class Branches:
    """``N`` domains.

    base, clause  integers ``[N]``;  bound ``[N]``: proven lower bound of the clause's margin;  first ``[N]``: the one
                  before any split.
    low, high     bounds ``[N, slots]``;  weights ``[N, weights]``;  mixture ``[N, S]`` weights of the clause's rows.
    slot          integers ``[N, D]``: the splits (-1 for none), with sign, point and multiplier beta ``[N, D]``.
    next          integers ``[N, 1]``: the slot to split next (-1 for none).
    """

    base: Array
    clause: Array
    bound: Array
    first: Array
    low: Array
    high: Array
    weights: Array
    mixture: Array
    slot: Array
    sign: Array
    point: Array
    beta: Array
    next: Array

    def __len__(self) -> int:
        return int(self.base.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def pick(self, index: Array | slice) -> Branches:
        """The sub-batch at `index`."""
        return Branches(*(getattr(self, field.name)[index] for field in fields(self)))


def join(parts: Sequence[Branches]) -> Branches:
    """One batch of all parts (numbers of splits may differ)."""
    if len(parts) == 1:
        return parts[0]
    xp = array_namespace(parts[0].low)
    padded = {"slot": -1, "sign": 0, "point": 0, "beta": 0, "next": -1}
    columns = {}
    for field in fields(Branches):
        arrays = [getattr(part, field.name) for part in parts]
        if field.name in padded:
            width = max(x.shape[1] for x in arrays)
            arrays = [_widen(x, width, padded[field.name]) for x in arrays]
        columns[field.name] = xp.concat(arrays, axis=0)
    return Branches(**columns)


def _widen(x: Array, width: int, fill: int) -> Array:
    if x.shape[1] == width:
        return x
    xp = array_namespace(x)
    more = xp.full((x.shape[0], width - x.shape[1]), fill, dtype=x.dtype, **options_like(x))
    return xp.concat([x, more], axis=1)


def split(domains: Branches, column: int, points: Array, opened: tuple[Array, Array] | None = None) -> Branches:
    """The children of every domain at the slot ``next[:, column]`` and the points ``[N]``; domains without a slot
    there stay as they are.

    The lower parts come first, then the upper ones. Where the lower (upper) part is `opened` (two masks ``[N]``), it
    ends at the next floating-point number, which stands for excluding the point; with both, a third child has the point
    alone.
    """
    xp = array_namespace(domains.low)
    slots = domains.next[:, column]
    whole = xp.nonzero(slots < 0)[0]
    index = xp.nonzero(slots >= 0)[0]
    parents, slots, points = domains.pick(index), slots[index], points[index]
    ends = {-1: points, 1: points}
    apart = xp.zeros((0,), dtype=index.dtype, **options_like(domains.low))
    if opened is not None:
        for sign, mask in zip((-1, 1), opened, strict=True):
            ends[sign] = xp.where(mask[index], xp.nextafter(points, xp.full_like(points, sign * xp.inf)), points)
        apart = xp.nonzero(opened[0][index] & opened[1][index])[0]
    row = xp.arange(index.shape[0], **options_like(domains.low))
    children = []
    for sign, edge in ends.items():
        low, high = parents.low + 0, parents.high + 0
        # A part that is empty, of a split at an end, stands for that end.
        if sign > 0:
            low[row, slots] = xp.minimum(xp.maximum(low[row, slots], edge), high[row, slots])
        else:
            high[row, slots] = xp.maximum(xp.minimum(high[row, slots], edge), low[row, slots])
        children.append(_constrained(replace(parents, low=low, high=high), slots, sign, points))
    if apart.shape[0]:
        at, slots, points = parents.pick(apart), slots[apart], points[apart]
        row = row[: apart.shape[0]]
        low, high = at.low + 0, at.high + 0
        low[row, slots] = high[row, slots] = points
        at = _constrained(replace(at, low=low, high=high), slots, -1, points)
        children.append(_constrained(at, slots, 1, points))
    if whole.shape[0]:
        children.append(domains.pick(whole))
    return join(children)


def _constrained(domains: Branches, slots: Array, sign: int, points: Array) -> Branches:
    """The domains with one more constraint each: ``sign * (value - point) >= 0`` at the slots ``[N]``."""
    xp = array_namespace(domains.low)
    one = xp.ones_like(points)[:, None]
    return replace(
        domains,
        slot=xp.concat([domains.slot, slots[:, None]], axis=1),
        sign=xp.concat([domains.sign, sign * one], axis=1),
        point=xp.concat([domains.point, points[:, None]], axis=1),
        beta=xp.concat([domains.beta, 0 * one], axis=1),
    )


class BranchPool:
    """Open domains. Taken are those that were pushed last, of these the ones with the lowest bounds first: depth
    first keeps the pool short, and the hardest domain decides whether a witness exists."""

    def __init__(self) -> None:
        self.blocks: list[Branches] = []

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    @property
    def bound(self) -> float:
        """The smallest bound of all open domains; infinite when there is none."""
        return min((float(block.bound.min()) for block in self.blocks), default=float("inf"))

    def push(self, domains: Branches) -> None:
        """Add domains (none is ignored)."""
        if len(domains):
            # The last ones are taken first.
            self.blocks.append(domains.pick(array_namespace(domains.bound).argsort(-domains.bound)))

    def pop(self, count: int) -> Branches:
        """Take up to `count` domains (at least one must be there)."""
        return join(take(self.blocks, count))
