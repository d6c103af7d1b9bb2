"""What a proof of `unsat` needs of a search: where every clause is refuted, and the multipliers that show it.

A checker starts from the recorded root (boxes and bounds of intermediate values), walks the tree that the leaves' lists
of splits span, and repeats one backward pass a leaf with the recorded weights of lines, multipliers of splits and
weights of the clause's rows: any values in range give a sound bound, so nothing recorded has to be believed.

The record is kept in memory and handed over as named arrays; see `Record.arrays` for the format.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import to_numpy
from .branches import Branches, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bounding.intermediate import EntryBounds
    from ..bounding.parameters import Base
    from ..graph import Array
    from ..programs.certified import Weights
    from .layout import Columns, Layout

FORMAT = 1
"""Version of the arrays' names and meanings."""


@dataclass
class BoxRecord:
    """Input splits: clauses refuted on boxes, in parts of arrays ``lower, upper [N, n]``, ``group, clause [N]``. For
    every clause, its boxes cover its group's box.

    A box is refuted by CROWN bounds, in wide networks with forward lines for intermediate values, in narrow ones with
    intervals through affine functions multiplied out, or by the output's interval; where float32 was not enough, in
    float64."""

    parts: list[tuple[Array, Array, Array, Array]] = field(default_factory=list)

    def add(self, lower: Array, upper: Array, group: Array, clause: Array) -> None:
        """Book clauses refuted on boxes."""
        if group.shape[0]:
            self.parts.append((lower, upper, group, clause))

    def arrays(self) -> dict[str, np.ndarray]:
        """The record's arrays by name."""
        columns = zip(*self.parts, strict=True) if self.parts else ((), (), (), ())
        joined = [np.concatenate([to_numpy(x) for x in column]) if column else np.zeros(0) for column in columns]
        lower, upper, group, clause = joined
        return {
            "boxes/lower": lower.astype(np.float64),
            "boxes/upper": upper.astype(np.float64),
            "boxes/group": group,
            "boxes/clause": clause,
        }


@dataclass
class BranchRecord:
    """Activation splits: the root, and every leaf with the parameters that close it.

    first       the root's boxes and CROWN bounds;  layout  its optimised bounds, and which entries columns stand for.
    entries     what optimised bounds of intermediate values, in the order in which it was done.
    leaves      domains closed by a backward pass;  programmes  single domains closed by a linear programme's
                multipliers (None: their bounds contradict each other).
    """

    first: Base | None = None
    layout: Layout | None = None
    entries: list[EntryBounds] = field(default_factory=list)
    leaves: list[Branches] = field(default_factory=list)
    programmes: list[tuple[Branches, Weights | None]] = field(default_factory=list)

    def begin(self, first: Base) -> None:
        """Start anew from CROWN bounds of the root."""
        self.first, self.layout = first, None
        self.entries, self.leaves, self.programmes = [], [], []

    def add(self, closed: Branches) -> None:
        """Book closed domains."""
        if len(closed):
            self.leaves.append(closed)

    def arrays(self) -> dict[str, np.ndarray]:
        """The record's arrays by name."""
        if self.first is None or self.layout is None:
            return {}
        found = {"root/lower": to_numpy(self.first.lower), "root/upper": to_numpy(self.first.upper)}
        for name, base in (("crown", self.first), ("root", self.layout.base)):
            for source in sorted(
                {source for index in base.plan.nonlinear for source in base.plan.graph.nodes[index].inputs}
            ):
                low, high = base.intervals[source]
                found[f"{name}/{source}/lower"], found[f"{name}/{source}/upper"] = to_numpy(low), to_numpy(high)
        found |= {f"slots/{key}": value for key, value in _columns(self.layout.slots)}
        found |= {f"weights/{key}": value for key, value in _columns(self.layout.weights)}
        for number, entry in enumerate(self.entries):
            found |= {f"entries/{number}/{key}": to_numpy(value) for key, value in entry.arrays()}
        if self.leaves:
            found |= {f"leaves/{key}": value for key, value in _fields(join(self.leaves))}
        for number, (domain, weights) in enumerate(self.programmes):
            found |= {f"programmes/{number}/{key}": value for key, value in _fields(domain)}
            if weights is not None:
                found |= {f"programmes/{number}/{key}": value for key, value in _multipliers(weights)}
        return found


@dataclass
class Record:
    """What the search that decided has recorded: one of both.

    `arrays` names: ``format`` (version) and ``kind`` (0 input splits, 1 activation splits). Nodes are indices of the
    joined graph, entries are flat.

    Input splits: ``boxes/lower, upper [N, n]``, ``boxes/group, clause [N]``.

    Activation splits: ``root/lower, upper [G, n]``; bounds by node from CROWN (``crown/NODE/lower``) and after
    optimising them (``root/NODE/lower``); ``slots/node, entry [W]`` and ``weights/node, entry, side [C]``: what columns
    stand for (side 0: weights of lower lines); ``entries/K/...``: node, box, entry, sign and weights
    (``lines/NODE/SIDE``) of the passes that optimised intermediate bounds; ``leaves/...``: base, clause, bound ``[N]``,
    weights ``[N, C]``, mixture ``[N, S]``, slot, sign, point, beta ``[N, D]`` (slot -1: no split);
    ``programmes/K/...``: the same of one domain, with the dual multipliers ``clause``, ``links/NODE``,
    ``lower/NODE/J/weight, slopes, intercept`` (``upper`` likewise) of its linear programme's facets.
    """

    boxes: BoxRecord | None = None
    branches: BranchRecord | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name; `numpy.savez` writes them."""
        kind = 0 if self.boxes is not None else 1
        found = {"format": np.array(FORMAT), "kind": np.array(kind)}
        for part in (self.boxes, self.branches):
            if part is not None:
                found |= part.arrays()
        return found


def _columns(blocks: tuple[Columns, ...]) -> Iterator[tuple[str, np.ndarray]]:
    none = [np.zeros(0, dtype=np.int64)]
    counts = [int(block.entries.shape[0]) for block in blocks]
    yield "node", np.repeat(np.array([block.node for block in blocks], dtype=np.int64), counts)
    yield "entry", np.concatenate([to_numpy(block.entries) for block in blocks] or none)
    yield "side", np.repeat(np.array([block.side for block in blocks], dtype=np.int64), counts)


_BOUNDS_OF_A_DOMAIN = frozenset({"low", "high", "next"})
"""Fields of a domain that follow from its splits, or serve the search alone."""


def _fields(domains: Branches) -> Iterator[tuple[str, np.ndarray]]:
    for field_ in fields(domains):
        if field_.name not in _BOUNDS_OF_A_DOMAIN:
            yield field_.name, to_numpy(getattr(domains, field_.name))


def _multipliers(weights: Weights) -> Iterator[tuple[str, np.ndarray]]:
    yield "clause", weights.clause
    for node, links in weights.links.items():
        yield f"links/{node}", links
    for side, facets in (("lower", weights.lower), ("upper", weights.upper)):
        for node, pairs in facets.items():
            for number, (facet, weight) in enumerate(pairs):
                here = f"{side}/{node}/{number}"
                yield from ((f"{here}/weight", weight), (f"{here}/slopes", facet.slopes))
                yield f"{here}/intercept", facet.intercept
