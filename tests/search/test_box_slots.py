"""Entries of the input as slots: verdicts against enumeration and dense sampling, renewed bounds, what stays out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.search import activation_split, box_slots
from boundsmith.verify.search.activation_root import open_root
from boundsmith.verify.search.activation_split import mixture_of
from boundsmith.verify.search.box_slots import boxed, renewed, with_inputs
from boundsmith.verify.search.branches import split
from boundsmith.verify.search.branching import contenders, still_open, trial_bounds
from boundsmith.verify.search.cuts import Cuts, make_phases
from boundsmith.verify.search.leaves import programme
from boundsmith.verify.search.record import BranchRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, samples
from tests.programs.piecewise import linear, outputs, tiny
from tests.search.activation_cases import checker, margins, problem_of, random_problem, search_of
from tests.search.test_curved import GRAPHS, problem_at
from tests.search.test_cuts import Rounds

FOUR = dense((4, 8, 8, 2), 5)


def sine(seed=0):
    """The input itself is read by sines, and by a dense layer of tanh."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("x", "Input", (), (2,)),
        node("s", "Sin", (0,), (2,)),
        node("both", "Concat", (0, 1), (4,), axis=0),
        linear(rng, "a", 2, 4, 4),
        node("t", "Tanh", (3,), (4,)),
        linear(rng, "y", 4, 4, 2),
    ]
    return Graph(tuple(nodes), (0,), (5,))


def steep():
    """A network of two inputs whose sines turn often within the box."""
    rng = np.random.default_rng(3)
    nodes = [
        node("x", "Input", (), (2,)),
        node("a", "Linear", (0,), (6,), {"weight": 3.0 * rng.normal(size=(6, 2)), "bias": rng.normal(size=6)}),
        node("s", "Sin", (1,), (6,)),
        node("b", "Linear", (2,), (6,), {"weight": rng.normal(size=(6, 6)), "bias": rng.normal(size=6)}),
        node("t", "Sin", (3,), (6,)),
        node("y", "Linear", (4,), (1,), {"weight": rng.normal(size=(1, 6)), "bias": np.zeros(1)}),
    ]
    return Graph(tuple(nodes), (0,), (5,))


def with_slots(problem, inputs=64, **settings):
    """The search of a problem with its inputs as slots."""
    search = search_of(problem, **settings)
    search.inputs = inputs
    return search


def eager(monkeypatch):
    """Splits of inputs wherever they are possible."""
    monkeypatch.setattr(box_slots, "FEW_KINKS", 0)
    monkeypatch.setattr("boundsmith.verify.search.branching.FEW_KINKS", 0)
    monkeypatch.setattr("boundsmith.verify.search.trials.INPUT_WORTH", 100.0)


@pytest.fixture
def splits(monkeypatch):
    """Counts the splits of inputs."""
    counts = {"inputs": 0}
    original = activation_split._children

    def children(layout, domains):
        counts["inputs"] += int(boxed(layout, domains.next[:, 0]).sum())
        return original(layout, domains)

    monkeypatch.setattr(activation_split, "_children", children)
    return counts


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [*GRAPHS, "sine of the input"])
def test_agrees_with_dense_sampling(kind, dtype, monkeypatch, splits):
    eager(monkeypatch)
    make = GRAPHS.get(kind, sine)
    for seed, shift in enumerate((-0.05, -1e-3, 0.02, 0.5)):
        problem = problem_at(make(seed), seed, shift)
        search = with_slots(problem, backend=Backend(dtype))
        # Without witnesses the search goes on until what is unsafe is all that is left.
        search.run(Rounds(12), lambda *_: None)
        if shift < 0:
            assert not search.closed
        if shift > 0.1:
            assert search.closed
        witness = with_slots(problem, backend=Backend(dtype)).run(Rounds(12), checker(problem)).witness
        if witness is not None:
            assert margins(problem, 0, witness[None])[0] <= 0
            assert shift < 1e-2
    assert splits["inputs"] > 0


