"""The root of activation branch-and-bound: what can be proved before anything is split, cheap steps first.

CROWN bounds, then a few gradient steps on the final rows, then optimised bounds of intermediate values (the
expensive part), then more steps; whatever is closed on the way is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Ascent, Base, Parameters, gain_to_zero
from ..bounding.alpha_crown import shrunk
from ..bounding.crown import relax, row_bounds
from ..bounding.intermediate import tighten
from .activation_split import mixture_of
from .branches import BranchPool, Layout, make_layout, start_weights

if TYPE_CHECKING:
    from ..bounding.plan import Plan
    from ..bounding.workers import Workers
    from ..budget import Deadline, MemoryBudget
    from ..graph import Array
    from ..rows import Rows

FIRST_STEPS, LAST_STEPS = 6, 20
"""Gradient steps on the final rows before and after intermediate bounds are optimised."""


@dataclass(frozen=True, eq=False)
class Root:
    """What is left open: nothing where `layout` is None. `bound` is the smallest proven bound of all clauses."""

    layout: Layout | None
    pool: BranchPool
    bound: float


@np.errstate(all="ignore")
def open_root(
    plan: Plan,
    rows: Rows,
    lower: Array,
    upper: Array,
    deadline: Deadline,
    memory: MemoryBudget,
    workers: Workers | None = None,
) -> Root:
    """Bound every clause on every box ``[G, n]`` and prepare the search of those left open. Raises `TimeUp` and
    `UndefinedOnRegion`."""
    xp = array_namespace(lower)
    pool = BranchPool()
    state = relax(plan, lower, upper, deadline=deadline, memory=memory, workers=workers)
    strongest = rows.strongest(row_bounds(state, rows.rows, rows.offsets, memory=memory, deadline=deadline).lower)
    # NaN compares false, so that it refutes nothing.
    open_ = rows.clauses & ~(strongest > 0)
    group, clause = xp.nonzero(open_)
    if group.shape[0] == 0:
        return Root(None, pool, float(xp.min(xp.where(rows.clauses, strongest, xp.inf))))
    base = shrunk(Base(plan, lower, upper, dict(enumerate(state.intervals))))
    plan = base.plan
    at_once = memory.rows(12 * lower.dtype.itemsize * sum(node.size for node in plan.graph.nodes), 2048)
    group, clause, parameters, best = _ascend(base, rows, group, clause, None, FIRST_STEPS, at_once, deadline)
    if group.shape[0]:
        base = tighten(base, min(at_once, 512), deadline)
        group, clause, parameters, best = _ascend(base, rows, group, clause, parameters, LAST_STEPS, at_once, deadline)
    if group.shape[0] == 0:
        return Root(None, pool, 0.0)
    layout = make_layout(base)
    domains = layout.root(group, clause, parameters.mixture, start_weights(layout, parameters))
    pool.push(replace(domains, bound=best))
    return Root(layout, pool, float(best.min()))


def _ascend(
    base: Base,
    rows: Rows,
    group: Array,
    clause: Array,
    parameters: Parameters | None,
    steps: int,
    at_once: int,
    deadline: Deadline,
) -> tuple[Array, Array, Parameters, Array]:
    """Optimise the bounds of (group, clause) pairs; those left open with their best parameters and bounds."""
    xp = array_namespace(base.lower)
    groups, clauses, kept, bounds = [], [], [], []
    for start in range(0, group.shape[0], at_once):
        some = slice(start, start + at_once)
        own, which = group[some], clause[some]
        ascent = Ascent(
            base.rows(own),
            base.plan.output,
            mixture=mixture_of(rows, own, which),
            parameters=None if parameters is None else parameters.rows(some, {}),
        )
        ascent.evaluate()
        for step in range(steps):
            deadline.check()
            remaining = xp.nonzero(~(ascent.best > 0))[0]
            if remaining.shape[0] == 0:
                break
            if 2 * remaining.shape[0] < ascent.count:
                ascent.keep(remaining)
                own, which = own[remaining], which[remaining]
            ascent.improve(*gain_to_zero(ascent.last, step))
            ascent.evaluate()
        remaining = xp.nonzero(~(ascent.best > 0))[0]
        ascent.keep(remaining)
        groups.append(own[remaining])
        clauses.append(which[remaining])
        kept.append(ascent.best_parameters)
        bounds.append(ascent.best)
    lines = {node: (_joined(kept, node, 0), _joined(kept, node, 1)) for node in kept[0].lines}
    joined = Parameters(lines, {}, xp.concat([part.mixture for part in kept]))
    return xp.concat(groups), xp.concat(clauses), joined, xp.concat(bounds)


def _joined(parts: list[Parameters], node: int, side: int) -> Array | None:
    """The weights of all parts' lines; a part in which a line is not free takes no notice of its weight."""
    known = [part.lines[node][side] for part in parts]
    some = next((x for x in known if x is not None), None)
    if some is None:
        return None
    xp = array_namespace(some)
    return xp.concat(
        [
            xp.full((part.count, some.shape[1]), 0.5, dtype=some.dtype, **options_like(some)) if x is None else x
            for part, x in zip(parts, known, strict=True)
        ]
    )
