"""Splitting activations decides as enumeration of pieces, mixed-integer programming and Z3 do, and never falsely."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.alpha import Base
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.programs.milp import solve_by_milp
from boundsmith.verify.search.activation_root import open_root
from boundsmith.verify.search.activation_split import BranchOptions, mixture_of
from boundsmith.verify.search.branches import BranchPool, join, split
from boundsmith.verify.search.branching import ascent_of, scores, split_points, still_open
from boundsmith.verify.search.layout import make_layout
from boundsmith.verify.search.tightening import tighten
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, residual, samples
from tests.programs.piecewise import EXTREMA, STEPS, UNARY, exact_minimum, linear, outputs, tiny
from tests.search.activation_cases import (
    checker,
    decide,
    exists_unsafe,
    margins,
    pooling,
    problem_of,
    random_problem,
    search_of,
)

CONTINUOUS = tuple(op for op in UNARY if op not in STEPS)


def assert_agrees(problem, shift, search, witness):
    if witness is not None:
        assert min(margins(problem, k, witness[None])[0] for k in range(len(problem.groups))) <= 0
        assert not search.closed
    if shift > 1e-6:
        assert witness is None
        assert search.closed
    elif shift < -1e-6:
        assert not search.closed
        assert witness is not None


@pytest.mark.parametrize("op", [*UNARY, *EXTREMA])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-3, 1e-3, 0.1]))
def test_agrees_with_enumeration_of_pieces(op, dtype, seed, shift):
    graph = tiny(op, seed, width=2)
    problem = random_problem(graph, seed, shift, rows=(1, 3, 2)[: 1 + seed % 3], boxes=1 + seed % 2)
    search, witness = decide(problem, backend=Backend(dtype), workers=1 + seed % 2)
    if shift < 0 and op in STEPS and witness is None:
        # The least value may be one at a jump, where a float seldom is.
        assert not search.closed
    else:
        assert_agrees(problem, shift, search, witness)


STAIRS = ("Floor", "Ceil", "Round")


@pytest.mark.parametrize("op", [*STEPS, *EXTREMA, *STAIRS])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-2, -1e-6, 0.1]))
def test_jumps_and_extrema_agree_with_samples(op, dtype, seed, shift):
    """Splits come to an end, and what a sample violates is not refuted."""
    graph = tiny(op, seed, width=2)
    rng = np.random.default_rng(seed)
    lower = rng.uniform(-1.2, 0.0, 2)
    upper = lower + rng.uniform(0.2, 1.8, 2)
    points = samples(lower[None], upper[None], 2000, seed)[:, 0]
    matrix = rng.normal(size=(1 + seed % 3, 2))
    least = (outputs(graph, points) @ matrix.T).max(axis=1).min()
    problem = problem_of(graph, (lower, upper, [(matrix, np.full(len(matrix), least - shift))]))
    search, witness = decide(problem, seconds=5.0, backend=Backend(dtype))
    assert search.finished or witness is not None
    if shift < 0:
        assert not search.closed
    if witness is not None:
        assert margins(problem, 0, witness[None])[0] <= 0


@pytest.mark.parametrize("op", [*UNARY, *EXTREMA])
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.05, -1e-3, 1e-3, 0.05]))
def test_agrees_with_z3(op, seed, shift):
    """Exact arithmetic on the same floats, clauses of several rows, of which some are near what is possible."""
    graph = tiny(op, seed, width=2)
    rng = np.random.default_rng(seed)
    lower, upper = np.full(2, -0.8), np.full(2, 0.9)
    points = samples(lower[None], upper[None], 300, seed)[:, 0]
    clauses = []
    for amount in (2, 1):
        matrix, offsets = rng.normal(size=(amount, 2)), rng.normal(size=amount)
        least = (outputs(graph, points) @ matrix.T - offsets).max(axis=1).min()
        clauses.append((matrix, offsets + least - shift))
    problem = problem_of(graph, (lower, upper, clauses))
    search, witness = decide(problem)
    assert search.finished or witness is not None
    if search.closed or witness is not None:
        assert exists_unsafe(problem) in (witness is not None, None)
        assert search.closed == (witness is None)
    else:
        # Attained at a jump only, where a float seldom is.
        assert op in STEPS
        assert exists_unsafe(problem) in (True, None)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-3, 1e-3, 0.1]))
def test_agrees_with_mixed_integer_programming(seed, shift):
    graph = tiny((*CONTINUOUS, *EXTREMA)[seed % (len(CONTINUOUS) + 2)], seed, width=3)
    rng = np.random.default_rng(seed)
    points = samples(-np.ones((1, 2)), np.ones((1, 2)), 3000, seed)[:, 0]
    clauses = []
    for amount in (1, 2):
        matrix = rng.normal(size=(amount, 2))
        clauses.append((matrix, np.full(amount, (outputs(graph, points) @ matrix.T).max(axis=1).min() - shift)))
    problem = problem_of(graph, (-np.ones(2), np.ones(2), clauses))
    search, witness = decide(problem)
    report = solve_by_milp(problem, Deadline.after(30.0), checker(problem))
    assert (report.status, search.closed, witness is not None) in (("unsat", True, False), ("sat", False, True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.05, -1e-3, 1e-2]))
def test_max_pooling_agrees_with_enumeration(dtype, seed, shift):
    graph = pooling(seed)
    problem = random_problem(graph, seed, shift, rows=(1, 2))
    search, witness = decide(problem, backend=Backend(dtype))
    assert_agrees(problem, shift, search, witness)


@pytest.mark.parametrize(
    "options", [{"batch": 1}, {"batch": 3, "tried": 1}, {"batch": 2, "workers": 2}, {"tighten": 1}]
)
@pytest.mark.parametrize("gap", [-0.02, 0.02])
def test_batches_and_workers_agree(monkeypatch, options, gap):
    graph = dense((3, 10, 10, 2), 3)
    points = samples(-np.ones((1, 3)), np.ones((1, 3)), 30_000, 1)[:, 0]
    least = (outputs(graph, points) @ [1.0, -1.0]).min()
    problem = problem_of(graph, (-np.ones(3), np.ones(3), [(np.array([[1.0, -1.0]]), np.array([least + gap]))]))
    search = search_of(problem)
    chosen = BranchOptions(**options)
    monkeypatch.setattr(type(search), "_options", lambda self, layout: chosen)
    report = search.run(Deadline.after(60.0), checker(problem))
    assert search.closed is (gap < 0)
    assert (report.witness is not None) is (gap > 0)


# --- what float32 cannot see -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_leaves_allow_for_rounded_rows(seed):
    """Offsets of hundreds, violated by less than float32 tells: never refuted by a leaf's programme in float64."""
    graph = tiny("Relu", seed).map_params(lambda x: x.astype(np.float32).astype(np.float64))
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(1, 2)).astype(np.float32).astype(np.float64)
    graph.nodes[-1].params["bias"][:] = (1000 * rng.normal(size=2)).astype(np.float32)
    least = exact_minimum(graph, -np.ones(2), np.ones(2), rows, np.zeros(1))
    problem = problem_of(graph, (-np.ones(2), np.ones(2), [(rows, np.array([least + 1e-5]))]))
    search, _ = decide(problem, backend=Backend("float32"), check=lambda *_: None)
    assert not search.closed


