"""Where arrays live: numpy on the CPU (starts in milliseconds) or torch on a device (training, GPUs)."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UnsupportedError
from .rounding import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Array, Graph, Node

REST, ERROR = "_rest", "_error"
"""What names of parameters end with that say what another one leaves out, or may be off by."""


def array_namespace(*arrays: Array) -> Any:
    """The array API namespace of the arguments: numpy itself, or torch's as `array_api_compat` completes it.

    (numpy 2 is its own namespace, and start-up is a tenth of a second shorter without the compatibility layer for it.)
    """
    if all(isinstance(x, np.ndarray | np.generic) for x in arrays):
        return np
    import array_api_compat.torch

    return array_api_compat.torch


def out_of_memory_errors() -> tuple[type[BaseException], ...]:
    """The exceptions that say that an allocation failed, of the libraries in use."""
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Backend:
    """A library, device and dtype to compute with. device None is numpy."""

    dtype: str = "float32"
    device: str | None = None

    def array(self, values: np.ndarray) -> Array:
        """Floating-point values in this backend's dtype; index arrays keep theirs, as live parameters do."""
        if not isinstance(values, np.ndarray):
            return values
        if self.device is None:
            return values.astype(self.dtype, copy=False) if values.dtype.kind == "f" else values
        import torch

        # The network's own arrays are read-only views of the file; torch wants to own what it shares.
        tensor = torch.tensor(values, device=self.device)
        return tensor.to(getattr(torch, self.dtype)) if tensor.dtype.is_floating_point else tensor

    def graph(self, graph: Graph) -> Graph:
        """The graph with its parameters in this backend.

        Rounding a parameter changes it by less than a unit roundoff of itself, which is what passes allow for. What it
        leaves of a float64 one stays beside it as ``<key>_rest``, in float64, so that `in_double` finds the network's
        own numbers again.
        """
        nodes = tuple(self._rounded(node) for node in graph.nodes) if self.dtype == "float32" else graph.nodes
        return replace(graph, nodes=nodes).map_named(self._parameter)

    def _rounded(self, node: Node) -> Node:
        """The node with what rounding its parameters to float32 leaves out."""
        extra = {}
        for key, value in node.params.items():
            if not isinstance(value, np.ndarray) or value.dtype != np.float64 or key.endswith((REST, ERROR)):
                continue
            with np.errstate(all="ignore"):
                rest = value - value.astype(np.float32)
            if not rest.any():
                continue
            extra[key + REST] = rest
            lost = np.where(abs(rest) > ELEMENT_TYPES["float32"].unit * abs(value), abs(rest), 0.0)
            if node.op != "Constant" and lost.any():
                # It underflows, which no allowance is relative to.
                extra[key + ERROR] = (lost + node.params.get(key + ERROR, 0.0)) * (1.0 + 2.0**-40)
        return replace(node, params=MappingProxyType({**node.params, **extra})) if extra else node

    def _parameter(self, key: str, values: np.ndarray) -> Array:
        return Backend("float64", self.device).array(values) if key.endswith(REST) else self.array(values)

    def box(self, lower: np.ndarray, upper: np.ndarray) -> tuple[Array, Array]:
        """A float64 box rounded outward to this backend's dtype."""
        kind = np.dtype(self.dtype).type
        low, high = lower.astype(kind), upper.astype(kind)
        low = np.where(low.astype(np.float64) > lower, np.nextafter(low, kind(-np.inf)), low)
        high = np.where(high.astype(np.float64) < upper, np.nextafter(high, kind(np.inf)), high)
        return self.array(low), self.array(high)


def to_numpy(x: Array) -> np.ndarray:
    """The values as a numpy array on the host."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def in_double(graph: Graph) -> Graph:
    """A graph of any backend with the network's own parameters: float64 where float32 does not hold them."""

    def own(node: Node) -> Node:
        if not any(key.endswith(REST) for key in node.params):
            return node
        made = {}
        for key, value in node.params.items():
            if not key.endswith(REST):
                rest = node.params.get(key + REST)
                made[key] = value if rest is None else array_namespace(rest).astype(value, rest.dtype) + rest
        return replace(node, params=MappingProxyType(made))

    return replace(graph, nodes=tuple(own(node) for node in graph.nodes))


def choose_backend(device: str, dtype: str) -> Backend:
    """The backend for a requested device (auto, cpu or cuda).

    `auto` is the CPU: asking torch for a GPU costs seconds of start-up, more than most queries take. Raises
    `UnsupportedError` when cuda is asked for and there is none.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UnsupportedError(
                "--device cuda was asked for, but torch sees no CUDA device; "
                "use --device cpu or see `boundsmith doctor`"
            )
        return Backend(dtype, "cuda")
    return Backend(dtype)


@contextmanager
def full_precision(like: Array) -> Iterator[None]:
    """Products of torch tensors in their own element type for a while, as the allowance for rounding expects: without
    TF32, bfloat16 passes or automatic casts, whatever the program around has chosen for training."""
    if isinstance(like, np.ndarray):
        yield
        return
    import torch

    cudnn = torch.backends.cudnn
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(like.device.type, enabled=False), cudnn.flags(cudnn.enabled, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(chosen)


def options_like(x: Array) -> dict[str, Any]:
    """Keyword arguments that create an array on the device of `x`."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}
