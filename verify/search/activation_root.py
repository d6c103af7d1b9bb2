"""The root of activation branch-and-bound: what can be proved before anything is split, cheap steps first.

CROWN bounds, then a few gradient steps on the final rows, then optimised bounds of intermediate values (the
expensive part), then more steps; whatever is closed on the way is dropped. What is left goes to the search on a graph
where splits are exact (`pieces`); the tighter relaxation of a maximum as a whole has done its part by then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Ascent, Base, Parameters, gain_to_zero
from ..bounding.alpha_crown import condensed, without_inactive
from ..bounding.crown import relax, row_bounds
from ..bounding.intermediate import tighten
from .activation_split import mixture_of
from .box_slots import with_inputs
from .branches import BranchPool
from .hairs import nearly_refuted
from .layout import Layout, make_layout, start_weights
from .pieces import with_exact_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..bounding.backward import Relaxed
    from ..bounding.plan import Plan
    from ..bounding.workers import Workers
    from ..budget import Deadline, MemoryBudget
    from ..graph import Array
    from ..rows import Rows
    from .record import BranchRecord

FIRST_STEPS, LAST_STEPS = 6, 20
"""Gradient steps on the final rows before and after intermediate bounds are optimised."""

TIGHTEN_SHARE = 0.5
"""Share of the root's time for optimised bounds of intermediate values: with all of it, large networks would have none
left for what follows, and the root would be lost (yolo: 7,000 undecided entries, 0.1 seconds each)."""

NARROW = 0.02
"""What a start from a clause's strongest row alone leaves to the other rows, so that steps can still give them
weight."""


@dataclass(frozen=True, eq=False)
class Root:
    """What is left open: nothing where `layout` is None. `bound` is the smallest proven bound of all clauses; `near`
    ``[G, K]`` are the clauses that were left to another dtype, if any."""

    layout: Layout | None
    pool: BranchPool
    bound: float
    near: Array | None = None


@np.errstate(all="ignore")
def open_root(
    plan: Plan,
    rows: Rows,
    lower: Array,
    upper: Array,
    deadline: Deadline,
    memory: MemoryBudget,
    workers: Workers | None = None,
    record: BranchRecord | None = None,
    points: str = "table",
    inputs: int = 0,
    leave_hairs: bool = False,
    started: Relaxed | None = None,
) -> Root:
    """Bound every clause on every box ``[G, n]`` and prepare the search of those left open; `points` as for
    `make_layout`, `inputs` as for `with_inputs`, `started` as for `relax`. With `leave_hairs`, clauses that CROWN
    bounds leave open for rounding alone (`hairs`) are set aside. Raises `TimeUp` and `UndefinedOnRegion`.

    With a record, inputs are not split (a checker would have to renew bounds in every box), all clauses take part from
    the start and no neuron is left out, so that all is about one root.
    """
    xp = array_namespace(lower)
    pool = BranchPool()
    state = relax(plan, lower, upper, deadline=deadline, memory=memory, workers=workers, started=started)
    first = Base(plan, lower, upper, dict(enumerate(state.intervals)))
    if record is not None:
        return _recorded(first, rows, deadline, memory, record)
    bound = row_bounds(state, rows.rows, rows.offsets, memory=memory, deadline=deadline)
    singly = bound.lower
    strongest = rows.strongest(singly)
    # NaN compares false, so that it refutes nothing.
    open_ = rows.clauses & ~(strongest > 0)
    near = open_ & nearly_refuted(state, bound, rows) if leave_hairs else None
    if near is not None:
        near, open_ = (near, open_ & ~near) if bool(near.any()) else (None, open_)
    group, clause = xp.nonzero(open_)
    if group.shape[0] == 0:
        return Root(None, pool, float(xp.min(xp.where(rows.clauses, strongest, xp.inf))), near)
    base = without_inactive(first)
    at_once = _rows_at_once(base, memory)
    group, clause, parameters, best = _ascend(
        base, rows, group, clause, None, FIRST_STEPS, at_once, deadline, singly=rows.by_clause(singly, -xp.inf)
    )
    if group.shape[0]:
        fewer = condensed(first)
        if fewer is not None:
            # Its neurons are others; weights of lines start anew.
            base, at_once, parameters = fewer, _rows_at_once(fewer, memory), Parameters(mixture=parameters.mixture)
        base = tighten(base, min(at_once, 512), deadline.sooner(TIGHTEN_SHARE * deadline.remaining))
        group, clause, parameters, best = _ascend(base, rows, group, clause, parameters, LAST_STEPS, at_once, deadline)
    if group.shape[0]:
        exact, fresh = with_exact_pieces(base, deadline, memory)
        if exact is not base:
            at_once = _rows_at_once(exact, memory)
            base = tighten(exact, min(at_once, 512), deadline, only=fresh)
            before, pairs = best, group * rows.clauses.shape[1] + clause
            group, clause, parameters, best = _ascend(base, rows, group, clause, None, LAST_STEPS, at_once, deadline)
            best = xp.maximum(best, before[xp.searchsorted(pairs, group * rows.clauses.shape[1] + clause)])
    if group.shape[0] == 0:
        return Root(None, pool, 0.0, near)
    layout = with_inputs(replace(make_layout(base, points), origin=_without_linear(first)), inputs)
    pool.push(layout.root(group, clause, parameters.mixture, start_weights(layout, parameters), best))
    return Root(layout, pool, float(best.min()), near)


def _without_linear(base: Base) -> Base:
    """The base with bounds of the input, the output, and what nonlinear nodes read: the others take memory."""
    plan = base.plan
    wanted = {
        plan.input,
        plan.output,
        *(source for index in plan.nonlinear for source in plan.graph.nodes[index].inputs),
    }
    return replace(base, intervals={index: base.intervals[index] for index in sorted(wanted)})


def _rows_at_once(base: Base, memory: MemoryBudget) -> int:
    """How many rows the optimiser may bound together."""
    return memory.rows(12 * base.lower.dtype.itemsize * sum(node.size for node in base.plan.graph.nodes), 2048)


def _recorded(first: Base, rows: Rows, deadline: Deadline, memory: MemoryBudget, record: BranchRecord) -> Root:
    """The root of a recorded search: bounds of intermediate values are optimised before anything else (as long as what
    gave them fits the memory budget), and every clause is closed, or searched, on them."""
    xp = array_namespace(first.lower)
    at_once = _rows_at_once(first, memory)
    record.begin(first)
    entries = sum(int(xp.sum(xp.astype(first.undecided(index), xp.int64))) for index in first.plan.targets)
    free = sum(first.plan.graph.nodes[index].size for index in first.plan.elementwise)
    base = first
    if 4 * entries * free * first.lower.dtype.itemsize <= memory.bytes:
        base = tighten(first, min(at_once, 512), deadline, note=record.entries.append)
    layout = make_layout(base)
    record.layout = layout

    def note(group: Array, clause: Array, parameters: Parameters, bound: Array) -> None:
        closed = layout.root(group, clause, parameters.mixture, start_weights(layout, parameters))
        record.add(replace(closed, bound=bound))

    group, clause = xp.nonzero(rows.clauses)
    group, clause, parameters, best = _ascend(
        base, rows, group, clause, None, FIRST_STEPS + LAST_STEPS, at_once, deadline, note
    )
    pool = BranchPool()
    pool.push(layout.root(group, clause, parameters.mixture, start_weights(layout, parameters), best))
    return Root(layout, pool, float(best.min()) if best.shape[0] else 0.0)


def _ascend(
    base: Base,
    rows: Rows,
    group: Array,
    clause: Array,
    parameters: Parameters | None,
    steps: int,
    at_once: int,
    deadline: Deadline,
    note: Callable[[Array, Array, Parameters, Array], None] | None = None,
    singly: Array | None = None,
) -> tuple[Array, Array, Parameters, Array]:
    """Optimise the bounds of (group, clause) pairs; those left open with their best parameters and bounds. `note` is
    told the same of those closed; `singly` are bounds ``[G, K, S]`` of each clause's single rows, if known."""
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
        if singly is not None and singly.shape[2] > 1:
            _start_from_single_rows(ascent, singly[own, which])
        for step in range(steps):
            deadline.check()
            remaining = xp.nonzero(~(ascent.best > 0))[0]
            if remaining.shape[0] == 0:
                break
            if 2 * remaining.shape[0] < ascent.count:
                _tell(note, ascent, own, which)
                ascent.keep(remaining)
                own, which = own[remaining], which[remaining]
            ascent.improve(*gain_to_zero(ascent.last, step))
            ascent.evaluate()
        remaining = xp.nonzero(~(ascent.best > 0))[0]
        _tell(note, ascent, own, which)
        ascent.keep(remaining)
        groups.append(own[remaining])
        clauses.append(which[remaining])
        kept.append(ascent.best_parameters)
        bounds.append(ascent.best)
    lines = {node: (_joined(kept, node, 0), _joined(kept, node, 1)) for node in kept[0].lines}
    joined = Parameters(lines, {}, xp.concat([part.mixture for part in kept]))
    return xp.concat(groups), xp.concat(clauses), joined, xp.concat(bounds)


def _start_from_single_rows(ascent: Ascent, singly: Array) -> None:
    """Move the weights of clauses to their strongest row where its bound, of those ``[N, S]``, is the better one."""
    xp = array_namespace(singly)
    if ascent.mixture is None or ascent.parameters.mixture is None:
        return
    present = xp.astype(xp.isfinite(ascent.mixture.offsets), singly.dtype)
    strongest = xp.argmax(singly, axis=1)[:, None] == xp.arange(singly.shape[1], **options_like(singly))
    spread = present / xp.sum(present, axis=1, keepdims=True)
    alone = xp.where(strongest, 1.0 - NARROW, 0.0) + NARROW * spread
    better = xp.max(singly, axis=1) > ascent.last
    if bool(better.any()):
        ascent.parameters.mixture = xp.where(better[:, None], alone, ascent.parameters.mixture)
        ascent.evaluate()


def _tell(
    note: Callable[[Array, Array, Parameters, Array], None] | None, ascent: Ascent, group: Array, clause: Array
) -> None:
    closed = array_namespace(group).nonzero(ascent.best > 0)[0]
    if note is not None and closed.shape[0]:
        note(group[closed], clause[closed], ascent.best_of(closed), ascent.best[closed])


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
