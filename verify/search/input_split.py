"""Branch-and-bound by splitting the input box, over batches of thousands of boxes.

Each round bounds a batch of boxes (CROWN with the parents' bounds inherited), drops the clauses that a positive row
refutes, cuts the remaining boxes by the rows' own linear bounds (`clipping`), tries a few concrete points of each
box, and splits along the input whose coefficient times width is largest. A box is closed when all clauses are refuted
on it; the problem is `unsat` when no box is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace, options_like, out_of_memory_errors
from ..bounding.narrow import relax, row_bounds
from ..budget import Deadline, MemoryBudget, TimeUp
from ..errors import UndefinedOnRegion
from ..graph import Array, Graph
from ..loading.evaluate import output_vector
from .domains import Domains, Pool, concatenate
from .hairs import nearly_refuted, nearly_tied
from .rounds import on_threads, pieces, threads
from .splitting import clipped, scores, split
from .stairs import snap
from .undefined import split_advice, undefined_boxes

if TYPE_CHECKING:
    from ..bounding.backward import LinearBound, Relaxed
    from ..bounding.narrow import Narrowed
    from ..bounding.plan import Plan
    from ..ops.rule import Interval
    from ..rows import Rows
    from .exact import Ties

INHERIT_AT_MOST = 4096
"""Bounds are handed from parent to child while the targets have at most this many entries in all; beyond, memory
costs more than it saves."""

SLOW = 0.9
"""Where a box's bound is still short by this share of what its parent's was, it is asked whether rounding is the cause
(a difference of two sigmoids that is 1e-5 at least: nn4sys, dual cardinalities)."""


@dataclass(frozen=True)
class SplitOptions:
    """batch: boxes a round and worker; workers: threads; record: tell which clauses were refuted on which boxes (boxes
    are halved only then, never cut); stairs: inputs of which a few values stand for all (`stairs.find_stairs`; none
    with `record`); whole: which inputs take whole numbers alone (bool ``[n]``; None for none, and with `record`);
    ties: looks at boxes on which a strict row is only just not met (None with `record`); leave_hairs: boxes on which
    only rounding keeps clauses open (`hairs`) are stuck at once, for a dtype that rounds less; light: intermediate
    bounds may be cheap ones where more boxes cost less than tighter bounds."""

    batch: int = 256
    workers: int = 1
    record: bool = False
    stairs: Mapping[int, Array] = field(default_factory=dict)
    whole: Array | None = None
    ties: Ties | None = None
    leave_hairs: bool = False
    light: bool = False


@dataclass
class SplitReport:
    """What a search did. `closed` says that no domain is left and none was lost; `stuck` are boxes too small to split
    in this dtype, or with a point where the network has no value; `exhausted` says that nothing more can be done with
    what is left (one pass only, or memory); `undefined` names an operator that may have no value on a stuck box;
    `refuted` tells, where that is wanted, boxes ``lower, upper [N, n]``, group and clause ``[N]``."""

    closed: bool = False
    exhausted: bool = False
    visited: int = 0
    splits: int = 0
    halvings: int = 0
    undefined: str | None = None
    stuck: list[Domains] = field(default_factory=list)
    refuted: list[tuple[Array, Array, Array, Array]] = field(default_factory=list)
    witness: Any = None


Check = Callable[[Array, Array], Any]
"""Given candidate points ``[P, n]`` and their groups ``[P]``: a replayed witness, or None."""


def search(
    plan: Plan,
    rows: Rows,
    pool: Pool,
    options: SplitOptions,
    deadline: Deadline,
    memory: MemoryBudget,
    check: Check,
    one_pass: bool = False,
) -> SplitReport:
    """Search until the pool is empty, a witness is found, or the deadline passes (`TimeUp` is caught; the report is
    then not closed).

    With `one_pass`, the pool's boxes are bounded once, and those left open are returned as stuck.
    """
    report = SplitReport()
    rounds = _Rounds(plan, rows, options, deadline, memory)
    batch = options.batch
    try:
        with threads(options.workers) as executor:
            while len(pool):
                taken = pool.pop(batch * options.workers)
                parts = pieces(taken, options.workers, 16)
                try:
                    outcomes = list(chain.from_iterable(on_threads(executor, rounds.step, parts)))
                except out_of_memory_errors():
                    pool.push(taken)
                    if batch == 1:
                        report.exhausted = True
                        return report
                    batch = max(1, batch // 2)
                    report.halvings += 1
                    continue
                except TimeUp:
                    pool.push(taken)
                    break
                report.visited += len(taken)
                if one_pass:
                    outcomes = [
                        replace(
                            outcome,
                            stuck=concatenate([outcome.children, outcome.stuck]),
                            children=outcome.children.pick(slice(0, 0)),
                        )
                        for outcome in outcomes
                    ]
                if not _collect(report, pool, outcomes, check):
                    return report
                deadline.check()
    except TimeUp:
        return report
    report.closed = len(pool) == 0 and not report.stuck
    return report


def _collect(report: SplitReport, pool: Pool, outcomes: Sequence[_Outcome], check: Check) -> bool:
    """Book a round's outcomes; False when a witness ends the search."""
    for outcome in outcomes:
        report.splits += len(outcome.children)
        if outcome.refuted is not None:
            report.refuted.append(outcome.refuted)
        pool.push(outcome.children)
        if len(outcome.stuck):
            report.stuck.append(outcome.stuck)
            report.undefined = outcome.undefined or report.undefined
    for outcome in outcomes:
        if outcome.points.shape[0]:
            report.witness = check(outcome.points, outcome.groups)
            if report.witness is not None:
                return False
    return True