@pytest.mark.parametrize("seed", [18, 22, 32, 50, 52, 132])
def test_rows_that_cancel_in_a_mixture(seed):
    """Two rows that bound a large value from both sides, both satisfied by a point: never refuted in float32."""
    graph = tiny("Relu", seed).map_params(lambda x: x.astype(np.float32).astype(np.float64))
    rng = np.random.default_rng(seed)
    graph.nodes[-1].params["bias"][:] = (1e4 * rng.normal(size=2)).astype(np.float32)
    for _ in range(5):
        row = rng.normal(size=(1, 2))
        rows = np.concatenate([row * rng.uniform(0.3, 3), -row * rng.uniform(0.3, 3)])
        value = outputs(graph, rng.uniform(-0.5, 0.5, (1, 2)))[0]
        problem = problem_of(graph, (np.full(2, -0.5), np.full(2, 0.5), [(rows, rows @ value + 1e-4)]))
        search, _ = decide(problem, backend=Backend("float32"), check=lambda *_: None)
        assert not search.closed


def test_a_witness_at_a_leaf_does_not_look_closed():
    """The domain in which a leaf's programme finds a witness is not closed, nor are those that come after it."""
    found = 0
    for seed in range(40):
        problem = random_problem(tiny("Relu", seed, width=2), seed, -1e-3, rows=(2,))
        search = search_of(problem)
        search.root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, search.memory)
        if search.root.layout.width:
            report = search.run(Deadline.after(20.0), checker(problem))
            assert not search.closed
            found += report.witness is not None and search.programmes > 0
    assert found


