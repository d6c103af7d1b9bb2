"""Complete verification by mixed-integer programmes: right verdicts, honest refusals, no verdict from a failure."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
from boundsmith.specs.read import read_property
from boundsmith.verify.attack.replay import Replay
from boundsmith.verify.budget import Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import Group, Problem, join
from boundsmith.verify.programs import highs, milp
from boundsmith.verify.programs.encoding import Size
from boundsmith.verify.programs.highs import Solution
from boundsmith.verify.programs.milp import solve_by_milp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import shared_dir
from tests.networks import node
from tests.programs.piecewise import UNARY, exact_minimum, outputs, tiny


def problem(graph, *clauses):
    """A problem over the box [-1, 1] with the given clauses ``(rows, offsets)``."""
    size = graph.nodes[0].size
    rows = np.concatenate([rows for rows, _ in clauses])
    offsets = np.concatenate([offset for _, offset in clauses])
    of = np.repeat(np.arange(len(clauses)), [len(offset) for _, offset in clauses])
    strict = np.zeros(len(offsets), dtype=bool)
    group = Group(-np.ones(size), np.ones(size), rows, offsets, strict, of, len(clauses))
    return Problem(graph, (group,), rows.shape[1], None)


def checker(instance, seen=None):
    """Confirms a point by the graph itself; the point stands for the witness."""

    def check(points, groups):
        if seen is not None:
            seen.append(points[0])
        group = instance.groups[groups[0]]
        left = group.rows @ outputs(instance.graph, points)[0] - group.offsets
        strongest = [left[group.clause == k].max(initial=-np.inf) for k in range(group.count)]
        return points[0] if min(strongest) <= 0.0 else None

    return check


def decide(instance, seconds=60.0, **settings):
    return solve_by_milp(instance, Deadline.after(seconds), checker(instance), **settings)


def never(points, groups):
    return None


@given(seed=st.integers(0, 10_000), shift=st.floats(-0.3, 0.3))
@settings(max_examples=10, deadline=None)
def test_verdicts_agree_with_enumeration(seed, shift):
    op = UNARY[seed % 4]
    graph = tiny(op, seed, width=2)
    rng = np.random.default_rng(seed)
    clauses = [(rng.normal(size=(count, 2)), rng.normal(size=count)) for count in (1, 2)]
    least = [exact_minimum(graph, -np.ones(2), np.ones(2), *clause) for clause in clauses]
    clauses = [(rows, offsets + value - shift) for (rows, offsets), value in zip(clauses, least, strict=True)]
    report = decide(problem(graph, *clauses))
    # Now every clause's least value is the shift.
    if abs(shift) > 1e-4:
        assert report.status == ("unsat" if shift > 0 else "sat")
    else:
        assert shift > 0 or report.status != "unsat"
    assert (report.closed == 2) == (report.status == "unsat")


def open_problem(offset=0.05):
    """A problem that our bounds leave open; its least value is the offset."""
    graph = tiny("Relu", 17, width=4)
    rows = np.array([[0.5, 0.8]])
    value = exact_minimum(graph, -np.ones(2), np.ones(2), rows, np.zeros(1))
    return problem(graph, (rows, np.array([value - offset])))


def test_an_unsat_that_rests_on_highs_says_so():
    report = decide(open_problem())
    assert report.status == "unsat"
    assert "tolerance" in report.warnings[0]
    assert 0.0 < report.bound < 0.05


def test_an_unsat_by_our_own_bounds_needs_no_warning():
    report = decide(open_problem(offset=50.0))
    assert (report.status, report.warnings, report.nodes) == ("unsat", (), 0)


def test_a_value_within_tolerances_is_unknown():
    report = decide(open_problem(offset=1e-9))
    assert report.status == "unknown"
    assert report.reason


def cancelling(seed):
    """A point whose value violates its clause by a hair: layers of weights of 1e3 that nearly cancel there."""
    rng = np.random.default_rng(seed)
    point = value = rng.uniform(-1, 1, 4)
    exact = [Fraction(x) for x in point.tolist()]
    nodes = [node("x", "Input", (), (4,))]
    for layer, out in enumerate((8, 8, 1)):
        shape = out, len(value)
        weight = rng.choice([-1e3, 1e3], shape) * (1 + 1e-6 * rng.normal(size=shape))
        bias = -(weight @ value) * (1 + 1e-6 * rng.normal(size=out)) if out > 1 else np.zeros(out)
        nodes.append(node(f"z{layer}", "Linear", (len(nodes) - 1,), (out,), {"weight": weight, "bias": bias}))
        value = weight @ value + bias
        exact = [
            sum((Fraction(w) * x for w, x in zip(row, exact, strict=True)), Fraction(b))
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        if out > 1:
            nodes.append(node(f"h{layer}", "Relu", (len(nodes) - 1,), (out,)))
            value, exact = np.maximum(value, 0), [max(x, Fraction(0)) for x in exact]
    above = np.array([np.nextafter(float(exact[0]), np.inf)])
    group = Group(point, point, np.ones((1, 1)), above, np.zeros(1, bool), np.zeros(1, int), 1)
    return Problem(Graph(tuple(nodes), (0,), (len(nodes) - 1,)), (group,), 1, None)


@pytest.mark.parametrize("seed", [2, 3, 5, 9])
def test_what_the_solver_tolerates_may_grow_by_large_weights(seed):
    """(HiGHS calls these programmes infeasible; with its margin relative to the outputs they were `unsat`.)"""
    report = solve_by_milp(cancelling(seed), Deadline.after(20.0), never)
    assert report.status == "unknown"


def test_a_solver_that_contradicts_itself_is_not_believed(monkeypatch):
    """(So HiGHS does where the terms of rows are large: it finds a point, and then says that there is none.)"""
    size = 1000
    answers = [Solution("target", -1.0, -2.0, np.zeros(size)), Solution("infeasible", dual_bound=np.inf)]
    monkeypatch.setattr(milp, "solve_integer", lambda *_, **__: answers.pop(0))
    report = solve_by_milp(open_problem(), Deadline.after(60.0), never)
    assert report.status == "unknown"
    assert not answers


def test_a_refutation_must_hold_without_presolving(monkeypatch):
    """Where it does not, nothing is claimed."""
    asked = []

    def solve(*_, presolve, **__):
        asked.append(presolve)
        return (
            Solution("infeasible", dual_bound=np.inf) if presolve else Solution("optimal", -0.1, -0.1, np.zeros(1000))
        )

    monkeypatch.setattr(milp, "solve_integer", solve)
    report = solve_by_milp(open_problem(), Deadline.after(60.0), never)
    assert report.status == "unknown"
    assert asked == [True, False]


def shifted(by):
    """``-relu(relu(x + by) - by) <= -0.01``, left open by our own bounds."""
    one = np.ones((1, 1))
    nodes = (
        node("x", "Input", (), (1,)),
        node("z", "Linear", (0,), (1,), {"weight": one, "bias": np.array([by])}),
        node("h", "Relu", (1,), (1,)),
        node("c", "Linear", (2,), (1,), {"weight": one, "bias": np.array([-by])}),
        node("r", "Relu", (3,), (1,)),
    )
    return problem(Graph(nodes, (0,), (4,)), (-one, np.array([-0.01])))


@pytest.mark.parametrize(("by", "status"), [(0.0, "unsat"), (1e8, "unknown")])
def test_rows_that_float64_cannot_tell_refute_nothing(monkeypatch, by, status):
    """A solver's "infeasible" (said falsely, here) counts where the terms of all rows are small, and only there."""
    monkeypatch.setattr(milp, "solve_integer", lambda *_, **__: Solution("infeasible", dual_bound=np.inf))
    report = solve_by_milp(shifted(by), Deadline.after(20.0), never)
    assert report.status == status
    assert np.isfinite(report.bound)


