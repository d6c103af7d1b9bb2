"""A decision under way: the problem prepared for a backend, and what all methods share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Backend, to_numpy
from .attack.ranks import before_softmax
from .bounding.plan import Plan, make_plan
from .bounding.products import sharpened
from .budget import Deadline, MemoryBudget
from .rows import Rows, prepare_rows
from .search.domains import Domains
from .search.stairs import find_stairs

if TYPE_CHECKING:
    from .attack.replay import Replay
    from .graph import Array, Graph
    from .log import Log
    from .options import Options
    from .problem import Problem
    from .result import Witness


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem prepared for one backend: its plan, its rows, its boxes ``[G, n]``, which inputs vary in any, and which
    take whole numbers alone (bool ``[n]``)."""

    backend: Backend
    plan: Plan
    rows: Rows
    lower: Array
    upper: Array
    uncertain: np.ndarray
    whole: np.ndarray

    @cached_property
    def stairs(self) -> dict[int, Array]:
        """The inputs of which a few values stand for all."""
        return find_stairs(self.plan.graph, self.lower, self.upper, self.uncertain, self.whole)

    @cached_property
    def whole_inputs(self) -> Array | None:
        """Which inputs take whole numbers alone, in the backend's library; None for none."""
        return self.backend.array(self.whole) if self.whole.any() else None

    @cached_property
    def attacked(self) -> Graph:
        """The graph that attacks follow, with the same rows."""
        return before_softmax(self.plan.graph, self.rows)

    @classmethod
    def of(cls, problem: Problem, backend: Backend) -> Setting:
        lower, upper = (np.stack(ends) for ends in zip(*((g.lower, g.upper) for g in problem.groups), strict=True))
        uncertain = np.flatnonzero((upper > lower).any(axis=0))
        host = Backend(backend.dtype)
        graph = backend.graph(sharpened(host.graph(problem.graph), *host.box(lower, upper), problem.groups))
        lower, upper = backend.box(lower, upper)
        wanted = np.any([(group.rows != 0).any(axis=0) for group in problem.groups], axis=0)
        rows = prepare_rows(problem.groups, lower)
        return cls(backend, make_plan(graph, wanted), rows, lower, upper, uncertain, problem.whole)

    def root(self) -> Domains:
        """Every group's box as an open domain."""
        groups = self.backend.array(np.arange(self.lower.shape[0]))
        unknown = self.backend.array(np.full(self.lower.shape[0], -np.inf))
        return Domains(self.lower, self.upper, groups, self.rows.clauses, unknown, {})


@dataclass
class Job:
    """One decision under way."""

    problem: Problem
    setting: Setting
    replay: Replay
    options: Options
    deadline: Deadline
    log: Log

    @property
    def uncertain(self) -> int:
        """The largest number of inputs that are not fixed in a group."""
        return max(int((group.upper > group.lower).sum()) for group in self.problem.groups)

    @property
    def memory(self) -> MemoryBudget:
        """The bytes of temporaries that a step may use."""
        return MemoryBudget(self.options.memory) if self.options.memory else MemoryBudget.default()

    @property
    def threads(self) -> int:
        """Worker threads."""
        return self.options.threads or os.cpu_count() or 1

    def check(self, points: Array, groups: Array) -> Witness | None:
        """The first of the points ``[P, n]`` that the reference runtime confirms as a witness of its group ``[P]``."""
        return self.replay.check(to_numpy(points), to_numpy(groups))
