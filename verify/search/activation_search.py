"""A whole search by activation splits: its root, its pool, and the linear programmes of leaves where nothing is left
to split.

One object, so that the strategy can run it in stretches and look for witnesses between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Backend, out_of_memory_errors, to_numpy
from ..bounding.backward import Relaxed
from ..bounding.families import KNOTS
from ..budget import TimeUp
from ..errors import UndefinedOnRegion
from ..ops import rule
from .activation_root import Root, open_root
from .activation_split import BranchOptions, BranchReport, mixture_of, search
from .box_slots import INPUTS_AT_MOST
from .branches import BranchPool
from .branching import ascent_of
from .cuts import Cuts, make_phases
from .doubled import exact_graph, in_double
from .leaves import programme
from .tightening import CURVED_AT_MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..bounding.plan import Plan
    from ..budget import Deadline, MemoryBudget
    from ..graph import Array, Graph
    from ..problem import Group
    from ..rows import Rows
    from .branches import Branches
    from .layout import Layout
    from .record import BranchRecord

TIGHTEN_AT_MOST = 400
"""Undecided entries up to which their bounds are renewed during the search: renewing costs a row each, which only
networks with few of them can afford (MNIST 256x6: 200 domains instead of over 20,000; CIFAR convolutions: slower)."""

TIGHTEN_EVERY = 2
"""Splits after which a domain's bounds are renewed."""

TIGHTEN_CURVED_TO = 2
"""In networks with many entries that no number of splits decides, bounds are renewed after each of so many splits of a
domain, and then only where it is far from being closed (processor seconds on MNIST, against renewing after each of the
first four: tanh 4x100, image 21: 2.2 instead of 5.6; sine 4x200, image 12: 3.3 instead of 5.2; after the first three
alone: more than 6, and 4.2)."""

CURVED_ITERATIONS = 3
"""Gradient steps a domain in such networks. Splits move their bounds more than further steps do (MNIST 4x100, sine: 2.0
seconds instead of 3.4 with 10, 3.2 with 1)."""


ROOT_SHARE = 0.2
"""Share of a search's time that its root may take at once: begun anew every turn, it might never be done."""


