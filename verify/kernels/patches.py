"""Rows of coefficients on a small window of an image: the backward step of convolutions before the window has grown
to the whole layer (numpy, two spatial axes).

A row that starts at one neuron of a convolution touches a window below it whose size is the same for all neurons; only
its place differs. Arrays of values are ``[height, width, channels, rows]``: rows last, so that folding the
columns of a product into overlapping windows adds long contiguous stretches. Tables of per-neuron numbers are
``[height, width, channels]`` for the same reason.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from .convolution import Window

DISTANCES = 16
"""Different distances between two sets of windows up to which they are added up: below a transposed convolution with
stride 2 there are four, below two of them sixteen."""


class Patches(NamedTuple):
    """Coefficients ``[height, width, channels, rows]`` on windows whose first pixel is ``(top, left)``.

    top, left    integers ``[rows]``; a window may hang over the edges of the layer.
    overhangs    whether coefficients outside of the layer may be other than 0. They stand for padding and count
                 nothing, so `within` clears them before anything reads them.
    """

    values: np.ndarray
    top: np.ndarray
    left: np.ndarray
    overhangs: bool

    @property
    def height(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def within(self, spatial: tuple[int, int]) -> Patches:
        """The same rows with zeros outside of the layer."""
        if not self.overhangs:
            return self
        values = self.values
        rows = self.top + np.arange(self.height)[:, None]
        columns = self.left + np.arange(self.width)[:, None]
        inside_rows = (rows >= 0) & (rows < spatial[0])
        inside_columns = (columns >= 0) & (columns < spatial[1])
        if not (inside_rows.all() and inside_columns.all()):
            values = values * (inside_rows[:, None] & inside_columns[None])[:, :, None]
        return self._replace(values=values, overhangs=False)


def kernel_matrix(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """A convolution's weight ``[O, C / groups, kh, kw]`` as the matrices ``[groups, kh * kw * C / groups, O / groups]``
    that `fold` takes."""
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    return np.ascontiguousarray(apart.transpose(0, 3, 4, 2, 1).reshape(groups, -1, apart.shape[1]))


def fold(values: np.ndarray, matrix: np.ndarray, kernel: tuple[int, int], window: Window) -> np.ndarray:
    """The transpose of a convolution on windows of its output: ``[h, w, O, R]`` to ``[h', w', C, R]``.

    The result begins ``pads`` before the pixel ``stride * first pixel``; nothing is cut off.
    """
    height, width, _, rows = values.shape
    columns = _columns(values, matrix, kernel)
    channels = columns.shape[4]
    (down, right), (apart, aside) = window.strides, window.dilations
    if height == width == apart == aside == 1:
        return columns.reshape(*kernel, channels, rows)
    tall, wide = (height - 1) * down + 1, (width - 1) * right + 1
    result = np.zeros(
        (tall + (kernel[0] - 1) * apart, wide + (kernel[1] - 1) * aside, channels, rows), dtype=columns.dtype
    )
    for y in range(kernel[0]):
        for x in range(kernel[1]):
            result[y * apart : y * apart + tall : down, x * aside : x * aside + wide : right] += columns[:, :, y, x]
    return result


def _columns(values: np.ndarray, matrix: np.ndarray, kernel: tuple[int, int]) -> np.ndarray:
    """What every output pixel gives to the input pixels it sees, ``[h, w, kh, kw, C, R]``."""
    height, width, _, rows = values.shape
    groups, seen, each = matrix.shape
    if groups == 1:
        return np.matmul(matrix[0], values).reshape(height, width, *kernel, -1, rows)
    if each == 1 and seen == kernel[0] * kernel[1]:
        # One channel a group (average pooling): products of one number each.
        return matrix[:, :, 0].T.reshape(*kernel, groups, 1) * values[:, :, None, None]
    apart = np.matmul(matrix, values.reshape(height, width, groups, each, rows))
    apart = apart.reshape(height, width, groups, *kernel, -1, rows).transpose(0, 1, 3, 4, 2, 5, 6)
    return apart.reshape(height, width, *kernel, -1, rows)


def through_convolution(patches: Patches, matrix: np.ndarray, kernel: tuple[int, int], window: Window) -> Patches:
    """Carry rows without overhang from a convolution's output to its input."""
    return Patches(
        fold(patches.values, matrix, kernel, window),
        patches.top * window.strides[0] - window.pads[0],
        patches.left * window.strides[1] - window.pads[1],
        True,
    )


def look_up(tables: np.ndarray, patches: Patches) -> np.ndarray:
    """The entries of tables ``[T, H, W, C]`` under every window: ``[T, h, w, C, rows]``, 0 outside of the layer."""
    height, width = patches.height, patches.width
    margins = []
    for first, size, limit in ((patches.top, height, tables.shape[1]), (patches.left, width, tables.shape[2])):
        margins.append((max(0, -int(first.min())), max(0, int(first.max()) + size - limit)))
    count, high, wide, channels = tables.shape
    (above, below), (before, after) = margins
    if above or below or before or after:
        padded = np.zeros((count, above + high + below, before + wide + after, channels), dtype=tables.dtype)
        padded[:, above : above + high, before : before + wide] = tables
    else:
        padded = np.ascontiguousarray(tables)
    each, down, right, entry = padded.strides
    view = np.lib.stride_tricks.as_strided(
        padded,
        (count, padded.shape[1] - height + 1, padded.shape[2] - width + 1, height, width, channels),
        (each, down, right, down, right, entry),
        writeable=False,
    )
    found = view[:, patches.top + above, patches.left + before]
    return np.ascontiguousarray(found.transpose(0, 2, 3, 4, 1))


