"""Domains that float32 cannot decide, in float64: what their bounds miss may be no more than rounding.

The network's parameters, the boxes and the rows are the same numbers, now exact; bounds of intermediate values are
renewed from them, and a search goes on where the coarser one stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Backend, to_numpy
from ..arrays import in_double as own_numbers
from ..bounding.condense import condense
from ..bounding.crown import relax
from ..bounding.interval import intersect
from ..bounding.parameters import Base
from ..bounding.plan import make_plan
from ..rows import prepare_rows
from .branches import Branches, BranchPool, join
from .layout import Layout
from .leaves import closed_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bounding.plan import Plan
    from ..budget import Deadline, MemoryBudget
    from ..graph import Array, Graph
    from ..problem import Group
    from ..rows import Rows


@dataclass(frozen=True, eq=False)
class Doubled:
    """A search's state in float64 on the CPU: the layout, the open domains, and the rows of their boxes.

    groups   integers ``[N]``: the groups that the boxes belong to; domains count boxes from 0.
    """

    layout: Layout
    pool: BranchPool
    rows: Rows
    groups: np.ndarray


@np.errstate(all="ignore")
def exact_graph(layout: Layout) -> Graph:
    """The layout's graph with parameters in float64, on numpy.

    Leaving out nodes keeps parameters as the network has them; a condensed graph's are multiplied out again, for in the
    search's precision they were rounded, and what is proved about them in float64 is proved of another network.
    """
    double = Backend("float64")

    def wide(graph: Graph) -> Graph:
        return own_numbers(graph).map_params(lambda x: double.array(to_numpy(x)))

    if layout.origin is not None:
        origin = layout.origin
        intervals = {
            index: (double.array(to_numpy(low)), double.array(to_numpy(high)))
            for index, (low, high) in origin.intervals.items()
        }
        condensed = condense(make_plan(wide(origin.plan.graph)), intervals)
        if condensed is not None:
            return condensed[0]
    return wide(layout.base.plan.graph)


@np.errstate(all="ignore")
def in_double(
    layout: Layout,
    graph: Graph,
    parts: Sequence[Branches],
    groups: Sequence[Group],
    deadline: Deadline,
    memory: MemoryBudget,
) -> Doubled:
    """The domains `parts` of a layout in float64, on the boxes and rows of the problem's groups, and `exact_graph` of
    the layout. Raises `TimeUp`."""
    double = Backend("float64")
    domains = join(list(parts))
    used, place = np.unique(to_numpy(domains.base), return_inverse=True)
    chosen = [groups[index] for index in used]
    lower, upper = double.box(*(np.stack(ends) for ends in zip(*((g.lower, g.upper) for g in chosen), strict=True)))
    plan = make_plan(graph, layout.base.plan.wanted)
    base = _renewed(layout.base.rows(_like(used, domains.base)), plan, (lower, upper), deadline, memory)
    slots, weights = (
        tuple(replace(block, entries=to_numpy(block.entries)) for block in blocks)
        for blocks in (layout.slots, layout.weights)
    )
    fine = Layout(base, slots, weights, layout.derived)
    pool = BranchPool()
    pool.push(_converted(fine, layout, replace(domains, base=_like(place.reshape(-1), domains.base))))
    return Doubled(fine, pool, prepare_rows(chosen, lower), used)


def _like(values: np.ndarray, like: Array) -> Array:
    """Integers in the library and on the device of `like`."""
    return values if isinstance(like, np.ndarray) else like.new_tensor(values)


def _renewed(
    base: Base, plan: Plan, box: tuple[np.ndarray, np.ndarray], deadline: Deadline, memory: MemoryBudget
) -> Base:
    """CROWN bounds in float64 on the boxes ``[N, n]``, within the bounds known."""
    double = Backend("float64")
    lower, upper = box
    known = {
        index: (double.array(to_numpy(low)), double.array(to_numpy(high)))
        for index, (low, high) in base.intervals.items()
    }
    inherited = {
        index: (known[index][0].reshape(len(known[index][0]), -1), known[index][1].reshape(len(known[index][1]), -1))
        for index in plan.targets
    }
    state = relax(plan, lower, upper, inherited=inherited, deadline=deadline, memory=memory, constrained=True)
    return Base(
        plan, lower, upper, {index: intersect(pair, known[index]) for index, pair in enumerate(state.intervals)}
    )


def _converted(fine: Layout, coarse: Layout, domains: Branches) -> Branches:
    """The domains' arrays in float64, their bounds within those of the root."""
    double = Backend("float64")
    arrays = {field.name: double.array(to_numpy(getattr(domains, field.name))) for field in fields(Branches)}
    own = Branches(**arrays)
    root = fine.root(own.base, own.clause, own.mixture, own.weights)
    # What excludes a kink is the number next to it, which differs between the two precisions.
    low, high = (double.array(to_numpy(end)) for end in closed_ends(coarse, domains.low, domains.high))
    above, below = low != own.low, high != own.high
    low, high = intersect((low, high), (root.low, root.high))
    low = np.where(above, np.minimum(np.nextafter(low, np.inf), high), low)
    return replace(own, low=low, high=np.where(below, np.maximum(np.nextafter(high, -np.inf), low), high))
