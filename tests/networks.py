"""Small random graphs, and slow independent answers about them, for the tests of bounds and search."""

from __future__ import annotations

import itertools
from types import MappingProxyType

import numpy as np
from boundsmith.verify.graph import Graph, Node


def node(name, op, inputs, shape, params=None, **attributes):
    return Node(name, op, tuple(inputs), tuple(shape), MappingProxyType(params or {}), MappingProxyType(attributes))


def dense(sizes, seed=0, activation="Relu", dtype=np.float64, scale=1.0):
    """A fully connected network with flat input and output."""
    rng = np.random.default_rng(seed)
    nodes = [node("x", "Input", (), (sizes[0],))]
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = (rng.normal(size=(fan_out, fan_in)) * scale / np.sqrt(fan_in)).astype(dtype)
        bias = (0.3 * rng.normal(size=fan_out)).astype(dtype)
        nodes.append(node(f"z{layer}", "Linear", (len(nodes) - 1,), (fan_out,), {"weight": weight, "bias": bias}))
        if layer < len(sizes) - 2:
            nodes.append(node(f"h{layer}", activation, (len(nodes) - 1,), (fan_out,)))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


def residual(seed=0, width=6, dtype=np.float64):
    """A residual block with a concatenated skip: joins in the graph, several readers of one node."""
    rng = np.random.default_rng(seed)

    def linear(name, source, fan_in, fan_out):
        params = {
            "weight": rng.normal(size=(fan_out, fan_in)).astype(dtype) / np.sqrt(fan_in),
            "bias": (0.2 * rng.normal(size=fan_out)).astype(dtype),
        }
        return node(name, "Linear", (source,), (fan_out,), {k: v.astype(dtype) for k, v in params.items()})

    nodes = [
        node("x", "Input", (), (3,)),
        linear("a", 0, 3, width),
        node("ra", "Relu", (1,), (width,)),
        linear("b", 2, width, width),
        node("sum", "Add", (3, 1), (width,), signs=(1, -1)),
        node("rs", "Relu", (4,), (width,)),
        node("cat", "Concat", (5, 0), (width + 3,), axis=0),
        linear("y", 6, width + 3, 2),
    ]
    return Graph(tuple(nodes), (0,), (7,))


def products(seed=0, width=4, dtype=np.float64):
    """Products and quotients that other nonlinear functions read, joined with skips: two inputs an operator, values on
    both sides of zero."""
    rng = np.random.default_rng(seed)

    def linear(name, source, fan_in, fan_out):
        params = {
            "weight": rng.normal(size=(fan_out, fan_in)) / np.sqrt(fan_in),
            "bias": 0.5 * rng.normal(size=fan_out),
        }
        return node(name, "Linear", (source,), (fan_out,), {key: value.astype(dtype) for key, value in params.items()})

    nodes = [
        node("x", "Input", (), (3,)),
        linear("a", 0, 3, width),
        linear("b", 0, 3, width),
        node("ab", "Mul", (1, 2), (width,)),
        node("sin", "Sin", (1,), (width,)),
        node("shift", "Scale", (4,), (width,), {"shift": np.full(width, 2.0, dtype)}),
        node("quotient", "Div", (3, 5), (width,)),
        node("relu", "Relu", (6,), (width,)),
        node("square", "Pow", (3,), (width,), exponent=2.0),
        node("sum", "Add", (7, 8, 2), (width,), signs=(1, -1, 1)),
        node("product", "Mul", (9, 3), (width,)),
        node("cat", "Concat", (10, 0), (width + 3,), axis=0),
        linear("y", 11, width + 3, 2),
    ]
    return Graph(tuple(nodes), (0,), (12,))


def pooled(seed=0, dtype=np.float64):
    """Convolution, ReLU, maximum of windows, dense: spatial shapes and an n-ary nonlinearity."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("x", "Input", (), (36,)),
        node("image", "Reshape", (0,), (1, 1, 6, 6)),
        node(
            "conv",
            "Conv",
            (1,),
            (1, 2, 4, 4),
            {"weight": rng.normal(size=(2, 1, 3, 3)).astype(dtype) / 3, "bias": rng.normal(size=2).astype(dtype)},
            strides=(1, 1),
            pads=(0, 0, 0, 0),
            dilations=(1, 1),
            groups=1,
        ),
        node("relu", "Relu", (2,), (1, 2, 4, 4)),
    ]
    index = np.arange(32).reshape(1, 2, 4, 4)
    for row, column in itertools.product((0, 1), repeat=2):
        window = np.ascontiguousarray(index[:, :, row::2, column::2])
        nodes.append(node(f"w{row}{column}", "Take", (3,), (1, 2, 2, 2), {"indices": window}))
    nodes += [
        node("pool", "Max", (4, 5, 6, 7), (1, 2, 2, 2)),
        node("flat", "Reshape", (8,), (8,)),
        node(
            "y",
            "Linear",
            (9,),
            (3,),
            {"weight": rng.normal(size=(3, 8)).astype(dtype), "bias": rng.normal(size=3).astype(dtype)},
        ),
    ]
    return Graph(tuple(nodes), (0,), (10,))


def samples(lower, upper, count, seed=0):
    """Points of boxes ``[B, n]``: corners and uniform samples, ``[count, B, n]``."""
    rng = np.random.default_rng(seed)
    mix = rng.random((count, *lower.shape))
    mix[: count // 4] = np.rint(mix[: count // 4])
    return np.clip((lower + mix * (upper - lower)).astype(lower.dtype), lower, upper)
