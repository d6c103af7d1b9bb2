"""Input splitting: agrees with dense sampling and with an independent exact answer; faults never become verdicts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from boundsmith.specs.property import Box, Clause, NetworkDeclaration, Property, TensorDeclaration
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline, MemoryBudget
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.problem import join
from boundsmith.verify.rows import prepare_rows
from boundsmith.verify.search import hairs, input_split
from boundsmith.verify.search.domains import Domains, Pool
from boundsmith.verify.search.input_split import SplitOptions, search
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from tests.networks import dense, node, residual


def property_of(graph, boxes_and_rows):
    """A property of one network from ``(lower, upper, [(C, d), ...])`` triples."""
    size = graph.nodes[graph.inputs[0]].size
    outputs = graph.nodes[graph.outputs[0]].size
    clauses = []
    for lower, upper, conjunctions in boxes_and_rows:
        box = Box(np.asarray(lower, float), np.asarray(upper, float))
        for rows, offsets in conjunctions:
            clauses.append(
                Clause(box, np.asarray(rows, float), np.asarray(offsets, float), np.zeros(len(offsets), bool))
            )
    return Property(
        tuple(clauses),
        size,
        outputs,
        np.arange(size),
        (NetworkDeclaration("N"),),
        (TensorDeclaration("X", "N", "real", (size,), size),),
        (TensorDeclaration("Y", "N", "real", (outputs,), outputs),),
    )


def run(graph, property, backend=None, seconds=20.0, **options):
    """Search a property; returns the report and the candidate points that were offered as witnesses."""
    backend = backend or Backend("float64")
    problem = join(property, {"N": graph})
    plan = make_plan(backend.graph(problem.graph))
    lower, upper = backend.box(np.stack([g.lower for g in problem.groups]), np.stack([g.upper for g in problem.groups]))
    rows = prepare_rows(problem.groups, lower)
    count = len(problem.groups)
    offered = []

    def check(points, groups):
        offered.extend(np.asarray(points))
        return offered[0]

    root = Domains(
        lower, upper, backend.array(np.arange(count)), rows.clauses, backend.array(np.full(count, -np.inf)), {}
    )
    report = search(
        plan,
        rows,
        Pool([root]),
        SplitOptions(**options),
        Deadline.after(seconds),
        MemoryBudget(1 << 28),
        check,
    )
    return report, offered


def exact_minimum(graph, lower, upper, row):
    """The minimum of ``row . f`` over a box for one hidden layer, by a linear programme per activation pattern."""
    first, second = (node for node in graph.nodes if node.op == "Linear")
    weight, bias = first.params["weight"], first.params["bias"]
    cost = row @ second.params["weight"]
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(bias)):
        active = np.array(pattern)
        sign = np.where(active > 0, -1.0, 1.0)
        answer = linprog(
            (cost * active) @ weight,
            A_ub=sign[:, None] * weight,
            b_ub=-sign * bias,
            bounds=list(zip(lower, upper, strict=True)),
        )
        if answer.status == 0:
            best = min(best, answer.fun + (cost * active) @ bias + row @ second.params["bias"])
    return best


@pytest.mark.parametrize("device", [None, "cpu"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.sampled_from([-0.05, -1e-3, 1e-3, 0.05]))
def test_agrees_with_enumeration_of_patterns(device, seed, gap):
    """Threshold just below the true minimum: unsat. Just above: a witness is found."""
    graph = dense((2, 5, 2), seed)
    rng = np.random.default_rng(seed)
    lower, upper = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    row = rng.normal(size=2)
    minimum = exact_minimum(graph, lower, upper, row)
    property = property_of(graph, [(lower, upper, [([row], [minimum + gap])])])
    report, offered = run(graph, property, Backend("float64", device))
    if gap < 0:
        assert report.closed
        assert not offered
    else:
        assert offered
        assert output_vector(graph, offered[0][None])[0] @ row <= minimum + gap + 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_violation_is_never_closed(seed):
    """Properties that a known point violates, with several clauses and boxes: never `unsat`, in float32 either."""
    graph = residual(seed)
    rng = np.random.default_rng(seed)
    boxes = []
    for k in range(3):
        lower = rng.uniform(-1, 0, 3)
        upper = lower + rng.random(3)
        point = lower + rng.random(3) * (upper - lower)
        value = output_vector(graph, point[None])[0]
        rows = rng.normal(size=(2, 2))
        far = (rng.normal(size=(1, 2)), np.array([-50.0]))
        offsets = rows @ value + (1e-4 if k == 1 else -40.0)
        boxes.append((lower, upper, [far, (rows, offsets)]))
    for backend in (Backend("float64"), Backend("float32")):
        report, offered = run(backend.graph(graph), property_of(graph, boxes), backend)
        assert not report.closed
        assert offered


def test_workers_and_batches_agree():
    graph = dense((3, 12, 12, 2), 3)
    lower, upper = -np.ones(3), np.ones(3)
    corners = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    least = (output_vector(graph, corners) @ [1.0, -1.0]).min()
    property = property_of(graph, [(lower, upper, [([[1.0, -1.0]], [least - 0.02])])])
    for options in ({"batch": 1}, {"batch": 16}, {"batch": 64, "workers": 2}):
        report, _ = run(graph, property, **options)
        assert report.closed, options


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.sampled_from([-1e-8, 0.0, 1e-8]))
def test_what_only_rounding_keeps_open_is_left_to_another_dtype(seed, gap):
    """A linear function's least value is known to a few roundoffs: one box, and neither closed nor split."""
    graph = Backend("float32").graph(dense((2, 2), seed))
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))
    least = output_vector(Backend("float64").graph(graph), corners)[:, 0].min()
    property = property_of(graph, [(-np.ones(2), np.ones(2), [([[1.0, 0.0]], [least + gap])])])
    report, offered = run(graph, property, Backend("float32"), leave_hairs=True)
    assert report.visited == 1
    assert not report.closed
    assert not offered
    assert sum(len(part) for part in report.stuck) == 1


