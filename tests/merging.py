"""Random small networks whose parameters are merged at load, with numbers that make merging hard."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH = 3
FAMILIES = ("dense layers", "scalings", "batch norm", "convolution", "activations", "computed weights", "sum of relus")
NUMBERS = ("plain", "cancelling", "huge", "tiny")


class _Model:
    """A chain of operators under construction."""

    def __init__(self, rng, numbers, dtype):
        self.rng, self.numbers, self.dtype = rng, numbers, dtype
        self.nodes, self.weights, self.last = [], [], "x"

    def array(self, *shape):
        """Numbers of the kind that is tried."""
        values = self.rng.normal(size=shape)
        match self.numbers:
            case "cancelling":
                # The same number with both signs, but for the last bits: sums nearly cancel.
                signs = np.where(self.rng.random(shape) < 0.5, -1.0, 1.0)
                values = signs * self.rng.normal() * (1.0 + 1e-7 * values) * 1e3
            case "huge":
                values = values * 2.0 ** self.rng.integers(0, 26, shape)
            case "tiny":
                values = values * 10.0 ** self.rng.integers(-4, 1, shape)
        return self.stored(values.astype(self.dtype))

    def stored(self, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.weights)}"))
        return self.weights[-1].name

    def made(self, op, *inputs, **attributes):
        """An operator's output."""
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def put(self, op, *others, **attributes):
        self.last = self.made(op, self.last, *others, **attributes)

    def gemm(self, size=WIDTH, out=WIDTH, **attributes):
        self.put("Gemm", self.array(out, size), self.array(out), transB=1, **attributes)

    def scaling(self):
        op = self.rng.choice(["Mul", "Div", "Add", "Sub"])
        self.put(op, self.array(*([WIDTH] if self.rng.random() < 0.5 else [])))

    def norm(self, channels=WIDTH):
        variance = np.abs(self.rng.normal(size=channels)).astype(self.dtype) + self.dtype(1e-3)
        self.put(
            "BatchNormalization",
            *(self.array(channels) for _ in range(3)),
            self.stored(variance),
            epsilon=float(self.rng.choice([1e-5, 1e-3])),
        )

    def content(self):
        element = TensorProto.FLOAT if self.dtype == np.float32 else TensorProto.DOUBLE
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", element, (1, WIDTH))],
            [helper.make_tensor_value_info("y", element, None)],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 10
        return model.SerializeToString()


def merged_model(family, numbers, seed, dtype=np.float32):
    """The bytes of a random model with input ``x [1, WIDTH]`` and one output value."""
    rng = np.random.default_rng([seed, FAMILIES.index(family), NUMBERS.index(numbers)])
    model = _Model(rng, numbers, dtype)
    _BUILD[family](model)
    model.gemm(out=1)
    return model.content()


def _dense(model):
    for _ in range(int(model.rng.integers(1, 4))):
        model.gemm(alpha=float(model.rng.choice([1.0, 0.3])), beta=float(model.rng.choice([1.0, 0.7])))
    if model.rng.random() < 0.5:
        model.put("Relu")
        model.gemm()


def _scalings(model):
    model.scaling()
    model.put("MatMul", model.array(WIDTH, WIDTH))
    for _ in range(3):
        model.scaling()
    model.put("Relu")
    model.scaling()


def _batch_norm(model):
    model.gemm()
    model.norm()
    model.put("Relu")
    model.norm()


def _convolution(model):
    channels, kernel = 2, 2
    model.put("Reshape", model.stored(np.array([1, 1, WIDTH])))
    model.put("Conv", model.array(channels, 1, kernel), model.array(channels))
    model.norm(channels)
    model.put("Relu")
    model.put("Reshape", model.stored(np.array([1, channels * (WIDTH - 1)])))
    model.gemm(size=channels * (WIDTH - 1))


def _activations(model):
    model.gemm()
    model.put(model.rng.choice(["HardSigmoid", "Selu"]))
    model.gemm()
    model.put("HardSigmoid", alpha=float(model.rng.normal()), beta=float(model.rng.normal()))


def _computed_weights(model):
    both = model.made("MatMul", model.array(WIDTH, WIDTH), model.array(WIDTH, WIDTH))
    less = model.made("Sub", both, model.array(WIDTH, WIDTH))
    scaled = model.made("Mul", less, model.array(WIDTH))
    model.put("MatMul", model.made("Div", scaled, model.array()))
    model.put("Add", model.made("Sub", model.array(WIDTH), model.array(WIDTH)))
    model.put("Relu")
    model.put("Mul", model.made("ReduceMean", model.array(WIDTH)))


def _sum_of_relus(model):
    count = 4
    model.gemm(out=1)
    model.put("Gather", model.stored(np.zeros(count, np.int64)), axis=1)
    model.put("Mul", model.array(count))
    model.put("Add", model.array(count))
    model.put("Relu")
    model.put("Gemm", model.array(1, count), model.array(1), transB=1)
    model.put("Mul", model.array(WIDTH))


_BUILD = dict(
    zip(
        FAMILIES,
        (_dense, _scalings, _batch_norm, _convolution, _activations, _computed_weights, _sum_of_relus),
        strict=True,
    )
)
