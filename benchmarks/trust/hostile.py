"""Small networks with numbers that make sums cancel, underflow and round badly, as ONNX files in memory.

A network is built layer by layer along one point: the values there are known while it grows, so that a layer can be
made to cancel just there. Its first output is what queries are about; the second is large, because networks whose
outputs are nothing but rounding errors are refused when they are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SHAPES = ("dense", "residual", "convolution")
NUMBERS = ("biases", "weights", "range", "tiny", "merged", "repeated", "one way")
CURVES = ("Sigmoid", "Tanh")


@dataclass(frozen=True, eq=False)
class Hostile:
    """An ONNX file's bytes, and the point ``[n]`` along which it was built."""

    content: bytes
    point: np.ndarray


@dataclass
class Chain:
    """Operators one after the other, with the value of the last at the point."""

    rng: np.random.Generator
    numbers: str
    dtype: type
    value: np.ndarray
    curved: bool = False
    nodes: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    last: str = "x"

    def stored(self, array: np.ndarray) -> str:
        """The name of a new parameter."""
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def number(self, array: np.ndarray) -> np.ndarray:
        """Numbers as the file stores them, and no infinite ones."""
        return np.clip(array, -1e37, 1e37).astype(self.dtype)

    def matrix(self, out: int, size: int) -> np.ndarray:
        """Weights of the kind that is tried; of the tiny kind they are huge where the value has become tiny."""
        weight = matrix(self.rng, self.numbers, out, size)
        if self.numbers == "tiny":
            weight = weight * 10.0 ** (self.rng.choice([-30, -20]) * (1 if abs(self.value).max() > 1e-8 else -1))
        return self.number(weight)

    def put(self, op: str, *others: str, value: np.ndarray, **attributes: object) -> None:
        """One more operator; `value` is its output at the point."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.last, *others], [name], **attributes))
        self.last, self.value = name, value

    def layer(self, out: int) -> None:
        """A dense layer, flat ``[1, n]`` to ``[1, out]``, with the numbers of the kind that is tried."""
        weight = self.matrix(out, self.value.size)
        bias = self.number(shift(self.rng, self.numbers, out))
        if self.numbers == "biases" and self.value.size > 1:
            _cancel(weight, self.value)
        if self.numbers == "weights":
            bias = self.number(-(weight.astype(float) @ self.value) * (1 + 1e-6 * self.rng.normal(size=out)))
        self.affine(weight, bias)

    def affine(self, weight: np.ndarray, bias: np.ndarray) -> None:
        value = weight.astype(float) @ self.value + bias
        self.put("Gemm", self.stored(weight), self.stored(bias), value=value, transB=1)

    def activation(self) -> None:
        op = str(self.rng.choice(CURVES)) if self.curved else "Relu"
        self.put(op, value=activated(op, self.value))

    def scaling(self) -> None:
        """Operators that are merged into the layers beside them."""
        size = self.value.size
        for op in self.rng.choice(["Mul", "Div", "Add", "Sub", "BatchNormalization"], size=2):
            factor = self.number(self.rng.choice([-1, 1], size) * 10 ** self.rng.uniform(-3, 3, size))
            if op == "BatchNormalization":
                self.norm(factor)
                continue
            wide = factor.astype(float)
            value = {"Mul": np.multiply, "Div": np.divide, "Add": np.add, "Sub": np.subtract}[str(op)](self.value, wide)
            self.put(str(op), self.stored(factor), value=value)

    def norm(self, factor: np.ndarray) -> None:
        """Batch normalisation, whose mean nearly is the value at the point."""
        mean = self.number(self.value * (1 + 1e-5 * self.rng.normal(size=factor.size)))
        variance = self.number(10 ** self.rng.uniform(-3, 3, factor.size))
        value = (self.value - mean) * factor / np.sqrt(variance.astype(float) + 1e-5)
        zero = np.zeros_like(factor)
        parameters = (self.stored(array) for array in (factor, zero, mean, variance))
        self.put("BatchNormalization", *parameters, value=value, epsilon=float(np.float32(1e-5)))

    def convolution(self, channels: int) -> None:
        """A convolution of one axis over the flat value, flat again."""
        kernel, size = 3, self.value.size
        weight = self.matrix(channels, kernel)
        bias = self.number(shift(self.rng, self.numbers, channels))
        columns = np.stack([self.value[k : k + kernel] for k in range(size - kernel + 1)], axis=-1)
        self.put("Reshape", self.stored(np.array([1, 1, size])), value=self.value)
        value = (weight.astype(float) @ columns + bias[:, None]).reshape(-1)
        self.put("Conv", self.stored(weight[:, None, :]), self.stored(bias), value=value)
        self.activation()
        self.put("Reshape", self.stored(np.array([1, self.value.size])), value=self.value)

    def block(self) -> None:
        """A layer and what it read, added up."""
        skipped, value = self.last, self.value
        self.layer(value.size)
        if self.rng.random() < 0.5:
            self.activation()
        op = str(self.rng.choice(["Add", "Sub"]))
        self.put(op, skipped, value=self.value + value if op == "Add" else self.value - value)
        self.activation()

    def outputs(self) -> None:
        """Two outputs: the first nearly cancels at the point, the second does not."""
        size = self.value.size
        weight = self.matrix(2, size)
        weight[1] = abs(weight[1])
        if size > 1:
            _cancel(weight[:1], self.value)
        cancelled = -(weight[0].astype(float) @ self.value)
        bias = [self.rng.normal() if self.rng.random() < 0.5 else cancelled, 1.0]
        self.affine(weight, self.number(bias))

    def content(self, inputs: int) -> bytes:
        """The ONNX file."""
        element = TensorProto.FLOAT if self.dtype is np.float32 else TensorProto.DOUBLE
        self.nodes[-1].output[0] = "y"
        tensors = [helper.make_tensor_value_info(name, element, (1, n)) for name, n in (("x", inputs), ("y", 2))]
        graph = helper.make_graph(self.nodes, "hostile", tensors[:1], tensors[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        return model.SerializeToString()


def activated(op: str, x: np.ndarray) -> np.ndarray:
    """An activation function in float64."""
    if op == "Relu":
        return np.maximum(x, 0.0)
    return np.tanh(x) if op == "Tanh" else 0.5 + 0.5 * np.tanh(0.5 * x)


def _cancel(weight: np.ndarray, value: np.ndarray) -> None:
    """Change the weight of the largest value in each row, so that the products nearly cancel."""
    k = int(np.argmax(abs(value)))
    if value[k] == 0 or not np.isfinite(value).all():
        return
    others = weight.astype(float) @ value - weight[:, k].astype(float) * value[k]
    changed = np.clip(-others / value[k], -1e30, 1e30)
    weight[:, k] = changed.astype(weight.dtype)


def matrix(rng: np.random.Generator, numbers: str, out: int, size: int) -> np.ndarray:
    """Weights ``[out, size]`` of a kind."""
    plain = rng.normal(size=(out, size))
    match numbers:
        case "range" | "merged":
            return np.where(plain < 0, -1.0, 1.0) * 10 ** rng.uniform(-4, 4, (out, size))
        case "weights":
            # The same number with both signs, but for the last bits.
            return np.where(plain < 0, -1.0, 1.0) * rng.normal(size=(out, 1)) * 1e3 * (1 + 1e-6 * plain)
        case "repeated":
            return rng.choice(rng.normal(size=3), size=(out, size))
        case "one way":
            # One large weight, and small ones whose products all round the same way when they are added to it.
            small = 2.0**-19 * (rng.integers(1, 31, (out, size)) + rng.uniform(0.3, 0.49, (out, size))) / 32
            small[:, 0] = 1.0
            return small
    return plain


def shift(rng: np.random.Generator, numbers: str, out: int) -> np.ndarray:
    """Biases ``[out]`` of a kind."""
    plain = rng.normal(size=out)
    match numbers:
        case "biases":
            return np.where(plain < 0, -1e4, 1e4) * (1 + 0.1 * rng.random(out))
        case "range" | "merged":
            return np.where(plain < 0, -1.0, 1.0) * 10 ** rng.uniform(-4, 4, out)
        case "tiny":
            return plain * 10.0 ** rng.choice([-38, -30, -10, 0, 10], size=out)
        case "one way":
            return np.zeros(out)
    return 0.3 * plain


def hostile(seed: int, shape: str, numbers: str, *, curved: bool, dtype: type = np.float32) -> Hostile:
    """A network of a shape and a kind of numbers; `curved`: with sigmoids and hyperbolic tangents, otherwise ReLUs."""
    rng = np.random.default_rng([seed, SHAPES.index(shape), NUMBERS.index(numbers), int(curved)])
    inputs = int(rng.integers(2, 7)) + (4 if shape == "convolution" else 0)
    if numbers in ("repeated", "one way"):
        inputs = int(rng.choice([40, 150, 400]))
    point = (rng.uniform(-1, 1, inputs) * 10 ** rng.choice([0.0, 0.0, 3.0])).astype(dtype)
    if numbers == "one way":
        point = np.ones(inputs, dtype)
    chain = Chain(rng, numbers, dtype, point.astype(float), curved)
    width = int(rng.choice([3, 6, 12, 30]))
    if shape == "convolution":
        chain.convolution(2)
    else:
        chain.layer(width)
        _between(chain)
    for _ in range(int(rng.integers(0, 3))):
        if shape == "residual":
            chain.block()
        else:
            chain.layer(width)
            _between(chain)
    chain.outputs()
    return Hostile(chain.content(inputs), point)


def _between(chain: Chain) -> None:
    """What stands between two layers."""
    if chain.numbers == "merged":
        chain.scaling()
    chain.activation()
