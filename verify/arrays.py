"""Where arrays live: numpy on the CPU (starts in milliseconds) or torch on a device (training, GPUs)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .graph import Array, Graph


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
        """Floating-point values in this backend's dtype; index arrays keep theirs."""
        if self.device is None:
            return values.astype(self.dtype, copy=False) if values.dtype.kind == "f" else values
        import torch

        # The network's own arrays are read-only views of the file; torch wants to own what it shares.
        tensor = torch.tensor(values, device=self.device)
        return tensor.to(getattr(torch, self.dtype)) if tensor.dtype.is_floating_point else tensor

    def graph(self, graph: Graph) -> Graph:
        """The graph with its parameters in this backend."""
        return graph.map_params(self.array)

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


def options_like(x: Array) -> dict[str, Any]:
    """Keyword arguments that create an array on the device of `x`."""
    return {} if isinstance(x, np.ndarray) else {"device": x.device}
