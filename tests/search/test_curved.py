"""Splitting curved functions and products: verdicts against dense sampling, scores, trial lines, bounds that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.alpha import Ascent
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.search import activation_split, tightening
from boundsmith.verify.search.activation_root import open_root
from boundsmith.verify.search.activation_search import ActivationSearch
from boundsmith.verify.search.activation_split import far, mixture_of
from boundsmith.verify.search.branches import split
from boundsmith.verify.search.branching import ascent_of, scores, split_points
from boundsmith.verify.search.tightening import tighten
from boundsmith.verify.search.trials import _with_lines, filtered, fixed
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, samples
from tests.programs.piecewise import linear, outputs
from tests.search.activation_cases import checker, margins, problem_of, search_of


def product(seed, op="Sigmoid"):
    """A gate times a function of both inputs, and a square."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("x", "Input", (), (2,)),
        linear(rng, "a", 0, 2, 3),
        linear(rng, "b", 0, 2, 3),
        node("gate", op, (1,), (3,)),
        node("value", "Tanh", (2,), (3,)),
        node("p", "Mul", (3, 4), (3,)),
        node("q", "Mul", (5, 2), (3,)),
        linear(rng, "y", 6, 3, 2),
    ]
    return Graph(tuple(nodes), (0,), (7,))


GRAPHS = {
    **{op: lambda seed, op=op: dense((2, 4, 3, 2), seed, op, scale=1.5) for op in ("Sigmoid", "Tanh", "Sin", "Gelu")},
    "product": product,
    "product with a sine": lambda seed: product(seed, "Sin"),
}


def problem_at(graph, seed, shift):
    """One clause whose least margin over a fine grid is the shift."""
    rng = np.random.default_rng(seed)
    lower = rng.uniform(-1.2, 0.0, 2)
    upper = lower + rng.uniform(0.3, 1.5, 2)
    axes = [np.linspace(low, high, 150) for low, high in zip(lower, upper, strict=True)]
    points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    rows, offsets = rng.normal(size=(1 + seed % 2, 2)), rng.normal(size=1 + seed % 2)
    least = (outputs(graph, points) @ rows.T - offsets).max(axis=1).min()
    return problem_of(graph, (lower, upper, [(rows, offsets + least - shift)]))


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("heuristics", [("table", "bbps"), ("middle", "bbps"), ("middle", "cost")], ids=str)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.05, -1e-3, 0.02, 0.5]))
def test_agrees_with_dense_sampling(kind, heuristics, seed, shift):
    problem = problem_at(GRAPHS[kind](seed), seed, shift)
    search = search_of(problem, backend=Backend(("float64", "float32")[seed % 2]))
    search.points, search.score = heuristics
    witness = search.run(Deadline.after(1.5), checker(problem)).witness
    if shift < 0:
        assert not search.closed
    if witness is not None:
        assert margins(problem, 0, witness[None])[0] <= 0
        assert shift < 1e-2
    if shift > 0.1:
        # Nearer to the least value the search may take long, but must not be wrong.
        assert search.closed


