"""Interval bounds of imported graphs contain onnxruntime's outputs on whole boxes, for operators with steps."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.loading import load
from boundsmith.verify.loading.runtime import tolerance
from boundsmith.verify.ops import rule
from onnx import NodeProto, TensorProto, helper

from .models import model_of, replayed

F = np.float32
BOXES, POINTS = 40, 12


def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def to_float(name: str) -> NodeProto:
    return node("Cast", name, "y", to=TensorProto.FLOAT)


def to_int(source: str, name: str) -> NodeProto:
    return node("Cast", source, name, to=TensorProto.INT64)


POSITIONS = [node("Gather", "x picks", "px"), to_int("px", "p")]
"""The first two inputs as whole numbers, to index four entries with."""
CONSTANTS = {
    "picks": np.asarray([0, 1]),
    "table": np.random.default_rng(1).normal(size=(4, 3)).astype(F),
    "data": np.random.default_rng(2).normal(size=(4,)).astype(F),
    "w": np.random.default_rng(3).normal(size=(6, 4)).astype(F),
    "b": np.random.default_rng(4).normal(size=(4,)).astype(F),
    "three": np.asarray(3),
    "minus_three": np.asarray(-3),
    "depth": np.asarray(4),
    "real_depth": np.asarray(4.0, F),
    "values": np.asarray([-0.5, 2.0], F),
    "zero": np.asarray(0.0, F),
    "half": np.asarray(0.5, F),
    "column": np.asarray([1]),
    "axis0": np.asarray([0]),
}
DENSE = node("Gemm", "x2 w b", "h")
ROW = [node("Unsqueeze", "x axis0", "x2"), DENSE]
RECTIFIED = [*ROW, node("Relu", "h", "r")]
TURNED = [*POSITIONS, node("Transpose", "table", "t", perm=[1, 0])]

MODELS = {
    "argmax": [*ROW, node("ArgMax", "h", "i", axis=1), to_float("i")],
    "argmax, last": [*RECTIFIED, node("ArgMax", "r", "i", axis=1, select_last_index=1), to_float("i")],
    "argmax of ties": [*RECTIFIED, node("ArgMax", "r", "i", axis=1, keepdims=0), to_float("i")],
    "argmin": [*ROW, node("ArgMin", "h", "i", axis=1), to_float("i")],
    "gather at argmax": [*ROW, node("ArgMax", "h", "i", axis=1, keepdims=0), node("Gather", "table i", "y")],
    "one-hot argmax": [*ROW, node("ArgMax", "h", "i", axis=1), node("OneHot", "i depth values", "y")],
    "one-hot": [*POSITIONS, node("OneHot", "p depth values", "y")],
    "one-hot of whole numbers as floats": [node("Floor", "x", "f"), node("OneHot", "f real_depth values", "y")],
    "cast": [to_int("x", "i"), to_float("i")],
    "cast to truth": [node("Floor", "x", "f"), node("Cast", "f", "i", to=TensorProto.BOOL), to_float("i")],
    "whole division": [to_int("x", "i"), node("Div", "i three", "q"), to_float("q")],
    "whole division by a negative": [to_int("x", "i"), node("Div", "i minus_three", "q"), to_float("q")],
    "floor": [node("Floor", "x", "y")],
    "ceil": [node("Ceil", "x", "y")],
    "round": [node("Round", "x", "y")],
    "sign": [node("Sign", "x", "y")],
    "steps behind a layer": [*ROW, node("Floor", "h", "f"), node("Sub", "h f", "y")],
    "equal": [to_int("x", "i"), node("Equal", "i three", "e"), to_float("e")],
    "less": [node("Less", "x half", "e"), to_float("e")],
    "greater or equal": [node("GreaterOrEqual", "x zero", "e"), to_float("e")],
    "where": [node("Less", "x half", "e"), node("Sin", "x", "s"), node("Where", "e s x", "y")],
    "gather": [*POSITIONS, node("Gather", "table p", "y")],
    "gather along columns": [*TURNED, node("Gather", "t p", "y", axis=1)],
    "gather of a variable": [*POSITIONS, node("Gather", "x p", "y")],
    "gathernd": [*POSITIONS, node("Unsqueeze", "p column", "q"), node("GatherND", "table q", "y")],
    "scatternd": [
        *POSITIONS,
        node("Unsqueeze", "p column", "q"),
        node("Gather", "x picks", "u"),
        node("ScatterND", "data q u", "y"),
    ],
    "scatternd into a variable": [
        *POSITIONS,
        node("Unsqueeze", "p column", "q"),
        node("Sin", "px", "u"),
        node("ScatterND", "x q u", "y"),
    ],
}
IN_RANGE = ("gather", "scatter")


@pytest.mark.parametrize("name", MODELS)
def test_bounds_contain_the_runtime(name: str) -> None:
    network = load(model_of(MODELS[name], {"x": [6]}, ["y"], CONSTANTS, opset=13), check=False)
    random = np.random.default_rng(5)
    lower = random.uniform(-5, 5, (BOXES, 6)) * random.choice([0.2, 1.0], (BOXES, 1))
    upper = lower + random.choice([0.0, 1e-3, 0.5, 2.0, 6.0], (BOXES, 6))
    edge = random.random((BOXES, 6)) < 0.3
    lower, upper = np.where(edge, np.round(lower), lower), np.where(edge, np.round(upper), upper)
    if name.startswith(IN_RANGE) and "argmax" not in name:
        lower[:, :2], upper[:, :2] = lower[:, :2].clip(-3, 3.9), upper[:, :2].clip(-3, 3.9)
    lower, upper = lower.astype(F), upper.astype(F)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for made in network.graph.nodes:
        inputs = [found[source] for source in made.inputs]
        found.append((lower, upper) if made.op == "Input" else rule(made.op).interval(made, inputs))
    low, high = found[network.graph.outputs[0]]
    for k in range(POINTS):
        mix = random.integers(0, 2, (BOXES, 6)) if k < 4 else random.random((BOXES, 6))
        points = np.clip(lower + mix.astype(F) * (upper - lower), lower, upper)
        if k >= 8:
            points = np.clip(np.round(points), lower, upper)
        (reference,) = replayed(network, points)
        slack = tolerance(reference)
        assert np.all(low - slack <= reference)
        assert np.all(reference <= high + slack)