# --- parts -----------------------------------------------------------------------------------------------------------

GRAPHS = {
    "dense": lambda seed: dense((3, 6, 6, 2), seed),
    "residual": residual,
    "pooled": pooled,
    "clip": lambda seed: tiny("Clip", seed),
    "sign": lambda seed: tiny("Sign", seed),
    "sigmoid": lambda seed: dense((3, 4, 4, 2), seed, "Sigmoid", scale=3.0),
}


class Opened:
    """A problem's layout with two boxes and clauses of two rows, its domains, and unsafe points of every box."""

    def __init__(self, graph, seed, radius=0.5):
        rng = np.random.default_rng(seed)
        size, count = graph.nodes[0].size, graph.nodes[graph.outputs[0]].size
        boxes = [(centre - radius, centre + radius) for centre in rng.normal(size=(2, size))]
        groups, self.points, self.values = [], [], []
        for lower, upper in boxes:
            points = samples(lower[None], upper[None], 300, seed)[:, 0]
            rows = rng.normal(size=(2, count))
            left = outputs(graph, points) @ rows.T
            # A fifth of the points is unsafe.
            level = np.quantile(left.max(axis=1), 0.2)
            groups.append((lower, upper, [(rows, np.full(2, level))]))
            unsafe = points[left.max(axis=1) <= level]
            self.points.append(unsafe)
            self.values.append(evaluate(graph, [unsafe], range(len(graph.nodes))))
        self.problem = problem_of(graph, *groups)
        search = search_of(self.problem)
        self.rows = search.rows
        state = relax(search.plan, search.lower, search.upper)
        self.layout = make_layout(Base(search.plan, search.lower, search.upper, dict(enumerate(state.intervals))))
        assume(self.layout.width > 0)
        base, clause = np.array([0, 1, 1]), np.zeros(3, dtype=np.int64)
        weights = rng.random((3, self.layout.weights[-1].stop if self.layout.weights else 0))
        domains = self.layout.root(base, clause, np.full((3, 2), 0.5), weights)
        self.domains = replace(domains, bound=np.arange(3.0))

    def inside(self, domains, which):
        """Which unsafe points of its box lie in one of the domains: by bounds and by split constraints."""
        values = self.values[int(domains.base[which])]
        ok = np.ones(len(values[0]), dtype=bool)
        for block in self.layout.slots:
            value = values[block.node].reshape(len(ok), -1)[:, block.entries]
            here = slice(block.start, block.stop)
            slack = 1e-9 * (1 + abs(value))
            ok &= (value >= domains.low[which, here] - slack).all(axis=1)
            ok &= (value <= domains.high[which, here] + slack).all(axis=1)
            for slot, sign, point in zip(domains.slot[which], domains.sign[which], domains.point[which], strict=True):
                if block.start <= slot < block.stop:
                    ok &= sign * (value[:, slot - block.start] - point) >= -1e-9
        return ok

    def deeper(self, domains, rng):
        """Both children of all domains at random open slots, at random points where any will do."""
        open_ = still_open(self.layout, domains)
        chosen = np.array([rng.choice(np.flatnonzero(row)) if row.any() else -1 for row in open_])
        points = split_points(self.layout, domains, chosen)
        return split(replace(domains, next=chosen[:, None]), 0, points), chosen


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_children_cover_their_parents(kind, seed):
    opened = Opened(GRAPHS[kind](seed), seed)
    rng = np.random.default_rng(seed)
    domains = opened.domains
    for _ in range(4):
        children, chosen = opened.deeper(domains, rng)
        assert len(children) == len(domains) + int((chosen >= 0).sum())
        for box in (0, 1):
            for before, after in ((domains, children),):
                covered = [
                    np.any([opened.inside(part, k) for k in np.flatnonzero(part.base == box)], axis=0)
                    for part in (before, after)
                ]
                assert (covered[1] == covered[0]).all()
                assert covered[1].all()
        domains = children


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), rows=st.sampled_from([1, 5, 1000]))
def test_tightening_cuts_off_no_unsafe_point(kind, seed, rows):
    opened = Opened(GRAPHS[kind](seed), seed, 0.2 if kind == "pooled" else 0.5)
    rng = np.random.default_rng(seed)
    domains = opened.domains
    for _ in range(3):
        domains, _ = opened.deeper(domains, rng)
        domains = replace(domains, beta=rng.exponential(size=domains.beta.shape))
        mixture = mixture_of(opened.rows, domains.base, domains.clause)
        tight, empty, _ = tighten(opened.layout, domains, mixture, rows if kind != "pooled" else 1000, NEVER)
        for k in range(len(domains)):
            before, after = opened.inside(domains, k), opened.inside(tight, k)
            assert (after | ~before).all()
            assert not (empty[k] and before.any())
        domains = tight.pick(np.flatnonzero(~empty))
        if not len(domains):
            break


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_bounds_of_domains_are_below_their_points(kind, seed):
    """Through the layout: stored weights and multipliers, several splits of one entry, all steps of the ascent."""
    opened = Opened(GRAPHS[kind](seed), seed, 0.2 if kind == "pooled" else 0.5)
    rng = np.random.default_rng(seed)
    domains = opened.domains
    for _ in range(3):
        domains, _ = opened.deeper(domains, rng)
    if kind == "sigmoid":
        # The same slot again, at another point.
        again = np.where(domains.slot[:, -1] >= 0, domains.slot[:, -1], 0)
        domains = replace(domains, next=again[:, None])
        domains = split(domains, 0, split_points(opened.layout, domains, again))
    domains = replace(domains, beta=rng.exponential(size=domains.beta.shape) * (domains.slot >= 0))
    mixture = mixture_of(opened.rows, domains.base, domains.clause)
    ascent = ascent_of(opened.layout, domains, mixture)
    for _ in range(4):
        bound = ascent.evaluate()
        for k in range(len(domains)):
            inside = opened.inside(domains, k)
            if inside.any():
                left = margins(opened.problem, int(domains.base[k]), opened.points[int(domains.base[k])][inside])
                assert bound[k] <= left.min() + 1e-9
        ascent.improve(np.ones(len(domains)), 0.5)
    found = scores(opened.layout, domains, ascent)
    assert ((found > 0) == still_open(opened.layout, domains)).all()


