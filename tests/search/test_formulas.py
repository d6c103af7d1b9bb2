"""Clauses of several rows that are refuted only together: formulas of propositional logic as networks."""

from __future__ import annotations

import numpy as np
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding.mixtures import spread
from boundsmith.verify.bounding.parameters import Mixture
from boundsmith.verify.budget import Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.search import activation_search

from tests.networks import node
from tests.search.activation_cases import checker, margins, problem_of, search_of

ROWS = (np.array([[-1.0, 0.0], [0.0, 1.0]]), np.array([-1.0, 0.0]))
"""The rows and offsets of ``y0 >= 1 and y1 <= 0``."""


def formula(clauses, variables):
    """A network that satisfies ``y0 >= 1`` and ``y1 <= 0`` where the inputs satisfy a formula of propositional logic:
    y0 is 1 less by what clauses lack, y1 how far inputs are from 0 and 1."""
    eye = np.eye(variables)
    weight, bias = [], []
    for clause in clauses:
        weight.append(-sum(np.sign(literal) * eye[abs(literal) - 1] for literal in clause))
        bias.append(1.0 - sum(literal < 0 for literal in clause))
    weight += [*eye, *(2 * eye)]
    bias += [0.0] * variables + [-1.0] * variables
    last = np.zeros((2, len(weight)))
    last[0, : len(clauses)] = -1
    last[1, len(clauses) :] = [1.0] * variables + [-1.0] * variables
    nodes = (
        node("x", "Input", (), (variables,)),
        node("a", "Linear", (0,), (len(weight),), {"weight": np.array(weight), "bias": np.array(bias)}),
        node("r", "Relu", (1,), (len(weight),)),
        node("y", "Linear", (2,), (2,), {"weight": last, "bias": np.array([1.0, 0.0])}),
    )
    return Graph(nodes, (0,), (3,))


def contradiction(rng, variables, count):
    """An unsatisfiable formula of that many clauses: the empty clause, split again and again."""
    clauses = [[]]
    while len(clauses) < count:
        own = clauses.pop(int(rng.integers(0, len(clauses))))
        new = int(rng.choice([v for v in range(1, variables + 1) if v not in map(abs, own)]))
        clauses += [[*own, new], [*own, -new]]
    return clauses


def contradictory_problem():
    """Inputs that satisfy a contradiction of 30 clauses over 16 variables: there are none."""
    graph = formula(contradiction(np.random.default_rng(0), 16, 30), 16)
    return problem_of(graph, (np.zeros(16), np.ones(16), [ROWS]))


def test_contradictions_need_few_domains(monkeypatch):
    """A row's weight that has become tiny must come back: both rows are needed for every proof."""
    monkeypatch.setattr(activation_search, "TIGHTEN_AT_MOST", 0)
    problem = contradictory_problem()
    made = search_of(problem, backend=Backend("float32"))
    report = made.run(Deadline.after(20.0), checker(problem))
    assert made.closed
    assert report.visited < 2000


def test_formulas(monkeypatch):
    """The verdict is satisfiability."""
    monkeypatch.setattr(activation_search, "TIGHTEN_AT_MOST", 0)
    rng = np.random.default_rng(5)
    found = {True: 0, False: 0}
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T
    for _ in range(6):
        clauses = [
            ((rng.permutation(6)[:3] + 1) * rng.choice([-1, 1], 3)).tolist() for _ in range(int(rng.integers(20, 50)))
        ]
        true = np.all([np.any([signs[:, abs(v) - 1] == (v > 0) for v in clause], axis=0) for clause in clauses], axis=0)
        graph = formula(clauses, 6)
        problem = problem_of(graph, (np.zeros(6), np.ones(6), [ROWS]))
        assert ((margins(problem, 0, signs.astype(float)) <= 0) == true).all()
        made = search_of(problem, backend=Backend("float32"))
        report = made.run(Deadline.after(60.0), checker(problem))
        found[bool(true.any())] += 1
        assert made.closed is not bool(true.any())
        assert (report.witness is not None) is bool(true.any())
    assert min(found.values()) > 0


def test_weights_are_spread_over_rows_that_are_there():
    mixture = Mixture(np.zeros((1, 3, 2)), np.array([[1.0, 2.0, np.inf]]))
    np.testing.assert_allclose(spread(mixture, np.array([[1.0, 0.0, 0.0]]), 0.5), [[0.75, 0.25, 0.0]])
