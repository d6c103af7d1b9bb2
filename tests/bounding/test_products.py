"""Products written as squares: the same function, sound, tighter where factors move together, untouched where not."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.products import sharpened
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.problem import Group

from tests.networks import node

SIZE = 4


def group_of(lower, upper, count):
    """One box, every output and its negative as a clause of its own."""
    rows = np.concatenate([np.eye(count), -np.eye(count)])
    size = 2 * count
    return Group(lower, upper, rows, np.zeros(size), np.zeros(size, dtype=bool), np.arange(size), size)


def linear(rng, name, source, scale=1.0, bias=False):
    params = {"weight": scale * rng.normal(size=(SIZE, SIZE))}
    if bias:
        params["bias"] = rng.normal(size=SIZE)
    return node(name, "Linear", (source,), (SIZE,), params)


def form(seed, definite):
    """``x^T Q x``."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(SIZE, SIZE))
    weight = weight @ weight.T if definite else weight
    return Graph(
        (
            node("x", "Input", (), (SIZE,)),
            node("q", "Linear", (0,), (SIZE,), {"weight": weight}),
            node("m", "Mul", (0, 1), (SIZE,)),
            node("y", "Sum", (2,), (1,), axes=(0,), keepdims=True),
        ),
        (0,),
        (3,),
    )


def together(seed):
    """Products of a bent function of the input and nearly the same function once more."""
    rng = np.random.default_rng(seed)
    return Graph(
        (
            node("x", "Input", (), (SIZE,)),
            linear(rng, "a", 0, bias=True),
            node("t", "Tanh", (1,), (SIZE,)),
            linear(rng, "b", 0, 0.05),
            node("u", "Add", (2, 3), (SIZE,), signs=(1, 1)),
            node("v", "Scale", (2,), (SIZE,), {"scale": np.full(SIZE, 3.0), "shift": rng.normal(size=SIZE)}),
            node("m", "Mul", (4, 5), (SIZE,)),
            linear(rng, "y", 6),
        ),
        (0,),
        (7,),
    )


def apart():
    """The product of one input and another."""
    pick = {k: {"indices": np.array([k])} for k in (0, 1)}
    return Graph(
        (
            node("x", "Input", (), (SIZE,)),
            node("u", "Take", (0,), (1,), pick[0], fill=0.0),
            node("v", "Take", (0,), (1,), pick[1], fill=0.0),
            node("y", "Mul", (1, 2), (1,)),
        ),
        (0,),
        (3,),
    )


def converted(graph, dtype):
    return graph.map_params(lambda value: value.astype(dtype) if value.dtype.kind == "f" else value)


def prepared(graph, dtype=np.float64, radius=1.0):
    graph = converted(graph, dtype)
    lower, upper = np.full(SIZE, -radius, dtype=dtype), np.full(SIZE, 1.2 * radius, dtype=dtype)
    groups = [group_of(lower.astype(np.float64), upper.astype(np.float64), graph.nodes[graph.outputs[0]].size)]
    return graph, sharpened(graph, lower[None], upper[None], groups), lower, upper


def bounds_on(graph, low, high):
    state = relax(make_plan(graph), low, high)
    count = graph.nodes[graph.outputs[0]].size
    rows = np.concatenate([np.eye(count), -np.eye(count)]).astype(low.dtype)[None]
    bound = row_bounds(state, rows, np.zeros_like(rows[:, :, 0])).lower
    return bound[:, :count], -bound[:, count:]


def boxes(rng, lower, upper, share, count=60):
    low = lower + (1.0 - share) * (upper - lower) * rng.random((count, SIZE))
    low = low.astype(lower.dtype)
    return low, np.minimum(low + (share * (upper - lower)).astype(lower.dtype), upper)


GRAPHS = {
    "definite form": lambda seed: form(seed, True),
    "form": lambda seed: form(seed, False),
    "together": together,
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_function(name, seed):
    graph, other, lower, upper = prepared(GRAPHS[name](seed))
    assert other is not graph
    assert any(made.op == "Pow" for made in other.nodes)
    x = lower + np.random.default_rng(seed).random((200, SIZE)) * (upper - lower)
    np.testing.assert_allclose(output_vector(other, x), output_vector(graph, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_what_rounding_leaves_out_of_the_eigenvectors_is_kept(seed):
    """In float32 parameters the form still is the same to the last digits of float64."""
    graph, other, lower, upper = prepared(form(seed, True), np.float32)
    wide, wide_other = converted(graph, np.float64), converted(other, np.float64)
    x = lower + np.random.default_rng(seed).random((200, SIZE)) * (upper - lower)
    np.testing.assert_allclose(output_vector(wide_other, x), output_vector(wide, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounds_hold(name, dtype):
    _, other, lower, upper = prepared(GRAPHS[name](1), dtype)
    rng = np.random.default_rng(2)
    for share in (1e-6, 0.05, 0.4, 1.0):
        low, high = boxes(rng, lower, upper, share, 20)
        least, most = bounds_on(other, low, high)
        exact = converted(GRAPHS[name](1), dtype)
        exact = converted(exact, np.float64)
        for _ in range(60):
            x = np.clip(low + rng.random(low.shape) * (high.astype(np.float64) - low), low, high)
            y = output_vector(exact, x)
            assert (least <= y).all()
            assert (y <= most).all()


@pytest.mark.parametrize("name", GRAPHS)
def test_bounds_are_tighter(name):
    graph, other, lower, upper = prepared(GRAPHS[name](0))
    low, high = boxes(np.random.default_rng(3), lower, upper, 0.1)
    (a, b), (c, d) = bounds_on(graph, low, high), bounds_on(other, low, high)
    # What is gained is of second order in the size of the boxes, which are a tenth of the region here.
    assert (d - c).mean() < 0.97 * (b - a).mean()


def test_a_definite_form_is_exact_at_the_centre_from_below():
    _, other, lower, upper = prepared(form(0, True))
    low, high = boxes(np.random.default_rng(3), lower, upper, 0.1)
    state = relax(make_plan(other), low, high)
    bound = row_bounds(state, np.ones((1, 1, 1)), np.zeros((1, 1)))
    centre = 0.5 * (low + high)
    line = (bound.coefficients[:, 0] * centre).sum(axis=1) + bound.constant[:, 0]
    np.testing.assert_allclose(line, output_vector(other, centre)[:, 0], atol=1e-9)


def test_independent_factors_stay_as_they_are():
    graph, other, _, _ = prepared(apart())
    assert other is graph


def test_a_region_where_the_network_is_undefined_is_left_to_the_search():
    base = apart()
    log = node("l", "Log", (2,), (1,))
    graph = Graph((*base.nodes[:3], log, node("y", "Mul", (1, 3), (1,))), (0,), (4,))
    same, other, _, _ = prepared(graph)
    assert other is same
