"""Complete verification of small piecewise-linear networks by mixed-integer programming.

Tjeng, Xiao & Tedrake 2019, "Evaluating Robustness of Neural Networks with Mixed Integer Programming", with our own
backward bounds as constants. A point found by the solver counts only if the caller's `check` (a replay on the
reference runtime) confirms it. A clause is refuted either by our own bounds, or by HiGHS's lower bound; the latter
holds up to the solver's tolerances, so it must exceed a margin, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Backend
from ..bounding.crown import relax, row_bounds
from ..bounding.plan import make_plan
from ..budget import TimeUp
from .encoding import Size, encodable, encode, estimate, inexact, roles_of
from .highs import TOLERANCE, Solution, solve_integer
from .roles import NotEncodable
from .tolerances import reach_of_tolerances
from .wiring import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..budget import Deadline, MemoryBudget
    from ..graph import Graph
    from ..problem import Group, Problem
    from ..result import Witness
    from .program import Program
    from .roles import Bounds
    from .wiring import Wiring

MARGIN = 1e-6
"""How much, relative to the terms of a clause, a lower bound of HiGHS must be above 0 to count.

What the solver's tolerances can reach (`reach_of_tolerances`) comes on top, `SPARE` times. This is no proof of what
the solver does, so that a refutation by HiGHS carries a warning."""

SPARE = 10.0
"""Times that rows may be missed by `TOLERANCE`: presolving and scaling are not as exact as the solver's last answer."""

LARGEST = Size(columns=60_000, nonzeros=20_000_000, undecided=3_000)
"""Programmes beyond this are not tried."""


@dataclass(frozen=True, eq=False)
class MilpReport:
    """What mixed-integer programming found out.

    status    sat: `witness` was confirmed;  unsat: every clause of every group is refuted;  timeout;  unknown.
    reason    why the status is not sat or unsat, in one sentence.
    warnings  what an `unsat` rests on besides our own arithmetic.
    bound     the least proved lower bound over the clauses that were decided or tried; None if there is none.
    closed, clauses  how many clauses were refuted, and how many there are;  nodes  of the solver's search.
    """

    status: str
    witness: Witness | None
    reason: str
    warnings: tuple[str, ...]
    bound: float | None
    closed: int
    clauses: int
    nodes: int


@dataclass(frozen=True, eq=False)
class _Task:
    """One clause over one box that our bounds leave open."""

    group: int
    lower: np.ndarray
    upper: np.ndarray
    intervals: Sequence[Bounds]
    rows: np.ndarray
    offsets: np.ndarray
    floor: float
    size: Size


def solve_by_milp(
    problem: Problem,
    deadline: Deadline,
    check: Callable[[np.ndarray, np.ndarray], Witness | None],
    *,
    memory: MemoryBudget | None = None,
    threads: int = 1,
    largest: Size = LARGEST,
    child_memory: int | None = None,
) -> MilpReport:
    """Decide a problem by one mixed-integer programme a clause, smallest first, stopping at the first witness.

    check         ``(points [P, n], groups [P])`` to a confirmed witness or None.
    memory        for temporaries of our bounds;  child_memory  bytes that the solver's process may allocate.
    largest       programmes larger than this are not tried (status unknown).
    Raises `UndefinedOnRegion` where the bounds do.
    """
    run = _Run(problem, deadline, check, threads, child_memory)
    reason = encodable(problem.graph) or inexact(problem.graph)
    if reason is not None:
        return run.report("unknown", reason)
    try:
        tasks = run.tasks(problem.groups, memory)
    except TimeUp:
        return run.report("timeout", "the deadline passed while the network was bounded")
    except NotEncodable as error:
        return run.report("unknown", str(error))
    for task in sorted(tasks, key=lambda task: (task.size.undecided, task.size.nonzeros, -task.floor)):
        if _exceeds(task.size, largest):
            return run.report("unknown", f"a programme of {_told(task.size)} is too large")
        verdict = run.solve(task)
        if verdict is not None:
            return verdict
    return run.report("unsat", "")


def _exceeds(size: Size, largest: Size) -> bool:
    return size.columns > largest.columns or size.nonzeros > largest.nonzeros or size.undecided > largest.undecided


def _told(size: Size) -> str:
    return f"{size.columns} columns, {size.nonzeros} coefficients and {size.undecided} undecided neurons"


