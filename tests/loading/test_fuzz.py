"""Whatever the bytes, loading ends in a `Network` or a `LoadError`."""

from __future__ import annotations

import gzip
import random
from contextlib import suppress

import numpy as np
import onnx
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import Network, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from .models import model_of, single

WEIGHTS = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)


def seeds() -> list[bytes]:
    """Small models that between them use shapes, indices, windows and constants."""
    image = [[1, 4, 6, 6]]
    plumbing = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["n"], axis=0),
        helper.make_node("ConstantOfShape", ["n"], ["c"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])),
        helper.make_node("Expand", ["c", "t"], ["e"]),
        helper.make_node("Slice", ["x", "i", "t", "a"], ["p"]),
        helper.make_node("Concat", ["p", "e"], ["k"], axis=0),
        helper.make_node("Reshape", ["k", "r"], ["q"]),
        helper.make_node("Softmax", ["q"], ["y"], axis=0),
    ]
    constants = {
        "i": np.asarray([0], np.int64),
        "t": np.asarray([2], np.int64),
        "a": np.asarray([0], np.int64),
        "r": np.asarray([2, -1], np.int64),
    }
    return [
        single("Conv", image, [WEIGHTS], pads=[1, 1, 1, 1], strides=[2, 2]),
        single("MaxPool", image, [], kernel_shape=[2, 2], strides=[2, 2]),
        single("AveragePool", image, [], kernel_shape=[2, 2], pads=[1, 0, 0, 1]),
        single("Gemm", [[2, 3]], [np.ones((3, 4), np.float32), np.ones(4, np.float32)]),
        single("Resize", image, [None, np.asarray([1, 1, 2, 2], np.float32)]),
        single("Pad", [[3, 4]], [np.asarray([0, 1, 2, 1])]),
        single("ScatterND", [[4, 3]], [np.asarray([[1], [3]]), np.ones((2, 3), np.float32)]),
        model_of(plumbing, {"x": [4]}, ["y"], constants),
    ]


SEEDS = seeds()


def survives(content: bytes) -> None:
    with suppress(LoadError):
        assert isinstance(load(content), Network)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(SEEDS) - 1), st.integers(0, 2**32), st.integers(1, 6))
def test_mutated_bytes(which: int, seed: int, edits: int) -> None:
    generator = random.Random(seed)
    content = bytearray(SEEDS[which])
    for _ in range(edits):
        place = generator.randrange(len(content))
        match generator.randrange(4):
            case 0:
                content[place] = generator.randrange(256)
            case 1:
                content[place] ^= 1 << generator.randrange(8)
            case 2:
                del content[place : place + generator.randrange(1, 8)]
            case _:
                content[place:place] = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 8)))
    survives(bytes(content))


NUMBERS = st.one_of(st.integers(-3, 12), st.sampled_from([1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)]))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(SEEDS) - 1), st.data())
def test_mutated_fields(which: int, data: st.DataObject) -> None:
    """Changes that keep the file well-formed reach further: dimensions, attributes, constants, names, operators."""
    model = onnx.load_from_string(SEEDS[which])
    for _ in range(data.draw(st.integers(1, 3))):
        node = data.draw(st.sampled_from(list(model.graph.node)))
        kind = data.draw(st.sampled_from(["operator", "attribute", "input", "dim", "constant", "opset", "drop"]))
        if kind == "operator":
            node.op_type = data.draw(
                st.sampled_from(["Relu", "Concat", "Split", "MatMul", "ReduceSum", "Tile", "Where", "Cast"])
            )
        elif kind == "attribute" and node.attribute:
            attribute = data.draw(st.sampled_from(list(node.attribute)))
            attribute.i = data.draw(NUMBERS)
            attribute.ints[:] = data.draw(st.lists(NUMBERS, max_size=5))
        elif kind == "input" and len(node.input):
            names = [entry.name for entry in model.graph.initializer] + ["x0", "x", ""]
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(names))
        elif kind == "dim":
            shape = model.graph.input[0].type.tensor_type.shape
            if shape.dim:
                shape.dim[data.draw(st.integers(0, len(shape.dim) - 1))].dim_value = data.draw(NUMBERS)
        elif kind == "constant":
            tensors = [entry for entry in model.graph.initializer if entry.data_type == TensorProto.INT64]
            if tensors:
                tensor = data.draw(st.sampled_from(tensors))
                count = int(np.prod(tensor.dims))
                values = data.draw(st.lists(NUMBERS, min_size=count, max_size=count))
                tensor.raw_data = np.asarray(values, np.int64).tobytes()
        elif kind == "opset":
            model.opset_import[0].version = data.draw(st.integers(0, 30))
        elif len(node.input):
            del node.input[-1]
    survives(model.SerializeToString())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    survives(content)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SEEDS) - 1), st.integers(0, 2**32))
def test_mutated_gzip(which: int, seed: int) -> None:
    from boundsmith.verify.loading.onnx_reader import _gunzip

    generator = random.Random(seed)
    content = bytearray(gzip.compress(SEEDS[which]))
    content[generator.randrange(2, len(content))] ^= 1 << generator.randrange(8)
    with suppress(LoadError):
        _gunzip(bytes(content), "file")
