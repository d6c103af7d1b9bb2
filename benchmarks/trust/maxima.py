"""Tiny ReLU networks with weights of very different sizes, and the exact largest value that they take on a box."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Layers = list[tuple[np.ndarray, np.ndarray]]
"""``(weight [out, in], bias [out])`` of each layer."""

ZERO = Fraction(0)


@dataclass(frozen=True, eq=False)
class Tiny:
    """A network with one output: its layers, its ONNX file, a box, and the largest value on the box over the reals."""

    layers: Layers
    content: bytes
    lower: np.ndarray
    upper: np.ndarray

    def sampled(self, rng: np.random.Generator, count: int = 500) -> np.ndarray:
        """The best of many points of the box, in the network's element type."""
        dtype = self.layers[0][0].dtype
        mix = rng.random((count, self.lower.size))
        mix[: count // 4] = np.rint(mix[: count // 4])
        points = np.clip((self.lower + mix * (self.upper - self.lower)).astype(dtype), self.lower, self.upper)
        values = points.astype(float)
        for position, (weight, bias) in enumerate(self.layers):
            values = values @ weight.astype(float).T + bias
            if position < len(self.layers) - 1:
                values = np.maximum(values, 0)
        return points[int(np.argmax(values[:, 0]))]

    def maximum(self) -> Fraction:
        """The exact maximum: of one input through all kinks, of two (one hidden layer) at all crossings of kinks."""
        exact = [
            ([[Fraction(w) for w in row] for row in W.tolist()], [Fraction(x) for x in b.tolist()])
            for W, b in self.layers
        ]
        low, high = ([Fraction(x) for x in end.tolist()] for end in (self.lower, self.upper))
        points = _kinks(exact, low[0], high[0]) if len(low) == 1 else _crossings(exact, low, high)
        return max(value(exact, point) for point in points)


def value(layers: list, point: list[Fraction]) -> Fraction:
    """The output at a point."""
    values = point
    for position, (weight, bias) in enumerate(layers):
        values = [
            sum((w * v for w, v in zip(row, values, strict=True)), b) for row, b in zip(weight, bias, strict=True)
        ]
        if position < len(layers) - 1:
            values = [max(v, ZERO) for v in values]
    return values[0]


def _kinks(layers: list, low: Fraction, high: Fraction) -> list[list[Fraction]]:
    """All points of an interval where the slope may change, layer by layer: between two, all before is affine."""
    points = [low, high]
    for depth in range(1, len(layers)):
        found = set(points)
        for left, right in itertools.pairwise(points):
            ends = [_before(layers[:depth], x) for x in (left, right)]
            for a, b in zip(*ends, strict=True):
                if (a < 0) != (b < 0):
                    found.add(left + (right - left) * a / (a - b))
        points = sorted(found)
    return [[x] for x in points]


def _before(layers: list, x: Fraction) -> list[Fraction]:
    """What the last of these layers hands to its ReLUs."""
    values = [x]
    for position, (weight, bias) in enumerate(layers):
        values = [
            sum((w * v for w, v in zip(row, values, strict=True)), b) for row, b in zip(weight, bias, strict=True)
        ]
        if position < len(layers) - 1:
            values = [max(v, ZERO) for v in values]
    return values


def _crossings(layers: list, low: list[Fraction], high: list[Fraction]) -> list[list[Fraction]]:
    """All points of a rectangle where two of the first layer's kinks and the edges meet."""
    weight, bias = layers[0]
    lines = [(row[0], row[1], b) for row, b in zip(weight, bias, strict=True)]
    one = Fraction(1)
    lines += [(one, ZERO, -x) for x in (low[0], high[0])] + [(ZERO, one, -x) for x in (low[1], high[1])]
    points = []
    for (a, b, c), (d, e, f) in itertools.combinations(lines, 2):
        slope = a * e - b * d
        if slope == 0:
            continue
        point = [(b * f - c * e) / slope, (c * d - a * f) / slope]
        if all(a <= x <= b for a, x, b in zip(low, point, high, strict=True)):
            points.append(point)
    return points


def tiny(seed: int) -> Tiny:
    """A random network with weights between 1e-4 and 1e4: one input and two hidden layers, or two inputs and one."""
    rng = np.random.default_rng([seed, 7])
    inputs = int(rng.integers(1, 3))
    width = int(rng.integers(2, 6))
    sizes = [inputs, width, width, 1] if inputs == 1 else [inputs, width, 1]
    dtype = np.float64 if rng.random() < 0.1 else np.float32
    layers = [
        (_spread(rng, (out, size)).astype(dtype), _spread(rng, out).astype(dtype))
        for size, out in itertools.pairwise(sizes)
    ]
    lower = rng.uniform(-1, 0.5, inputs)
    upper = lower + 10 ** rng.uniform(-4, 0.3, inputs)
    # (Bounds of the box are numbers of the network's type, so that its corners are points of the network.)
    lower, upper = (end.astype(dtype).astype(float) for end in (lower, upper))
    return Tiny(layers, _file(layers, dtype), lower, upper)


def _spread(rng: np.random.Generator, shape: object) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-4, 4, shape)


def _file(layers: Layers, dtype: type) -> bytes:
    element = TensorProto.FLOAT if dtype is np.float32 else TensorProto.DOUBLE
    nodes, weights, last = [], [], "x"
    for k, (weight, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(weight, f"W{k}"), numpy_helper.from_array(bias, f"b{k}")]
        end = k == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [last, f"W{k}", f"b{k}"], ["y" if end else f"z{k}"], transB=1))
        if not end:
            nodes.append(helper.make_node("Relu", [f"z{k}"], [f"h{k}"]))
            last = f"h{k}"
    inputs = helper.make_tensor_value_info("x", element, (1, layers[0][0].shape[1]))
    output = helper.make_tensor_value_info("y", element, (1, 1))
    graph = helper.make_graph(nodes, "tiny", [inputs], [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return model.SerializeToString()
