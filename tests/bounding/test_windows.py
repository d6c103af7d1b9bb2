"""Moves of images are recognised, and rows of entries behind moves and sums start on windows."""

from __future__ import annotations

import numpy as np
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.structure import Repeat, Shift, Structure, movement
from boundsmith.verify.bounding.windows import seeds
from boundsmith.verify.graph import Graph
from boundsmith.verify.kernels import patches
from boundsmith.verify.loading.evaluate import evaluate

from tests.networks import node


def taking(indices, shape=(1, 2, 3, 4), fill=0.0):
    """A `Take` of an image."""
    nodes = (
        node("x", "Input", (), (int(np.prod(shape)),)),
        node("image", "Reshape", (0,), shape),
        node("some", "Take", (1,), indices.shape, {"indices": indices}, fill=fill),
    )
    return Graph(nodes, (0,), (2,)).nodes[2]


FLAT = np.arange(24).reshape(1, 2, 3, 4)


def test_moves_of_images():
    padded = np.pad(FLAT, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=-1)
    assert movement(taking(padded)) == Shift(0, -1, 0)
    assert movement(taking(FLAT[:, 1:, 1:, 2:])) == Shift(1, 1, 2)
    assert movement(taking(FLAT.repeat(2, axis=2).repeat(3, axis=3))) == Repeat((2, 3))


def test_other_takes_are_no_moves():
    padded = np.pad(FLAT, ((0, 0), (0, 0), (1, 0), (0, 2)), constant_values=-1)
    hole = FLAT.copy()
    hole[0, 0, 1, 1] = -1
    assert movement(taking(padded, fill=1.0)) is None
    assert movement(taking(hole)) is None
    assert movement(taking(FLAT[..., ::-1].copy())) is None
    assert movement(taking(np.full((1, 1, 2, 2), -1))) is None
    assert movement(taking(FLAT.reshape(1, 4, 3, 2))) is None


def compared(fill=0.0):
    """Differences between the channels of an image's pixels, in another order, with one entry left out."""
    shape = (1, 2, 3, 4)
    weight = np.eye(2)[:, :, None, None]
    settings = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
    other = np.arange(24).reshape(1, 4, 3, 2)[..., ::-1].copy()
    other[0, 0, 0, 0] = -1
    nodes = (
        node("x", "Input", (), (24,)),
        node("image", "Reshape", (0,), shape),
        node("conv", "Conv", (1,), shape, {"weight": weight}, **settings),
        node("turned", "Transpose", (2,), (1, 4, 3, 2), perm=(0, 3, 2, 1)),
        node("swapped", "Take", (3,), (1, 4, 3, 2), {"indices": other}, fill=fill),
        node("less", "Add", (4, 3), (1, 4, 3, 2), signs=(1, -1)),
        node("flat", "Reshape", (5,), (24,)),
    )
    return Graph(nodes, (0,), (6,))


def test_rows_start_on_the_image_that_they_are_sums_of():
    graph = compared()
    entries, signs = np.arange(24), np.where(np.arange(24) % 3, 1.0, -1.0)
    position, piece = seeds(Structure(make_plan(graph)), 6, entries, signs)
    assert position == 2
    assert (piece.height, piece.width) == (1, 1)
    rows = patches.spread_out(piece, (3, 4)).transpose(3, 2, 0, 1).reshape(24, 24)
    x = np.random.default_rng(0).normal(size=(1, 24))
    values = evaluate(graph, [x])[0].reshape(-1)
    np.testing.assert_allclose(rows @ x[0], signs * values, atol=1e-12)


def test_rows_with_constants_or_other_operators_start_where_these_are():
    position, _ = seeds(Structure(make_plan(compared(fill=2.0))), 6, np.arange(24), np.ones(24))
    assert position == 5
    far = [*compared().nodes[:3], node("sum", "Sum", (2,), (1, 3, 4), axes=(1,), keepdims=False)]
    assert seeds(Structure(make_plan(Graph(tuple(far), (0,), (3,)))), 3, np.arange(12), np.ones(12)) is None
