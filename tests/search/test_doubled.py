"""What float32 cannot decide is decided in float64, and never falsely; torch answers what numpy answers."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.budget import NEVER, Deadline, MemoryBudget
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.search.activation_root import open_root
from boundsmith.verify.search.branches import Branches, split
from boundsmith.verify.search.branching import split_points, still_open
from boundsmith.verify.search.doubled import exact_graph, in_double
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks import dense, samples
from tests.programs.piecewise import outputs, tiny
from tests.search.activation_cases import checker, decide, margins, problem_of, random_problem, search_of

SINGLE = Backend("float32")


def in_single(graph):
    """The graph with parameters that float32 holds exactly."""
    return graph.map_params(lambda x: x.astype(np.float32).astype(np.float64) if x.dtype.kind == "f" else x)


@pytest.mark.parametrize("op", ["Relu", "Max", "Sign", "Clip", "LeakyRelu"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-1e-6, 1e-7, 3e-7]))
def test_thresholds_within_rounding_of_the_minimum(op, seed, shift):
    graph = in_single(tiny(op, seed, width=2))
    problem = random_problem(graph, seed, shift, rows=(1, 3, 2)[: 1 + seed % 3], boxes=1 + seed % 2)
    search, witness = decide(problem, backend=SINGLE)
    if shift > 0:
        assert search.closed
    else:
        assert not search.closed
        if witness is not None:
            assert min(margins(problem, k, witness[None])[0] for k in range(len(problem.groups))) <= 0


def test_without_float64_they_are_lost():
    """Of the same problems, some need it: the test above is not empty."""
    lost, finer = [], []
    for seed in range(8):
        problem = random_problem(in_single(tiny("Relu", seed, width=2)), seed, 1e-7)
        search = search_of(problem, SINGLE)
        search.groups = None
        search.run(Deadline.after(20.0), checker(problem))
        assert search.finished
        lost.append(search.lost)
        search, _ = decide(problem, backend=SINGLE)
        assert search.closed
        finer.append(search.finer is not None)
    assert any(lost)
    # Others go to float64 before there is nothing left to split.
    assert all(used for used, count in zip(finer, lost, strict=True) if count)


def test_a_passed_deadline_leaves_them_waiting():
    problem = next(
        problem
        for problem in (random_problem(in_single(tiny("Relu", seed, width=2)), seed, 1e-7) for seed in range(8))
        if decide(problem, backend=SINGLE)[0].finer is not None
    )
    search = search_of(problem, SINGLE)
    groups, search.groups = search.groups, []
    with pytest.raises(IndexError):
        search.run(Deadline.after(20.0), checker(problem))
    search.groups = groups
    assert search.close_calls
    search.run(Deadline.after(-1.0), checker(problem))
    assert not search.finished
    assert search.bound < np.inf
    assert not search.closed
    search.run(Deadline.after(20.0), checker(problem))
    assert search.closed


def test_what_memory_ran_out_on_is_lost(monkeypatch):
    def starved(*args, **kwargs):
        raise MemoryError

    problem = random_problem(in_single(tiny("Relu", 1, width=2)), 1, -1e-3)
    search = search_of(problem, SINGLE)
    monkeypatch.setattr("boundsmith.verify.search.doubled.relax", starved)
    report = search.run(Deadline.after(20.0), lambda *_: None)
    assert report.exhausted
    assert search.close_calls
    search.abandon()
    assert search.finished
    assert search.lost
    assert not search.closed


@pytest.mark.parametrize("op", ["Relu", "Max", "Sign", "Floor"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_domains_keep_their_points(op, seed):
    """Random domains of two boxes in float64: what is inside stays inside, and nothing decided is undecided again."""
    graph = in_single(tiny(op, seed))
    lower = np.array([[-1.0, -1.0], [-0.3, 0.2]])
    problem = problem_of(graph, *((low, low + 0.9, [(np.ones((1, 2)), np.array([1e3]))]) for low in lower))
    search = search_of(problem, SINGLE)
    budget = MemoryBudget(1 << 28)
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, budget)
    assume(root.layout is not None and root.layout.width > 0)
    domains = root.pool.pop(10)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        open_ = still_open(root.layout, domains)
        domains.next[:, 0] = [rng.choice(np.flatnonzero(row)) if row.any() else -1 for row in open_]
        points = split_points(root.layout, domains, domains.next[:, 0])
        domains = split(domains, 0, points, root.layout.opened(domains.next[:, 0]))
    domains = replace(domains, bound=-np.arange(len(domains), dtype=np.float32))
    parts = [domains.pick(slice(0, 3)), domains.pick(slice(3, None))]
    state = in_double(root.layout, exact_graph(root.layout), parts, problem.groups, NEVER, budget)
    fine = state.pool.pop(len(domains))
    assert all(getattr(fine, field.name).dtype.itemsize == 8 for field in fields(Branches))
    fine = fine.pick(np.argsort(-fine.bound))
    np.testing.assert_array_equal(state.groups[fine.base], domains.base)
    assert not (still_open(state.layout, fine) & ~still_open(root.layout, domains)).any()
    nodes = exact_graph(root.layout)
    for k, low in enumerate(lower[domains.base]):
        points = samples(low[None], low[None] + 0.9, 200, seed)[:, 0]
        values = evaluate(nodes, [points], range(len(nodes.nodes)))
        slots = np.concatenate([values[b.node].reshape(200, -1)[:, b.entries] for b in root.layout.slots], axis=1)
        inside = [((slots >= d.low[k]) & (slots <= d.high[k])).all(axis=1) for d in (domains, fine)]
        assert (inside[1] | ~inside[0]).all()


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_condensed_network_is_exact_in_float64(device):
    """Multiplied-out parameters are rounded to float32 for the search; leaves need them as they are."""
    if device is not None:
        pytest.importorskip("torch")
    graph = in_single(dense((3, 6, 6, 2), 4))
    graph.nodes[1].params["bias"][:] = np.array([9, 9, 9, 9, 9, 0.01]).astype(np.float32)
    graph.nodes[-1].params["bias"][:] = np.array([1234.5678, -987.654]).astype(np.float32)
    problem = problem_of(graph, (-np.ones(3), np.ones(3), [(np.ones((1, 2)), np.array([1e6]))]))
    search = search_of(problem, Backend("float32", device))
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, MemoryBudget(1 << 28))
    assert len(root.layout.base.plan.graph.nodes) != len(graph.nodes)
    points = samples(-np.ones((1, 3)), np.ones((1, 3)), 300, 1)[:, 0]
    exact = exact_graph(root.layout)
    np.testing.assert_allclose(outputs(exact, points), outputs(graph, points), rtol=0, atol=1e-11)
    assert all(
        (a.op, a.inputs, a.shape) == (b.op, b.inputs, b.shape)
        for a, b in zip(exact.nodes, root.layout.base.plan.graph.nodes, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["Relu", "Max", "Sign", "Clip", "Floor"])
@pytest.mark.parametrize("shift", [-1e-2, 3e-7, 1e-2])
def test_torch_answers_as_numpy(op, dtype, shift):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        graph = in_single(tiny(op, 1, width=2))
        if op == "Floor":
            points = samples(-np.ones((1, 2)), np.ones((1, 2)), 500, 1)[:, 0]
            rows = np.random.default_rng(1).normal(size=(2, 2))
            least = (outputs(graph, points) @ rows.T).max(axis=1).min() - (0.5 if shift > 0 else 0.0)
            problem = problem_of(graph, (-np.ones(2), np.ones(2), [(rows, np.full(2, least - shift))]))
        else:
            problem = random_problem(graph, 1, shift, rows=(2, 1))
        answers = []
        for device in (None, "cpu"):
            search, witness = decide(problem, backend=Backend(dtype, device))
            assert search.finished or witness is not None
            answers.append((search.closed, witness is not None))
        assert answers[0] == answers[1]
        assert op == "Floor" or answers[0] == (shift > 0, shift < 0)
    finally:
        torch.set_num_threads(before)
