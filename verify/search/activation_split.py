"""Branch-and-bound on activations with multipliers for the splits (beta-CROWN, Wang et al. 2021).

Each round takes a batch of open domains, splits them, bounds all children at once with parameters inherited from
their parents and improved by a few gradient steps, drops the closed ones, tries the points at which the others attain
their bounds, and chooses where those are split next. Bounds of intermediate values stay the root's, except where
splits cut them and, in networks with few undecided entries, where `tightening` renews them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace, options_like, out_of_memory_errors
from ..bounding.alpha import Mixture, gain_to_zero
from ..bounding.mixtures import spread
from ..budget import Deadline, TimeUp
from ..loading.evaluate import output_vector
from .box_slots import boxed, renewed
from .branches import Branches, BranchPool, join, split
from .branching import ascent_of, contenders, scores, split_points, still_open
from .cuts import Conflicts, Cuts, Phases, shortened
from .hairs import HAIR
from .rounds import on_threads, pieces, threads
from .tightening import tighten
from .trials import filtered, fixed

SPREAD = 0.5
"""Share of a clause's weight that every domain starts with spread over all rows. Steps on the weights multiply, so that
a row whose weight has once become tiny does not come back (sat_relu, unsat_v37_c63: 3,000 domains instead of more than
30,000)."""

SPLITS_LEFT = 2.0
"""Further splits that a domain must be expected to take for renewed bounds to pay."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..budget import MemoryBudget
    from ..graph import Array
    from ..rows import Rows
    from .layout import Layout


@dataclass(frozen=True)
class BranchOptions:
    """batch: domains a round and worker; workers: threads; iterations: gradient steps a domain; tried: candidates tried
    for real at each choice; tighten: renew bounds after every so many splits of a domain (0: never), after more than
    `tighten_to` splits (None: any number) only of domains that are `far` from being closed; rows: how many rows are
    bounded at once then; memory: for the bounds of split boxes; leave_hairs: set domains aside that only rounding keeps
    open (`hairs`)."""

    batch: int = 64
    workers: int = 1
    iterations: int = 10
    tried: int = 3
    tighten: int = 0
    tighten_to: int | None = None
    rows: int = 1024
    record: bool = False
    score: str = "bbps"
    memory: MemoryBudget | None = None
    leave_hairs: bool = False


@dataclass
class BranchReport:
    """What a search did. `leaves` are open domains in which nothing is left to split, `hairs` those that were set
    aside, `closed` (where that is wanted) the closed ones; `kernel_seconds` the time spent in bounds, summed over
    threads."""

    visited: int = 0
    kernel_seconds: float = 0.0
    splits: int = 0
    halvings: int = 0
    exhausted: bool = False
    leaves: list[Branches] = field(default_factory=list)
    hairs: list[Branches] = field(default_factory=list)
    closed: list[Branches] = field(default_factory=list)
    witness: Any = None

    def add(self, other: BranchReport) -> None:
        """Book what another part of the search did, too."""
        self.visited += other.visited
        self.kernel_seconds += other.kernel_seconds
        self.splits += other.splits
        self.halvings += other.halvings
        self.exhausted = self.exhausted or other.exhausted
        self.leaves += other.leaves
        self.hairs += other.hairs
        self.closed += other.closed
        self.witness = self.witness if other.witness is None else other.witness


def mixture_of(rows: Rows, group: Array, clause: Array) -> Mixture:
    """The rows of each domain's clause, padded: ``[N, S, m]`` and ``[N, S]``."""
    xp = array_namespace(rows.rows)
    slots = rows.slots[group, clause]
    some = xp.clip(slots, None, rows.rows.shape[1] - 1)
    chosen = rows.rows[group[:, None], some]
    offsets = xp.where(slots < rows.rows.shape[1], rows.offsets[group[:, None], some], xp.inf)
    return Mixture(chosen, offsets)


