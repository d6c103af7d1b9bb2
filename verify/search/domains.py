"""The pool of open domains: structures of arrays, taken and returned in batches, last in first out.

Depth first keeps the pool short (about batch size times depth), which bounds memory without ever dropping a domain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..arrays import array_namespace
from .rounds import take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array
    from ..ops.rule import Interval


@dataclass(frozen=True, eq=False)
class Domains:
    """``N`` boxes with what is known about them.

    lower, upper   ``[N, n]`` in the search's dtype.
    group          ``[N]`` index of the problem's group that the box belongs to.
    active         bool ``[N, K]``: the group's clauses not yet refuted on the box.
    margin         ``[N]``: the largest proven lower bound of the violation margin on the parent, over its open
                   clauses the smallest.
    inherited      bounds ``[N, size]`` of the plan's targets from the parent, by node index; empty where they are not
                   kept.
    """

    lower: Array
    upper: Array
    group: Array
    active: Array
    margin: Array
    inherited: dict[int, Interval]

    def __len__(self) -> int:
        return int(self.lower.shape[0])

    def pick(self, index: Array | slice) -> Domains:
        """The sub-batch at `index` (integers, mask or slice)."""
        return Domains(
            self.lower[index],
            self.upper[index],
            self.group[index],
            self.active[index],
            self.margin[index],
            {key: (low[index], high[index]) for key, (low, high) in self.inherited.items()},
        )


def concatenate(parts: Sequence[Domains]) -> Domains:
    """One batch of all parts; inherited bounds are kept only if every part has them."""
    if len(parts) == 1:
        return parts[0]
    xp = array_namespace(parts[0].lower)

    def join(arrays: list[Array]) -> Array:
        return xp.concat(arrays, axis=0)

    shared = set(parts[0].inherited).intersection(*(part.inherited for part in parts[1:]))
    return Domains(
        join([part.lower for part in parts]),
        join([part.upper for part in parts]),
        join([part.group for part in parts]),
        join([part.active for part in parts]),
        join([part.margin for part in parts]),
        {
            key: (join([part.inherited[key][0] for part in parts]), join([part.inherited[key][1] for part in parts]))
            for key in sorted(shared)
        },
    )


@dataclass
class Pool:
    """Open domains in blocks, newest last."""

    blocks: list[Domains] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    @property
    def margin(self) -> float:
        """The smallest margin bound of all open domains; infinite when there is none."""
        return min((float(block.margin.min()) for block in self.blocks), default=float("inf"))

    def push(self, domains: Domains) -> None:
        """Add a block (empty ones are ignored)."""
        if len(domains):
            self.blocks.append(domains)

    def pop(self, count: int) -> Domains:
        """Take up to `count` of the newest domains (at least one must be there)."""
        return concatenate(take(self.blocks, count))
