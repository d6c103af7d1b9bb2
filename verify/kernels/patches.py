"""Rows of coefficients on a small window of an image: the backward step of convolutions before the window has grown
to the whole layer (numpy, two spatial axes).

A row that starts at one neuron of a convolution touches a window below it whose size is the same for all neurons; only
its place differs. Arrays of values are ``[height, width, channels, rows]``: rows last, so that folding the
columns of a product into overlapping windows adds long contiguous stretches. Tables of per-neuron numbers are
``[height, width, channels]`` for the same reason.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .convolution import Window


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
    """The sum of two sets of rows on one layer, on the smallest window that holds both; None where the windows lie
    apart by distances that differ from row to row."""
    down, right = second.top - first.top, second.left - first.left
    if len(down) and (np.ptp(down) or np.ptp(right)):
        return None
    y, x = (int(down[0]), int(right[0])) if len(down) else (0, 0)
    corner = (min(0, y), min(0, x))
    height = max(first.height, y + second.height) - corner[0]
    width = max(first.width, x + second.width) - corner[1]
    total = np.zeros((height, width, *first.values.shape[2:]), dtype=first.values.dtype)
    for one, (dy, dx) in ((first, (-corner[0], -corner[1])), (second, (y - corner[0], x - corner[1]))):
        total[dy : dy + one.height, dx : dx + one.width] += one.values
    return Patches(total, first.top + corner[0], first.left + corner[1], first.overhangs or second.overhangs)
