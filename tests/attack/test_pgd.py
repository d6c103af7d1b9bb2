"""The attack finds planted violations, follows the true gradient, stays in the box, and repeats itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boundsmith.specs.property import Box
from boundsmith.verify.arrays import Backend
from boundsmith.verify.attack.pgd import AttackOptions, attack, output_and_gradient
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.problem import join
from boundsmith.verify.rows import prepare_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, residual
from tests.queries import query_of

GRAPHS = {
    "dense": lambda seed: dense((3, 8, 8, 4), seed),
    "sigmoid": lambda seed: dense((3, 6, 6, 2), seed, "Sigmoid"),
    "tanh": lambda seed: dense((3, 6, 6, 2), seed, "Tanh"),
    "sine": lambda seed: dense((3, 6, 6, 2), seed, "Sin"),
    "residual": residual,
    "pooled": pooled,
}
BACKENDS = [Backend("float64"), Backend("float64", "cpu")]


def through_torch(graph, points, weights):
    """The gradient of ``<weights, f>`` by automatic differentiation of the operators' own evaluation."""
    backend = Backend("float64", "cpu")
    x = backend.array(points).requires_grad_()
    value = (output_vector(backend.graph(graph), x) * backend.array(weights)).sum()
    return torch.autograd.grad(value, x)[0].numpy()


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gradient_agrees_with_autograd(kind, backend, seed):
    graph = GRAPHS[kind](seed)
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(5, graph.nodes[graph.inputs[0]].size))
    weights = rng.normal(size=(5, graph.nodes[graph.outputs[0]].size))
    outputs, gradient = output_and_gradient(
        backend.graph(graph), backend.array(points), lambda values: backend.array(weights)
    )
    np.testing.assert_allclose(np.asarray(outputs), output_vector(graph, points), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.asarray(gradient), through_torch(graph, points, weights), rtol=1e-9, atol=1e-9)


def run(graph, property, backend=None, seed=0, deadline=NEVER, options=None, refuse=False, chunk=4096):
    """Attack a property; returns the first candidates offered (None if none) and all points and groups offered."""
    backend = backend or Backend("float32")
    problem = join(property, {"N": graph})
    lower, upper = backend.box(np.stack([g.lower for g in problem.groups]), np.stack([g.upper for g in problem.groups]))
    offered = []

    def check(points, groups):
        offered.append((np.asarray(points), np.asarray(groups)))
        return None if refuse else offered[0]

    rows = prepare_rows(problem.groups, lower)
    options = options or AttackOptions(restarts=16, steps=40)
    found = attack(backend.graph(problem.graph), rows, lower, upper, options, seed, deadline, check, chunk)
    return found, offered


def spike(position, width, size):
    """``y = sum_i relu(width - |x_i - position_i|) / width``, at most `size`: reached at the planted point only."""
    eye = np.eye(size)
    weight = np.concatenate([eye, -eye])
    distance = {"weight": np.concatenate([eye, eye], axis=1)}
    nodes = (
        node("x", "Input", (), (size,)),
        node("d", "Linear", (0,), (2 * size,), {"weight": weight, "bias": np.concatenate([-position, position])}),
        node("r", "Relu", (1,), (2 * size,)),
        node("a", "Linear", (2,), (size,), distance),
        node("n", "Scale", (3,), (size,), {"scale": np.full(size, -1 / width), "shift": np.ones(size)}),
        node("p", "Relu", (4,), (size,)),
        node("y", "Linear", (5,), (1,), {"weight": np.ones((1, size))}),
    )
    return Graph(nodes, (0,), (6,))


@pytest.mark.parametrize("backend", [Backend("float32"), Backend("float64"), Backend("float32", "cpu")])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_violation_is_found(backend, seed):
    """A hill whose top is a tiny part of the box: sampling misses it, gradients climb it."""
    position = np.random.default_rng(seed).uniform(-0.6, 0.6, 6)
    graph = spike(position, 1.8, 6)
    box = Box(-np.ones(6), np.ones(6))
    property = query_of(6, 1, [(box, [[-1.0]], [-5.75])])
    found, _ = run(graph, property, backend, seed)
    assert found is not None
    assert output_vector(graph, found[0][:1].astype(np.float64))[0, 0] >= 5.75 - 1e-5
    sampled, _ = run(graph, property, backend, seed, options=AttackOptions(restarts=200, steps=0))
    assert sampled is None


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_offered_points_are_unsafe_and_in_their_boxes(seed):
    """Every candidate satisfies all rows of one clause of its group."""
    rng = np.random.default_rng(seed)
    graph = dense((3, 8, 8, 4), seed)
    boxes = [Box(low, low + rng.random(3)) for low in rng.uniform(-1, 1, (3, 3))]
    clauses = [(boxes[k % 3], rng.normal(size=(1 + k % 2, 4)), rng.normal(size=1 + k % 2)) for k in range(7)]
    property = query_of(3, 4, clauses)
    problem = join(property, {"N": graph})
    found, offered = run(graph, property, Backend("float64"), seed, refuse=True)
    assert found is None
    for points, groups in offered:
        for point, index in zip(points, groups, strict=True):
            group = problem.groups[int(index)]
            assert (point >= group.lower).all()
            assert (point <= group.upper).all()
            margin = group.rows @ output_vector(graph, point[None])[0] - group.offsets
            assert any((margin[group.clause == k] <= 1e-9).all() for k in range(group.count))


