"""The searches in turns: each can be run for a while, told whether it closed everything, and run again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Backend, to_numpy
from .search.activation_search import ActivationSearch
from .search.domains import Domains, Pool
from .search.exact import Ties
from .search.input_split import SplitOptions, SplitReport, search
from .search.record import BoxRecord, BranchRecord, Record
from .setting import Setting

if TYPE_CHECKING:
    from .budget import Deadline
    from .result import Witness
    from .search.layout import Layout
    from .setting import Job

LIGHT_FROM = 16
"""Boxes, both of the query and in a batch, from which a search does with light bounds. Where few boxes are given, or
fit into a batch, good bounds pay (linearizenn 80_30_1: 65 boxes in 0.1 seconds instead of more than 56,000 in 20; cgan
32, property 3: 3 in 2.6 instead of 2,082 in 37); nn4sys asks about hundreds, which fit into batches of 39."""


class InputTurns:
    """Branch-and-bound on the input box; boxes that float32 cannot settle are searched in float64 after the others.

    With `one_pass`, every box is bounded once and not split.
    """

    def __init__(self, job: Job, one_pass: bool = False) -> None:
        self._job = job
        self._setting = job.setting
        self._record = BoxRecord()
        self._one_pass = one_pass
        self._pool = Pool([job.setting.root()])
        self._stuck: list[Domains] = []
        self._exhausted = False
        self._patience = 1.0
        # (What rational arithmetic refutes is in no record.)
        self._ties = None if job.options.record else Ties(job.problem.graph, job.problem.groups)

    @property
    def closed(self) -> bool:
        """Whether no box is open, and none was lost."""
        return not len(self._pool) and not self._stuck

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self._exhausted or not (len(self._pool) or self._doubles)

    @property
    def _doubles(self) -> bool:
        """Whether float64 is still to be tried on what is stuck."""
        return bool(self._stuck) and self._setting.backend.dtype != "float64" and not self._one_pass

    @property
    def record(self) -> Record:
        """What was refuted where, if the options ask for it."""
        return Record(boxes=self._record)

    def run(self, deadline: Deadline) -> Witness | None:
        """Search until the deadline; a witness if one was found."""
        if self.finished:
            return None
        if not len(self._pool):
            self._continue_in_double()
        # Work on a batch that a turn cut short is lost, so after a turn too short for any batch the next is longer.
        until = self._job.deadline.sooner(self._patience * deadline.remaining)
        report = self._stretch(until)
        self._patience = 1.0 if report.visited else 2.0 * self._patience
        self._stuck += report.stuck if report.undefined else self._left_open(report.stuck)
        self._exhausted = report.exhausted
        if self.closed:
            self._job.log.best_bound = None
        witness: Witness | None = report.witness
        return witness

    def _left_open(self, stuck: list[Domains]) -> list[Domains]:
        """The boxes that float64 cannot settle and rational arithmetic cannot, either."""
        if self._setting.backend.dtype != "float64" or self._ties is None:
            return stuck
        left = []
        for boxes in stuck:
            every = boxes.group >= 0
            deadline = self._job.deadline
            settled = self._ties.settled(boxes.lower, boxes.upper, boxes.group, boxes.active, every, deadline)
            left.append(boxes.pick(self._setting.backend.array(np.flatnonzero(~settled))))
        return [boxes for boxes in left if len(boxes)]

    def _continue_in_double(self) -> None:
        """Make the boxes that float32 cannot settle the pool of a search in float64."""
        if self._job.log.undefined is None:
            count = sum(len(part) for part in self._stuck)
            self._job.log.warnings.append(f"boxes that float32 could not decide, searched in float64: {count}")
        self._job.log.undefined = None
        double = Setting.of(self._job.problem, Backend("float64", self._setting.backend.device))
        region = to_numpy(double.lower), to_numpy(double.upper)
        for part in self._stuck:
            group = to_numpy(part.group)
            # Rounded outward to float32, a box may reach past the region, to where the network has no value.
            low = np.maximum(to_numpy(part.lower).astype(np.float64), region[0][group])
            high = np.minimum(to_numpy(part.upper).astype(np.float64), region[1][group])
            margin = double.backend.array(to_numpy(part.margin))
            ends = double.backend.array(low), double.backend.array(high)
            boxes = Domains(ends[0], ends[1], part.group, part.active, margin, {})
            self._pool.push(boxes.pick(double.backend.array((low <= high).all(axis=1))))
        self._setting, self._stuck = double, []

    def _options(self, setting: Setting) -> SplitOptions:
        """Batches that keep a step's working set near the cache, in one worker a core."""
        batch = max(1, min(4096, 150_000 // max(1, setting.plan.target_size)))
        on_device = setting.backend.device is not None
        return SplitOptions(
            batch=16 * batch if on_device else batch,
            workers=1 if on_device else self._job.threads,
            record=self._job.options.record,
            light=not self._one_pass and min(batch, int(setting.lower.shape[0])) >= LIGHT_FROM,
            leave_hairs=setting.backend.dtype != "float64" and not self._one_pass,
            # The values that stand for a stair differ between dtypes, so boxes of float32 must not be cut to float64's.
            stairs=setting.stairs if setting is self._job.setting and not self._job.options.record else {},
            whole=None if self._job.options.record else setting.whole_inputs,
            ties=self._ties,
        )

    def _stretch(self, deadline: Deadline) -> SplitReport:
        """Search the pool for a while and book what was done."""
        started = time.monotonic()
        job, setting = self._job, self._setting
        report = search(
            setting.plan,
            setting.rows,
            self._pool,
            self._options(setting),
            deadline,
            job.memory,
            job.check,
            one_pass=self._one_pass,
        )
        for refuted in report.refuted:
            self._record.add(*refuted)
        job.log.phase("bounds" if self._one_pass else "input split", started, report.visited)
        job.log.booked(report.visited, report.splits, report.halvings)
        left = min([self._pool.margin, *(float(part.margin.min()) for part in report.stuck)])
        job.log.best_bound = left if np.isfinite(left) else None
        job.log.undefined = report.undefined or job.log.undefined
        return report


class ActivationTurns:
    """Branch-and-bound on activations."""

    def __init__(self, job: Job) -> None:
        self._job = job
        single = job.setting.backend.dtype == "float32"
        self.search = replace(
            self._search(job.setting),
            record=BranchRecord() if job.options.record else None,
            groups=job.problem.groups if single else None,
            in_double=self._in_double if single and not job.options.record else None,
        )

    def _search(self, setting: Setting) -> ActivationSearch:
        job = self._job
        return ActivationSearch(
            setting.plan,
            setting.rows,
            setting.lower,
            setting.upper,
            job.memory,
            job.threads,
            cuts=job.options.cuts,
        )

    def _in_double(self, clauses: np.ndarray) -> ActivationSearch:
        """A search in float64 of these clauses ``[G, K]`` alone."""
        backend = Backend("float64", self._job.setting.backend.device)
        setting = Setting.of(self._job.problem, backend)
        return self._search(replace(setting, rows=replace(setting.rows, clauses=backend.array(clauses))))

    @property
    def closed(self) -> bool:
        """Whether every clause is refuted everywhere."""
        return self.search.closed

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.search.finished

    @property
    def record(self) -> Record:
        """What was closed how, if the options ask for it."""
        return Record(branches=self.search.record)

    @property
    def layout(self) -> Layout | None:
        """What may be split; None before the root was bounded, and where nothing was left open."""
        return None if self.search.root is None else self.search.root.layout

    def run(self, deadline: Deadline) -> Witness | None:
        """Search until the deadline and book what was done; a witness if one was found."""
        started = time.monotonic()
        search, log = self.search, self._job.log
        report = search.run(deadline, self._job.check, self._job.deadline)
        log.phase("activation split", started, report.visited)
        log.booked(report.visited, report.splits, report.halvings)
        log.count("kernel milliseconds", round(1000 * report.kernel_seconds))
        spent = log.seconds("activation split") * search.workers
        if report.visited and spent > 0:
            share = log.counters["kernel milliseconds"] / 1000 / spent
            log.details["share outside kernels"] = round(max(0.0, 1.0 - share), 3)
        log.counters["linear programmes"] = search.programmes
        if report.exhausted:
            search.abandon()
        log.undefined = search.undefined or log.undefined
        if np.isfinite(search.bound):
            log.best_bound = search.bound
        witness: Witness | None = report.witness
        return witness