def opened(graph, seed, points="table"):
    """The root of a problem that is open for sure."""
    problem = problem_at(graph, seed, -0.3)
    search = search_of(problem)
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, search.memory, points=points)
    domains = root.pool.pop(1)
    mixture = mixture_of(search.rows, domains.base, domains.clause)
    ascent = ascent_of(root.layout, domains, mixture)
    ascent.evaluate()
    ascent.forward()
    return root.layout, domains, mixture, ascent


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_fixed_lines_give_the_same_bound(seed):
    layout, _, mixture, ascent = opened(product(seed), seed)
    families = {node: own.family for node, own in fixed(ascent, np.arange(ascent.count)).items()}
    again = Ascent(ascent.base, layout.base.plan.output, mixture=mixture, families=families)
    again.parameters.mixture = ascent.parameters.mixture
    np.testing.assert_allclose(again.evaluate(), ascent.last, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_lines_of_trials_hold_on_the_children(kind, seed, data):
    """In every child the renewed lines lie below and above the function, and the trial bound below all margins."""
    graph = GRAPHS[kind](seed)
    layout, domains, mixture, ascent = opened(graph, seed)
    slot = np.array([[data.draw(st.integers(0, layout.width - 1))]])
    trial = replace(domains, next=slot)
    children = split(trial, 0, split_points(layout, trial, slot[:, 0]))
    both = mixture_of_twice(mixture)
    lines = fixed(ascent, np.arange(1))
    tried = _with_lines(layout, children, both, layout.bounds(domains), lines)
    bound = tried.evaluate()
    points = samples(layout.base.lower, layout.base.upper, 400, seed)[:, 0]
    values = evaluate(layout.base.plan.graph, [points], range(len(layout.base.plan.graph.nodes)))
    for child in (0, 1):
        inside = np.ones(len(points), dtype=bool)
        for block in layout.slots:
            value = values[block.node].reshape(len(points), -1)[:, block.entries]
            here = slice(block.start, block.stop)
            inside &= ((value >= children.low[child, here]) & (value <= children.high[child, here])).all(axis=1)
        assert (margins_of(values, layout, both, child)[inside] >= bound[child] - 1e-9).all()
        for position, family in tried.families.items():
            y = values[position].reshape(len(points), -1)[inside]
            xs = [values[k].reshape(len(points), -1)[inside] for k in layout.base.plan.graph.nodes[position].inputs]
            for side, sign in ((family.lower, 1), (family.upper, -1)):
                line = sum(slope[child % len(slope)] * x for slope, x in zip(side.slopes, xs, strict=True))
                line = line + (0 if side.intercept is None else side.intercept[child % len(side.intercept)])
                assert (sign * (y - line) >= -1e-9).all()


def mixture_of_twice(mixture):
    return type(mixture)(*(np.concatenate([part, part]) for part in (mixture.rows, mixture.offsets)))


def margins_of(values, layout, mixture, child):
    """The largest margin of the clause's rows at sampled points: no mixture of the rows is above it."""
    outputs = values[layout.base.plan.output].reshape(-1, mixture.rows.shape[2])
    return (outputs @ mixture.rows[child].T - mixture.offsets[child]).max(axis=1)


def scored(problem):
    """The root's layout, domain, mixture, ascent after one evaluation, and scores of the slots."""
    search = search_of(problem)
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, search.memory)
    domains = root.pool.pop(1)
    mixture = mixture_of(search.rows, domains.base, domains.clause)
    ascent = ascent_of(root.layout, domains, mixture)
    ascent.evaluate()
    ascent.forward()
    return root.layout, domains, mixture, ascent, scores(root.layout, domains, ascent)[0]


def test_only_entries_that_matter_have_a_score():
    """Three neurons, of which the output reads one strongly, one weakly and one not at all."""
    rng = np.random.default_rng(0)
    nodes = (
        node("x", "Input", (), (3,)),
        node("a", "Linear", (0,), (3,), {"weight": 2 * np.eye(3), "bias": np.array([0.3, 0.3, 0.3])}),
        node("h", "Tanh", (1,), (3,)),
        node("y", "Linear", (2,), (1,), {"weight": np.array([[1e-2, 0.0, 1.0]]), "bias": np.zeros(1)}),
    )
    graph = Graph(nodes, (0,), (3,))
    # Unsafe where the output is small; strictly more than what relaxing costs separates it from its least value.
    problem = problem_of(graph, (-np.ones(3), np.ones(3), [(np.ones((1, 1)), np.array([rng.uniform(-0.2, 0.2)]))]))
    layout, domains, mixture, ascent, score = scored(problem)
    assert score[2] > 50 * score[0] > 0
    assert score[1] < 1e-12
    tried = np.array([[0, 1, 2]])
    assert filtered(layout, domains, tried, mixture, fixed(ascent, np.arange(1)))[0][0, 0] == 2


def test_both_factors_of_a_product_have_a_score():
    nodes = (
        node("x", "Input", (), (2,)),
        node("a", "Linear", (0,), (2,), {"weight": np.array([[1.0, 0.5], [0.5, -1.0]]), "bias": np.zeros(2)}),
        node("u", "Take", (1,), (1,), {"indices": np.array([0])}),
        node("v", "Take", (1,), (1,), {"indices": np.array([1])}),
        node("y", "Mul", (2, 3), (1,)),
    )
    graph = Graph(nodes, (0,), (4,))
    problem = problem_of(graph, (-np.ones(2), np.ones(2), [(np.ones((1, 1)), np.array([-1.3]))]))
    score = scored(problem)[-1]
    assert len(score) == 2
    assert (score > 1e-3).all()
    search = search_of(problem)
    search.run(Deadline.after(20.0), checker(problem))
    assert search.closed