@dataclass(frozen=True, eq=False)
class _Outcome:
    """A bounded batch: its open children, boxes that cannot be split, points that look unsafe with their groups, and
    (where it is wanted) what was refuted.

    undefined   why boxes are among the stuck ones, where it is because an operator may have no value there.
    """

    children: Domains
    stuck: Domains
    points: Array
    groups: Array
    refuted: tuple[Array, Array, Array, Array] | None
    undefined: str | None = None


@dataclass(frozen=True, eq=False)
class _Rounds:
    """What all rounds of a search have in common; `used` are the clauses that the rows are about, None for all."""

    plan: Plan
    rows: Rows
    options: SplitOptions
    deadline: Deadline
    memory: MemoryBudget
    used: Array | None = None

    @np.errstate(all="ignore")
    def step(self, domains: Domains) -> list[_Outcome]:
        """Bound, close, clip, probe and split one batch; boxes on which an operator may be undefined apart from the
        others."""
        self.deadline.check()
        try:
            state = relax(
                self.plan,
                domains.lower,
                domains.upper,
                inherited=domains.inherited,
                light=self.options.light,
                deadline=self.deadline,
                memory=self.memory,
            )
        except UndefinedOnRegion as error:
            xp = array_namespace(domains.lower)
            undefined = undefined_boxes(error, domains.group)
            outcomes = [self._opened(domains, xp.nonzero(undefined)[0], error)]
            defined = xp.nonzero(~undefined)[0]
            return outcomes + (self.step(domains.pick(defined)) if defined.shape[0] else [])
        return [self._on_open_clauses(domains, state)]

    def _on_open_clauses(self, domains: Domains, state: Relaxed | Narrowed) -> _Outcome:
        """`_bounded` with the clauses alone that are open on some box of the batch: often one of many is left (Lyapunov
        conditions, whose other clauses say that a point is outside the region)."""
        xp = array_namespace(domains.lower)
        used = xp.nonzero(xp.any(domains.active, axis=0))[0]
        count = domains.active.shape[1]
        # Choosing rows takes as long as there are groups.
        if used.shape[0] == count or self.rows.rows.shape[0] > len(domains):
            return self._bounded(domains, state)
        outcome = replace(self, rows=self.rows.only(used), used=used)._bounded(
            replace(domains, active=domains.active[:, used]), state
        )

        def widened(part: Domains) -> Domains:
            return replace(part, active=_widened(part.active, used, count))

        refuted = outcome.refuted and (*outcome.refuted[:3], used[outcome.refuted[3]])
        return replace(outcome, children=widened(outcome.children), stuck=widened(outcome.stuck), refuted=refuted)

    def _opened(self, domains: Domains, index: Array, error: UndefinedOnRegion) -> _Outcome:
        """Split the boxes at `index`, on which an operator may have no value: nothing is known of their rows."""
        xp = array_namespace(domains.lower)
        left = domains.pick(index)
        left = replace(left, margin=xp.full_like(left.margin, -xp.inf))
        if error.partial is not None:
            left = replace(left, inherited=_targets(error.partial, index))
        weights, hopeless = split_advice(error, index, left.lower, left.upper)
        children, stuck = split(left.pick(~hopeless), weights[~hopeless], self.options)
        stuck = concatenate([left.pick(hopeless), stuck])
        return _Outcome(children, stuck, left.lower[:0], left.group[:0], None, str(error))

    def _bounded(self, domains: Domains, state: Relaxed | Narrowed) -> _Outcome:
        """Close, clip, probe and split a batch with its relaxation."""
        xp = array_namespace(domains.lower)
        options, own = self.options, self.rows.of(domains.group)
        bound = row_bounds(state, own.rows, own.offsets, memory=self.memory, deadline=self.deadline)
        # NaN compares false, so that it refutes nothing.
        strongest = own.strongest(bound.lower)
        active = domains.active & ~(strongest > 0)
        refuted = None
        if options.record:
            box, clause = xp.nonzero(domains.active & ~active)
            refuted = (domains.lower[box], domains.upper[box], domains.group[box], clause)
        margin = xp.min(xp.where(active, strongest, xp.inf), axis=1)
        undecided = xp.any(active, axis=1)
        if options.ties is not None and self.rows.strict is not None:
            near = undecided & ~xp.any(active & ~nearly_tied(state, bound, own), axis=1)
            whole = active if self.used is None else _widened(active, self.used, int(self.used[-1]) + 1)
            settled = options.ties.settled(domains.lower, domains.upper, domains.group, whole, near, self.deadline)
            undecided = undecided & ~xp.asarray(settled, **options_like(undecided))
        hairs = xp.zeros_like(undecided)
        if options.leave_hairs:
            hairs = undecided & ~xp.any(active & ~nearly_refuted(state, bound, own), axis=1)
            slow = xp.nonzero(undecided & ~hairs & (margin < SLOW * domains.margin))[0]
            hairs[slow] = self._rounded_away(domains.pick(slow), active[slow])
        renewed = replace(domains, active=active, margin=margin, inherited={})
        close = renewed.pick(xp.nonzero(hairs)[0])
        survivors = xp.nonzero(undecided & ~hairs)[0]
        if survivors.shape[0] == 0:
            nothing = domains.pick(slice(0, 0))
            return _Outcome(nothing, close, domains.lower[:0], domains.group[:0], refuted)
        left = replace(renewed.pick(survivors), inherited=_targets(state, survivors))
        kept = bound.boxes(survivors)
        own = self.rows.of(left.group)
        points, groups = _probe(self.plan.graph, self.rows, left, kept, options.whole)
        bounded = left
        if not options.record:
            left, kept, own, index = clipped(left, kept, own)
            bounded = bounded.pick(index)
        if (options.stairs or options.whole is not None) and len(left):
            low, high = snap(options.stairs, left.lower, left.upper, options.whole)
            index = xp.nonzero(xp.all(low <= high, axis=1))[0]
            left, bounded = replace(left, lower=low, upper=high).pick(index), bounded.pick(index)
            kept, own = kept.boxes(index), own.of(index)
        if not len(left):
            return _Outcome(left, concatenate([left, close]), points, groups, refuted)
        children, stuck = split(left, scores(left, kept, own), options, bounded)
        return _Outcome(children, concatenate([stuck, close]), points, groups, refuted)

    def _rounded_away(self, domains: Domains, active: Array) -> Array:
        """On which of the boxes no split can refute the active clauses ``[N, K]`` in this dtype, bool ``[N]``: where
        their bounds at the centre alone are not positive, although it looks safe."""
        xp = array_namespace(domains.lower)
        nothing = xp.zeros_like(domains.margin, dtype=xp.bool)
        if not len(domains):
            return nothing
        centre = 0.5 * domains.lower + 0.5 * domains.upper
        own = self.rows.of(domains.group)
        try:
            state = relax(self.plan, centre, centre, refine=False, deadline=self.deadline, memory=self.memory)
        except UndefinedOnRegion:
            return nothing
        bound = row_bounds(state, own.rows, own.offsets, memory=self.memory, deadline=self.deadline)
        open_ = xp.any(active & ~(own.strongest(bound.lower) > 0), axis=1)
        return open_ & ~looks_unsafe(self.plan.graph, self.rows, centre, domains.group)


