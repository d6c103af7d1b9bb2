"""The reference runtime: a network run by onnxruntime, one point at a time, as a checker of witnesses would."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .evaluate import evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Graph
    from .onnx_import import TensorInfo

_QUIET = 4
"""Severity from which onnxruntime writes to the log: fatal errors only, the rest arrives as exceptions."""

_LARGE_MODEL = 64 << 20


class ReplayError(LoadError):
    """onnxruntime refuses the model, or fails at a point (an index outside its tensor, for instance)."""


def _failures() -> tuple[type[BaseException], ...]:
    """The exception types that onnxruntime raises; their common base is no narrower than `Exception`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoadCanceled",
        "ModelLoaded",
        "ModelRequiresCompilation",
        "NoModel",
        "NoSuchFile",
        "NotFound",
        "NotImplemented",
        "RuntimeException",
    )
    found = tuple(getattr(state, name) for name in names if hasattr(state, name))
    return (*found, RuntimeError, ValueError, TypeError)


def make_session(model: bytes | str, threads: int = 1, exact: bool = False) -> Any:
    """An onnxruntime session on the CPU for a model's bytes or path.

    `exact` leaves out the optimisations that may approximate: of a product with dequantised weights, for instance, the
    default ones round the activations to eight bits, which the file does not say.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    if exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if isinstance(model, bytes) and len(model) > _LARGE_MODEL:
        # Packed copies of large weights would double the memory for a handful of runs.
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def reference_outputs(usual: Any, exact: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model's two sessions: the usual one's, but where the `exact` one's differ visibly those, because
    they are what the file says."""
    ours, theirs = (session.run(None, dict(feeds)) for session in (usual, exact))
    same = (np.allclose(a, b, rtol=0.0, atol=tolerance(b), equal_nan=True) for a, b in zip(ours, theirs, strict=True))
    return [np.asarray(value) for value in (ours if all(same) else theirs)]


def tolerance(reference: np.ndarray) -> float:
    """How far two evaluations may differ: relative to the largest magnitude of the tensor."""
    finite = np.abs(reference[np.isfinite(reference)].astype(np.float64))
    unit = 1e-8 if reference.dtype == np.float64 else 2e-4
    return unit * max(1e-3, float(finite.max(initial=0.0)))


class Runtime:
    """A network on onnxruntime's CPU provider, with its default optimisations unless `exact`.

    The session is made at the first run. `inputs` are the network's inputs as imported (dynamic dimensions as 1);
    `threads` is the number of threads per operator.
    """

    def __init__(
        self, model: bytes, inputs: Sequence[TensorInfo], label: str, threads: int = 1, exact: bool = False
    ) -> None:
        self._model = model
        self._inputs = tuple(inputs)
        self._label = label
        self._threads = threads
        self._exact = exact

    @cached_property
    def _session(self) -> Any:
        try:
            return make_session(self._model, self._threads, self._exact)
        except _failures() as error:
            raise ReplayError(f"{self._label}: onnxruntime cannot load the model ({_first_line(error)}).") from None

    def exactly(self) -> Runtime | None:
        """The same network without optimisations that may approximate; None if it is that already."""
        return None if self._exact else Runtime(self._model, self._inputs, self._label, self._threads, exact=True)

    @property
    def usable(self) -> bool:
        """Whether onnxruntime takes the model."""
        try:
            return self._session is not None
        except ReplayError:
            return False

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]:
        """The network's outputs at one point.

        `points` holds one array a network input, of that input's size in any shape; values are converted to the
        input's element type. Raises `ReplayError` if onnxruntime refuses the model or fails at the point.
        """
        session = self._session
        feed = {}
        for info, point in zip(self._inputs, points, strict=True):
            array = np.ascontiguousarray(point, dtype=info.dtype)
            if array.size != int(np.prod(info.shape, dtype=np.int64)):
                raise ReplayError(
                    f"{self._label}: input {info.name} takes shape {list(info.shape)}, not {list(array.shape)}."
                )
            feed[info.name] = array.reshape(info.shape)
        try:
            return tuple(np.asarray(value) for value in session.run(None, feed))
        except _failures() as error:
            raise ReplayError(f"{self._label}: onnxruntime fails at this input ({_first_line(error)}).") from None


class OwnRuntime:
    """A graph as imported, before simplification, as its own reference, for operators onnxruntime does not have."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def exactly(self) -> None:
        """There is no other way to run it."""

    def run(self, *points: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs at one point, one array an input, of its size in any shape."""
        nodes = [self._graph.nodes[index] for index in self._graph.inputs]
        made = evaluate(
            self._graph,
            [np.asarray(point).reshape(1, *node.shape) for point, node in zip(points, nodes, strict=True)],
        )
        return tuple(value[0] for value in made)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