def test_a_split_below_a_factor_narrows_the_factor():
    """The gate's own bounds are slots of the product; splitting what the gate reads must not leave them as they
    were."""
    layout, domains, _, _ = opened(product(1), 1)
    below = next(block for block in layout.slots if block.node == 1)
    trial = replace(domains, next=np.array([[below.start]]))
    children = split(trial, 0, split_points(layout, trial, trial.next[:, 0]))
    entry = below.entries[0]
    low, high = layout.bounds(domains).intervals[3]
    child_low, child_high = layout.bounds(children).intervals[3]
    assert child_high[0, entry] < high[0, entry] - 1e-3
    assert child_low[1, entry] > low[0, entry] + 1e-3


def test_of_curved_entries_only_the_best_are_tightened(monkeypatch):
    layout, domains, mixture, ascent = opened(dense((2, 6, 6, 2), 3, "Tanh", scale=3.0), 3)
    score = scores(layout, domains, ascent)
    every, *_ = tighten(layout, domains, mixture, 64, NEVER)
    monkeypatch.setattr(tightening, "CURVED_AT_MOST", 2)
    some, *_ = tighten(layout, domains, mixture, 64, NEVER, score)

    def changed(after):
        return (after.low[0] > domains.low[0]) | (after.high[0] < domains.high[0])

    best = np.zeros(layout.width, dtype=bool)
    best[np.argsort(-score[0])[:2]] = True
    assert changed(every).sum() > 2
    assert not changed(some)[~best].any()
    assert (some.low <= every.high).all()


def test_domains_bounded_together_fit_the_budget_with_all_the_lines_to_choose_from():
    """Rows read the families of their domain, so that only domains need memory for them."""
    graph = dense((2, 64, 64, 2), 0, "Tanh")
    problem = problem_at(graph, 0, -0.5)
    search = search_of(problem)
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, search.memory)
    families = root.layout.bounds(root.pool.pop(1)).families(search.plan.output)
    sides = [side for family in families.values() for side in (family.lower, family.upper)]
    needed = sum(x.nbytes for side in sides for x in (*side.knots.slopes, side.knots.intercepts))
    budget = 40 * needed
    search.memory = replace(search.memory, bytes=budget)
    options = search._options(root.layout)
    assert 1 < options.batch * needed <= budget / 2
    assert options.rows > options.batch
    rows = next(iter(families.values())).rows(np.zeros(1000, dtype=np.int64))
    assert rows.lower.knots.intercepts is next(iter(families.values())).lower.knots.intercepts


def test_bounds_are_renewed_where_domains_are_far_from_being_closed():
    """A domain's splits have gained so much on average; what is missing takes more or less than two more of them."""
    graph = dense((2, 4, 3, 2), 0, "Tanh")
    _, domains, _, _ = opened(graph, 0)
    domains = domains.pick(np.zeros(5, dtype=np.int64))
    depth = np.array([0, 3, 3, 3, 3])
    first, bound = np.full(5, -4.0), np.array([-4.0, -1.0, -2.0, -4.0, -np.inf])
    chosen = far(replace(domains, first=first, bound=bound), depth)
    # No split yet; 0.33 and 1 a split with 1 and 2 to go; nothing gained; no bound at all.
    np.testing.assert_array_equal(chosen, [True, False, True, True, True])


@pytest.mark.parametrize("to", [0, 1, None])
def test_the_first_bounds_of_a_domain_stay_with_it(monkeypatch, to):
    problem = problem_at(dense((2, 6, 6, 2), 3, "Sin", scale=3.0), 3, 0.02)
    search = search_of(problem)
    search.inputs = 0
    seen = []

    def noted(layout, domains, *rest):
        seen.append(domains)
        return tighten(layout, domains, *rest)

    monkeypatch.setattr(activation_split, "tighten", noted)
    options = ActivationSearch._options
    monkeypatch.setattr(
        search, "_options", lambda layout: replace(options(search, layout), tighten=1, tighten_to=to, leave_hairs=False)
    )
    search.run(Deadline.after(1.0), checker(problem))
    assert seen
    for domains in seen:
        depth = (domains.slot >= 0).sum(axis=1)
        if to is not None:
            assert ((depth <= to) | far(domains, depth)).all()
        assert (domains.first == seen[0].first[0]).all()
