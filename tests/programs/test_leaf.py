"""A leaf's bound is proved by our own pass: sound whatever the solver says, and near the programme's optimum."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.programs import leaf as leaf_module
from boundsmith.verify.programs.certified import Weights, certified_bound
from boundsmith.verify.programs.encoding import encode
from boundsmith.verify.programs.highs import Solution, solve_linear
from boundsmith.verify.programs.leaf import leaf_bound
from boundsmith.verify.programs.roles import EmptyDomain
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, pooled, residual, samples
from tests.programs.piecewise import EXTREMA, UNARY, bounded, exact_minimum, outputs, tiny

BOX = -np.ones(2), np.ones(2)


def clause(seed, count, columns):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, columns)), rng.normal(size=count)


@pytest.mark.parametrize("op", [*UNARY, *EXTREMA])
@given(seed=st.integers(0, 10_000), count=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_the_bound_is_below_samples_and_near_the_linear_programme(op, seed, count):
    graph = tiny(op, seed, width=4)
    rows, offsets = clause(seed, count, 2)
    _, intervals = bounded(graph, *BOX)
    model = encode(graph, *BOX, intervals, rows, offsets, relaxed=True)
    optimum = solve_linear(model.program, NEVER).objective
    leaf = leaf_bound(graph, *BOX, intervals, rows, offsets, {}, NEVER)
    points = samples(BOX[0][None], BOX[1][None], 2000, seed)[:, 0]
    assert leaf.bound <= (outputs(graph, points) @ rows.T - offsets).max(axis=1).min()
    assert optimum - 1e-6 <= leaf.bound <= optimum + 1e-7
    assert leaf.status == ("closed" if leaf.bound > 0 else "point")
    assert (leaf.point >= BOX[0]).all()
    assert (leaf.point <= BOX[1]).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_fully_split_domains_are_decided_exactly(seed):
    graph = tiny("Relu", seed)
    rows, offsets = clause(seed, 1, 2)
    _, intervals = bounded(graph, *BOX)
    rng = np.random.default_rng(seed)
    phases = {index: rng.choice([-1, 1], size=graph.nodes[index].size) for index in (2, 5)}
    exact = exact_minimum(graph, *BOX, rows, offsets, phases)
    leaf = leaf_bound(graph, *BOX, intervals, rows, offsets, phases, NEVER)
    if exact == np.inf:
        assert leaf.status == "closed"
        assert leaf.bound == np.inf
    else:
        assert leaf.bound == pytest.approx(exact, abs=1e-6)
        assert leaf.status == ("closed" if exact > 0 else "point")
        if leaf.status == "point":
            value = (outputs(graph, leaf.point[None]) @ rows.T - offsets).max()
            assert value == pytest.approx(exact, abs=1e-6)


@given(seed=st.integers(0, 10_000), size=st.floats(0.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_no_multipliers_make_a_wrong_bound(seed, size):
    op = [*UNARY, *EXTREMA][seed % (len(UNARY) + len(EXTREMA))]
    graph = tiny(op, seed, width=4)
    rows, offsets = clause(seed, 2, 2)
    _, intervals = bounded(graph, *BOX)
    model = encode(graph, *BOX, intervals, rows, offsets, relaxed=True)
    rng = np.random.default_rng(seed)

    def weigh(side):
        return [(facet, size * rng.random(len(row)) * facet.mask) for facet, row in side]

    share = rng.random()
    weights = Weights(
        np.array([share, 1.0 - share]),
        {index: size * rng.normal(size=nodes.links.shape) for index, nodes in model.nodes.items()},
        {index: weigh(nodes.lower) for index, nodes in model.nodes.items()},
        {index: weigh(nodes.upper) for index, nodes in model.nodes.items()},
    )
    points = samples(BOX[0][None], BOX[1][None], 1000, seed)[:, 0]
    least = (outputs(graph, points) @ rows.T - offsets).max(axis=1).min()
    assert certified_bound(graph, *BOX, model.bounds, model.roles, rows, offsets, weights) <= least
    nothing = dataclasses.replace(weights, clause=np.zeros(2))
    assert certified_bound(graph, *BOX, model.bounds, model.roles, rows, offsets, nothing) <= 0.0
    broken = dataclasses.replace(weights, clause=np.array([np.nan, 1.0]))
    assert certified_bound(graph, *BOX, model.bounds, model.roles, rows, offsets, broken) == -np.inf


@pytest.mark.parametrize("graph", [residual(3), pooled(5), dense((3, 12, 12, 2), seed=1)], ids=["res", "pool", "dense"])
def test_larger_graphs(graph):
    size = graph.nodes[0].size
    lower, upper = np.full(size, -0.4), np.full(size, 0.5)
    rows, offsets = clause(2, 2, graph.nodes[-1].size)
    _, intervals = bounded(graph, lower, upper)
    optimum = solve_linear(encode(graph, lower, upper, intervals, rows, offsets, relaxed=True).program, NEVER).objective
    assert leaf_bound(graph, lower, upper, intervals, rows, offsets, {}, NEVER).bound == pytest.approx(
        optimum, abs=1e-6
    )


def test_phases_that_exclude_each_other_are_closed_as_empty():
    graph = dense((1, 2, 1), seed=0)
    graph.nodes[1].params["weight"][:] = [[1.0], [1.0]]
    graph.nodes[1].params["bias"][:] = [-0.5, 0.5]
    box = -np.ones(1), np.ones(1)
    _, intervals = bounded(graph, *box)
    phases = {2: np.array([1, -1])}
    leaf = leaf_bound(graph, *box, intervals, np.ones((1, 1)), np.array([1e3]), phases, NEVER)
    assert (leaf.status, leaf.bound) == ("closed", np.inf)


def test_a_phase_against_its_bounds_is_closed_without_a_solver():
    graph = dense((1, 1, 1), seed=0)
    graph.nodes[1].params["weight"][:] = 1.0
    graph.nodes[1].params["bias"][:] = 3.0
    box = -np.ones(1), np.ones(1)
    _, intervals = bounded(graph, *box)
    with pytest.raises(EmptyDomain):
        encode(graph, *box, intervals, np.ones((1, 1)), np.zeros(1), relaxed=True, phases={2: np.array([-1])})
    leaf = leaf_bound(graph, *box, intervals, np.ones((1, 1)), np.zeros(1), {2: np.array([-1])}, NEVER)
    assert (leaf.status, leaf.bound) == ("closed", np.inf)


def test_failures_of_the_solver_leave_a_domain_open(monkeypatch):
    graph, (rows, offsets) = tiny("Relu", 0), clause(0, 1, 2)
    _, intervals = bounded(graph, *BOX)
    arguments = (graph, *BOX, intervals, rows, offsets - 100.0, {})
    assert leaf_bound(*arguments, NEVER).status == "closed"
    assert leaf_bound(*arguments, Deadline.after(-1.0)).status in ("open", "closed")
    for answer in (Solution("failed", message="broken"), Solution("limit"), Solution("optimal")):
        monkeypatch.setattr(leaf_module, "solve_linear", lambda *_, answer=answer: answer)
        assert leaf_bound(*arguments, NEVER).status == "open"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "highspy", None)
    missing = leaf_bound(*arguments, NEVER)
    assert missing.status == "open"
    assert "highspy" in missing.reason


def test_a_solver_that_lies_is_not_believed(monkeypatch):
    graph, (rows, offsets) = tiny("Relu", 0), clause(0, 1, 2)
    _, intervals = bounded(graph, *BOX)
    honest = solve_linear

    def says_infeasible(program, deadline):
        answer = honest(program, deadline)
        return answer if len(program.cost) > 40 else Solution("infeasible", dual_bound=np.inf)

    monkeypatch.setattr(leaf_module, "solve_linear", says_infeasible)
    assert leaf_bound(graph, *BOX, intervals, rows, offsets + 100.0, {}, NEVER).status == "open"

    def says_positive(program, deadline):
        answer = honest(program, deadline)
        return dataclasses.replace(answer, objective=1.0, row_duals=answer.row_duals * np.nan)

    monkeypatch.setattr(leaf_module, "solve_linear", says_positive)
    assert leaf_bound(graph, *BOX, intervals, rows, offsets + 100.0, {}, NEVER).status == "open"
