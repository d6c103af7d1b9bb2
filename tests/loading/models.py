"""Small ONNX models for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from boundsmith.verify.loading import Network, load
from boundsmith.verify.loading.evaluate import evaluate
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    initializers: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    element_type: int = TensorProto.FLOAT,
) -> bytes:
    """A serialised model with float inputs; outputs declare a type but no shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, element_type, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (initializers or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    return model.SerializeToString()


def single(
    op_type: str,
    shapes: Sequence[Sequence[int]],
    constants: Sequence[np.ndarray | None] = (),
    opset: int = 17,
    constants_first: bool = False,
    outputs: int = 1,
    element_type: int = TensorProto.FLOAT,
    **attributes: Any,
) -> bytes:
    """A model of one operator: variable inputs of the given shapes, then constant ones (None: left out)."""
    inputs = {f"x{k}": shape for k, shape in enumerate(shapes)}
    initializers = {f"c{k}": array for k, array in enumerate(constants) if array is not None}
    fixed = [f"c{k}" if array is not None else "" for k, array in enumerate(constants)]
    names = [*fixed, *inputs] if constants_first else [*inputs, *fixed]
    made = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op_type, names, made, name="tested", **attributes)
    return model_of([node], inputs, made, initializers, opset, element_type)


def replayed(network: Network, *points: np.ndarray) -> tuple[np.ndarray, ...]:
    """onnxruntime's outputs at several points, each array ``[B, *shape]``; points run one by one, as a replay does."""
    rows = [network.runtime.run(*row) for row in zip(*points, strict=True)]
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def assert_same_as_runtime(model: bytes, low: float = -2.0, high: float = 2.0, rows: int = 4) -> Network:
    """The graph's outputs equal onnxruntime's at random points, point by point and as one batch."""
    network = load(model, check=False)
    generator = np.random.default_rng(5)
    points = [generator.uniform(low, high, (rows, *info.shape)).astype(info.dtype) for info in network.inputs]
    ours = evaluate(network.graph, points)
    theirs = replayed(network, *points)
    for mine, reference, info in zip(ours, theirs, network.outputs, strict=True):
        assert reference.shape[1:] == info.shape
        mine = np.broadcast_to(mine, (rows, *mine.shape[1:]))
        np.testing.assert_allclose(mine, reference.astype(np.float64), rtol=2e-5, atol=2e-5)
    return network