@pytest.mark.parametrize("device", [None, "cpu"])
def test_rows_of_clauses_that_are_refuted_everywhere_are_not_bounded_again(monkeypatch, device):
    """Two of three clauses fall at the root; the record still tells the clauses apart."""
    graph = dense((3, 12, 12, 2), 3)
    corners = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    least = (output_vector(graph, corners) @ [1.0, -1.0]).min()
    far, near = ([[0.0, 1.0], [1.0, 1.0]], [-90.0, -90.0]), ([[1.0, -1.0]], [least - 0.02])
    property = property_of(graph, [(-np.ones(3), np.ones(3), [far, near, far])])
    bounded = []
    genuine = input_split.row_bounds

    def counted(state, rows, *arguments, **options):
        bounded.append(rows.shape[1])
        return genuine(state, rows, *arguments, **options)

    monkeypatch.setattr(input_split, "row_bounds", counted)
    report, offered = run(graph, property, Backend("float64", device), batch=16, record=True)
    assert report.closed
    assert not offered
    assert bounded[0] == 5
    # A clause has room for two rows.
    assert len(bounded) > 2
    assert set(bounded[1:]) == {2}
    volume = np.zeros(3)
    for lower, upper, _, clause in (map(np.asarray, part) for part in report.refuted):
        np.add.at(volume, clause, np.prod(upper - lower, axis=1))
    np.testing.assert_allclose(volume, 8.0)


def test_a_point_box_is_decided():
    graph = dense((2, 4, 2), 1)
    value = output_vector(graph, np.zeros((1, 2)))[0]
    for gap, closed in ((-1e-6, True), (1e-6, False)):
        property = property_of(graph, [([0.0, 0.0], [0.0, 0.0], [([[1.0, 0.0]], [value[0] + gap])])])
        report, offered = run(graph, property)
        assert report.closed is closed
        assert bool(offered) is not closed