def test_a_point_that_the_runtime_refuses_is_no_witness():
    report = solve_by_milp(open_problem(offset=-0.1), Deadline.after(60.0), never)
    assert report.status == "unknown"
    assert "confirm" in report.reason


def test_a_clause_without_rows_is_violated_everywhere():
    graph = tiny("Relu", 1)
    instance = problem(graph, (np.zeros((0, 2)), np.zeros(0)))
    assert decide(instance).status == "sat"
    assert solve_by_milp(instance, Deadline.after(60.0), never).status == "unknown"


def test_refusals_name_their_reason():
    graph = Graph((node("x", "Input", (), (2,)), node("squash", "Tanh", (0,), (2,))), (0,), (1,))
    report = decide(problem(graph, (np.eye(2), np.zeros(2))))
    assert (report.status, report.clauses) == ("unknown", 1)
    assert "squash" in report.reason
    large = decide(open_problem(), largest=Size(1000, 1000, 1))
    assert large.status == "unknown"
    assert "too large" in large.reason


def test_a_passed_deadline_is_a_timeout():
    assert decide(open_problem(), seconds=-1.0).status == "timeout"


@pytest.mark.parametrize(
    "answer",
    [
        (b"", 1),
        (None, -9),
        (pickle.dumps(Solution("failed", message="broken")), 0),
        (pickle.dumps(Solution("optimal", np.nan, np.nan, np.full(40, np.nan))), 0),
        (pickle.dumps(Solution("target", -1.0, -1.0, np.zeros(40))), 0),
        (pickle.dumps(Solution("limit", dual_bound=-1.0)), 0),
    ],
)
def test_failures_of_the_solver_give_no_verdict(monkeypatch, answer):
    monkeypatch.setattr(highs, "_converse", lambda *_: answer)
    report = solve_by_milp(open_problem(), Deadline.after(60.0), never)
    assert report.status == "unknown"
    assert report.reason


def test_without_the_solver_there_is_no_verdict(monkeypatch):
    missing = highs.Solution("failed", message="highspy is not installed")
    monkeypatch.setattr(milp, "solve_integer", lambda *_, **__: missing)
    assert "highspy" in decide(open_problem()).reason


@pytest.mark.parametrize(
    ("folder", "network", "query", "verdict"),
    [
        ("sat_relu", "onnx/sat_v65_c187.onnx", "vnnlib/sat_v65_c187.vnnlib", "sat"),
        ("sat_relu", "onnx/unsat_v14_c57.onnx", "vnnlib/unsat_v14_c57.vnnlib", "unsat"),
        ("safenlp", "onnx/ruarobot/perturbations_0.onnx", "vnnlib/ruarobot/hyperrectangle_6394.vnnlib", "unsat"),
        ("safenlp", "onnx/ruarobot/perturbations_0.onnx", "vnnlib/ruarobot/hyperrectangle_2809.vnnlib", "sat"),
        ("test", "onnx/test_sat.onnx", "vnnlib/test_prop.vnnlib", "sat"),
        ("test", "onnx/test_unsat.onnx", "vnnlib/test_prop.vnnlib", "unsat"),
    ],
)
def test_real_instances(folder, network, query, verdict):
    base = shared_dir() / "vnncomp" / folder
    property, loaded = read_property(base / query), load(base / network)
    name = property.networks[0].name
    joined = join(property, {name: loaded.graph})
    replay = Replay(joined, {name: loaded})
    report = solve_by_milp(joined, Deadline.after(100.0), replay.check)
    assert report.status == verdict
    assert (report.witness is not None) == (verdict == "sat")