@pytest.mark.parametrize("op", ["Relu", "Abs", "Max", "Clip"])
@pytest.mark.parametrize("cuts", [False, True])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-3, 1e-2, 0.1]), few=st.sampled_from([1, 3]))
def test_agrees_with_enumeration_of_pieces(op, cuts, seed, shift, few):
    problem = random_problem(tiny(op, seed, width=2), seed, shift, rows=(1, 3)[: 1 + seed % 2], boxes=1 + seed % 2)
    with pytest.MonkeyPatch.context() as patch:
        eager(patch)
        patch.setattr("boundsmith.verify.search.branching.FEW_KINKS", few)
        search = with_slots(problem, backend=Backend(("float64", "float32")[seed % 2]))
        search.cuts = cuts
        witness = search.run(Deadline.after(10.0), checker(problem)).witness
    if witness is not None:
        assert shift < 0
        assert min(margins(problem, k, witness[None])[0] for k in range(len(problem.groups))) <= 0
    assert search.closed == (shift > 0)


def opened(graph, seed, backend=None):
    """The layout, and domains split at random, inputs among the rest."""
    size = graph.nodes[0].size
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(1, graph.nodes[graph.outputs[0]].size))
    problem = problem_of(graph, (-np.ones(size), np.ones(size), [(rows, np.array([0.0]))]))
    search = with_slots(problem, **({} if backend is None else {"backend": backend}))
    root = open_root(search.plan, search.rows, search.lower, search.upper, NEVER, search.memory, inputs=64)
    layout, domains = root.layout, root.pool.pop(1)
    for depth in range(4):
        open_ = still_open(layout, domains)
        if depth % 2 == 0:
            open_[:, layout.box.stop :] = False
        slots = np.array([rng.choice(np.flatnonzero(row)) for row in open_])
        points = 0.5 * (domains.low + domains.high)[np.arange(len(slots)), slots]
        for block in layout.slots:
            if block.kinks is not None:
                points = np.where((slots >= block.start) & (slots < block.stop), 0.0, points)
        domains = renewed(layout, NEVER, None, split(replace(domains, next=slots[:, None]), 0, points))
    return layout, domains, search


