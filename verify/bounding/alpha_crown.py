"""alpha-CROWN for a caller who wants bounds, not a verdict (Xu et al. 2021, "Fast and Complete")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import NEVER, Deadline, MemoryBudget
from .alpha import Ascent, Base
from .crown import relax, row_bounds
from .expand import expand
from .intermediate import tighten
from .plan import make_plan
from .shrink import shrink

if TYPE_CHECKING:
    from ..graph import Array
    from .plan import Plan
    from .workers import Workers


@np.errstate(all="ignore")
def alpha_crown(
    plan: Plan,
    lower: Array,
    upper: Array,
    rows: Array,
    *,
    steps: int = 20,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
    workers: Workers | None = None,
) -> Array:
    """Lower bounds ``[B, S]`` of ``rows [S, m]`` times the flat output, for boxes ``[B, n]``.

    Intermediate bounds are optimised first, then every row takes `steps` gradient steps. When the deadline passes, the
    best bounds so far are returned; it raises `TimeUp` only if there are none yet, and `UndefinedOnRegion`.
    """
    xp = array_namespace(lower)
    budget = memory or MemoryBudget.default()
    state = relax(plan, lower, upper, deadline=deadline, memory=budget, workers=workers)
    both = xp.concat([rows, -rows])
    first = row_bounds(state, both[None], xp.zeros_like(both[None, :, 0]), memory=budget, deadline=deadline).lower
    batch, count = lower.shape[0], rows.shape[0]
    low = first[:, :count]
    width = -first[:, count:] - low
    base = shrunk(Base(plan, lower, upper, dict(enumerate(state.intervals))))
    size = sum(node.size for node in base.plan.graph.nodes)
    at_once = budget.rows(12 * lower.dtype.itemsize * size, 512)
    base = tighten(base, at_once, deadline, iterations=max(1, steps // 2))
    best = low.reshape(-1) + 0
    for start in range(0, batch * count, at_once):
        place = xp.arange(start, min(start + at_once, batch * count), **options_like(lower))
        box, row = place // count, place % count
        shape = base.plan.graph.nodes[base.plan.output].shape
        ascent = Ascent(base.rows(box), base.plan.output, rows[row].reshape(-1, *shape))
        ascent.evaluate()
        for step in range(steps):
            if deadline.passed:
                break
            ascent.improve(0.1 * 0.9**step * width[box, row], 0.7)
            ascent.evaluate()
        best[place] = xp.maximum(best[place], ascent.best)
    return best.reshape(batch, count)


def shrunk(base: Base) -> Base:
    """The base on the graph without neurons that are inactive on all of its boxes, small matrix products expanded."""
    graph, intervals = shrink(base.plan.graph, [base.intervals[index] for index in range(len(base.intervals))])
    graph, intervals = expand(graph, intervals)
    if graph is base.plan.graph:
        return base
    return Base(make_plan(graph), base.lower, base.upper, dict(enumerate(intervals)))
