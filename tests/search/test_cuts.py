"""Clauses learnt from closed domains are valid, what they imply is sound, and verdicts are the same with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.search.activation_root import open_root
from boundsmith.verify.search.activation_split import BranchOptions, mixture_of, search
from boundsmith.verify.search.branches import BranchPool, split
from boundsmith.verify.search.branching import split_points, still_open, trial_bounds
from boundsmith.verify.search.cuts import Clauses, Conflicts, Cuts, make_phases, shortened
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, residual, samples
from tests.programs.piecewise import outputs, tiny
from tests.search.activation_cases import checker, problem_of, search_of
from tests.search.test_activation import CONTINUOUS, Opened, assert_agrees, random_problem

NETWORKS = {
    "dense": lambda seed: dense((3, 10, 10, 2), seed),
    "residual": residual,
    "leaky": lambda seed: dense((3, 8, 8, 2), seed, "Abs"),
}


def learning(problem, options, seconds=20.0, check=None, **settings):
    """The search after a run with cuts under the given options, and the witness."""
    made = search_of(problem, **settings)
    made.cuts = True
    made._options = lambda layout: options
    report = made.run(Deadline.after(seconds), check or checker(problem))
    return made, report.witness


class Rounds(Deadline):
    """A deadline that passes after so many rounds of a search."""

    def __init__(self, count):
        super().__init__(NEVER.at)
        object.__setattr__(self, "left", iter(range(count)))

    @property
    def passed(self):
        return next(self.left, None) is None

    def check(self):
        """Never ends a round."""


def held_by_points(layout, phases, values):
    """Which literals hold at points, by their values at all nodes ``[P, 2 width + 1]``."""
    count = len(values[0])
    columns = [values[block.node].reshape(count, -1)[:, block.entries] for block in layout.slots]
    value = np.concatenate(columns, axis=1)
    return np.concatenate([value <= phases.kink, value >= phases.kink, np.ones((count, 1), bool)], axis=1)


@pytest.mark.parametrize("op", CONTINUOUS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-3, 1e-3, 0.1]), tight=st.sampled_from([0, 1, 2]))
def test_verdicts_with_cuts_agree_with_enumeration(op, seed, shift, tight):
    problem = random_problem(tiny(op, seed, width=2), seed, shift, rows=(1, 3, 2)[: 1 + seed % 3], boxes=1 + seed % 2)
    options = BranchOptions(batch=1 + seed % 4, tighten=tight, workers=1 + seed % 2)
    made, witness = learning(problem, options)
    assert not made.lost
    assert_agrees(problem, shift, made, witness)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("tight", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_learnt_clauses_are_valid(kind, tight, dtype):
    """No unsafe point of the box has all phases of a clause: shortened ones, and what is resolved from them."""
    learnt = used = 0
    for seed in range(2):
        graph = NETWORKS[kind](seed).map_params(lambda x: x.astype(np.float32).astype(np.float64))
        size = graph.nodes[0].size
        lower, upper = -np.ones(size), np.ones(size)
        points = samples(lower[None], upper[None], 20_000, seed)[:, 0]
        rows = np.random.default_rng(seed).normal(size=(2, graph.nodes[graph.outputs[0]].size))
        clauses, unsafe = [], []
        for part in (rows[:1], rows):
            left = (outputs(graph, points) @ part.T).max(axis=1)
            level = np.quantile(left, 0.01) + 1e-3
            clauses.append((part, np.full(len(part), level)))
            unsafe.append(points[left < level - 1e-4])
        problem = problem_of(graph, (lower, upper, clauses))
        options = BranchOptions(batch=4, tighten=tight, iterations=3, tried=1)
        made = search_of(problem, backend=Backend(dtype))
        root = open_root(made.plan, made.rows, made.lower, made.upper, NEVER, made.memory)
        layout = root.layout
        cuts = Cuts(make_phases(layout))
        search(layout, made.rows, root.pool, options, Rounds(60), lambda *_: None, cuts)
        inner = layout.base.plan.graph.map_params(lambda x: np.asarray(x, np.float64))
        for (_, clause), store in cuts.clauses.items():
            values = evaluate(inner, [unsafe[clause]], range(len(inner.nodes)))
            held = held_by_points(layout, cuts.phases, values)
            for literals in store.sets:
                assert not held[:, sorted(literals)].all(axis=1).any()
                learnt += 1
        used += cuts.closed + cuts.implied
    assert learnt > 0
    assert used > 0 or tight  # renewed bounds leave little for clauses to do


def random_splits(opened, rng, depth):
    """Domains of random splits of the first one's box and clause."""
    domains = opened.domains.pick(np.zeros(12, dtype=np.int64))
    for _ in range(depth):
        open_ = still_open(opened.layout, domains)
        slots = np.array([rng.choice(np.flatnonzero(row)) if row.any() else -1 for row in open_])
        children = split(replace(domains, next=slots[:, None]), 0, split_points(opened.layout, domains, slots))
        domains = children.pick(rng.permutation(len(children))[:12])
    return domains


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_propagation_keeps_points_that_satisfy_the_clauses(seed):
    """Of the points in a domain, exactly those that violate no clause stay, however the domain changes."""
    opened = Opened(dense((3, 8, 8, 2), seed), seed, 0.5)
    rng = np.random.default_rng(seed)
    domains = random_splits(opened, rng, 3)
    phases = make_phases(opened.layout)
    cuts = Cuts(phases)
    store = cuts.clauses[0, 0] = Clauses(2 * phases.width)
    for length in (1, 2, 2, 3, 3, 4):
        slots = rng.permutation(phases.width)[:length]
        store.add(frozenset((slots + phases.width * rng.integers(0, 2, len(slots))).tolist()))
    held = held_by_points(opened.layout, phases, opened.values[0])
    allowed = ~np.any([held[:, sorted(literals)].all(axis=1) for literals in store.sets], axis=0)
    after = cuts.propagate(domains)

    def covered(some):
        return np.any([opened.inside(some, k) for k in range(len(some))] or [np.zeros(len(allowed), bool)], axis=0)

    assert (covered(after) >= (covered(domains) & allowed)).all()
    assert (covered(after) <= covered(domains)).all()
    for k in range(len(after)):
        assert not phases.held(after.pick([k]))[:, store.literals()].all(axis=2).any()


