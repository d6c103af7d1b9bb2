"""The mixed-integer optimum is the network's minimum; the linear one lies between our bounds and it."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.crown import row_bounds
from boundsmith.verify.budget import NEVER
from boundsmith.verify.graph import Graph
from boundsmith.verify.programs.encoding import encodable, encode, estimate, roles_of
from boundsmith.verify.programs.highs import run_highs, solve_linear
from boundsmith.verify.programs.roles import EmptyDomain, NotEncodable
from boundsmith.verify.programs.wiring import wire
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import node, pooled, residual, samples
from tests.programs.piecewise import EXTREMA, STEPS, UNARY, bounded, exact_minimum, outputs, tiny

THREE_PIECES = ("Clip", "Sign", *EXTREMA)


def clause(seed, count, columns):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, columns)), rng.normal(size=count)


def solve_exactly(model):
    return run_highs(model.program, seconds=60.0, threads=1, target=-np.inf)


@pytest.mark.parametrize("op", [*UNARY, *EXTREMA])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 2), centre=st.floats(-1.0, 1.0), radius=st.floats(0.05, 1.5))
@settings(max_examples=6, deadline=None)
def test_the_programmes_agree_with_enumeration(op, seed, count, centre, radius):
    graph = tiny(op, seed, width=2 if op in THREE_PIECES else 3)
    lower, upper = np.full(2, centre - radius), np.full(2, centre + radius)
    rows, offsets = clause(seed, count, 2)
    state, intervals = bounded(graph, lower, upper)
    model = encode(graph, lower, upper, intervals, rows, offsets, relaxed=False)
    answer = solve_exactly(model)
    exact = exact_minimum(graph, lower, upper, rows, offsets)
    assert answer.objective == pytest.approx(exact, abs=1e-6)

    point = answer.values[: model.inputs]
    reached = (outputs(graph, point[None]) @ rows.T - offsets).max()
    if op not in STEPS:
        assert reached == pytest.approx(exact, abs=1e-6)

    linear = solve_linear(encode(graph, lower, upper, intervals, rows, offsets, relaxed=True).program, NEVER)
    ours = row_bounds(state, rows[None], offsets[None]).lower.max()
    assert ours - 1e-7 <= linear.objective <= exact + 1e-7


@pytest.mark.parametrize(
    "graph", [residual(1), residual(2, width=4), pooled(3), pooled(4)], ids=["residual", "narrow", "pooled", "pooled2"]
)
def test_larger_graphs_stay_below_samples_and_reach_their_optimum(graph):
    size = graph.nodes[0].size
    lower, upper = np.full(size, -0.3), np.full(size, 0.4)
    rows, offsets = clause(5, 2, graph.nodes[-1].size)
    _, intervals = bounded(graph, lower, upper)
    model = encode(graph, lower, upper, intervals, rows, offsets, relaxed=False)
    answer = solve_exactly(model)
    assert answer.status == "optimal"
    points = samples(lower[None], upper[None], 4000)[:, 0]
    assert answer.objective <= (outputs(graph, points) @ rows.T - offsets).max(axis=1).min() + 1e-6
    best = outputs(graph, answer.values[None, : model.inputs]) @ rows.T - offsets
    assert best.max() == pytest.approx(answer.objective, abs=1e-6)


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Abs"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_phases_are_constraints(op, seed):
    graph = tiny(op, seed)
    rng = np.random.default_rng(seed)
    lower, upper = -np.ones(2), np.ones(2)
    rows, offsets = clause(seed, 1, 2)
    _, intervals = bounded(graph, lower, upper)
    phases = {index: rng.integers(-1, 2, size=graph.nodes[index].size) for index in (2, 5)}
    exact = exact_minimum(graph, lower, upper, rows, offsets, phases)
    try:
        model = encode(graph, lower, upper, intervals, rows, offsets, relaxed=False, phases=phases)
    except EmptyDomain:
        assert exact == np.inf
        return
    answer = solve_exactly(model)
    assert (answer.status == "infeasible") == (exact == np.inf)
    if exact < np.inf:
        assert answer.objective == pytest.approx(exact, abs=1e-6)


def test_entries_that_bounds_decide_get_no_binary():
    graph = tiny("Relu", 0)
    lower = np.full(2, 0.2)
    _, intervals = bounded(graph, lower, lower + 1e-4)
    rows, offsets = clause(0, 1, 2)
    model = encode(graph, lower, lower + 1e-4, intervals, rows, offsets, relaxed=False)
    assert not model.program.integer.any()


def test_a_wiring_serves_smaller_boxes():
    graph, rows, offsets = residual(6), *clause(6, 2, 2)
    lower, upper = -np.ones(3), np.ones(3)
    _, whole = bounded(graph, lower, upper)
    wiring = wire(graph, roles_of(graph, whole)[1])
    half = upper * np.array([0.0, 1.0, 1.0])
    _, intervals = bounded(graph, lower, half)
    shared = encode(graph, lower, half, intervals, rows, offsets, relaxed=True, wiring=wiring)
    fresh = encode(graph, lower, half, intervals, rows, offsets, relaxed=True)
    assert solve_linear(shared.program, NEVER).objective == pytest.approx(solve_linear(fresh.program, NEVER).objective)


def test_the_estimate_is_near_the_programme():
    graph = pooled(1)
    lower, upper = np.full(36, -0.5), np.full(36, 0.5)
    _, intervals = bounded(graph, lower, upper)
    rows, offsets = clause(1, 1, 3)
    size = estimate(graph, intervals)
    model = encode(graph, lower, upper, intervals, rows, offsets, relaxed=True)
    assert size.columns == len(model.program.cost)
    assert size.undecided == sum(int(role.undecided.sum()) for role in model.roles.values())
    assert 0.3 * len(model.program.values) < size.nonzeros < 3 * len(model.program.values)


def test_an_operator_that_is_not_piecewise_linear_is_named():
    graph = Graph((node("x", "Input", (), (2,)), node("squash", "Tanh", (0,), (2,))), (0,), (1,))
    assert "squash" in encodable(graph)
    assert "Tanh" in encodable(graph)
    box = (np.zeros(2), np.ones(2))
    with pytest.raises(NotEncodable, match="squash"):
        encode(graph, *box, [box, box], np.eye(2), np.zeros(2), relaxed=True)


def test_infinite_bounds_are_refused():
    graph = tiny("Relu", 1)
    _, intervals = bounded(graph, -np.ones(2), np.ones(2))
    intervals[1] = (np.full(3, -np.inf), np.full(3, np.inf))
    with pytest.raises(NotEncodable, match="finite"):
        encode(graph, -np.ones(2), np.ones(2), intervals, np.eye(2), np.zeros(2), relaxed=False)


def test_all_undecided_operators_have_a_programme():
    assert all(encodable(tiny(op, 0)) is None for op in (*UNARY, *EXTREMA))