@pytest.mark.parametrize("kind", ["dense", "residual", "sigmoid"])
def test_stored_parameters_come_back(kind):
    opened = Opened(GRAPHS[kind](4), 4)
    rng = np.random.default_rng(4)
    domains = opened.domains
    for _ in range(3):
        domains, _ = opened.deeper(domains, rng)
    domains = replace(domains, beta=rng.exponential(size=domains.beta.shape) * (domains.slot >= 0))
    families = opened.layout.bounds(domains).families(opened.layout.base.plan.output)
    parameters, splits = opened.layout.parameters(domains, families)
    assert sum(len(split.row) for split in splits.values()) == (domains.slot >= 0).sum()
    again = opened.layout.stored(domains, parameters)
    for field in fields(domains):
        if field.name != "weights":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(domains, field.name))
    twice, _ = opened.layout.parameters(again, families)
    for node_, pair in parameters.lines.items():
        for mine, theirs in zip(pair, twice.lines[node_], strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or (mine == theirs).all()


def test_joined_domains_come_apart_again():
    opened = Opened(dense((3, 6, 6, 2), 1), 1)
    rng = np.random.default_rng(1)
    one, _ = opened.deeper(opened.domains, rng)
    two, _ = opened.deeper(one, rng)
    whole = join([opened.domains, two, one])
    assert len(whole) == len(opened.domains) + len(two) + len(one)
    start = len(opened.domains)
    back = whole.pick(slice(start, start + len(two)))
    for field in fields(two):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(two, field.name))
    assert (whole.pick(slice(0, start)).slot == -1).all()
    assert whole.nbytes > two.nbytes