def test_unit_clauses_close_and_imply():
    opened = Opened(dense((3, 8, 8, 2), 1), 1)
    phases = make_phases(opened.layout)
    domain = opened.domains.pick([0])
    first, second = np.flatnonzero(still_open(opened.layout, domain)[0])[:2]
    children = split(replace(domain, next=np.array([[first]])), 0, np.zeros(1))
    cuts = Cuts(phases)
    store = cuts.clauses[0, 0] = Clauses(2 * phases.width)
    store.add(frozenset([int(first), int(second)]))
    after = cuts.propagate(children)
    assert (cuts.implied, cuts.closed, len(after)) == (1, 0, 2)
    lower = after.pick(np.flatnonzero(after.high[:, first] <= 0))
    assert (lower.slot[0].tolist(), lower.sign[0].tolist()) == ([first, second], [-1.0, 1.0])
    assert lower.low[0, second] == 0.0
    store.add(frozenset([int(first)]))
    assert store.sets == [frozenset([int(first)])]
    assert not store.add(frozenset([int(first), int(second)]))
    assert len(cuts.propagate(children)) == 1
    store.add(frozenset())
    assert len(cuts.propagate(children)) == 0


def test_conflicts_of_siblings_resolve():
    opened = Opened(dense((3, 8, 8, 2), 1), 1)
    phases = make_phases(opened.layout)
    domain = opened.domains.pick([0])
    a, b, c = (int(slot) for slot in np.flatnonzero(still_open(opened.layout, domain)[0])[:3])
    for slot in (a, b, c):
        domain = split(replace(domain, next=np.full((len(domain), 1), slot)), 0, np.zeros(len(domain)))
    lower_a = domain.pick(np.flatnonzero((domain.sign[:, 0] < 0) & (domain.sign[:, 1] < 0)))
    cuts = Cuts(phases)
    assert len(lower_a) == 2
    # One child's conflict names all three splits, the other's not the second: together, the first alone.
    cuts.learn(Conflicts(lower_a.pick([0]), np.array([[True, False, True]])))
    cuts.learn(Conflicts(lower_a.pick([1]), np.array([[True, False, True]])))
    assert cuts.clauses[0, 0].sets == [frozenset([a])]


@pytest.mark.parametrize("seed", range(4))
def test_shortened_conflicts_are_proven_by_their_own_bounds(seed):
    opened = Opened(dense((3, 8, 8, 2), seed), seed, 0.5)
    domains = random_splits(opened, np.random.default_rng(seed), 6)
    mixture = mixture_of(opened.rows, domains.base, domains.clause)
    conflicts = shortened(opened.layout, domains, mixture, NEVER)
    present = domains.slot >= 0
    assert (conflicts.kept <= present).all()
    for k in range(len(domains)):
        if (conflicts.kept[k] < present[k]).any():
            kept = np.flatnonzero(conflicts.kept[k])
            again = opened.layout.root(
                domains.base[[k]], domains.clause[[k]], domains.mixture[[k]], domains.weights[[k]]
            )
            for place in kept:
                slot = domains.slot[k, place]
                again = split(replace(again, next=np.array([[slot]])), 0, domains.point[[k], [place]])
                again = again.pick([0 if domains.sign[k, place] < 0 else 1])
            again = replace(again, beta=domains.beta[[k]][:, kept])
            assert trial_bounds(opened.layout, again, mixture_of(opened.rows, again.base, again.clause))[0][0] > 0


def test_cuts_and_records_exclude_each_other():
    opened = Opened(dense((3, 8, 8, 2), 1), 1)
    cuts = Cuts(make_phases(opened.layout))
    with pytest.raises(ValueError, match="cannot use cuts"):
        search(
            opened.layout, opened.rows, BranchPool(), BranchOptions(record=True), NEVER, checker(opened.problem), cuts
        )
