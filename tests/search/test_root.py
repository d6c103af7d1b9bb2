"""The root of activation branch-and-bound: where clauses of several rows start, and that no step takes all the time."""

from __future__ import annotations

import numpy as np
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.parameters import Base
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import NEVER, Deadline, MemoryBudget, TimeUp
from boundsmith.verify.rows import prepare_rows
from boundsmith.verify.search import activation_root, activation_search
from boundsmith.verify.search.activation_root import _ascend, open_root
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense
from tests.search.activation_cases import problem_of, search_of


def some_problem(seed, depths, boxes):
    """Clauses of so many random rows each on every box, all of them open."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(boxes):
        lower = rng.uniform(-1.0, 0.0, 3)
        clauses = [(rng.normal(size=(depth, 4)), rng.normal(size=depth) + 30) for depth in depths]
        groups.append((lower, lower + rng.uniform(0.1, 1.0, 3), clauses))
    return problem_of(dense((3, 8, 8, 4), seed), *groups)


def clauses_of(problem):
    plan = make_plan(problem.graph)
    lower, upper = (np.stack([getattr(group, end) for group in problem.groups]) for end in ("lower", "upper"))
    rows = prepare_rows(problem.groups, lower)
    state = relax(plan, lower, upper)
    return rows, Base(plan, lower, upper, dict(enumerate(state.intervals))), state


def starts(seed):
    """Bounds without a step, from the strongest row and from the uniform mixture, of clauses of several rows, and the
    bounds of their strongest rows by themselves."""
    rows, base, state = clauses_of(some_problem(seed, (5, 3), 2))
    bounds = rows.by_clause(row_bounds(state, rows.rows, rows.offsets).lower, -np.inf)
    group, clause = np.nonzero(rows.clauses)
    start, uniform = (
        _ascend(base, rows, group, clause, None, 0, 64, NEVER, singly=singly)[3] for singly in (bounds, None)
    )
    return start, uniform, bounds[group, clause].max(axis=1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_start_is_never_worse_than_the_uniform_one(seed):
    start, uniform, _ = starts(seed)
    assert (start >= uniform).all()


def test_clauses_start_from_their_strongest_row():
    """Where the uniform mixture is far from the strongest row's bound, the start regains most of it."""
    start, uniform, single = (np.concatenate(part) for part in zip(*(starts(seed) for seed in range(20)), strict=True))
    lagging = single - uniform > 0.5
    assert lagging.sum() > 20
    assert np.mean((start - uniform)[lagging]) > 0.5 * np.mean((single - uniform)[lagging])


def test_intermediate_bounds_leave_time_for_the_rows(monkeypatch):
    problem = problem_of(dense((3, 8, 8, 4), 3), (-np.ones(3), np.ones(3), [(np.eye(4)[:1], np.zeros(1))]))
    rows, base, _ = clauses_of(problem)
    given_to = []
    monkeypatch.setattr(
        activation_root, "tighten", lambda base, at_once, deadline, **_: given_to.append(deadline.remaining) or base
    )
    open_root(base.plan, rows, base.lower, base.upper, Deadline.after(1000), MemoryBudget(1 << 28))
    assert given_to
    assert max(given_to) < 1000 * (activation_root.TIGHTEN_SHARE + 0.1)


def test_a_root_cut_short_goes_on_where_it_stopped(monkeypatch):
    problem = problem_of(dense((3, 8, 8, 4), 5), (-np.ones(3), np.ones(3), [(np.eye(4)[:1], np.full(1, -100.0))]))
    search = search_of(problem)
    seen = []
    whole = activation_search.open_root

    def cut_short(*given, started, **settings):
        seen.append(started)
        if len(seen) == 1:
            raise TimeUp
        return whole(*given, started=started, **settings)

    monkeypatch.setattr(activation_search, "open_root", cut_short)
    search.run(NEVER, lambda points, groups: None)
    assert search.root is None
    search.run(NEVER, lambda points, groups: None)
    assert search.closed
    assert seen[0] is seen[1]
    assert search.started is None