def _widened(active: Array, used: Array, count: int) -> Array:
    """Which of `count` clauses are open, ``[N, count]``, from those of the clauses `used`."""
    xp = array_namespace(active)
    every = xp.zeros((active.shape[0], count), dtype=xp.bool, **options_like(used))
    every[:, used] = active
    return every


def _targets(state: Relaxed | Narrowed, index: Array) -> dict[int, Interval]:
    """The targets' bounds of the surviving boxes, flat, to be inherited; empty where keeping them costs too much."""
    plan = state.plan
    if plan.target_size > INHERIT_AT_MOST:
        return {}
    xp = array_namespace(index)
    kept = {}
    for key in plan.targets:
        if isinstance(state.intervals, list) and key >= len(state.intervals):
            unknown = xp.full(
                (index.shape[0], plan.graph.nodes[key].size), xp.inf, dtype=state.lower.dtype, **options_like(index)
            )
            kept[key] = (-unknown, unknown)
            continue
        low, high = state.intervals[key]
        if low.shape[0] == state.lower.shape[0]:
            low, high = (end.reshape(end.shape[0], -1)[index] for end in (low, high))
            # An overflow on a large box must not stay with its children.
            kept[key] = (xp.where(xp.isnan(low), -xp.inf, low), xp.where(xp.isnan(high), xp.inf, high))
    return kept


