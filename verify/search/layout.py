"""What all domains of an activation search share: its root, and what their columns stand for.

Only entries that the root left undecided can change, so only those are stored, as *slots*: columns shared by all
domains. Weights of free lines are stored likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Base, Parameters, Splits, ancestors
from ..bounding.interval import intersect, node_interval
from ..ops import rule
from ..ops.arrays import unit_roundoff
from .branches import Branches
from .points import point_table

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    def root(self, base: Array, clause: Array, mixture: Array, weights: Array, bound: Array | None = None) -> Branches:
        """Domains without splits, for the given bases and clauses ``[N]`` with their bounds ``[N]`` (minus infinity if
        not given)."""
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
        if bound is None:
            bound = xp.full((count,), -xp.inf, dtype=dtype, **options)
        return Branches(
            base,
            clause,
            bound,
            bound,
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
        return Base(self.base.plan, lower, upper, intervals, self.base.charges)

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
        open_ = plan.among_relevant(node, undecided(low, high, kinks, opened))
        entries = xp.nonzero(xp.any(open_, axis=0))[0]
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
