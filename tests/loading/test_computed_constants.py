"""Constants that a file computes from others: what they are over the reals, wherever they end up."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from onnx import TensorProto, helper

from tests.exact import fractions
from tests.loading.models import assert_same_as_runtime, model_of, single


def made(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], **attributes)


def loaded(nodes, constants, shape=(1, 2), opset=17):
    return load(model_of(nodes, {"x": shape}, ["y"], constants, opset), check=False).graph


def only(graph, op):
    (found,) = (node for node in graph.nodes if node.op == op)
    return found


def assert_near(array, exact, roundoffs=4):
    """Within so many roundoffs of each exact number."""
    for value, wanted in zip(fractions(array).reshape(-1), exact.reshape(-1), strict=True):
        assert abs(value - wanted) <= roundoffs * Fraction(2.0**-53) * abs(wanted)


A, B = np.random.default_rng(0).normal(size=(2, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "MatMul"])
def test_arithmetic_on_weights(op):
    graph = loaded([made(op, ["a", "b"], "w"), made("MatMul", ["x", "w"], "y")], {"a": A, "b": B})
    a, b = fractions(A), fractions(B)
    wanted = {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a / b, "MatMul": a @ b}[op]
    assert_near(only(graph, "Linear").params["weight"].T, wanted)


def test_weights_that_are_normalised():
    nodes = [
        made("ReduceL2", ["v"], "n", axes=[1], keepdims=1),
        made("Div", ["v", "n"], "u"),
        made("Mul", ["u", "g"], "w"),
        made("Transpose", ["w"], "t", perm=[1, 0]),
        made("MatMul", ["x", "t"], "y"),
    ]
    graph = loaded(nodes, {"v": A, "g": B[:, :1]})
    layer = only(graph, "Linear")
    assert not any(key.endswith("_error") for key in layer.params)
    wanted = A.astype(np.longdouble) / np.linalg.norm(A.astype(np.longdouble), axis=1, keepdims=True) * B[:, :1]
    np.testing.assert_allclose(layer.params["weight"], wanted.astype(np.float64), rtol=1e-15)


def test_quantised_weights_are_exact():
    x = np.random.default_rng(1).integers(-(2**31), 2**31, (2, 2)).astype(np.int32)
    scale = np.float32(0.1)
    nodes = [made("DequantizeLinear", ["q", "s"], "w"), made("MatMul", ["x", "w"], "y")]
    graph = loaded(nodes, {"q": x, "s": scale})
    assert_near(only(graph, "Linear").params["weight"].T, fractions(x) * Fraction(float(scale)), 1)


def test_moves_keep_what_was_computed():
    """Every output of a Split, after a Concat and a Reshape."""
    nodes = [
        made("Mul", ["a", "b"], "w"),
        made("Concat", ["w", "a"], "c", axis=0),
        helper.make_node("Split", ["c"], ["p", "q"], axis=1),
        made("Reshape", ["q", "shape"], "r"),
        made("Mul", ["x", "r"], "y"),
    ]
    graph = loaded(nodes, {"a": A, "b": B, "shape": np.array([1, 4])}, (1, 4), opset=13)
    both = np.concatenate([fractions(A) * fractions(B), fractions(A)])[:, 1]
    assert_near(only(graph, "Scale").params["scale"], both, 0)


def test_an_output_that_is_a_constant():
    graph = loaded([made("Div", ["a", "b"], "y"), made("Relu", ["x"], "z")], {"a": A, "b": B})
    constant = only(graph, "Constant")
    gaps = abs(fractions(constant.params["value"]) - fractions(A) / fractions(B))
    assert (gaps <= fractions(constant.params["value_error"])).all()
    assert (constant.params["value_error"] <= 2e-16 * abs(constant.params["value"])).all()


def test_constants_that_cancel_carry_their_error_and_settings_refuse_it():
    """An exponential is known to a few roundoffs only: of a small difference from it, that is much."""
    value = np.float32([0.3, 0.7])
    constants = {"e": value, "n": np.exp(value), "t": np.float32(3.0)}
    start = [made("Exp", ["e"], "f"), made("Sub", ["f", "n"], "d")]
    scale = only(loaded([*start, made("Mul", ["x", "d"], "y")], constants), "Scale")
    wanted = np.exp(value.astype(np.longdouble)) - np.exp(value)
    assert (abs(scale.params["scale"] - wanted) <= scale.params["scale_error"]).all()
    assert (scale.params["scale_error"] < 1e-13).all()
    limit = [made("Exp", ["t"], "u"), made("Clip", ["x", "", "u"], "y")]
    with pytest.raises(LoadError, match="store their values"):
        loaded(limit, constants)


def test_sizes_and_positions_are_the_runtimes():
    """0.7 * 10 is 7 in float32 and less over the reals."""
    nodes = [
        made("Mul", ["share", "ten"], "n"),
        made("Cast", ["n"], "m", to=TensorProto.INT64),
        made("Slice", ["x", "zero", "m", "one"], "y"),
    ]
    constants = {"share": np.float32([0.7]), "ten": np.float32([10]), "zero": np.array([0]), "one": np.array([1])}
    graph = loaded(nodes, constants, (1, 10))
    assert graph.nodes[graph.outputs[0]].shape == (1, 7)


def test_whole_numbers_that_float32_does_not_hold():
    model = single("Add", [[2]], [np.array([2**24 + 1, 3])], element_type=TensorProto.INT64)
    scale = only(load(model, check=False).graph, "Scale")
    assert scale.params["shift"].tolist() == [2**24 + 1, 3]


@pytest.mark.parametrize("count", [3, 4, 49])
def test_means(count):
    for model in (
        single("ReduceMean", [[1, count]], axes=[1]),
        single("AveragePool", [[1, 1, count]], kernel_shape=[count]),
        single("GlobalAveragePool", [[1, 1, count]]),
    ):
        graph = load(model, check=False).graph
        factor = [v for node in graph.nodes for key, v in node.params.items() if key in ("scale", "weight")]
        assert_near(np.unique(np.concatenate([v.reshape(-1) for v in factor])), np.array([Fraction(1, count)]), 1)


def test_interpolation_weights():
    model = single("Resize", [[1, 1, 3]], [None, None, np.array([1, 1, 7])], mode="linear")
    assert_same_as_runtime(model)
    weight = only(load(model, check=False).graph, "Linear").params["weight"]
    exact = np.zeros((7, 3), dtype=object) + Fraction(0)
    for k in range(7):
        place = min(max((k + Fraction(1, 2)) * Fraction(3, 7) - Fraction(1, 2), Fraction(0)), Fraction(2))
        low = int(place)
        exact[k, low] += 1 - (place - low)
        exact[k, min(low + 1, 2)] += place - low
    assert_near(weight, exact, 1)


def test_contractions_of_constants():
    nodes = [helper.make_node("Einsum", ["a", "b", "x"], ["y"], equation="ij,jk,nk->ni")]
    graph = loaded(nodes, {"a": A, "b": B})
    assert_near(only(graph, "Linear").params["weight"], fractions(A) @ fractions(B))


def test_settings_of_modules_are_in_the_modules_own_type():
    for module, key in ((torch.nn.LeakyReLU(0.1), "slope"), (torch.nn.ELU(0.3), "alpha")):
        graph = load(module, torch.zeros(1, 2)).graph
        node = graph.nodes[graph.outputs[0]]
        value = node.params.get(key, node.attributes.get(key))
        assert float(value) == float(np.float32(0.1 if key == "slope" else 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_selu_of_a_module(dtype):
    load(torch.nn.SELU(), torch.zeros(1, 2, dtype=dtype))
