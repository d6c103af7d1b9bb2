"""Joining: one graph that computes what the networks compute on shared inputs; rows that mean what clauses say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from boundsmith.specs.property import Box, NetworkDeclaration, TensorDeclaration
from boundsmith.specs.read import parse_property
from boundsmith.verify.arrays import Backend
from boundsmith.verify.errors import UnsupportedError
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from boundsmith.verify.problem import flatten, join
from boundsmith.verify.rows import prepare_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node
from tests.queries import query_of

TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [3]) (declare-output Y_f real [2]))
(declare-network g (declare-input X_g real [2]) (declare-output Y_g real [3]))
(assert (and (>= X_f[0] -1) (<= X_f[0] 1)))(assert (and (>= X_f[1] -1) (<= X_f[1] 1)))(assert (== X_f[2] 0.5))
(assert (and (>= X_g[0] -2) (<= X_g[0] 2)))(assert (== X_g[1] X_f[1]))
{rest}
"""
CONDITIONS = {
    "outputs": ("(assert (<= (- Y_f[0] Y_g[2]) 0.1))", lambda v: v["Y_f"][0] - v["Y_g"][2] <= 0.1),
    "inputs": (
        "(assert (or (<= (+ Y_f[1] X_g[0]) 0.2) (and (>= X_f[0] (+ X_g[0] 0.1)) (>= Y_g[0] 0.0))))",
        lambda v: v["Y_f"][1] + v["X_g"][0] <= 0.2 or (v["X_f"][0] >= v["X_g"][0] + 0.1 and v["Y_g"][0] >= 0),
    ),
    "products": (
        "(assert (<= (+ (* X_f[0] X_f[0]) (* 2 X_g[1] Y_g[1]) (* -1 Y_f[0] Y_g[0])) 0.3))",
        lambda v: v["X_f"][0] ** 2 + 2 * v["X_g"][1] * v["Y_g"][1] - v["Y_f"][0] * v["Y_g"][0] <= 0.3,
    ),
    "cubes": (
        "(assert (<= (* Y_f[0] Y_f[0] Y_f[0]) (+ (* X_f[0] Y_g[1] Y_g[2]) X_f[1])))",
        lambda v: v["Y_f"][0] ** 3 <= v["X_f"][0] * v["Y_g"][1] * v["Y_g"][2] + v["X_f"][1],
    ),
}


def unsafe(group, vector):
    """Whether all rows of some clause hold at an output vector."""
    holds = group.rows @ vector <= group.offsets
    return any(holds[group.clause == k].all() for k in range(group.count))


