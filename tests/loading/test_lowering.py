"""Every lowering gives what onnxruntime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from boundsmith.verify.loading.lowering_table import LOWERINGS
from onnx import TensorProto, helper

from .models import assert_same_as_runtime, model_of, single
from .test_general_graphs import CASES as GENERAL

F = np.float32
I = np.int64  # noqa: E741


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + 1).normal(size=shape).astype(F)


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=I)


Case = tuple[str, list[list[int]], list[np.ndarray | None], dict[str, Any]]

V = [[1, 3, 4]]
IMAGE = [[1, 4, 6, 5]]

CASES: list[Case] = [
    *[(op, V, [], {}) for op in ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf", "Softplus", "Elu", "Selu", "Celu")],
    *[(op, V, [], {}) for op in ("HardSigmoid", "HardSwish", "Softsign", "Abs", "Sign", "Floor", "Ceil", "Round")],
    *[(op, V, [], {}) for op in ("Neg", "Sin", "Cos", "Atan", "Exp", "Identity", "Dropout", "ThresholdedRelu")],
    ("Tan", V, [], {"low": -1.2, "high": 1.2}),
    *[(op, V, [], {"low": 0.1}) for op in ("Sqrt", "Log", "Reciprocal")],
    ("Mish", V, [], {"opset": 18}),
    ("Gelu", V, [], {"opset": 20}),
    ("Gelu", V, [], {"opset": 20, "approximate": "tanh"}),
    ("LeakyRelu", V, [], {"alpha": 0.3}),
    ("Elu", V, [], {"alpha": 0.4}),
    ("Celu", V, [], {"alpha": 0.4}),
    ("Selu", V, [], {"alpha": 1.2, "gamma": 0.7}),
    ("HardSigmoid", V, [], {"alpha": 0.3, "beta": 0.4}),
    ("PRelu", V, [normal(3, 1)], {}),
    ("Clip", V, [np.asarray(-0.5, F), np.asarray(0.5, F)], {}),
    ("Clip", V, [None, np.asarray(0.5, F)], {}),
    ("Clip", V, [np.asarray(0, F)], {}),
    ("Clip", V, [], {}),
    ("Clip", V, [], {"opset": 7, "min": -0.25, "max": 0.75}),
    ("Pow", V, [np.asarray(2, F)], {}),
    ("Pow", V, [np.asarray(3, F)], {}),
    ("Pow", V, [np.asarray(0, F)], {}),
    ("Pow", V, [np.asarray([1.5], F)], {"low": 0.1}),
    ("Pow", V, [np.asarray(0.5, F)], {"low": 0.1}),
    ("Pow", V, [np.asarray(-1, F)], {"low": 0.1}),
    ("Pow", V, [np.asarray([0.5, 2, 3, 4], F)], {"constants_first": True}),
    *[(op, [[1, 3, 4], [4]], [], {}) for op in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")],
    *[(op, [[3, 1], [1, 4]], [], {}) for op in ("Add", "Sub", "Mul", "Max", "Min", "Equal", "Less", "Greater")],
    *[(op, [[1, 4]], [normal(3, 1)], {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")],
    *[(op, [[1, 4]], [normal(3, 1)], {"constants_first": True}) for op in ("Add", "Sub", "Mul", "Max", "Min")],
    *[(op, [[1, 4]], [normal(1)], {"constants_first": True}) for op in ("Max", "Min")],
    *[(op, [[1, 4]], [normal(1)], {}) for op in ("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")],
    ("Max", [[3, 4], [3, 4]], [normal(4)], {}),
    ("Sum", [[3, 4], [3, 4]], [normal(4)], {}),
    ("Div", [[3, 4], [4]], [], {"low": 0.5}),
    ("Div", [[3, 4]], [normal(4)], {"low": 0.5, "constants_first": True}),
    ("Where", [[3, 4]], [normal(3, 4) > 0, normal(4)], {"constants_first": True}),
    ("Where", [[3, 4], [4]], [normal(3, 4) > 0], {"constants_first": True}),
    ("Where", [[3, 4], [4]], [np.ones((3, 1), bool)], {"constants_first": True}),
    ("MatMul", [[2, 3]], [normal(3, 4)], {}),
    ("MatMul", [[3]], [normal(3, 4)], {}),
    ("MatMul", [[2, 3]], [normal(3)], {}),
    ("MatMul", [[3, 2]], [normal(4, 3)], {"constants_first": True}),
    ("MatMul", [[3, 1]], [normal(4, 3)], {"constants_first": True}),
    ("MatMul", [[3]], [normal(4, 3)], {"constants_first": True}),
    ("MatMul", [[3, 2]], [normal(3)], {"constants_first": True}),
    ("MatMul", [[2, 2, 3]], [normal(2, 3, 4)], {}),
    ("MatMul", [[2, 3, 2]], [normal(2, 4, 3)], {"constants_first": True}),
    ("MatMul", [[2, 3, 2]], [normal(1, 4, 3)], {"constants_first": True}),
    ("MatMul", [[2, 3, 4], [2, 4, 5]], [], {}),
    ("MatMul", [[3, 4], [2, 4, 5]], [], {}),
    ("MatMul", [[4], [4, 5]], [], {}),
    ("MatMul", [[4], [4]], [], {}),
    ("Gemm", [[2, 3]], [normal(3, 4), normal(4)], {}),
    ("Gemm", [[2, 3]], [normal(4, 3), normal(1)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [[3, 2]], [normal(3, 4), normal(2, 4)], {"transA": 1}),
    ("Gemm", [[3, 2]], [normal(4, 3), normal(2, 1)], {"transA": 1, "transB": 1}),
    ("Gemm", [[2, 3], [3, 4], [4]], [], {"alpha": 0.5, "beta": 0.25}),
    ("Gemm", [[2, 3]], [normal(3, 4)], {"beta": 0.5}),
    ("Gemm", [[3, 2]], [normal(4, 3)], {"constants_first": True}),
    ("Conv", IMAGE, [normal(3, 4, 3, 2), normal(3)], {}),
    ("Conv", IMAGE, [normal(4, 2, 3, 3)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", IMAGE, [normal(2, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", IMAGE, [normal(2, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", IMAGE, [normal(2, 4, 2, 2)], {"auto_pad": "VALID"}),
    ("Conv", [[1, 2, 7]], [normal(3, 2, 3), normal(3)], {"pads": [1, 1]}),
    ("Conv", [[1, 2, 4, 4, 3]], [normal(3, 2, 2, 2, 2)], {}),
    ("ConvTranspose", IMAGE, [normal(4, 3, 3, 2), normal(3)], {"strides": [2, 3]}),
    ("ConvTranspose", IMAGE, [normal(4, 2, 3, 3)], {"group": 2, "strides": [2, 2], "pads": [1, 0, 1, 2]}),
    ("ConvTranspose", IMAGE, [normal(4, 2, 3, 3)], {"strides": [2, 2], "output_padding": [1, 0], "dilations": [1, 2]}),
    ("ConvTranspose", IMAGE, [normal(4, 2, 3, 3)], {"strides": [2, 2], "output_shape": [12, 10]}),
    ("ConvTranspose", IMAGE, [normal(4, 2, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [[1, 2, 5]], [normal(2, 2, 3)], {"strides": [2]}),
    ("BatchNormalization", IMAGE, [normal(4), normal(4), normal(4), normal(4) ** 2 + 0.1], {"epsilon": 1e-3}),
    ("BatchNormalization", [[3, 4]], [normal(4), normal(4), normal(4), normal(4) ** 2 + 0.1], {"opset": 9}),
    ("InstanceNormalization", IMAGE, [normal(4), normal(4)], {}),
    ("LayerNormalization", V, [normal(4), normal(4)], {}),
    ("LayerNormalization", V, [normal(3, 4)], {"axis": 1}),
    ("GroupNormalization", IMAGE, [normal(4), normal(4)], {"num_groups": 2, "opset": 21}),
    *[("Softmax", V, [], {"axis": axis, "opset": opset}) for axis in (0, 1, 2) for opset in (11, 13)],
    ("LogSoftmax", V, [], {"axis": 1}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [2, 3]}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [2, 2], "dilations": [2, 1], "opset": 12}),
    ("MaxPool", IMAGE, [], {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", [[1, 2, 7]], [], {"kernel_shape": [3]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", IMAGE, [], {"kernel_shape": [2, 2], "dilations": [2, 2], "opset": 19}),
    ("GlobalAveragePool", IMAGE, [], {}),
    ("GlobalMaxPool", IMAGE, [], {}),
    ("Pad", V, [ints(0, 1, 2, 1, 0, 0), np.asarray(0.5, F)], {}),
    ("Pad", V, [ints(0, 1, 2, 0, 1, 1)], {"mode": "reflect"}),
    ("Pad", V, [ints(0, 1, 2, 1, 0, 0)], {"mode": "edge"}),
    ("Pad", V, [ints(0, 1, -1, 0, -1, 2)], {}),
    ("Pad", V, [ints(1, 2), None, ints(2)], {"opset": 18}),
    ("Pad", V, [], {"opset": 9, "pads": [0, 1, 2, 1, 0, 0], "value": 1.0}),
    ("Upsample", IMAGE, [], {"opset": 7, "scales": [1.0, 1.0, 2.0, 3.0]}),
    ("Upsample", IMAGE, [np.asarray([1, 1, 2, 2], F)], {"opset": 9}),
    ("Upsample", IMAGE, [np.asarray([1, 1, 2, 2], F)], {"opset": 9, "mode": "linear"}),
    ("Resize", IMAGE, [np.asarray([1, 1, 2, 2], F)], {"opset": 10}),
    *[
        (
            "Resize",
            IMAGE,
            [None, np.asarray([1, 1, 1.5, 2], F)],
            {"coordinate_transformation_mode": how, "nearest_mode": r},
        )
        for how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for r in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ],
    ("Resize", IMAGE, [None, None, ints(1, 4, 3, 9)], {"mode": "linear"}),
    (
        "Resize",
        IMAGE,
        [None, None, ints(1, 4, 12, 10)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Resize", IMAGE, [None, None, ints(9, 10)], {"mode": "nearest", "axes": [2, 3], "opset": 18}),
    ("Flatten", IMAGE, [], {}),
    ("Flatten", IMAGE, [], {"axis": 0}),
    ("Flatten", IMAGE, [], {"axis": -1}),
    ("Reshape", V, [ints(2, -1)], {}),
    ("Reshape", V, [ints(0, 2, -1)], {}),
    ("Squeeze", [[1, 3, 1]], [ints(0)], {}),
    ("Squeeze", [[1, 3, 1]], [], {}),
    ("Squeeze", [[1, 3, 1]], [], {"opset": 11, "axes": [-1]}),
    ("Unsqueeze", V, [ints(0, -1)], {}),
    ("Unsqueeze", V, [], {"opset": 11, "axes": [1]}),
    ("Transpose", V, [], {}),
    ("Transpose", V, [], {"perm": [0, 2, 1]}),
    ("Transpose", [[1, 3, 1]], [], {"perm": [2, 1, 0]}),
    ("Concat", [[2, 3], [2, 1]], [normal(2, 2)], {"axis": -1}),
    ("Concat", [[2, 3]], [], {"axis": 0}),
    ("Split", V, [ints(1, 2)], {"axis": 1, "outputs": 2}),
    ("Split", V, [], {"axis": 2, "outputs": 2}),
    ("Split", V, [], {"axis": 1, "outputs": 2, "num_outputs": 2, "opset": 18}),
    ("Split", V, [], {"axis": 1, "outputs": 2, "opset": 11, "split": [2, 1]}),
    ("Expand", [[3, 1]], [ints(2, 1, 4)], {}),
    ("Tile", [[2, 3]], [ints(2, 2)], {}),
    ("DepthToSpace", IMAGE, [], {"blocksize": 2}),
    ("DepthToSpace", IMAGE, [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [[1, 2, 4, 6]], [], {"blocksize": 2}),
    ("Trilu", [[4, 4]], [np.asarray(1, I)], {"upper": 0}),
    ("Slice", V, [ints(1), ints(3), ints(2)], {}),
    ("Slice", V, [ints(-1, 3), ints(-99, 0), ints(1, 2), ints(-1, -2)], {}),
    ("Slice", V, [], {"opset": 9, "starts": [0, 1], "ends": [9, 3], "axes": [1, 2]}),
    ("Gather", V, [np.asarray([[0, 2], [-1, 1]], I)], {"axis": 1}),
    ("Gather", V, [np.asarray(1, I)], {"axis": 2}),
    ("GatherND", V, [np.asarray([[0, 1], [0, 2]], I)], {}),
    ("GatherElements", [[2, 3]], [np.asarray([[0, -1, 1], [1, 0, 0]], I)], {"axis": 0}),
    ("ScatterND", [[4, 3]], [np.asarray([[1], [3]], I), normal(2, 3)], {}),
    ("ScatterElements", [[4, 3]], [np.asarray([[1, 0, 3]], I), normal(1, 3)], {"axis": 0, "opset": 16}),
    ("ArgMax", V, [], {"axis": 2}),
    ("ArgMax", V, [], {"axis": 1, "keepdims": 0}),
    ("ArgMin", V, [], {"axis": 1, "keepdims": 0}),
    ("ReduceSum", V, [ints(1)], {}),
    ("ReduceSum", V, [], {"keepdims": 0}),
    ("ReduceSum", V, [], {"opset": 11, "axes": [0, 2], "keepdims": 0}),
    *[
        (op, V, [], {"axes": [1], "keepdims": 0})
        for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")
    ],
    ("ReduceMean", V, [ints(1, 2)], {"opset": 18}),
    ("ReduceMax", V, [], {}),
    ("ReduceLogSum", V, [], {"low": 0.1}),
    ("CumSum", V, [np.asarray(1, I)], {}),
    ("CumSum", V, [np.asarray(-1, I)], {"exclusive": 1, "reverse": 1}),
    ("Cast", V, [], {"to": TensorProto.INT64}),
    ("Cast", V, [], {"to": TensorProto.BOOL}),
    ("Cast", V, [], {"to": TensorProto.DOUBLE}),
]


@pytest.mark.parametrize(
    ("op", "shapes", "constants", "options"), CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)]
)
def test_single_operator(
    op: str, shapes: list[list[int]], constants: list[np.ndarray | None], options: dict[str, Any]
) -> None:
    settings = dict(options)
    low, high = settings.pop("low", -2.0), settings.pop("high", 2.0)
    assert_same_as_runtime(single(op, shapes, constants, **settings), low, high)


@pytest.mark.parametrize("opset", [8, 9, 10, 11, 12, 13, 15, 17, 19, 21])
def test_dense_network_in_every_opset(opset: int) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "v"], ["y"])
        if opset >= 11
        else helper.make_node("Gemm", ["e", "v", "u"], ["y"]),
    ]
    weights = {"w": normal(4, 5), "b": normal(5), "v": normal(5, 2), "u": normal(2)}
    network = assert_same_as_runtime(model_of(nodes, {"x": ["batch", 4]}, ["y"], weights, opset))
    assert [node.op for node in network.graph.nodes] == ["Input", "Linear", "Relu", "Linear"]


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic_on_comparisons(op: str) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Less", ["x", "one"], ["b"]),
        helper.make_node(op, ["a", "b"], ["c"]),
        helper.make_node("Not", ["c"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    assert_same_as_runtime(model_of(nodes, {"x": [3, 4]}, ["y"], {"zero": np.zeros(1, F), "one": np.ones(1, F)}))


def test_where_on_a_variable_condition() -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["c"]),
        helper.make_node("Sin", ["x"], ["a"]),
        helper.make_node("Where", ["c", "a", "k"], ["y"]),
    ]
    assert_same_as_runtime(model_of(nodes, {"x": [3, 4]}, ["y"], {"zero": np.zeros(1, F), "k": normal(4)}))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_of_argmax(axis: int) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        helper.make_node("OneHot", ["i", "depth", "values"], ["y"], axis=axis),
    ]
    constants = {"depth": np.asarray([4], I), "values": np.asarray([-1, 2], F)}
    assert_same_as_runtime(model_of(nodes, {"x": [3, 4]}, ["y"], constants))


def test_whole_numbers_divide_towards_zero() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Div", ["i", "three"], ["q"]),
        helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT),
    ]
    assert_same_as_runtime(model_of(nodes, {"x": [5, 8]}, ["y"], {"three": np.asarray(3, I)}), -20, 20)


def test_slice_and_scatter_at_a_position_that_depends_on_the_inputs() -> None:
    """A patch of fixed size is written at a variable place, as in cctsdb_yolo."""
    nodes = [
        helper.make_node("Slice", ["x", "zero", "one", "zero"], ["first"]),
        helper.make_node("Cast", ["first"], ["start"], to=TensorProto.INT64),
        helper.make_node("Add", ["start", "two"], ["end"]),
        helper.make_node("Slice", ["x", "start", "end", "zero"], ["part"]),
        helper.make_node("Slice", ["range", "start", "end", "zero"], ["places"]),
        helper.make_node("Unsqueeze", ["places", "one"], ["indices"]),
        helper.make_node("ScatterND", ["data", "indices", "part"], ["scattered"]),
        helper.make_node("Gather", ["scattered", "start"], ["gathered"], axis=0),
        helper.make_node("Concat", ["scattered", "gathered"], ["y"], axis=0),
    ]
    constants = {
        "zero": ints(0),
        "one": ints(1),
        "two": ints(2),
        "range": np.arange(8, dtype=I),
        "data": normal(8),
    }
    network = assert_same_as_runtime(model_of(nodes, {"x": [8]}, ["y"], constants), 0.0, 5.99, rows=12)
    assert {"DynamicSlice", "ScatterND", "GatherND"} <= {node.op for node in network.graph.nodes}


def test_shape_arithmetic_is_folded_away() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node(
            "ConstantOfShape", ["s"], ["filled"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])
        ),
        helper.make_node("Range", ["z", "four", "step"], ["r"]),
        helper.make_node("Cast", ["r"], ["rf"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["n", "zero"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["target"], axis=0),
        helper.make_node("Mul", ["x", "filled"], ["m"]),
        helper.make_node("Reshape", ["m", "target"], ["f"]),
        helper.make_node("Add", ["f", "rf"], ["y"]),
    ]
    constants = {
        "zero": ints(0),
        "minus": ints(-1),
        "z": np.asarray(0, I),
        "four": np.asarray(12, I),
        "step": np.asarray(1, I),
    }
    constants["zero"] = np.asarray(0, I)
    nodes[5] = helper.make_node("Unsqueeze", ["n", "axes"], ["n1"])
    constants["axes"] = ints(0)
    network = assert_same_as_runtime(model_of(nodes, {"x": [1, 3, 4]}, ["y"], constants))
    assert {node.op for node in network.graph.nodes} <= {"Input", "Scale", "Reshape"}


def test_operators_on_constants_alone_are_folded() -> None:
    nodes = [
        helper.make_node("Sigmoid", ["w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["t"], axis=1),
        helper.make_node("ReduceMean", ["t"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Div", ["t", "m"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["y"]),
    ]
    network = assert_same_as_runtime(model_of(nodes, {"x": [2, 3]}, ["y"], {"w": normal(3, 4)}))
    assert [node.op for node in network.graph.nodes] == ["Input", "Linear"]


def test_several_inputs_and_outputs() -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    network = assert_same_as_runtime(model_of(nodes, {"a": [1, 3], "b": [1, 2]}, ["z", "y"], {"w": normal(3, 2)}))
    assert [info.name for info in network.inputs] == ["a", "b"]
    assert [info.name for info in network.outputs] == ["z", "y"]
    assert [network.graph.nodes[index].name for index in network.graph.outputs] == ["z", "y"]


def test_double_precision_is_kept() -> None:
    model = single("MatMul", [[2, 3]], [normal(3, 2).astype(np.float64)], element_type=TensorProto.DOUBLE)
    network = assert_same_as_runtime(model)
    assert network.inputs[0].dtype == np.float64
    assert network.graph.nodes[1].params["weight"].dtype == np.float64


@pytest.mark.parametrize("shape", [[4], ["n", 4], [0, 4], [-1, 4], [1, 1, 1, 4]])
def test_batch_dimensions_of_every_kind(shape: list[int | str]) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    network = assert_same_as_runtime(model_of(nodes, {"x": shape}, ["y"], {"w": normal(4, 2)}))
    assert network.inputs[0].shape == tuple(e if isinstance(e, int) and e > 0 else 1 for e in shape)


def test_initializers_listed_as_inputs_are_weights() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    network = assert_same_as_runtime(model_of(nodes, {"x": [1, 4], "w": [4, 2]}, ["y"], {"w": normal(4, 2)}))
    assert [info.name for info in network.inputs] == ["x"]


def test_softmax_of_one_entry_is_constant() -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["s"], axis=1), helper.make_node("Add", ["s", "x"], ["y"])]
    assert_same_as_runtime(model_of(nodes, {"x": [3, 1]}, ["y"]))


def test_a_constant_output() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["w"], ["z"])]
    assert_same_as_runtime(model_of(nodes, {"x": [2]}, ["y", "z"], {"w": normal(3)}))


def test_every_lowering_is_tried() -> None:
    """A new row of the table needs a case."""
    tried = {case[0] for case in (*CASES, *GENERAL)} | {
        "And",
        "Cast",
        "Constant",
        "ConstantOfShape",
        "Not",
        "OneHot",
        "Or",
        "Range",
        "Shape",
        "Xor",
    }
    elsewhere = {"CastLike", "EyeLike", "GRU", "IsInf", "IsNaN", "LSTM", "Mod", "RNN", "Size", "Swish"}
    assert set(LOWERINGS) - tried - elsewhere == set()


def test_less_common_folded_operators() -> None:
    nodes = [
        helper.make_node("EyeLike", ["x"], ["e"]),
        helper.make_node("Size", ["x"], ["n"]),
        helper.make_node("CastLike", ["n", "x"], ["nf"]),
        helper.make_node("Constant", [], ["k"], value_float=0.5),
        helper.make_node("Mul", ["e", "nf"], ["a"]),
        helper.make_node("Add", ["a", "k"], ["b"]),
        helper.make_node("Mod", ["i", "j"], ["r"]),
        helper.make_node("CastLike", ["r", "x"], ["rf"]),
        helper.make_node("ReduceProd", ["rf"], ["p"], keepdims=0),
        helper.make_node("Mul", ["b", "p"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["y"]),
    ]
    assert_same_as_runtime(model_of(nodes, {"x": [3, 3]}, ["y"], {"i": ints(5, -7), "j": ints(3, 4)}))
