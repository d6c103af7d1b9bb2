"""The gate after loading: our evaluation of the graph must agree with the reference runtime.

Tolerances are relative to the magnitude of the output. Where a comparison fails, the network may simply be steep
there (a step function next to its step, or strong cancellation): the point still counts as agreeing if moving it by a
few units of rounding moves our own output across the reference's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import LoadError
from .evaluate import evaluate
from .onnx_import import Imported, TensorInfo, import_model
from .onnx_reader import parse_model, runnable
from .runtime import ReplayError, Runtime, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..graph import Graph
    from ..ops.added import Operator

Points = tuple[np.ndarray, ...]
"""One array ``[P, *shape]`` a network input."""

_JITTERED = 24
_STEEP = 256
"""How many units of rounding an input is moved by to find out whether the network is steep at a point."""


class Reference(Protocol):
    """What replays a network: takes one array a network input, answers one array a network output."""

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def exactly(self) -> Reference | None:
        """The same network run without optimisations that may approximate; None where there is no such choice."""


def sample_points(
    inputs: Sequence[TensorInfo],
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    seed: int = 0,
) -> Points:
    """Six to eight points to compare at.

    With a box (flat arrays over all inputs in order) its centre, three corners and two points inside; without one,
    zeros, ones, and random points of ``[0, 1]``, ``[-1, 1]`` and wider.
    """
    generator = np.random.default_rng(seed)
    sizes = [int(np.prod(info.shape, dtype=np.int64)) for info in inputs]
    total = sum(sizes)
    if lower is not None and upper is not None:
        low, high = np.asarray(lower, np.float64).reshape(-1), np.asarray(upper, np.float64).reshape(-1)
        if low.size != total or high.size != total:
            raise LoadError(f"the box has {low.size} dimensions but the network has {total} input values.")
        low, high = np.clip(low, -1e6, 1e6), np.clip(high, -1e6, 1e6)
        mix = np.stack(
            [
                np.full(total, 0.5),
                np.zeros(total),
                np.ones(total),
                generator.integers(0, 2, total).astype(float),
                generator.random(total),
                generator.random(total),
            ]
        )
        rows = low + mix * (high - low)
    else:
        rows = np.stack(
            [
                generator.random(total),
                generator.random(total),
                np.zeros(total),
                np.ones(total),
                generator.uniform(-1, 1, total),
                generator.normal(size=total),
                generator.normal(scale=10.0, size=total),
            ]
        )
    pieces = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return tuple(
        _typed(piece, info.dtype).reshape(len(rows), *info.shape) for piece, info in zip(pieces, inputs, strict=True)
    )


def _typed(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Points in an input's element type; types without sign take the magnitude."""
    return np.asarray(abs(rows) if dtype.kind == "u" else rows).astype(dtype)


def crosscheck(
    graph: Graph,
    inputs: Sequence[TensorInfo],
    runtime: Reference,
    label: str,
    points: Points,
    blame: Callable[[Points], str] | None = None,
) -> None:
    """Compare the graph with the reference at `points`; raises `LoadError` if they differ.

    `blame` is asked, only then, to name the operator where they first differ at a point.
    """
    ours = evaluate(graph, [_as_input(graph, k, array) for k, array in enumerate(points)])
    compared, failure = 0, ""
    for row in range(points[0].shape[0]):
        point = tuple(array[row : row + 1] for array in points)
        try:
            reference = runtime.run(*(array[0] for array in point))
        except ReplayError as error:
            # Some inputs are outside the network's domain (an index past the end); others decide.
            failure = str(error)
            continue
        ours_here = [np.broadcast_to(value, (points[0].shape[0], *value.shape[1:]))[row] for value in ours]
        if not _agree(ours_here, reference) and not _agree_nearby(graph, point, reference):
            where = blame(point) if blame is not None else _difference(ours_here, reference)
            raise LoadError(
                f"{label}: our evaluation differs from the reference runtime's: {where}. "
                "The network is read wrongly here or computed wrongly there; please report it with the network."
            )
        compared += 1
    if not compared:
        raise LoadError(failure or f"{label}: there is no point to compare with the reference runtime at.")