def test_every_clause_is_tried():
    """Of many clauses over two boxes only one can be violated; it is found whichever it is."""
    graph = dense((2, 6, 6, 3), 4)
    boxes = [Box(np.zeros(2), np.ones(2)), Box(-np.ones(2), np.zeros(2))]
    for planted in range(6):
        clauses = [(boxes[k % 2], np.eye(3)[k // 2 : k // 2 + 1], [1e3 if k == planted else -1e3]) for k in range(6)]
        found, _ = run(graph, query_of(2, 3, clauses), chunk=5)
        assert found is not None
        assert (found[1] == planted % 2).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_fixes_the_points(backend):
    graph = dense((3, 8, 8, 2), 1)
    box = Box(-np.ones(3), np.ones(3))
    least = output_vector(graph, np.random.default_rng(0).uniform(-1, 1, (2000, 3))) @ [1.0, 0.0]
    property = query_of(3, 2, [(box, [[1.0, 0.0]], [float(np.quantile(least, 0.05))])])
    first = run(graph, property, backend, seed=7, refuse=True)[1]
    again = run(graph, property, backend, seed=7, refuse=True)[1]
    other = run(graph, property, backend, seed=8, refuse=True)[1]
    assert len(first) == len(again)
    for (points, groups), (points_again, groups_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(points, points_again)
        np.testing.assert_array_equal(groups, groups_again)
    assert len(first) != len(other) or any(
        one[0].shape != two[0].shape or (one[0] != two[0]).any() for one, two in zip(first, other, strict=True)
    )


def test_a_passed_deadline_ends_at_once():
    graph = dense((3, 8, 8, 2), 1)
    property = query_of(3, 2, [(Box(-np.ones(3), np.ones(3)), [[1.0, 0.0]], [1e3])])
    assert run(graph, property, deadline=Deadline.after(-1)) == (None, [])


def test_fixed_inputs_stay_fixed():
    graph = dense((3, 8, 8, 2), 2)
    low, high = np.array([-1.0, 0.25, 0.1]), np.array([1.0, 0.25, 0.1])
    _, offered = run(graph, query_of(3, 2, [(Box(low, high), [[1.0, 0.0]], [1e3])]), Backend("float64"), refuse=True)
    for points, _ in offered:
        np.testing.assert_array_equal(points[:, 1:], np.broadcast_to(low[1:], (len(points), 2)))


@pytest.mark.parametrize("step", ["Sign", "IsPositive", "IsNonNegative"])
@pytest.mark.parametrize("backend", [Backend("float32"), Backend("float32", "cpu")])
@pytest.mark.parametrize("seed", range(2))
def test_gradients_lead_through_steps(step, backend, seed):
    """Two layers of steps: what a thousand samples do not reach, a few descents do."""
    graph = dense((40, 60, 60, 1), seed, step)
    sampled = output_vector(graph, np.random.default_rng(9).uniform(-1, 1, (1000, 40)))
    least = float(sampled.min() - 0.1 * (sampled.max() - sampled.min()))
    property = query_of(40, 1, [(Box(-np.ones(40), np.ones(40)), [[1.0]], [least])])
    found, _ = run(graph, property, backend, seed, options=AttackOptions(restarts=8, steps=30))
    assert found is not None


@pytest.mark.parametrize("step", ["Floor", "Ceil", "Round"])
def test_gradients_lead_along_stairs(step):
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(1, 30))
    nodes = (
        node("x", "Input", (), (30,)),
        node("s", step, (0,), (30,)),
        node("y", "Linear", (1,), (1,), {"weight": weight}),
    )
    box = Box(np.full(30, -5.0), np.full(30, 5.0))
    property = query_of(30, 1, [(box, [[1.0]], [-4.6 * abs(weight).sum()])])
    found, _ = run(Graph(nodes, (0,), (2,)), property, options=AttackOptions(restarts=2, steps=20))
    assert found is not None


def test_the_nearest_clause_is_chosen_where_the_point_is():
    """Of 200 clauses over each of two boxes one can be met; a point for each box is enough to find it, although the
    clauses' rows (two each in the second box) differ in number."""
    graph = dense((6, 12, 12, 4), 11)
    rng = np.random.default_rng(0)
    boxes = [Box(-np.ones(6), np.zeros(6)), Box(np.zeros(6), np.ones(6))]
    far = [
        (boxes[k % 2], np.eye(4)[rng.integers(0, 4, 1 + k % 2)], np.full(1 + k % 2, -100.0 - rng.random()))
        for k in range(400)
    ]
    reached = output_vector(graph, rng.uniform(0, 1, (3000, 6))) @ np.eye(4)[2]
    for planted in (1, 201, 399):
        clauses = [
            (boxes[1], np.eye(4)[[2, 2]], [float(reached.min())] * 2) if k == planted else c for k, c in enumerate(far)
        ]
        options = AttackOptions(restarts=3, steps=40, nearest=True)
        found, offered = run(graph, query_of(6, 4, clauses), Backend("float64"), options=options)
        assert found is not None
        assert (found[1] == 1).all()
        assert all(len(points) <= 6 for points, _ in offered)
