"""Slices that a position computed by the network cuts short, against onnxruntime at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.verify.errors import LoadError, UndefinedOnRegion
from boundsmith.verify.loading import load
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.ops import rule
from onnx import NodeProto, TensorProto, helper

from .models import model_of, replayed

if TYPE_CHECKING:
    from boundsmith.verify.graph import Graph

F = np.float32


def node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def patch_model(height: int, width: int, size: int) -> bytes:
    """``image[row : row + size, column : column + size] = 0`` as PyTorch exports it, position from the input."""
    nodes = [
        node("Gather", "x zero", "row_value"),
        node("Gather", "x one", "column_value"),
        node("Cast", "row_value", "row", to=TensorProto.INT64),
        node("Cast", "column_value", "column", to=TensorProto.INT64),
        node("Add", "row size", "row_limit"),
        node("Add", "column size", "column_limit"),
        *(node("Unsqueeze", f"{name} axis0", f"{name}1") for name in ("row", "column", "row_limit", "column_limit")),
        node("Slice", "image row1 row_limit1 axis0", "band"),
        node("Slice", "band column1 column_limit1 axis1", "patch"),
        node("Shape", "patch", "patch_shape"),
        node("Expand", "zeros patch_shape", "values"),
        node("Slice", "rows row1 row_limit1 axis0", "row_places"),
        node("Slice", "columns column1 column_limit1 axis0", "column_places"),
        node("Reshape", "row_places upright", "row_column"),
        node("Add", "row_column column_places", "grid"),
        node("Shape", "grid", "grid_shape"),
        node("Mul", "ones2 minus", "negative"),
        node("Equal", "grid_shape negative", "unknown"),
        node("Where", "unknown ones2 grid_shape", "target"),
        node("Expand", "row_column target", "row_grid"),
        node("Expand", "column_places target", "column_grid"),
        node("Unsqueeze", "row_grid axis_last", "row_index"),
        node("Unsqueeze", "column_grid axis_last", "column_index"),
        node("Concat", "row_index column_index", "indices", axis=-1),
        node("Reshape", "values grid_shape", "updates"),
        node("ScatterND", "image indices updates", "y"),
    ]
    constants = {
        "zero": np.asarray(0),
        "one": np.asarray(1),
        "size": np.asarray(size),
        "axis0": np.asarray([0]),
        "axis1": np.asarray([1]),
        "axis_last": np.asarray([-1]),
        "image": np.ones((height, width), F),
        "zeros": np.zeros((1, 1), F),
        "rows": np.arange(height),
        "columns": np.arange(width),
        "upright": np.asarray([-1, 1]),
        "ones2": np.ones(2, np.int64),
        "minus": np.asarray(-1),
    }
    return model_of(nodes, {"x": [2]}, ["y"], constants, opset=13)


def interval(graph: Graph, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interval bounds of the first output over boxes ``[B, n]``."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for made in graph.nodes:
        box = (lower, upper) if made.op == "Input" else None
        found.append(box or rule(made.op).interval(made, [found[source] for source in made.inputs]))
    return found[graph.outputs[0]]


@pytest.mark.parametrize(("height", "width", "size"), [(3, 6, 1), (4, 5, 2), (5, 4, 3), (2, 2, 2)])
def test_a_patch_that_leaves_the_image_is_cut(height: int, width: int, size: int) -> None:
    network = load(patch_model(height, width, size), check=False)
    sides = [np.arange(-extent - 3, extent + 4) + 0.25 for extent in (height, width)]
    points = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2).astype(F)
    (ours,) = evaluate(network.graph, [points])
    (reference,) = replayed(network, points)
    np.testing.assert_array_equal(ours, reference)
    assert {reference.sum() for reference in ours} != {float(height * width)}


def test_bounds_hold_wherever_the_patch_lies() -> None:
    network = load(patch_model(4, 5, 2), check=False)
    generator = np.random.default_rng(2)
    for _ in range(60):
        lower = generator.uniform(-7, 6, 2)
        upper = lower + generator.choice([0.0, 0.4, 1.0, 4.0], 2)
        low, high = interval(network.graph, lower[None].astype(F), upper[None].astype(F))
        mix = np.concatenate([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], generator.random((5, 2))])
        points = (lower.astype(F) + mix.astype(F) * (upper.astype(F) - lower.astype(F))).clip(
            lower.astype(F), upper.astype(F)
        )
        (reference,) = replayed(network, points)
        assert np.all((low <= reference) & (reference <= high))


def test_bounds_at_a_fixed_position_are_exact() -> None:
    network = load(patch_model(4, 5, 2), check=False)
    for position in ([1.2, 3.0], [3.5, 4.5], [4.0, 0.0], [9.0, 9.0]):
        point = np.asarray([position], F)
        low, high = interval(network.graph, point, point + F(0.25))
        np.testing.assert_array_equal(low, high)


SLICE = [
    node("Slice", "x axis0 axis1 axis0", "first"),
    node("Cast", "first", "start", to=TensorProto.INT64),
    node("Add", "start two", "limit"),
    node("Slice", "rows start limit axis0", "places"),
    node("Slice", "x start limit axis0", "part"),
]
CONSTANTS = {
    "axis0": np.asarray([0]),
    "axis1": np.asarray([1]),
    "two": np.asarray([2]),
    "rows": np.arange(5),
    "table": np.arange(5, dtype=F),
    "row": np.ones((1, 5), F),
}


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([node("Cast", "places", "y", to=TensorProto.FLOAT)], id="output"),
        pytest.param([node("Gather", "table places", "y")], id="gather"),
        pytest.param([node("Shape", "places", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)], id="length"),
        pytest.param(
            [node("Relu", "part", "r"), node("Sin", "r", "q"), node("Shape", "q", "s"), node("Expand", "row s", "y")],
            id="shape of what is checked",
        ),
        pytest.param([node("Cast", "places", "p", to=TensorProto.FLOAT), node("ReduceSum", "p", "y")], id="sum"),
    ],
)
def test_what_depends_on_the_actual_length_is_refused(nodes: list[NodeProto]) -> None:
    with pytest.raises(LoadError, match="depends on the network's inputs"):
        load(model_of([*SLICE, *nodes], {"x": [6]}, ["y"], CONSTANTS, opset=13), check=False)


def test_bounds_are_refused_where_a_slice_of_a_variable_may_be_cut() -> None:
    network = load(
        model_of([*SLICE, node("ReduceSum", "part", "y")], {"x": [6]}, ["y"], CONSTANTS, opset=13), check=False
    )
    lower = np.asarray([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]], F)
    low, high = interval(network.graph, lower, lower + F(1.0))
    assert low.min() >= 0.0
    assert high.max() <= 4.0
    for start in (4.5, -3.0):
        lower[0, 0] = start
        with pytest.raises(UndefinedOnRegion):
            interval(network.graph, lower, lower + F(1.0))