def test_a_clause_without_rows_is_never_refuted():
    graph = dense((2, 4, 2), 1)
    report, offered = run(graph, property_of(graph, [([0.0, 0.0], [1.0, 1.0], [(np.zeros((0, 2)), np.zeros(0))])]))
    assert offered
    assert not report.closed


def test_a_passed_deadline_closes_nothing():
    graph = dense((2, 4, 2), 1)
    report, _ = run(graph, property_of(graph, [([0, 0], [1, 1], [([[1.0, 0.0]], [-100.0])])]), seconds=-1.0)
    assert not report.closed


@pytest.mark.parametrize("fault", ["nan", "memory", "exception"])
def test_an_injected_fault_never_closes(monkeypatch, fault):
    """A NaN refutes nothing, an out-of-memory halves and gives up, any other exception surfaces."""
    graph = dense((2, 6, 2), 1)
    property = property_of(graph, [([0, 0], [1, 1], [([[1.0, 0.0]], [-100.0])])])
    assert run(graph, property)[0].closed
    genuine = input_split.row_bounds

    def faulty(*args, **kwargs):
        if fault == "memory":
            raise MemoryError
        if fault == "exception":
            raise RuntimeError("injected")
        bound = genuine(*args, **kwargs)
        return type(bound)(*(x * np.nan for x in vars(bound).values()))

    monkeypatch.setattr(input_split, "row_bounds", faulty)
    if fault == "exception":
        with pytest.raises(RuntimeError, match="injected"):
            run(graph, property)
        return
    report, _ = run(graph, property, seconds=2.0)
    assert not report.closed


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), gap=st.sampled_from([-0.05, -1e-3, 1e-3, 0.05]))
def test_light_searches_agree(seed, gap):
    """A wide network of six inputs of which two vary, in float32: the least value on a fine grid, and a gap."""
    graph = dense((6, 260, 12, 1), seed)
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=6)
    upper = lower.copy()
    upper[rng.permutation(6)[:2]] += 0.3
    share = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 2), axis=-1).reshape(-1, 2)
    points = np.tile(lower, (len(share), 1))
    points[:, upper > lower] += 0.3 * share
    least = float(output_vector(graph, points).min())
    # Between points of the grid the network may be a little lower.
    offset = least + gap if gap > 0 else least + gap - 0.02
    property = property_of(graph, [(lower, upper, [([[1.0]], [offset])])])
    report, offered = run(graph, property, Backend("float32"), light=True, leave_hairs=True)
    assert report.closed is (gap < 0)
    assert bool(offered) is (gap > 0)


@pytest.mark.parametrize("by", ["the allowance", "the centre", "nothing"])
def test_boxes_that_only_rounding_keeps_open_are_left(monkeypatch, by):
    """``sigmoid(1 + x / 1000) - sigmoid(1) > -1e-7`` on [0, 1]: float32 knows it to 1e-6 only, in parts of any size,
    which the bounds' allowance tells and the bounds at the boxes' centres."""
    if by != "the allowance":
        monkeypatch.setattr(hairs, "HAIR", 0.0)
    if by != "the centre":
        monkeypatch.setattr(input_split, "SLOW", float("inf"))
    leave = by != "nothing"
    nodes = (
        node("x", "Input", (), (1,)),
        node("small", "Scale", (0,), (1,), {"scale": np.full(1, 1e-3)}),
        node("first", "Scale", (1,), (1,), {"shift": np.ones(1)}),
        node("one", "Sigmoid", (2,), (1,)),
        node("other", "Constant", (), (1,), {"value": 1 / (1 + np.exp(-np.ones(1)))}),
        node("y", "Add", (3, 4), (1,), signs=(1, -1)),
    )
    graph = Graph(nodes, (0,), (5,))
    property = property_of(graph, [([0.0], [1.0], [([[1.0]], [-1e-7])])])
    report, offered = run(graph, property, Backend("float32"), seconds=1.0, leave_hairs=True)
    assert not report.closed
    assert not offered
    assert (report.visited < 30) is leave
    assert bool(report.stuck) or not leave
    assert run(graph, property, Backend("float64"))[0].closed