def _as_input(graph: Graph, position: int, array: np.ndarray) -> np.ndarray:
    """A point in the graph's float type and shape."""
    node = graph.nodes[graph.inputs[position]]
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    return array.astype(dtype, copy=False).reshape(len(array), *node.shape)


def _agree(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> bool:
    return all(
        mine.shape == theirs.shape
        and np.allclose(
            mine.astype(np.float64), theirs.astype(np.float64), rtol=0.0, atol=tolerance(theirs), equal_nan=True
        )
        for mine, theirs in zip(ours, reference, strict=True)
    )


def _agree_nearby(graph: Graph, point: Points, reference: Sequence[np.ndarray]) -> bool:
    """Whether the reference lies within the range of our outputs a few units of rounding around the point."""
    generator = np.random.default_rng(1)
    moved = []
    for position, array in enumerate(point):
        start = _as_input(graph, position, array)
        unit = np.finfo(start.dtype).eps * _STEEP * np.maximum(np.abs(start), 1e-3)
        shifts = generator.uniform(-1, 1, (_JITTERED, *start.shape[1:])) if array.dtype.kind == "f" else 0.0
        moved.append((start + unit * shifts).astype(start.dtype))
    nearby = evaluate(graph, moved)
    for values, theirs in zip(nearby, reference, strict=True):
        if values.shape[1:] != theirs.shape:
            return False
        slack = tolerance(theirs)
        low, high = values.min(axis=0).astype(np.float64), values.max(axis=0).astype(np.float64)
        inside = (theirs >= low - (high - low) - slack) & (theirs <= high + (high - low) + slack)
        if not np.all(inside | np.isnan(theirs)):
            return False
    return True


def _difference(ours: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> str:
    for position, (mine, theirs) in enumerate(zip(ours, reference, strict=True)):
        if mine.shape != theirs.shape:
            return f"output {position} has shape {list(mine.shape)} instead of {list(theirs.shape)}"
        if not _agree([mine], [theirs]):
            gap = float(np.nanmax(np.abs(mine.astype(np.float64) - theirs.astype(np.float64))))
            return f"output {position} by up to {gap:.3g}"
    return "at some outputs"


def first_difference(content: bytes, label: str, point: Points, operators: Sequence[Operator] = ()) -> str:
    """Name the first operator of an ONNX file whose result differs from onnxruntime's at a point ``[1, *shape]``.

    The model is run again with every intermediate tensor as an output, and imported again without simplification.
    """
    model = parse_model(content, label)
    imported = import_model(model, label, operators)
    names = [name for node in model.graph.node for name in node.output if name in imported.values]
    exposed = type(model)()
    exposed.CopyFrom(model)
    declared = {info.name for info in exposed.graph.output}
    for name in names:
        if name not in declared:
            exposed.graph.output.add().name = name
    order = [info.name for info in exposed.graph.output]
    try:
        runtime = Runtime(runnable(exposed, exposed.SerializeToString()), imported.inputs, label, exact=True)
        reference = dict(zip(order, runtime.run(*(array[0] for array in point)), strict=True))
    except ReplayError:
        return "at some outputs (onnxruntime does not run with all intermediate results exposed)"
    ours = _all_values(imported, point)
    for node in model.graph.node:
        for name in node.output:
            if name in ours and not _agree([ours[name]], [reference[name]]):
                gap = _difference([ours[name]], [reference[name]]).removeprefix("output 0 ")
                return f"first at {node.op_type} (node {node.name or name}, output {name}), {gap}"
    return "only after simplification"


def _all_values(imported: Imported, point: Points) -> dict[str, np.ndarray]:
    """Our value of every tensor of the source that depends on the inputs."""
    variables = {name: value for name, value in imported.values.items() if hasattr(value, "index")}
    wanted = [variable.index for variable in variables.values()]
    arrays = [_as_input(imported.graph, k, array) for k, array in enumerate(point)]
    results = evaluate(imported.graph, arrays, wanted)
    return {name: result[0].reshape(variables[name].shape) for name, result in zip(variables, results, strict=True)}