@dataclass
class ActivationSearch:
    """Activation branch-and-bound of all clauses on their boxes ``[G, n]``.

    record: where to book what a proof needs (bounds are not renewed then). groups: the problem's own, in float64, where
    the search is in float32; what it cannot decide is then searched in float64 by `finer`, whose boxes belong to
    `finer_groups`. in_double: makes a search in float64 of the clauses ``[G, K]`` it is given, where the search is in
    float32; that is the `twin` and decides clauses that only rounding keeps open at the root. `closed` says that every
    clause is refuted everywhere; `lost` counts leaves that neither bounds nor linear programming could decide. cuts:
    learn clauses from closed domains (not while a proof is recorded); see `Options.cuts`. `undefined` names an operator
    that may have no value on a box: nothing can be done then. points and score: where and by what entries are split,
    see `make_layout` and `branching.scores`. inputs: up to how many varying inputs these are split, too (0: never); see
    `box_slots`. renew: whether domains' bounds may be renewed at all. started: the bounds of a root that a deadline cut
    short.
    """

    plan: Plan
    rows: Rows
    lower: Array
    upper: Array
    memory: MemoryBudget
    workers: int = 1
    record: BranchRecord | None = None
    groups: Sequence[Group] | None = None
    cuts: bool = False
    learnt: Cuts | None = None
    points: str = "table"
    score: str = "bbps"
    inputs: int = INPUTS_AT_MOST
    renew: bool = True
    root: Root | None = None
    started: Relaxed | None = None
    lost: int = 0
    leaves: list[Branches] = field(default_factory=list)
    programmes: int = 0
    undefined: str | None = None
    close_calls: list[Branches] = field(default_factory=list)
    exact: Graph | None = None
    in_double: Callable[[np.ndarray], ActivationSearch] | None = None
    twin: ActivationSearch | None = None
    finer: ActivationSearch | None = None
    finer_groups: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def closed(self) -> bool:
        """Whether nothing is open, undecided or lost."""
        return self.finished and not self.lost

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        if self.root is None or len(self.root.pool) or self.leaves or self.close_calls:
            return False
        return all(search.finished for search in (self.twin, self.finer) if search is not None)

    @property
    def bound(self) -> float:
        """The smallest proven bound of what is open; infinite when nothing is."""
        if self.root is None:
            return float("-inf")
        bounds = [search.bound for search in (self.twin, self.finer) if search is not None]
        parts = (*self.leaves, *self.close_calls)
        return min([*bounds, self.root.pool.bound, *(float(part.bound.min()) for part in parts)])

    def run(
        self, deadline: Deadline, check: Callable[[Array, Array], Any], last: Deadline | None = None
    ) -> BranchReport:
        """Work until all is decided, a witness is found or the deadline passes.

        A round that has begun is cut short only by the deadline `last` (the same one if None is given), so that a turn
        of a longer search loses no work; the root may take `ROOT_SHARE` of the time until then.
        """
        report = BranchReport()
        last = last or deadline
        if self.root is None:
            opening = last.sooner(max(deadline.remaining, ROOT_SHARE * last.remaining))
            self.started = self.started or Relaxed(self.plan, self.lower, self.upper, [], {})
            try:
                self.root = open_root(
                    self.plan,
                    self.rows,
                    self.lower,
                    self.upper,
                    opening,
                    self.memory,
                    record=self.record,
                    points=self.points,
                    inputs=self.inputs,
                    leave_hairs=self.in_double is not None,
                    started=self.started,
                )
            except TimeUp:
                return report
            except UndefinedOnRegion as error:
                self.undefined, self.lost = str(error), 1
                self.root = Root(None, BranchPool(), float("-inf"))
            self.started = None
            if self.root.near is not None and self.in_double is not None:
                self.twin = self.in_double(to_numpy(self.root.near))
        layout = self.root.layout
        if self.twin is not None and not self.twin.finished:
            until = deadline if layout is None else deadline.sooner(0.5 * deadline.remaining)
            self._continue(self.twin, report, until, check, last)
            self.undefined = self.twin.undefined or self.undefined
        if layout is None or report.witness is not None:
            return report
        if len(self.root.pool):
            if self.cuts and self.record is None and self.learnt is None:
                self.learnt = Cuts(make_phases(layout))
            options = self._options(layout)
            found = search(layout, self.rows, self.root.pool, options, deadline, check, self.learnt, last)
            report.add(found)
            self.leaves += report.leaves
            self.close_calls += report.hairs
            report.leaves, report.hairs = [], []
            if self.record is not None:
                for closed in report.closed:
                    self.record.add(closed)
                report.closed = []
        if report.witness is None and self.leaves:
            report.witness = self._decide_leaves(layout, deadline, check)
        if report.witness is None and not len(self.root.pool) and not self.leaves:
            self._look_closer(layout, report, deadline, check, last)
        return report

    def _look_closer(
        self,
        layout: Layout,
        report: BranchReport,
        deadline: Deadline,
        check: Callable[[Array, Array], Any],
        last: Deadline,
    ) -> None:
        """Search what was too close to call in float64, and add to the report what came of it."""
        if self.close_calls and self.groups is not None:
            try:
                state = in_double(
                    layout, self._exact_graph(layout), self.close_calls, self.groups, deadline, self.memory
                )
            except TimeUp:
                return
            except out_of_memory_errors():
                report.exhausted = True
                return
            self.close_calls = []
            self.finer_groups = state.groups
            base = state.layout.base
            root = Root(state.layout, state.pool, state.pool.bound)
            self.finer = ActivationSearch(
                base.plan, state.rows, base.lower, base.upper, self.memory, self.workers, root=root
            )
        if self.finer is None or self.finer.finished:
            return
        groups = self.finer_groups
        self._continue(self.finer, report, deadline, lambda points, boxes: check(points, groups[to_numpy(boxes)]), last)

    def _continue(
        self,
        part: ActivationSearch,
        report: BranchReport,
        deadline: Deadline,
        check: Callable[[Array, Array], Any],
        last: Deadline,
    ) -> None:
        """Run a part of the search that is a search of its own, and book what came of it."""
        before = part.programmes, part.lost
        found = part.run(deadline, check, last)
        self.programmes += part.programmes - before[0]
        self.lost += part.lost - before[1]
        report.add(found)

    def _exact_graph(self, layout: Layout) -> Graph:
        if self.exact is None:
            self.exact = exact_graph(layout)
        return self.exact

    def abandon(self) -> None:
        """Give up what is open (memory ran out): it counts as lost."""
        if self.root is not None:
            self.lost += len(self.root.pool) + sum(len(part) for part in self.close_calls)
            self.root.pool.blocks.clear()
            self.close_calls.clear()
        for part in (self.twin, self.finer):
            if part is not None:
                before = part.lost
                part.abandon()
                self.lost += part.lost - before

    def _options(self, layout: Layout) -> BranchOptions:
        """Batches that keep a pass's arrays near the cache on a CPU, and within the memory budget."""
        nodes = layout.base.plan.graph.nodes
        size = sum(node.size for node in nodes if node.op != "Constant")
        on_device = not isinstance(self.lower, np.ndarray)
        # Lines to choose from, of both sides, for every domain.
        knots = sum((len(node.inputs) + 1) * node.size for node in nodes if rule(node.op).curved)
        workers = 1 if on_device else self.workers
        per_row = 16 * size * self.lower.dtype.itemsize * workers
        per_domain = per_row + 4 * KNOTS * knots * self.lower.dtype.itemsize * workers
        batch = self.memory.rows(per_domain, 8192 if on_device else max(16, min(256, 1_000_000 // size)))
        kinked = sum(block.stop - block.start for block in layout.slots if block.kinks is not None)
        curved = sum(block.stop - block.start for block in layout.bound if block.kinks is None)
        many = curved > CURVED_AT_MOST
        # Renewed bounds would have to be recorded, too.
        few = kinked <= TIGHTEN_AT_MOST and self.record is None and self.renew
        return BranchOptions(
            batch=batch,
            workers=workers,
            iterations=CURVED_ITERATIONS if many else 10 if kinked <= TIGHTEN_AT_MOST else 3,
            tighten=(1 if many else TIGHTEN_EVERY) if few else 0,
            tighten_to=TIGHTEN_CURVED_TO if many else None,
            rows=self.memory.rows(per_row, 1024),
            score=self.score,
            record=self.record is not None,
            memory=self.memory,
            leave_hairs=self.groups is not None and self.record is None,
        )

    def promising(self, count: int) -> tuple[Array, Array, Array] | None:
        """Where an attack should start: the points ``[P, n]`` that attain the lowest bounds of open domains, with their
        groups and clauses ``[P]``."""
        if self.root is None or self.root.layout is None or not len(self.root.pool):
            return None
        block = self.root.pool.blocks[-1]
        domains = block.pick(slice(max(0, len(block) - count), len(block)))
        ascent = ascent_of(self.root.layout, domains, mixture_of(self.rows, domains.base, domains.clause))
        ascent.evaluate()
        return ascent.minimiser(), domains.base, domains.clause

    def _decide_leaves(self, layout: Layout, deadline: Deadline, check: Callable[[Array, Array], Any]) -> Any:
        """Decide domains without anything to split by linear programming; a witness ends it."""
        from ..programs.encoding import encodable
        from ..programs.leaf import leaf_bound
        from ..programs.roles import NotEncodable

        graph = self._exact_graph(layout)
        possible = encodable(graph) is None
        while self.leaves:
            part = self.leaves.pop()
            for position in range(len(part)):
                if deadline.passed:
                    self.leaves.append(part.pick(slice(position, len(part))))
                    return None
                domain = part.pick(slice(position, position + 1))
                if not possible:
                    self._give_up(domain)
                    continue
                self.programmes += 1
                try:
                    leaf = leaf_bound(graph, **programme(layout, graph, self.rows, domain), deadline=deadline)
                except NotEncodable:
                    self._give_up(domain)
                    continue
                if leaf.status == "closed":
                    if self.record is not None:
                        self.record.programmes.append((domain, leaf.weights))
                    continue
                if leaf.point is not None:
                    point = Backend(str(self.lower.dtype).rsplit(".", 1)[-1], None).array(leaf.point[None])
                    witness = check(point, to_numpy(domain.base))
                    if witness is not None:
                        self.leaves.append(part.pick(slice(position, len(part))))
                        return witness
                if deadline.passed:
                    self.leaves.append(part.pick(slice(position, len(part))))
                    return None
                self._give_up(domain)
        return None

    def _give_up(self, leaf: Branches) -> None:
        """A leaf that is not decided: it waits for float64, or is lost."""
        if self.groups is None or self.record is not None:
            self.lost += len(leaf)
        else:
            self.close_calls.append(leaf)