@pytest.mark.parametrize("kind", CONDITIONS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_two_networks_as_one_graph(kind, seed):
    """The joined graph, and the vector that replays are judged by, agree with the networks on their own inputs."""
    text, condition = CONDITIONS[kind]
    property = parse_property(TWO.format(rest=text))
    graphs = {"f": dense((3, 5, 2), seed), "g": dense((2, 4, 4, 3), seed + 1)}
    problem = join(property, graphs)
    assert problem.graph.nodes[problem.graph.inputs[0]].size == property.free_count == 4
    group = problem.groups[0]
    x = group.lower + np.random.default_rng(seed).random(4) * (group.upper - group.lower)
    variables = x[property.input_map]
    values = {"X_f": variables[:3], "X_g": variables[3:]}
    values |= {f"Y_{k}": output_vector(graphs[k], values[f"X_{k}"][None])[0] for k in "fg"}
    y = np.concatenate([values["Y_f"], values["Y_g"]])
    vector = output_vector(problem.graph, x[None])[0]
    np.testing.assert_allclose(vector[: problem.original_outputs], y, rtol=1e-12)
    np.testing.assert_allclose(problem.extend(x, y), vector, rtol=1e-12, atol=1e-12)
    assert values["X_f"][2] == 0.5
    assert values["X_g"][1] == values["X_f"][1]
    inside = [g for g in problem.groups if (x >= g.lower).all() and (x <= g.upper).all()]
    assert any(unsafe(g, vector) for g in inside) == condition(values)


def two_ended():
    """Inputs of shapes (1, 2) and (3,), outputs of shapes (3,) and (1, 2)."""
    rng = np.random.default_rng(0)
    nodes = (
        node("a", "Input", (), (1, 2)),
        node("b", "Input", (), (3,)),
        node("u", "Linear", (0,), (1, 3), {"weight": rng.normal(size=(3, 2))}),
        node("v", "Reshape", (2,), (3,)),
        node("y", "Add", (3, 1), (3,), signs=(1, -1)),
        node("z", "Scale", (0,), (1, 2), {"scale": np.array([2.0, -1.0])}),
    )
    return Graph(nodes, (0, 1), (4, 5))


def test_flattening_keeps_the_order_of_inputs_and_outputs():
    graph = two_ended()
    flat = flatten(graph)
    points = np.random.default_rng(1).normal(size=(7, 5))
    y, z = evaluate(graph, [points[:, :2].reshape(7, 1, 2), points[:, 2:]])
    np.testing.assert_allclose(output_vector(flat, points), np.concatenate([y, z.reshape(7, 2)], axis=1))
    swapped = flatten(replace(graph, inputs=(1, 0), outputs=(5, 4)))
    again = output_vector(swapped, points[:, [2, 3, 4, 0, 1]])
    np.testing.assert_allclose(again, output_vector(flat, points)[:, [3, 4, 0, 1, 2]])


def test_an_output_that_is_an_input():
    """A network that hands its input through still has an output vector of its own."""
    graph = Graph((node("x", "Input", (), (2,)),), (0,), (0,))
    problem = join(query_of(2, 2, [(Box(np.zeros(2), np.ones(2)), [[1.0, 0.0]], [0.5])]), {"N": graph})
    np.testing.assert_array_equal(output_vector(problem.graph, np.array([[0.25, 0.75]])), [[0.25, 0.75]])


@pytest.mark.parametrize(
    ("inputs", "outputs"), [((2, 3), (3,)), ((2,), (3, 2)), ((3, 2), (3, 2)), ((2, 3), (3, 3)), ((5,), (3, 2))]
)
def test_sizes_that_do_not_match(inputs, outputs):
    graph = two_ended()
    base = query_of(
        sum(inputs),
        sum(outputs),
        [(Box(np.zeros(sum(inputs)), np.ones(sum(inputs))), np.zeros((1, sum(outputs))), [1.0])],
    )
    property = replace(
        base,
        inputs=tuple(TensorDeclaration(f"X{k}", "N", "real", (size,), size) for k, size in enumerate(inputs)),
        outputs=tuple(TensorDeclaration(f"Y{k}", "N", "real", (size,), size) for k, size in enumerate(outputs)),
        source="q.vnnlib",
    )
    with pytest.raises(UnsupportedError, match=r"q.vnnlib declares .* variables, but network N has .*belong together"):
        join(property, {"N": graph})


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_prepared_rows_mean_the_same_as_the_groups(seed, counts):
    """A clause is violated iff the largest margin of its rows is <= 0; padding and missing clauses never count."""
    rng = np.random.default_rng(seed)
    clauses = [
        (box, rng.normal(size=(count, 3)), rng.normal(size=count))
        for own in counts
        for box in [Box(np.zeros(2), np.ones(2))]
        for count in own
    ]
    graph = dense((2, 4, 3), 0)
    problem = join(query_of(2, 3, clauses), {"N": graph})
    assert [group.count for group in problem.groups] == [len(own) for own in counts]
    for backend in (Backend("float64"), Backend("float64", "cpu")):
        like, _ = backend.box(np.zeros((1, 2)), np.ones((1, 2)))
        rows = prepare_rows(problem.groups, like)
        y = rng.normal(size=3)
        for index, group in enumerate(problem.groups):
            own = rows.of(backend.array(np.array([index])))
            margins = (own.rows @ backend.array(y[:, None]))[:, :, 0] - own.offsets
            largest = np.asarray(own.strongest(margins))[0]
            present = np.asarray(own.clauses)[0]
            assert present.sum() == group.count
            chosen = np.array([len(present) - 1, 0])[: index + 1]
            fewer = rows.only(backend.array(chosen)).of(backend.array(np.array([index])))
            values = (fewer.rows @ backend.array(y[:, None]))[:, :, 0] - fewer.offsets
            np.testing.assert_allclose(np.asarray(fewer.strongest(values))[0], largest[chosen], rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(np.asarray(fewer.clauses)[0], present[chosen])
            violated = (largest <= 0) & present
            exact = group.rows @ y - group.offsets
            for k in range(group.count):
                assert violated[k] == bool((exact[group.clause == k] <= 0).all())


def test_several_declared_networks_may_share_a_graph():
    property = replace(
        query_of(2, 2, [(Box(np.zeros(1), np.ones(1)), [[1.0, -1.0]], [-1.0])]),
        input_map=np.array([0, 0]),
        networks=(NetworkDeclaration("f"), NetworkDeclaration("g", equal_to="f")),
        inputs=tuple(TensorDeclaration(f"X_{k}", k, "real", (1,), 1) for k in "fg"),
        outputs=tuple(TensorDeclaration(f"Y_{k}", k, "real", (1,), 1) for k in "fg"),
    )
    graph = dense((1, 4, 1), 2)
    problem = join(property, {"f": graph, "g": graph})
    y = output_vector(problem.graph, np.array([[0.3], [0.9]]))
    np.testing.assert_array_equal(y[:, 0], y[:, 1])
    np.testing.assert_array_equal(y[:, :1], output_vector(graph, np.array([[0.3], [0.9]])))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-40, 1e-3, 1.0, 1e30, 1e39]))
def test_a_box_is_rounded_outward(seed, scale):
    """The backend's box contains the float64 box, by at most a unit of its type."""
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=5) * scale
    upper = lower + rng.random(5) * scale * rng.integers(0, 2, 5)
    with np.errstate(over="ignore"):
        for backend in (Backend("float32"), Backend("float64"), Backend("float32", "cpu")):
            low, high = (np.asarray(end) for end in backend.box(lower, upper))
            assert low.dtype == high.dtype == backend.dtype
            assert (low.astype(np.float64) <= lower).all()
            assert (high.astype(np.float64) >= upper).all()
            inner = np.nextafter(low, low.dtype.type(np.inf)).astype(np.float64)
            assert (inner > lower).all() or backend.dtype == "float64"
