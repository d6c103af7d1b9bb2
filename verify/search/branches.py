"""Domains of activation branch-and-bound: which entry was split where, what is known of the others, and the best
parameters so far; structures of arrays, so that a batch of them is a batch of rows for `bounding.alpha`.

A domain is a base (a box with root bounds), a clause, and a list of split constraints. Only entries that the root
left undecided can change, so only those are stored, as *slots*: columns shared by all domains. Weights of free lines
are stored likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Base, Parameters, Splits, ancestors
from ..bounding.interval import intersect, node_interval
from ..ops import rule
from ..ops.arrays import unit_roundoff
from .points import point_table
from .rounds import take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..bounding.families import Family
    from ..bounding.plan import Plan, Target
    from ..graph import Array
    from ..ops.rule import Interval
    from .points import PointTable


@dataclass(frozen=True, eq=False)
class Columns:
    """A block of columns: entries (integers ``[C]``) of a node, stored from column `start` on.

    side    0 or 1 for weights of lower or upper lines.
    kinks   for slots: where it is split, or None where any point will do.
    opened  for slots: whether the parts below and above a kink exclude the kink itself (`plan.Target`).
    table   for slots without kinks: where splits are best; None: in the middle.
    box     for slots: whether they are entries of the input whose bounds are the domain's box (`box_slots`).
    """

    node: int
    entries: Array
    start: int
    side: int = 0
    kinks: tuple[float, ...] | None = None
    opened: tuple[bool, bool] = (False, False)
    table: PointTable | None = None
    box: bool = False

    @property
    def stop(self) -> int:
        """The column after the last one."""
        return self.start + int(self.entries.shape[0])


@dataclass(frozen=True, eq=False)
class Layout:
    """What all domains of a search share.

    base      boxes and root bounds ``[N, ...]`` of every node that matters.
    slots     blocks of entries that may be split;  weights  blocks of entries with free lines.
    derived   nodes (in order) whose bounds follow from slots by interval arithmetic (some are slots themselves).
    origin    the base that `base` was condensed from, if it may have been; with bounds of what nonlinear nodes read.
    """

    base: Base
    slots: tuple[Columns, ...]
    weights: tuple[Columns, ...]
    derived: tuple[int, ...]
    origin: Base | None = None

    @property
    def width(self) -> int:
        """Number of slots."""
        return self.slots[-1].stop if self.slots else 0

    @property
    def curved(self) -> bool:
        """Whether some slot that a nonlinear node reads has no kinks."""
        return any(block.kinks is None and block.node in self.base.plan.sources for block in self.slots)

    @property
    def box(self) -> Columns | None:
        """The slots that are entries of the input, if there are any."""
        return next((block for block in self.slots if block.box), None)

    @property
    def bound(self) -> tuple[Columns, ...]:
        """The slots whose splits have multipliers: those of the input narrow the box instead."""
        return tuple(block for block in self.slots if not block.box)

    def root(self, base: Array, clause: Array, mixture: Array, weights: Array) -> Branches:
        """Domains without splits, for the given bases and clauses ``[N]``."""
        xp = array_namespace(self.base.lower)
        options = options_like(base)
        count = base.shape[0]
        parts: list[list[Array]] = [[], []]
        for block in self.slots:
            for end in (0, 1):
                value = self.base.intervals[block.node][end]
                flat = value.reshape(value.shape[0], -1)[:, block.entries]
                parts[end].append(flat[base] if flat.shape[0] > 1 else xp.broadcast_to(flat, (count, flat.shape[1])))
        dtype = self.base.lower.dtype
        empty = xp.zeros((count, 0), dtype=dtype, **options)
        low, high = (xp.concat([*part, empty], axis=1) for part in parts)
        return Branches(
            base,
            clause,
            xp.full((count,), -xp.inf, dtype=dtype, **options),
            low,
            high,
            weights,
            mixture,
            xp.zeros((count, 0), dtype=xp.int64, **options),
            empty,
            empty,
            empty,
            xp.full((count, 1), -1, dtype=xp.int64, **options),
        )

    def opened(self, slots: Array) -> tuple[Array, Array] | None:
        """Whether the lower and upper parts of splits at the slots ``[N]`` are open; None if none is."""
        if not any(side for block in self.slots for side in block.opened):
            return None
        masks = []
        for side in (0, 1):
            mask = slots < -1
            for block in self.slots:
                if block.opened[side]:
                    mask = mask | ((slots >= block.start) & (slots < block.stop))
            masks.append(mask)
        return masks[0], masks[1]

    def bounds(self, domains: Branches) -> Base:
        """The domains' boxes and bounds ``[N, ...]``."""
        nodes = self.base.plan.graph.nodes

        def own(x: Array) -> Array:
            return x if x.shape[0] == 1 else x[domains.base]

        intervals: dict[int, Interval] = {
            node: (own(low), own(high)) for node, (low, high) in self.base.intervals.items()
        }
        count = len(domains)
        for block in self.slots:
            ends = []
            for value, known in zip(intervals[block.node], (domains.low, domains.high), strict=True):
                flat = array_namespace(value).broadcast_to(
                    value.reshape(value.shape[0], -1), (count, nodes[block.node].size)
                )
                flat = flat + 0
                flat[:, block.entries] = known[:, block.start : block.stop]
                ends.append(flat.reshape(count, *nodes[block.node].shape))
            intervals[block.node] = (ends[0], ends[1])
        own_slots = {block.node for block in self.slots}
        for index in self.derived:
            node = nodes[index]
            found = node_interval(node, rule(node.op), [intervals[source] for source in node.inputs])
            # Entries of a node that is split itself may be known better, or worse: a split below them counts, too.
            intervals[index] = intersect(intervals[index], found) if index in own_slots else found
        lower, upper = own(self.base.lower), own(self.base.upper)
        if self.box is not None:
            lower, upper = (end.reshape(count, -1) for end in intervals[self.box.node])
        return Base(self.base.plan, lower, upper, intervals)

    def parameters(self, domains: Branches, families: Mapping[int, Family]) -> tuple[Parameters, dict[int, Splits]]:
        """The stored parameters in the optimiser's form, and the split constraints by node."""
        xp = array_namespace(domains.low)
        count = len(domains)
        lines: dict[int, tuple[Array, Array]] = {}
        for node, family in families.items():
            pair: list[Array] = [
                None if x is None else xp.broadcast_to(x, (count, x.shape[1])) + 0 for x in family.start
            ]
            for block in self.weights:
                if block.node == node and pair[block.side] is not None:
                    known = domains.weights[:, block.start : block.stop]
                    if family.through_origin:
                        # A slot that a split decided has its slope fixed at 1 or 0.
                        free = xp.broadcast_to(family.free, (count, family.free.shape[1]))[:, block.entries]
                        known = xp.where(free > 0, known, pair[block.side][:, block.entries])
                    pair[block.side][:, block.entries] = known
            lines[node] = (pair[0], pair[1])
        splits, betas = {}, {}
        for block in self.bound:
            row, place = xp.nonzero((domains.slot >= block.start) & (domains.slot < block.stop))
            if row.shape[0]:
                entry = block.entries[domains.slot[row, place] - block.start]
                splits[block.node] = Splits(row, entry, domains.sign[row, place], domains.point[row, place])
                betas[block.node] = domains.beta[row, place]
        return Parameters(lines, betas, domains.mixture), splits

    def stored(self, domains: Branches, parameters: Parameters) -> Branches:
        """The domains with the optimiser's parameters put back."""
        xp = array_namespace(domains.low)
        weights = []
        for block in self.weights:
            known = parameters.lines[block.node][block.side]
            # A line that is free at the root may be free in no domain of the batch.
            weights.append(domains.weights[:, block.start : block.stop] if known is None else known[:, block.entries])
        beta = domains.beta + 0
        for block in self.bound:
            row, place = xp.nonzero((domains.slot >= block.start) & (domains.slot < block.stop))
            if row.shape[0]:
                beta[row, place] = parameters.betas[block.node]
        return replace(
            domains,
            weights=xp.concat(weights, axis=1) if weights else domains.weights,
            beta=beta,
            mixture=parameters.mixture,
        )


