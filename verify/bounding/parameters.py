"""What optimised bounds are about: the rows, the constraints of splits, and the parameters that may be moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..arrays import array_namespace
from ..ops.arrays import zeros_like_shape
from .charges import Charges
from .families import Family, make_family
from .updates import put

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array
    from ..ops.rule import Interval
    from .plan import Plan


T = TypeVar("T")

BETA_UNIT = 3.0
"""Multipliers move this much, in units of bound per width of the interval, where a line's weight moves by one."""


def required(value: T | None, what: str) -> T:
    """The value; raises ValueError where it is missing, saying what is."""
    if value is None:
        raise ValueError(f"an ascent of this kind needs {what}")
    return value


class Splits(NamedTuple):
    """Constraints ``sign * (value - point) >= 0`` on entries of one node: arrays ``[K]``; `row` says which row of the
    batch each one binds."""

    row: Array
    entry: Array
    sign: Array
    point: Array


def squared_unit(split: Splits, interval: Interval) -> Array:
    """The squared unit ``[K]`` of the constraints' multipliers, from the bounds of the node ``[B, *shape]``."""
    low, high = (end.reshape(end.shape[0], -1) for end in interval)
    place = split.row if low.shape[0] > 1 else 0 * split.row
    width = (high - low)[place, split.entry]
    return (BETA_UNIT / array_namespace(width).where(width > 0, width, 1.0)) ** 2


@dataclass(frozen=True, eq=False)
class Mixture:
    """Clauses of several rows: ``rows [R, S, m]``, ``offsets [R, S]`` (infinite for padding). The batch row is their
    weighted sum with weights >= 0 that sum to 1."""

    rows: Array
    offsets: Array


class Objective(NamedTuple):
    """Rows of another node's value to bound under the side constraint that the mixture's rows are <= 0: seeds ``[R,
    *shape]`` and constants ``[R]`` at `node`, and ``width [R]``, about how far the bound may move."""

    node: int
    seeds: Array
    constants: Array
    width: Array


class Reached(NamedTuple):
    """An evaluation under way before the node at place `number` of the order: waiting coefficients by node, constants,
    their magnitudes added up, and what rounding may have taken otherwise ``[R]``."""

    number: int
    pending: dict[int, Array]
    total: Array
    sizes: Array
    lost: Array

    def rows(self, index: Array) -> Reached:
        """The same of the rows at `index`."""
        pending = {node: a[index] for node, a in self.pending.items()}
        return Reached(self.number, pending, self.total[index], self.sizes[index], self.lost[index])


@dataclass
class Parameters:
    """Weights of lines ``[R, n]`` by node (lower and upper, None where not free), multipliers ``[K]`` by split node,
    mixture weights ``[R, S]``, multipliers ``[R]`` of the side constraint of an `Objective`."""

    lines: dict[int, tuple[Array | None, Array | None]] = field(default_factory=dict)
    betas: dict[int, Array] = field(default_factory=dict)
    mixture: Array | None = None
    side: Array | None = None

    @property
    def count(self) -> int:
        """Number of rows (of a mixture's parameters)."""
        return 0 if self.mixture is None else int(self.mixture.shape[0])

    def copy(self) -> Parameters:
        """The same values in arrays of their own."""
        lines = {node: (_copy(below), _copy(above)) for node, (below, above) in self.lines.items()}
        betas = {node: beta + 0 for node, beta in self.betas.items()}
        return Parameters(lines, betas, _copy(self.mixture), _copy(self.side))

    def adopt(self, other: Parameters, better: Array, splits: Mapping[int, Splits]) -> None:
        """Take over the other's values for the rows that the mask ``[R]`` names, in place."""
        for node, pair in other.lines.items():
            for mine, theirs in zip(self.lines[node], pair, strict=True):
                if theirs is not None:
                    put(required(mine, "the same free lines"), theirs, better[:, None])
        for node, beta in other.betas.items():
            put(self.betas[node], beta, better[splits[node].row])
        if other.mixture is not None:
            put(required(self.mixture, "weights of the mixture"), other.mixture, better[:, None])
        if other.side is not None:
            put(required(self.side, "multipliers of its side constraint"), other.side, better)

    def rows(self, index: Array, kept: Mapping[int, Array]) -> Parameters:
        """The parameters of the rows at `index`; `kept` says which multipliers of each node are theirs."""

        def cut(x: Array | None) -> Array | None:
            return None if x is None else x[index]

        return Parameters(
            {node: (cut(below), cut(above)) for node, (below, above) in self.lines.items()},
            {node: beta[kept[node]] for node, beta in self.betas.items()},
            cut(self.mixture),
            cut(self.side),
        )


