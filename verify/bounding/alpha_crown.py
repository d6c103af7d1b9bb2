"""alpha-CROWN for a caller who wants bounds, not a verdict (Xu et al. 2021, "Fast and Complete")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import NEVER, Deadline, MemoryBudget
from .alpha import Ascent, Base
from .condense import condense
from .crown import Relaxed, relax, row_bounds
from .expand import expand
from .intermediate import tighten
from .plan import make_plan
from .scaled import ScaledSteps
from .shrink import shrink
from .workers import run

if TYPE_CHECKING:
    from ..graph import Array
    from .plan import Plan
    from .workers import Workers

TIGHTEN_SHARE = 0.3
"""Gradient steps for intermediate bounds, as a share of those for the rows."""

FIRST_STEP, DECAY = 0.5, 0.85
"""The first step's length for the rows and what every further one is shorter by."""

ALONE_FROM = 256
"""Networks with a layer of this size are bounded one box at a time on a CPU: each box has a smaller one of its own."""


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

    CROWN bounds, then `improved`. When the deadline passes, the best bounds so far are returned; it raises `TimeUp`
    only if there are none yet, and `UndefinedOnRegion`. Boxes (of a large network) or rows are shared among the threads
    of `workers`, if given.
    """
    zeros = array_namespace(rows).zeros_like(rows[None, :, 0])
    state = relax(plan, lower, upper, deadline=deadline, memory=memory, workers=workers)
    first = row_bounds(state, rows[None], zeros, memory=memory, deadline=deadline).lower
    return improved(state, rows, first, steps=steps, deadline=deadline, memory=memory, workers=workers)


@np.errstate(all="ignore")
def improved(
    state: Relaxed,
    rows: Array,
    first: Array,
    *,
    steps: int = 20,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
    workers: Workers | None = None,
) -> Array:
    """The valid lower bounds `first` ``[B, S]`` of the rows, or better ones where there are.

    Intermediate bounds are optimised first, then every row takes `steps` gradient steps, as long as there is time.
    """
    xp = array_namespace(first)
    plan, lower = state.plan, state.lower
    budget = memory or MemoryBudget.default()
    best = first + 0
    whole = Base(plan, lower, state.upper, dict(enumerate(state.intervals)))
    batch = lower.shape[0]
    alone = isinstance(lower, np.ndarray) and plan.largest >= ALONE_FROM
    parts = [slice(box, box + 1) for box in range(batch)] if alone else [slice(0, batch)]
    sharers = workers if batch == 1 else None

    def optimise(part: slice) -> None:
        base = shrunk(whole.rows(xp.arange(batch, **options_like(lower))[part]))
        at_once = budget.rows(12 * lower.dtype.itemsize * sum(node.size for node in base.plan.graph.nodes), 512)
        base = tighten(base, at_once, deadline, iterations=max(1, round(TIGHTEN_SHARE * steps)), workers=sharers)
        best[part] = xp.maximum(best[part], _rows(base, rows, steps, at_once, deadline))

    run(optimise, parts, workers)
    return best


def _rows(base: Base, rows: Array, steps: int, at_once: int, deadline: Deadline) -> Array:
    """Optimised lower bounds ``[B, S]`` of the rows with fixed intermediate bounds, `at_once` at a time."""
    xp = array_namespace(rows)
    batch, count = base.lower.shape[0], rows.shape[0]
    shape = base.plan.graph.nodes[base.plan.output].shape
    found = []
    for start in range(0, batch * count, at_once):
        place = xp.arange(start, min(start + at_once, batch * count), **options_like(rows))
        seeds = rows[place % count].reshape(-1, *shape)
        ascent = Ascent(base.rows(place // count), base.plan.output, seeds, bounds_only=True)
        ascent.evaluate()
        scaled = ScaledSteps(ascent)
        for step in range(steps):
            if deadline.passed:
                break
            scaled.step(FIRST_STEP * DECAY**step)
            ascent.evaluate()
        found.append(ascent.best)
    return xp.concat(found).reshape(batch, count)


def shrunk(base: Base) -> Base:
    """The base on a smaller graph that is the same on all of its boxes: `condensed`, or `without_inactive`."""
    return condensed(base) or without_inactive(base)


def condensed(base: Base) -> Base | None:
    """The base on its undecided neurons alone, where that graph costs less (making it takes about as long as bounding
    every undecided neuron once)."""
    made = condense(base.plan, base.intervals)
    return None if made is None else Base(make_plan(made[0]), base.lower, base.upper, made[1])


def without_inactive(base: Base) -> Base:
    """The base on the graph without inactive neurons of dense layers, its small matrix products expanded; the base
    itself where nothing changes."""
    graph, intervals = shrink(base.plan.graph, [base.intervals[index] for index in range(len(base.intervals))])
    graph, intervals = expand(graph, intervals)
    if graph is base.plan.graph:
        return base
    return Base(make_plan(graph, base.plan.wanted), base.lower, base.upper, dict(enumerate(intervals)))