@dataclass(frozen=True, eq=False)
class Branches:
    """``N`` domains.

    base, clause  integers ``[N]``;  bound ``[N]``: proven lower bound of the clause's margin.
    low, high     bounds ``[N, slots]``;  weights ``[N, weights]``;  mixture ``[N, S]`` weights of the clause's rows.
    slot          integers ``[N, D]``: the splits (-1 for none), with sign, point and multiplier beta ``[N, D]``.
    next          integers ``[N, 1]``: the slot to split next (-1 for none).
    """

    base: Array
    clause: Array
    bound: Array
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


def undecided(
    low: Array, high: Array, kinks: tuple[float, ...] | None, opened: tuple[bool, bool] = (False, False)
) -> Array:
    """Whether an entry with these bounds can be split: a kink lies inside (or at an end that a step jumps at) or,
    without kinks, the interval has a width that floating point can halve."""
    xp = array_namespace(low)
    if kinks is None:
        return high - low > 64 * unit_roundoff(low) * (abs(low) + abs(high))
    inside = xp.zeros(low.shape, dtype=xp.bool, **options_like(low))
    for kink in kinks:
        inside = inside | kink_inside(low, high, kink, opened)
    return inside


def kink_inside(low: Array, high: Array, kink: float, opened: tuple[bool, bool]) -> Array:
    """Whether the kink parts the interval: parts that are closed there need some width on both sides."""
    inside = (low < kink) & (high > kink)
    if opened[0]:
        inside = inside | ((low < kink) & (high >= kink))
    if opened[1]:
        inside = inside | ((low <= kink) & (high > kink))
    return inside