def search(
    layout: Layout,
    rows: Rows,
    pool: BranchPool,
    options: BranchOptions,
    deadline: Deadline,
    check: Callable[[Array, Array], Any],
    cuts: Cuts | None = None,
    last: Deadline | None = None,
) -> BranchReport:
    """Search until the pool is empty, a witness is found, or the deadline passes; a round that has begun is cut short
    only by the deadline `last` (the same one if None is given).

    With `cuts`, clauses are learnt from closed domains and applied to open ones; a record has no place for what they
    close, so that a search that records must go without (ValueError).

    Domains lost to a fault are never dropped: what a round took goes back to the pool unless all of it was bounded.
    """
    if cuts is not None and options.record:
        raise ValueError("a search that records its closed domains cannot use cuts")
    report = BranchReport()
    phases = None if cuts is None else cuts.phases
    batch = options.batch
    with threads(options.workers) as executor:
        while len(pool):
            if deadline.passed:
                return report
            taken = pool.pop(max(1, batch * options.workers // 2))
            try:
                children = _children(layout, taken)
                more = len(children) - len(taken)
                if cuts is not None:
                    children = cuts.propagate(children)
                step = partial(_step, layout, rows, options, last or deadline, phases)
                outcomes = on_threads(executor, step, pieces(children, options.workers, 4)) if len(children) else []
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
                return report
            report.visited += len(children)
            report.splits += more
            for outcome in outcomes:
                report.kernel_seconds += outcome.seconds
                pool.push(outcome.open)
                report.closed += outcome.closed
                if cuts is not None:
                    for conflicts in outcome.conflicts:
                        cuts.learn(conflicts)
                if len(outcome.leaves):
                    report.leaves.append(outcome.leaves)
                if len(outcome.hairs):
                    report.hairs.append(outcome.hairs)
            for outcome in outcomes:
                if outcome.points.shape[0]:
                    report.witness = check(outcome.points, outcome.groups)
                    if report.witness is not None:
                        return report
    return report


def _children(layout: Layout, domains: Branches) -> Branches:
    """The domains split at their chosen slots.

    Once each, even while they are few: two or three splits at a time fill a batch sooner, but their later choices are
    stale (MNIST 256x2, property 10: 4,900 domains instead of 100).
    """
    slots = domains.next[:, 0]
    return split(domains, 0, split_points(layout, domains, slots), layout.opened(slots))


@dataclass(frozen=True, eq=False)
class _Outcome:
    """A bounded batch: domains to split further, domains in which nothing can be split, domains that only rounding
    keeps open, points that look unsafe, and closed domains and their conflicts where they are wanted."""

    open: Branches
    leaves: Branches
    hairs: Branches
    points: Array
    groups: Array
    seconds: float
    closed: list[Branches]
    conflicts: list[Conflicts]


@np.errstate(all="ignore")
def _step(
    layout: Layout, rows: Rows, options: BranchOptions, deadline: Deadline, phases: Phases | None, domains: Branches
) -> _Outcome:
    """Bound a batch, close what can be closed (with conflicts in terms of the phases, if these are given), and choose
    the next splits of the rest."""
    xp = array_namespace(domains.low)
    mixture = mixture_of(rows, domains.base, domains.clause)
    renew = partial(renewed, layout, deadline, options.memory) if layout.box is not None else None
    if renew is not None:
        domains = renew(domains)
    domains = replace(domains, mixture=spread(mixture, domains.mixture, SPREAD))
    ascent = ascent_of(layout, domains, mixture)
    ascent.evaluate()
    best = ascent.best + 0
    alive = xp.arange(len(domains), **options_like(domains.low))
    closed_parts: list[Branches] = []

    def keep_open() -> None:
        nonlocal alive
        closed = ascent.best > 0
        if options.record or phases is not None:
            done = xp.nonzero(closed)[0]
            part = layout.stored(domains.pick(alive[done]), ascent.best_of(done))
            closed_parts.append(replace(part, bound=ascent.best[done]))
        remaining = xp.nonzero(~closed)[0]
        ascent.keep(remaining)
        alive = alive[remaining]

    for step in range(options.iterations):
        deadline.check()
        closed = ascent.best > 0
        if bool(closed.all()):
            break
        if 4 * int(closed.sum()) >= closed.shape[0]:
            keep_open()
        ascent.improve(*gain_to_zero(ascent.last, step))
        ascent.evaluate()
        best[alive] = ascent.best
    keep_open()
    conflicts = [] if phases is None else _conflicts(layout, rows, phases, closed_parts, deadline)
    if not options.record:
        closed_parts.clear()
    if alive.shape[0] == 0:
        nothing = domains.pick(slice(0, 0))
        points, groups = layout.base.lower[:0], domains.base[:0]
        return _Outcome(nothing, nothing, nothing, points, groups, ascent.seconds, closed_parts, conflicts)
    ascent.forward()
    survivors = layout.stored(domains.pick(alive), ascent.best_parameters)
    survivors = replace(survivors, bound=xp.maximum(survivors.bound, best[alive]))
    mixture = Mixture(mixture.rows[alive], mixture.offsets[alive])
    points, groups = _unsafe(layout, mixture, survivors, ascent.minimiser())
    score = scores(layout, survivors, ascent, options.score)
    seconds = ascent.seconds
    near = (survivors.bound > -HAIR * ascent.allowance()) & options.leave_hairs
    hairs, kept = survivors.pick(xp.nonzero(near)[0]), xp.nonzero(~near)[0]
    survivors, score = survivors.pick(kept), score[kept]
    mixture = Mixture(mixture.rows[kept], mixture.offsets[kept])
    if options.tighten and len(survivors):
        survivors, still, spent = _tightened(layout, survivors, mixture, score, options, deadline)
        seconds += spent
        mixture, score, kept = Mixture(mixture.rows[still], mixture.offsets[still]), score[still], kept[still]
        score = xp.where(still_open(layout, survivors), score, 0.0)
    tried = contenders(layout, score, max(1, options.tried))
    deadline.check()
    if options.tried > 1 and len(survivors) and layout.width:
        lines = fixed(ascent, kept) if layout.curved else None
        tried, spent = filtered(layout, survivors, tried, mixture, lines, renew)
        seconds += spent
    survivors = replace(survivors, next=tried[:, :1])
    splittable = tried[:, 0] >= 0
    return _Outcome(
        survivors.pick(xp.nonzero(splittable)[0]),
        survivors.pick(xp.nonzero(~splittable)[0]),
        hairs,
        points,
        groups,
        seconds,
        closed_parts,
        conflicts,
    )


def _conflicts(
    layout: Layout, rows: Rows, phases: Phases, closed: list[Branches], deadline: Deadline
) -> list[Conflicts]:
    """What the closed domains teach; nothing for those with splits that are no phases."""
    domains = join(closed)
    domains = domains.pick(array_namespace(domains.low).nonzero(phases.only(domains))[0])
    if not len(domains):
        return []
    return [shortened(layout, domains, mixture_of(rows, domains.base, domains.clause), deadline)]


def _tightened(
    layout: Layout, domains: Branches, mixture: Mixture, score: Array, options: BranchOptions, deadline: Deadline
) -> tuple[Branches, Array, float]:
    """The domains with renewed bounds where that is due, which of them remain (integers), and the seconds spent in
    bounds."""
    xp = array_namespace(domains.low)
    depth = xp.sum(xp.astype(domains.slot >= 0, xp.int64), axis=1)
    # Domains whose box was split have renewed bounds, for much less.
    due = (depth % options.tighten == 0) & ~boxed(layout, domains.next[:, 0])
    if options.tighten_to is not None:
        due = due & ((depth <= options.tighten_to) | far(domains, depth))
    due = xp.nonzero(due)[0]
    if due.shape[0] == 0:
        return domains, xp.arange(len(domains), **options_like(domains.low)), 0.0
    part, empty, seconds = tighten(
        layout,
        domains.pick(due),
        Mixture(mixture.rows[due], mixture.offsets[due]),
        options.rows,
        deadline,
        score[due],
    )
    low, high = domains.low + 0, domains.high + 0
    low[due], high[due] = part.low, part.high
    remains = xp.ones((len(domains),), dtype=xp.bool, **options_like(domains.low))
    remains[due] = ~empty
    kept = xp.nonzero(remains)[0]
    return replace(domains, low=low, high=high).pick(kept), kept, seconds


def far(domains: Branches, depth: Array) -> Array:
    """Which domains ``[N]`` of so many splits ``[N]`` would take at least `SPLITS_LEFT` more to be closed, if each
    gained what those before did on average: renewed bounds must pay for a subtree."""
    missing = -domains.bound * array_namespace(depth).astype(depth, domains.bound.dtype)
    return ~(missing < SPLITS_LEFT * (domains.bound - domains.first))


def _unsafe(layout: Layout, mixture: Mixture, domains: Branches, points: Array) -> tuple[Array, Array]:
    """Those of the points ``[N, n]`` that violate their domain's clause as far as this dtype can tell, and their
    groups."""
    xp = array_namespace(points)
    values = output_vector(layout.base.plan.graph, points)
    margins = (mixture.rows @ values[:, :, None])[:, :, 0] - mixture.offsets
    unsafe = xp.max(margins, axis=1) <= 0
    return points[unsafe], domains.base[unsafe]