@pytest.mark.parametrize(
    "graph", [FOUR, steep(), sine(), GRAPHS["product"](1)], ids=["relu", "steep", "sine", "product"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_renewed_bounds_hold_on_the_split_boxes(graph, dtype):
    """Domains cover the box; in each, all slots' values and the margin are within the bounds."""
    layout, domains, search = opened(graph, 3, Backend(dtype))
    inner = layout.base.plan.graph
    points = samples(layout.base.lower, layout.base.upper, 3000, 1)[:, 0]
    values = evaluate(inner, [points], range(len(inner.nodes)))
    base = layout.bounds(domains)
    slack = 1e-4 if dtype == "float32" else 1e-9
    mixture = mixture_of(search.rows, domains.base, domains.clause)
    bound = trial_bounds(layout, domains, mixture)[0]
    left = values[layout.base.plan.output].reshape(len(points), -1) @ mixture.rows[0].T - mixture.offsets[0]
    covered = np.zeros(len(points), dtype=bool)
    for k in range(len(domains)):
        inside = ((points >= base.lower[k]) & (points <= base.upper[k])).all(axis=1)
        for slot, sign, point in zip(domains.slot[k], domains.sign[k], domains.point[k], strict=True):
            block = next(block for block in layout.slots if block.start <= slot < block.stop)
            value = values[block.node].reshape(len(points), -1)[:, block.entries[slot - block.start]]
            inside &= sign * (value - point) >= 0
        covered |= inside
        assert (left[inside].max(axis=1) >= bound[k] - slack).all()
        for block in layout.slots:
            value = values[block.node].reshape(len(points), -1)[inside][:, block.entries]
            here = slice(block.start, block.stop)
            assert (value >= domains.low[k, here] - slack).all()
            assert (value <= domains.high[k, here] + slack).all()
    assert covered.all()


def test_a_smaller_box_tightens_what_follows():
    layout, domains, _ = opened(FOUR, 3)
    root = layout.root(domains.base, domains.clause, domains.mixture, domains.weights)
    later = slice(layout.slots[-1].start, layout.slots[-1].stop)
    assert ((domains.high - domains.low)[:, later] < 0.9 * (root.high - root.low)[:, later]).any(axis=1).all()
    base = layout.bounds(domains)
    np.testing.assert_array_equal(base.lower, base.intervals[layout.base.plan.input][0])
    assert (base.upper - base.lower).sum(axis=1).max() < (layout.base.upper - layout.base.lower).sum() - 0.4
    # Their programmes are about the smaller box, and no multiplier stands for a split of the input.
    graph = layout.base.plan.graph
    asked = programme(layout, graph, search_rows(domains, FOUR), domains.pick([0]))
    np.testing.assert_array_equal(asked["lower"], base.lower[0])
    _, constraints = layout.parameters(domains, base.families(base.plan.output))
    assert layout.base.plan.input not in constraints


def search_rows(domains, graph):
    size = graph.nodes[0].size
    outputs = graph.nodes[graph.outputs[0]].size
    clauses = [(np.ones((1, outputs)), np.zeros(1))] * (int(domains.clause.max()) + 1)
    return search_of(problem_of(graph, (-np.ones(size), np.ones(size), clauses))).rows


def test_a_steep_network_of_two_inputs_closes():
    axis = np.linspace(-1, 1, 500)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    graph = steep()
    least = outputs(graph, points).min()
    # The margin is well above what the grid may miss.
    problem = problem_of(graph, (-np.ones(2), np.ones(2), [(np.ones((1, 1)), np.array([least - 0.3]))]))
    found = {}
    for inputs in (0, 8):
        search = with_slots(problem, inputs)
        report = search.run(Rounds(40), lambda *_: None)
        found[inputs] = search.closed, report.visited
    assert not found[0][0]
    assert found[0][1] > 2000
    assert found[8][0]
    assert found[8][1] < 200


def test_many_inputs_open_ends_and_records_leave_inputs_out():
    layout, _, search = opened(FOUR, 3)
    assert layout.box is not None
    plain = replace(layout, slots=tuple(block for block in layout.slots if not block.box))
    assert with_inputs(plain, 3) is plain
    assert with_inputs(plain, 4).box is not None
    open_ended = replace(plain, slots=(replace(plain.slots[0], opened=(True, False)), *plain.slots[1:]))
    assert with_inputs(open_ended, 4) is open_ended
    root = open_root(
        search.plan, search.rows, search.lower, search.upper, NEVER, search.memory, record=BranchRecord(), inputs=64
    )
    assert root.layout.box is None


def test_conflicts_of_split_boxes_teach_nothing():
    layout, domains, _ = opened(FOUR, 3)
    phases = make_phases(layout)
    assert not phases.only(domains).any()
    cuts = Cuts(phases)
    path = [0, layout.box.stop]
    cuts._resolve((0, 0), path, frozenset(path))
    cuts._resolve((0, 0), [0, layout.box.stop + phases.width], frozenset([0, layout.box.stop + phases.width]))
    assert not cuts.clauses
    assert not cuts.halves


def test_neurons_are_tried_where_no_input_may_be_split():
    layout, _, _ = opened(FOUR, 3)
    score = np.zeros((2, layout.width))
    score[:, layout.box.stop + 1] = 1.0
    score[1, 0] = 2.0
    tried = contenders(layout, score, 1)
    assert tried[:, 0].tolist() == [layout.box.stop + 1, 0]
    assert tried[1, 1] == layout.box.stop + 1
    assert (tried[0, 1:] == -1).all()