def test_the_pool_gives_the_lowest_bounds_of_the_last_block_first():
    opened = Opened(dense((3, 6, 6, 2), 1), 1)
    pool = BranchPool()
    assert pool.bound == np.inf
    pool.push(replace(opened.domains, bound=np.array([-3.0, -5.0, -4.0])))
    pool.push(replace(opened.domains, bound=np.array([-1.0, -0.5, -2.0])))
    pool.push(opened.domains.pick(slice(0, 0)))
    assert (len(pool), pool.bound) == (6, -5.0)
    assert sorted(pool.pop(2).bound) == [-2.0, -1.0]
    assert sorted(pool.pop(3).bound) == [-5.0, -4.0, -0.5]
    assert pool.pop(10).bound.tolist() == [-3.0]
    assert len(pool) == 0


@pytest.mark.parametrize("seed", range(12))
def test_nodes_that_lead_nowhere_close_nothing(seed):
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (3,))]
    for source, op in ((0, "a"), (2, "b"), (0, "c"), (6, "d")):
        fan_in = 3 if source == 0 else 6
        nodes += [linear(rng, op, source, fan_in, 6), node(f"{op}r", "Relu", (len(nodes),), (6,))]
    nodes.append(linear(rng, "y", 8, 6, 2))
    graph = Graph(tuple(nodes), (0,), (9,))
    points = samples(np.full((1, 3), -0.8), np.full((1, 3), 0.8), 2000, seed)[:, 0]
    rows = rng.normal(size=(2, 2))
    least = (outputs(graph, points) @ rows.T).max(axis=1).min()
    problem = problem_of(graph, (np.full(3, -0.8), np.full(3, 0.8), [(rows, np.full(2, least + 1e-3))]))
    search, _ = decide(problem)
    assert not search.closed


# --- known crashes ---------------------------------------------------------------------------------------------------


def small(*middle, outputs=1):
    rng = np.random.default_rng(0)
    nodes = [node("x", "Input", (), (3,)), linear(rng, "a", 0, 3, 4), *middle]
    nodes.append(linear(rng, "y", len(nodes) - 1, nodes[-1].shape[0], outputs))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


FIXED = {
    "linear": small(),
    "product": small(node("m", "MatMul", (1, 1), ()), node("r", "Reshape", (2,), (1,))),
    "argmax": small(node("m", "ArgMax", (1,), (1,), axis=0, keepdims=True, select_last=False)),
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("gap", [-0.1, 0.1])
def test_networks_without_anything_to_split(name, gap):
    graph = FIXED[name]
    points = samples(-np.ones((1, 3)), np.ones((1, 3)), 500, 1)[:, 0]
    least = outputs(graph, points).min()
    problem = problem_of(graph, (-np.ones(3), np.ones(3), [(np.ones((1, 1)), np.array([least + gap]))]))
    search = search_of(problem)
    report = search.run(Deadline.after(1.0), checker(problem))
    assert not (search.closed and gap > 0)
    assert report.witness is None or gap > 0


def test_domains_in_which_no_line_is_free():
    for op, seed in (("Clip", 3), ("LeakyRelu", 9)):
        problem = random_problem(tiny(op, seed, width=2), seed, 1e-3, rows=(1, 2, 3))
        search = search_of(problem)
        search.run(Deadline.after(20.0), checker(problem))
        assert search.closed


def test_a_turn_that_ends_loses_no_round(monkeypatch):
    """Turns far too short for a round finish the search, for what has begun goes on until the last deadline."""
    graph = dense((3, 10, 10, 2), 3)
    points = samples(-np.ones((1, 3)), np.ones((1, 3)), 30_000, 1)[:, 0]
    least = (outputs(graph, points) @ [1.0, -1.0]).min()
    clause = (np.array([[1.0, -1.0]]), np.array([least - 0.1]))
    problem = problem_of(graph, (-np.ones(3), np.ones(3), [clause]))
    search = search_of(problem)
    monkeypatch.setattr(type(search), "_options", lambda self, layout: BranchOptions(batch=2, iterations=2))
    turns = 0
    while not search.finished:
        search.run(Deadline.after(0.0 if search.root is None else 1e-4), checker(problem), Deadline.after(60.0))
        turns += 1
        assert turns < 500
    assert search.closed
    assert turns > 2