class _Run:
    """One run over the open clauses."""

    def __init__(
        self,
        problem: Problem,
        deadline: Deadline,
        check: Callable[[np.ndarray, np.ndarray], Witness | None],
        threads: int,
        child_memory: int | None,
    ) -> None:
        self.graph = Backend("float64").graph(problem.graph)
        self.deadline = deadline
        self.check = check
        self.threads = threads
        self.child_memory = child_memory
        self.clauses = sum(group.count for group in problem.groups)
        self.closed = 0
        self.by_highs = 0
        self.nodes = 0
        self.bound: float | None = None
        self.wired: tuple[int, Wiring] | None = None

    def tasks(self, groups: Sequence[Group], memory: MemoryBudget | None) -> list[_Task]:
        """The clauses that our bounds do not refute."""
        plan = make_plan(self.graph)
        tasks = []
        for position, group in enumerate(groups):
            self.deadline.check()
            state = relax(plan, group.lower[None], group.upper[None], deadline=self.deadline, memory=memory)
            least = np.zeros(0)
            if len(group.rows):
                bound = row_bounds(state, group.rows[None], group.offsets[None], memory=memory, deadline=self.deadline)
                least = bound.lower[0]
            intervals = [(low.reshape(-1), high.reshape(-1)) for low, high in state.intervals]
            size = None
            for clause in range(group.count):
                mask = group.clause == clause
                floor = float(least[mask].max(initial=-np.inf))
                if floor > 0.0:
                    self.closed += 1
                    continue
                size = estimate(self.graph, intervals) if size is None else size
                tasks.append(
                    _Task(
                        position,
                        group.lower,
                        group.upper,
                        intervals,
                        group.rows[mask],
                        group.offsets[mask],
                        floor,
                        size,
                    )
                )
        return tasks

    def report(self, status: str, reason: str, witness: Witness | None = None) -> MilpReport:
        """The report as things stand."""
        warnings: tuple[str, ...] = ()
        if self.by_highs and status == "unsat":
            warnings = (
                f"{self.by_highs} of {self.clauses} clauses are refuted by lower bounds of HiGHS: its tolerance is "
                f"{TOLERANCE:g} a row, and each bound exceeds what missing rows by it may reach, but this is no proof",
            )
        return MilpReport(status, witness, reason, warnings, self.bound, self.closed, self.clauses, self.nodes)

    def solve(self, task: _Task) -> MilpReport | None:
        """Decide one clause; None when it is refuted, else the final report."""
        if not len(task.rows):
            witness = self._checked(0.5 * (task.lower + task.upper), task)
            if witness is not None:
                return self.report("sat", "", witness)
            return self.report("unknown", "every point is unsafe, but the runtime did not confirm the one tried")
        try:
            program, inputs, margin = self._program(task)
        except TimeUp:
            return self.report("timeout", "the deadline passed while a programme was built")
        # First any unsafe point; if the runtime does not confirm it, the one farthest inside the unsafe set. What is
        # refuted must be refuted without presolving, too.
        found = False
        for target, presolve in ((0.0, True), (-np.inf, True), (0.0, False)):
            if presolve and target < 0.0 and not found:
                continue
            solution = solve_integer(
                program,
                self.deadline,
                threads=self.threads,
                target=target,
                memory=self.child_memory,
                presolve=presolve,
            )
            self.nodes += solution.nodes
            refuted = _refuted(solution, margin)
            if found and (refuted or solution.status == "infeasible"):
                return self.report("unknown", "HiGHS found a point of a programme, and then said that there is none")
            if solution.values is not None and solution.objective <= margin:
                witness = self._checked(np.clip(solution.values[:inputs], task.lower, task.upper), task)
                if witness is not None:
                    return self.report("sat", "", witness)
            if refuted and not presolve:
                self.closed += 1
                self.by_highs += 1
                self._note(min(solution.dual_bound, 2.0 * margin))
                return None
            found = found or solution.status == "target"
            if not refuted and solution.status != "target":
                break
        known = -np.inf if solution.status == "infeasible" or margin == np.inf else solution.dual_bound - margin
        self._note(max(task.floor, known))
        return self._undecided(solution)

    def _undecided(self, solution: Solution) -> MilpReport:
        if solution.status == "limit":
            status = "timeout" if self.deadline.passed else "unknown"
            return self.report(status, f"HiGHS did not finish: {solution.message}")
        if solution.status == "failed":
            return self.report("unknown", solution.message)
        if solution.status == "infeasible":
            return self.report("unknown", "the terms of a programme's rows are too large for HiGHS's tolerances")
        if solution.objective <= 0.0:
            return self.report("unknown", "the runtime does not confirm the unsafe point that HiGHS found")
        return self.report("unknown", "the least value of a clause is within HiGHS's tolerances of 0")

    def _program(self, task: _Task) -> tuple[Program, int, float]:
        """The clause's programme, with values of no interest cut off, its number of inputs, and the margin that
        bounds must exceed."""
        roles = roles_of(self.graph, task.intervals)[1]
        if self.wired is None or self.wired[0] != task.group:
            self.wired = (task.group, wire(self.graph, roles, self.deadline))
        margin = MARGIN * (1.0 + _scale(self.graph, task)) + SPARE * reach_of_tolerances(
            self.wired[1], roles, task.lower, task.upper, task.rows, task.offsets, TOLERANCE
        )
        model = encode(
            self.graph,
            task.lower,
            task.upper,
            task.intervals,
            task.rows,
            task.offsets,
            relaxed=False,
            wiring=self.wired[1],
            floor=task.floor,
        )
        return model.program.with_ceiling(2.0 * margin), model.inputs, margin

    def _checked(self, point: np.ndarray, task: _Task) -> Witness | None:
        return self.check(point[None], np.array([task.group]))

    def _note(self, bound: float) -> None:
        self.bound = bound if self.bound is None else min(self.bound, bound)


def _refuted(solution: Solution, margin: float) -> bool:
    """Whether HiGHS says that the clause's least value exceeds the margin."""
    return solution.status in ("infeasible", "optimal", "limit") and solution.dual_bound > margin


def _scale(graph: Graph, task: _Task) -> float:
    """The size of the largest sum of a clause row's terms."""
    low, high = task.intervals[graph.outputs[0]]
    return float((abs(task.offsets) + abs(task.rows) @ np.maximum(abs(low), abs(high))).max())