def _probe(graph: Graph, rows: Rows, domains: Domains, bound: LinearBound, whole: Array | None) -> tuple[Array, Array]:
    """Concrete points of each box that are unsafe as far as this dtype can tell: of centres and minimisers of the
    weakest row."""
    xp = array_namespace(domains.lower)
    centre = 0.5 * (domains.lower + domains.upper)
    if whole is not None:
        centre = xp.where(whole, xp.floor(centre), centre)
    weakest = xp.argmin(xp.where(xp.isfinite(bound.lower), bound.lower, xp.inf), axis=1)
    direction = bound.coefficients[xp.arange(weakest.shape[0], **options_like(weakest)), weakest]
    corner = xp.where(direction > 0, domains.lower, domains.upper)
    points = xp.concat([centre, corner], axis=0)
    both = xp.concat([domains.group, domains.group], axis=0)
    unsafe = looks_unsafe(graph, rows, points, both)
    return points[unsafe], both[unsafe]


def looks_unsafe(graph: Graph, rows: Rows, points: Array, groups: Array) -> Array:
    """Which points ``[P, n]`` of the boxes of these groups ``[P]`` are unsafe as far as this dtype can tell, bool
    ``[P]``."""
    values = output_vector(graph, points)
    own = rows.of(groups)
    margins = (own.rows @ values[:, :, None])[:, :, 0] - own.offsets
    return array_namespace(points).any((own.strongest(margins) <= 0) & own.clauses, axis=1)