def starting(
    own: Parameters,
    like: Array,
    families: Mapping[int, Family],
    splits: Mapping[int, Splits],
    mixture: Mixture | None,
    sided: bool,
) -> Parameters:
    """The given parameters, completed for all free lines, splits, clauses and (if `sided`) side constraints of the rows
    ``like [R, ...]``."""
    count = int(like.shape[0])
    xp = array_namespace(like)
    lines: dict[int, tuple[Array | None, Array | None]] = {}
    for node, family in families.items():
        pair = []
        for known, start in zip(own.lines.get(node, (None, None)), family.start, strict=True):
            # A line that is not free on these bounds has no weight, even if it has been free on wider ones.
            if known is not None and family.through_origin:
                known = xp.where(required(family.free, "a mask of free slopes") > 0, known, start)
            if known is None and start is not None:
                known = xp.broadcast_to(start, (count, start.shape[1])) + 0
            pair.append(None if start is None else known)
        lines[node] = (pair[0], pair[1])
    betas = {node: own.betas.get(node, zeros_like_shape(split.row.shape, like)) for node, split in splits.items()}
    weights = own.mixture
    if mixture is not None and weights is None:
        present = xp.astype(xp.isfinite(mixture.offsets), like.dtype)
        weights = present / xp.sum(present, axis=1, keepdims=True)
    side = own.side
    if sided and side is None:
        side = zeros_like_shape((count,), like)
    return Parameters(lines, betas, weights, side)


@dataclass(frozen=True, eq=False)
class Base:
    """What the optimiser takes as given: boxes ``[B, n]`` and bounds ``[B, *shape]`` of the inputs of nonlinear nodes
    by node index (others may be absent); B is 1 or the number of rows.

    charges   what rounding may take from coefficients at each node, on all boxes; those of a base with wider bounds
              serve as well, and need not be worked out again.
    """

    plan: Plan
    lower: Array
    upper: Array
    intervals: Mapping[int, Interval]
    charges: Charges = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Charges that are not given follow from the bounds."""
        if self.charges is None:
            known = {self.plan.input: _shaped(self.plan, self.lower, self.upper), **self.intervals}
            object.__setattr__(self, "charges", Charges(self.plan.graph, known, self.lower, joint=True))

    def rows(self, index: Array) -> Base:
        """The base of the batch entries at `index`."""

        def cut(x: Array) -> Array:
            return x if x.shape[0] == 1 else x[index]

        intervals = {node: (cut(low), cut(high)) for node, (low, high) in self.intervals.items()}
        return Base(self.plan, cut(self.lower), cut(self.upper), intervals, self.charges)

    def undecided(self, target: int) -> Array:
        """Which entries ``[B, n]`` of a node that a nonlinear one reads have bounds worth optimising."""
        low, high = (end.reshape(end.shape[0], -1) for end in self.intervals[target])
        mask = (low < 0) & (high > 0) if self.plan.targets[target].kinked else high > low
        return self.plan.among_relevant(target, mask)

    def families(self, start: int) -> dict[int, Family]:
        """The families of the elementwise nonlinear ancestors of a node."""
        nodes = self.plan.graph.nodes
        return {
            index: make_family(nodes[index], [self.intervals[source] for source in nodes[index].inputs])
            for index in ancestors(self.plan, start)
            if index in self.plan.elementwise
        }


def _shaped(plan: Plan, lower: Array, upper: Array) -> Interval:
    shape = plan.graph.nodes[plan.input].shape
    return lower.reshape(-1, *shape), upper.reshape(-1, *shape)


def ancestors(plan: Plan, start: int) -> list[int]:
    """The node and everything that it is computed from, last first."""
    wanted = {start}
    for index in range(start, -1, -1):
        if index in wanted:
            wanted.update(plan.graph.nodes[index].inputs)
    return sorted(wanted, reverse=True)


def _copy(x: Array | None) -> Array | None:
    return None if x is None else x + 0
