"""Convolution and its transpose, over one, two or three spatial axes, for numpy arrays and torch tensors.

The map is ONNX's `Conv` without its bias: ``x`` ``[M, C, *spatial]``, ``weight`` ``[O, C/groups, *kernel]``,
``pads`` in ONNX order (all begins, then all ends), result ``[M, O, *out]``. `convolve_adjoint` is its exact transpose,
which is also ONNX's `ConvTranspose`. numpy goes through patches and one matrix product; torch (imported on first use)
through its own kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array

PATCH_BYTES = 2 << 20
"""Patches of this many bytes are made at a time: more would leave the cache, fewer would make the products small."""


@dataclass(frozen=True)
class Window:
    """How a kernel moves: strides and dilations an axis, pads as begins then ends, number of groups."""

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.strides)

    def padded(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Spatial sizes with the padding."""
        return tuple(n + self.pads[k] + self.pads[k + self.rank] for k, n in enumerate(spatial))

    def output(self, spatial: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
        """Spatial sizes of the result."""
        return tuple(
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(self.padded(spatial), kernel, self.strides, self.dilations, strict=True)
        )


def convolve(x: Array, weight: Array, window: Window) -> Array:
    """``[M, C, *spatial]`` to ``[M, O, *out]``."""
    if isinstance(x, np.ndarray):
        return _convolve_numpy(x, weight, window)
    return _convolve_torch(x, weight, window)


def convolve_adjoint(a: Array, weight: Array, spatial: Sequence[int], window: Window) -> Array:
    """The transpose of `convolve` on inputs of the given spatial sizes: ``[M, O, *out]`` to ``[M, C, *spatial]``."""
    if isinstance(a, np.ndarray):
        return _adjoint_numpy(a, weight, tuple(spatial), window)
    return _adjoint_torch(a, weight, tuple(spatial), window)


# --- numpy -----------------------------------------------------------------------------------------------------------


def _taps(kernel: Sequence[int]) -> list[tuple[int, ...]]:
    """All positions in the kernel, the last axis fastest."""
    return list(np.ndindex(*kernel))


def _tap_slices(tap: Sequence[int], out: Sequence[int], window: Window) -> tuple[slice, ...]:
    """The entries of the padded input that one kernel position meets."""
    return tuple(
        slice(t * d, t * d + s * (n - 1) + 1, s)
        for t, n, s, d in zip(tap, out, window.strides, window.dilations, strict=True)
    )


def _chunk(rows: int, bytes_per_row: int) -> int:
    return max(1, min(rows, PATCH_BYTES // max(1, bytes_per_row)))


def _convolve_numpy(x: np.ndarray, weight: np.ndarray, window: Window) -> np.ndarray:
    count, channels, *spatial = x.shape
    outputs, group_channels, *kernel = weight.shape
    out = window.output(spatial, kernel)
    groups, area, taps = window.groups, math.prod(out), _taps(kernel)
    matrix = weight.reshape(groups, outputs // groups, group_channels * len(taps))
    result = np.empty((count, outputs, *out), dtype=np.result_type(x, weight))
    step = _chunk(count, channels * len(taps) * area * x.itemsize)
    for start in range(0, count, step):
        part = _pad_numpy(x[start : start + step], window)
        patches = np.empty((part.shape[0], channels, len(taps), *out), dtype=x.dtype)
        for position, tap in enumerate(taps):
            patches[:, :, position] = part[(slice(None), slice(None), *_tap_slices(tap, out, window))]
        columns = patches.reshape(part.shape[0], groups, group_channels * len(taps), area)
        result[start : start + step] = np.matmul(matrix, columns).reshape(part.shape[0], outputs, *out)
    return result


def _pad_numpy(x: np.ndarray, window: Window) -> np.ndarray:
    if not any(window.pads):
        return x
    padded = np.zeros((*x.shape[:2], *window.padded(x.shape[2:])), dtype=x.dtype)
    padded[_inside(x.shape[2:], window)] = x
    return padded


def _inside(spatial: Sequence[int], window: Window) -> tuple[slice, ...]:
    """The unpadded part of a padded array."""
    core = (slice(begin, begin + n) for begin, n in zip(window.pads, spatial, strict=False))
    return (slice(None), slice(None), *core)


def _adjoint_numpy(a: np.ndarray, weight: np.ndarray, spatial: tuple[int, ...], window: Window) -> np.ndarray:
    count, outputs, *out = a.shape
    _, group_channels, *kernel = weight.shape
    groups, area, taps = window.groups, math.prod(out), _taps(kernel)
    channels = group_channels * groups
    matrix = weight.reshape(groups, outputs // groups, group_channels * len(taps)).transpose(0, 2, 1)
    result = np.empty((count, channels, *spatial), dtype=np.result_type(a, weight))
    step = _chunk(count, channels * len(taps) * area * a.itemsize)
    for start in range(0, count, step):
        # Images last: one large product for all of the chunk, and taps that are long stretches of memory.
        part = a[start : start + step]
        images = part.shape[0]
        columns = np.ascontiguousarray(part.reshape(images, -1).T).reshape(groups, outputs // groups, area * images)
        patches = np.matmul(matrix, columns).reshape(channels, len(taps), *out, images)
        total = np.zeros((channels, *window.padded(spatial), images), dtype=result.dtype)
        for position, tap in enumerate(taps):
            total[(slice(None), *_tap_slices(tap, out, window))] += patches[:, position]
        inside = total[_inside(spatial, window)[1:]]
        result[start : start + step] = inside.reshape(-1, images).T.reshape(images, channels, *spatial)
    return result


# --- torch -----------------------------------------------------------------------------------------------------------


def _convolve_torch(x: Array, weight: Array, window: Window) -> Array:
    import torch.nn.functional as functional

    rank = window.rank
    convolution: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    begins, ends = window.pads[:rank], window.pads[rank:]
    if begins != ends:
        x = functional.pad(x, _torch_pads(begins, ends))
        begins = (0,) * rank
    return convolution(x, weight, None, window.strides, begins, window.dilations, window.groups)


def _torch_pads(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """torch lists paddings from the last axis to the first, begin and end together."""
    return [pad for begin, end in zip(reversed(begins), reversed(ends), strict=True) for pad in (begin, end)]


def _adjoint_torch(a: Array, weight: Array, spatial: tuple[int, ...], window: Window) -> Array:
    import torch.nn.functional as functional

    rank = window.rank
    transpose: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
    reached = tuple(
        (n - 1) * s + d * (k - 1) + 1
        for n, k, s, d in zip(a.shape[2:], weight.shape[2:], window.strides, window.dilations, strict=True)
    )
    beyond = tuple(n - r for n, r in zip(window.padded(spatial), reached, strict=True))
    begins, ends = window.pads[:rank], window.pads[rank:]
    if begins == ends and all(
        extra < max(s, d) for extra, s, d in zip(beyond, window.strides, window.dilations, strict=True)
    ):
        return transpose(a, weight, None, window.strides, begins, beyond, window.groups, window.dilations)
    full = transpose(a, weight, None, window.strides, (0,) * rank, (0,) * rank, window.groups, window.dilations)
    crop_ends = tuple(extra - end for extra, end in zip(beyond, ends, strict=True))
    return functional.pad(full, _torch_pads(tuple(-begin for begin in begins), crop_ends))
