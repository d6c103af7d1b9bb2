"""Matrix products expanded into single ones: the same values and bounds, and weights for the optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.expand import LARGEST_EXPANDED, expand
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate, output_vector

from tests.networks import node

SHAPES = {
    "matrices": ((2, 3), (3, 4)),
    "stacks": ((2, 3, 4), (2, 4, 2)),
    "broadcast": ((3, 4), (2, 4, 2)),
    "broadcast inside": ((2, 1, 3, 2), (1, 3, 2, 2)),
    "row": ((3,), (3, 2)),
    "column": ((2, 3), (3,)),
    "vectors": ((4,), (4,)),
}


def product_of(left, right, seed=0):
    """A matrix product of two bent functions of four inputs, and a dense layer."""
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (4,))]
    for name, shape in (("l", left), ("r", right)):
        size = int(np.prod(shape))
        params = {"weight": rng.normal(size=(size, 4)), "bias": rng.normal(size=size)}
        nodes.append(node(name, "Linear", (0,), (size,), params))
        nodes.append(node(f"t{name}", "Tanh", (len(nodes) - 1,), (size,)))
        nodes.append(node(f"s{name}", "Reshape", (len(nodes) - 1,), shape))
    shape = np.matmul(np.zeros(left), np.zeros(right)).shape
    nodes.append(node("m", "MatMul", (3, 6), shape))
    size = int(np.prod(shape, dtype=int))
    nodes.append(node("f", "Reshape", (7,), (size,)))
    nodes.append(node("y", "Linear", (8,), (2,), {"weight": rng.normal(size=(2, size))}))
    return Graph(tuple(nodes), (0,), (9,))


def boxes(radius, count=3):
    centre = np.random.default_rng(5).normal(size=(count, 4))
    return centre - radius, centre + radius


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_function_and_bounds_of_all_nodes(name):
    graph = product_of(*SHAPES[name])
    low, high = boxes(0.3)
    state = relax(make_plan(graph), low, high)
    other, bounds = expand(graph, state.intervals)
    assert not any(made.op == "MatMul" for made in other.nodes)
    assert len(bounds) == len(other.nodes)
    for share in (0.0, 0.3, 1.0):
        x = low + share * (high - low)
        np.testing.assert_allclose(output_vector(other, x), output_vector(graph, x), atol=1e-12)
    whole = Graph(other.nodes, other.inputs, tuple(range(len(other.nodes))))
    for value, (lower, upper), made in zip(evaluate(whole, [low]), bounds, other.nodes, strict=True):
        assert value.shape[1:] == lower.shape[1:] == made.shape
        assert (lower <= value + 1e-9).all()
        assert (value <= upper + 1e-9).all()


def test_large_products_stay():
    side = int(LARGEST_EXPANDED ** (1 / 3)) + 1
    nodes = (
        node("x", "Input", (), (side, side)),
        node("m", "MatMul", (0, 0), (side, side)),
    )
    graph = Graph(nodes, (0,), (1,))
    same, bounds = expand(graph, [(np.zeros((1, side, side)), np.ones((1, side, side)))] * 2)
    assert same is graph
    assert len(bounds) == 2


@pytest.mark.parametrize("name", ["matrices", "broadcast"])
def test_optimised_bounds_hold_and_beat_fixed_planes(name):
    graph = product_of(*SHAPES[name])
    low, high = boxes(0.4)
    fixed, free = bounds_of(graph, low, high, "crown"), bounds_of(graph, low, high, "alpha-crown")
    assert (free.upper - free.lower).mean() < 0.85 * (fixed.upper - fixed.lower).mean()
    rng = np.random.default_rng(6)
    for _ in range(200):
        y = output_vector(graph, low + rng.random(low.shape) * (high - low))
        assert (free.lower <= y).all()
        assert (y <= free.upper).all()
