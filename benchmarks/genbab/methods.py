"""The methods that are compared: interval bounds, CROWN, alpha-CROWN, and four kinds of branch-and-bound.

Each decides the same question: whether every image within `eps` of a given one (and within [0, 1]) has the label's
score above all others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from boundsmith.verify.arrays import Backend
from boundsmith.verify.attack.pgd import AttackOptions, attack
from boundsmith.verify.bounding.alpha_crown import alpha_crown
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline, MemoryBudget
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.problem import Group, flatten
from boundsmith.verify.rows import prepare_rows
from boundsmith.verify.search.activation_search import ActivationSearch

if TYPE_CHECKING:
    from boundsmith.verify.bounding.plan import Plan
    from boundsmith.verify.graph import Graph

SEARCHES = {
    "midpoint": {"score": "cost", "points": "middle", "renew": False},
    "midpoint-renewed": {"score": "cost", "points": "middle"},
    "genbab-middle": {"score": "bbps", "points": "middle"},
    "genbab": {"score": "bbps", "points": "table"},
}
"""Branch-and-bound by name: how entries are scored, where they are split, whether domains' bounds are renewed."""

METHODS = ("ibp", "crown", "alpha-crown", *SEARCHES)


@dataclass(frozen=True)
class Outcome:
    """What a method found: proved, witness or open, and the domains it visited (0 for bounds alone)."""

    status: str
    domains: int


class Task:
    """One network, ready for many images."""

    def __init__(self, graph: Graph) -> None:
        self.plan: Plan = make_plan(Backend("float32").graph(flatten(graph)))
        self.double = flatten(graph).map_params(lambda x: x.astype(np.float64) if x.dtype.kind == "f" else x)
        self.memory = MemoryBudget.default()

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Class scores ``[B, m]`` of images ``[B, n]``, in float64."""
        return np.asarray(output_vector(self.double, images.astype(np.float64)))

    def decide(self, method: str, image: np.ndarray, label: int, eps: float, seconds: float) -> Outcome:
        """Run one of `METHODS`, or "attack", on an image ``[n]`` for at most so many seconds of this process. Raises
        ValueError for another name."""
        lower, upper = (np.clip(image + change, 0, 1).astype(np.float32)[None] for change in (-eps, eps))
        rows = _leads(self.plan.graph.nodes[self.plan.output].size, label)
        if method in (*SEARCHES, "attack"):
            return self._by_points(method, lower, upper, rows, seconds)
        if method == "ibp":
            state = bounds_of(self.plan.graph, lower, upper, "ibp")
            least = np.where(rows > 0, rows * state.lower, rows * state.upper).sum(axis=1)
        elif method == "crown":
            relaxed = relax(self.plan, lower, upper)
            least = row_bounds(relaxed, rows[None], np.zeros_like(rows[None, :, 0])).lower
        elif method == "alpha-crown":
            least = alpha_crown(
                self.plan,
                lower,
                upper,
                rows,
                deadline=Deadline.after(seconds, clock=time.process_time),
                memory=self.memory,
            )
        else:
            raise ValueError(f"no method is called {method!r}; choose one of {', '.join(METHODS)}")
        return Outcome("proved" if bool(np.all(least > 0)) else "open", 0)

    def _by_points(
        self, method: str, lower: np.ndarray, upper: np.ndarray, rows: np.ndarray, seconds: float
    ) -> Outcome:
        """Methods that look for a witness, too: every other class is a clause of one row."""
        count = len(rows)
        box = (end[0].astype(np.float64) for end in (lower, upper))
        clauses = (rows.astype(np.float64), np.zeros(count), np.zeros(count, dtype=bool), np.arange(count), count)
        prepared = prepare_rows([Group(*box, *clauses)], lower)

        def check(points: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
            wrong = np.nonzero((self.scores(points) @ rows.T <= 0).any(axis=1))[0]
            return points[wrong[0]] if len(wrong) else None

        deadline = Deadline.after(seconds, clock=time.process_time)
        if method == "attack":
            options = AttackOptions(restarts=10, steps=50)
            found = attack(self.plan.graph, prepared, lower, upper, options, 0, deadline, check, chunk=128)
            return Outcome("open" if found is None else "witness", 0)
        search = ActivationSearch(self.plan, prepared, lower, upper, self.memory, **SEARCHES[method])
        report = search.run(deadline, check)
        status = "proved" if search.closed else "witness" if report.witness is not None else "open"
        return Outcome(status, report.visited)


def _leads(classes: int, label: int) -> np.ndarray:
    """Rows ``[m - 1, m]``: the label's score minus each other class's."""
    rows = np.delete(-np.eye(classes, dtype=np.float32), label, axis=0)
    rows[:, label] = 1
    return rows