def spread_out(patches: Patches, spatial: tuple[int, int]) -> np.ndarray:
    """The rows on the whole layer, ``[H, W, C, rows]``; what hangs over the edges is dropped."""
    values = patches.values
    full = np.zeros((*spatial, *values.shape[2:]), dtype=values.dtype)
    place = patches.top * (1 << 32) + patches.left
    starts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(place)]
    for start, stop in itertools.pairwise(starts):
        top, left = int(patches.top[start]), int(patches.left[start])
        y, x = max(0, top), max(0, left)
        bottom, right = min(spatial[0], top + patches.height), min(spatial[1], left + patches.width)
        if y < bottom and x < right:
            part = values[y - top : bottom - top, x - left : right - left]
            full[y:bottom, x:right, ..., start:stop] = part[..., start:stop]
    return full


def joined(first: Patches, second: Patches) -> Patches | None:
    """The sum of two sets of rows on one layer, on the smallest window that holds both for every row; None where the
    windows lie apart by distances too different from row to row."""
    down, right = second.top - first.top, second.left - first.left
    if len(_runs_of(down, right)) > DISTANCES:
        return None
    corners = []
    sizes = []
    for apart, one, other in ((down, first.height, second.height), (right, first.width, second.width)):
        low, high = (int(apart.min()), int(apart.max())) if len(apart) else (0, 0)
        corners.append(min(0, low))
        sizes.append(max(one, high + other) - min(0, low))
    total = np.zeros((*sizes, *first.values.shape[2:]), dtype=first.values.dtype)
    _put(total, first.values, np.full_like(down, -corners[0]), np.full_like(right, -corners[1]))
    _put(total, second.values, down - corners[0], right - corners[1])
    return Patches(total, first.top + corners[0], first.left + corners[1], first.overhangs or second.overhangs)


def _runs_of(down: np.ndarray, right: np.ndarray) -> list[tuple[int, int]]:
    """The distinct pairs of distances."""
    return sorted(set(zip(down.tolist(), right.tolist(), strict=True)))


def _put(total: np.ndarray, values: np.ndarray, down: np.ndarray, right: np.ndarray) -> None:
    """Add windows ``[h, w, C, rows]`` to larger ones, each row's at its own place; what lies outside is dropped."""
    for dy, dx in _runs_of(down, right):
        rows = np.flatnonzero((down == dy) & (right == dx))
        some: slice | np.ndarray = slice(None) if len(rows) == values.shape[3] else rows
        y, x = max(0, dy), max(0, dx)
        bottom, end = min(total.shape[0], dy + values.shape[0]), min(total.shape[1], dx + values.shape[1])
        if y < bottom and x < end:
            total[y:bottom, x:end, :, some] += values[y - dy : bottom - dy, x - dx : end - dx][..., some]


# --- operators that enlarge an image ---------------------------------------------------------------------------------


def enlarging_matrix(weight: np.ndarray) -> np.ndarray:
    """A transposed convolution's weight ``[C, O, kh, kw]`` as the matrix ``[C, kh * kw * O]`` that
    `through_transposed` takes."""
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(weight.shape[0], -1))


def through_transposed(patches: Patches, matrix: np.ndarray, kernel: tuple[int, int], window: Window) -> Patches:
    """Carry rows without overhang from a transposed convolution's output to its input (one group)."""
    taps, top, left = _taps_of(patches, kernel, window)
    columns = np.stack(taps, axis=2)
    high, wide, _, _, rows = columns.shape
    return Patches(np.matmul(matrix, columns.reshape(high, wide, -1, rows)), top, left, True)


def through_repeated(patches: Patches, factors: tuple[int, int]) -> Patches:
    """Carry rows without overhang from an image, whose pixels are those of a smaller one repeated, to that."""
    taps, top, left = _taps_of(patches, factors, Window(factors, (0, 0, 0, 0), (1, 1)))
    return Patches(np.sum(taps, axis=0), top, left, True)


def _taps_of(
    patches: Patches, kernel: tuple[int, int], window: Window
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """For every position in the kernel, the coefficients ``[h', w', O, R]`` of the output pixels that it takes a window
    of input pixels to, and where the windows of input pixels begin.

    Pixel i of the input reaches the pixels ``i * stride + k * dilation - pad`` of the output, so that rows whose
    windows begin at different remainders by the stride lie differently within windows of the input's.
    """
    starts, places, counts, lengths = [], [], [], []
    for axis, (first, size) in enumerate(((patches.top, patches.height), (patches.left, patches.width))):
        stride, reach = window.strides[axis], (kernel[axis] - 1) * window.dilations[axis]
        start = -((reach - first - window.pads[axis]) // stride)
        last = (first + size - 1 + window.pads[axis]) // stride
        count = max(1, int((last - start).max()) + 1) if len(first) else 1
        starts.append(start)
        places.append(first - (start * stride - window.pads[axis]))
        counts.append(count)
        lengths.append((count - 1) * stride + reach + 1)
    frame = np.zeros((*lengths, *patches.values.shape[2:]), dtype=patches.values.dtype)
    _put(frame, patches.values, *places)
    taps = []
    for y in range(0, kernel[0] * window.dilations[0], window.dilations[0]):
        for x in range(0, kernel[1] * window.dilations[1], window.dilations[1]):
            rows = slice(y, y + (counts[0] - 1) * window.strides[0] + 1, window.strides[0])
            taps.append(frame[rows, x : x + (counts[1] - 1) * window.strides[1] + 1 : window.strides[1]])
    return taps, starts[0], starts[1]