STAIRS_AT_MOST = 64
"""Kinks of a node up to which an operator with one at every whole number is split at them; beyond, anywhere."""


def _kinks_of(target: Target, low: Array, high: Array) -> tuple[float, ...] | None:
    """Where entries with these bounds are split."""
    if target.stairs is None or target.kinks is not None:
        return target.kinks
    least, most = float(low.min()), float(high.max())
    if not most - least < STAIRS_AT_MOST:
        return None
    first = math.floor(least - target.stairs) + target.stairs
    return tuple(first + step for step in range(STAIRS_AT_MOST + 2) if least <= first + step <= most)


def make_layout(base: Base, points: str = "table") -> Layout:
    """The layout of a search from root bounds of all nodes ``[N, ...]``; entries without kinks are split at `points`:
    "table" (see `points`) or "middle"."""
    plan = base.plan
    slots: list[Columns] = []
    position = 0
    # The optimiser sees only what the output depends on: elsewhere its bounds would be about nothing.
    reached = set(ancestors(plan, plan.output))
    for node, target in plan.sources.items():
        if node not in reached:
            continue
        low, high = (end.reshape(end.shape[0], -1) for end in base.intervals[node])
        xp = array_namespace(low)
        kinks = _kinks_of(target, low, high)
        opened = target.opened if kinks is not None else (False, False)
        entries = xp.nonzero(xp.any(undecided(low, high, kinks, opened), axis=0))[0]
        if entries.shape[0]:
            table = point_table(plan, node) if points == "table" and kinks is None else None
            slots.append(Columns(node, entries, position, kinks=kinks, opened=opened, table=table))
            position += int(entries.shape[0])
    families = base.families(plan.output)
    weights: list[Columns] = []
    position = 0
    for node in sorted(families):
        family = families[node]
        for side in (0, 1):
            if family.start[side] is None:
                continue
            if family.through_origin:
                movable = family.free > 0
            else:
                changes = (family.lower, family.upper)[side].changes or ()
                movable = sum(abs(x) for x in changes) > 0
            xp = array_namespace(movable)
            entries = xp.nonzero(xp.any(movable, axis=0))[0]
            if entries.shape[0]:
                weights.append(Columns(node, entries, position, side))
                position += int(entries.shape[0])
    return Layout(base, tuple(slots), tuple(weights), derived_from(plan, {block.node for block in slots}))


def derived_from(plan: Plan, slotted: set[int]) -> tuple[int, ...]:
    """Nodes that feed nonlinear nodes and follow from slotted ones by moves, scalings and elementwise functions."""
    nodes = plan.graph.nodes
    needed = {source for index in plan.nonlinear for source in nodes[index].inputs}
    changed = set(slotted)
    derived: list[int] = []
    for index, node in enumerate(nodes):
        cheap = node.op in ("Reshape", "Transpose", "Take", "Scale", "Concat") or index in plan.elementwise
        if cheap and any(source in changed for source in node.inputs):
            changed.add(index)
            derived.append(index)
    wanted: set[int] = set()
    for index in reversed(derived):
        if index in needed or index in wanted or index in slotted:
            wanted.add(index)
            wanted.update(nodes[index].inputs)
    return tuple(index for index in derived if index in wanted)


def start_weights(layout: Layout, parameters: Parameters) -> Array:
    """The optimiser's weights as stored columns ``[R, weights]``."""
    xp = array_namespace(layout.base.lower)
    options = options_like(layout.base.lower)
    columns = [xp.zeros((parameters.count, 0), dtype=layout.base.lower.dtype, **options)]
    for block in layout.weights:
        known = parameters.lines[block.node][block.side]
        if known is None:
            size = int(block.entries.shape[0])
            columns.append(xp.full((parameters.count, size), 0.5, dtype=layout.base.lower.dtype, **options))
        else:
            columns.append(known[:, block.entries])
    return xp.concat(columns, axis=1)
