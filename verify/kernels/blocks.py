"""The transpose of a convolution (or of a transposed one) between chosen entries of its output and of its input, as a
few dense products.

Most neurons of a ReLU network are inactive on a box, so that backward coefficients are only needed between the live
ones. The input is cut into blocks of pixels; the live entries of a block depend on the live entries of a small window
of the output by a matrix that is cut from one *template* (the same for all blocks, as convolution is the same
everywhere). Values are ``[entries, rows]``, rows last: gathering entries copies long contiguous stretches. numpy, two
spatial axes, one group.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .convolution import Window

_COPY, _CALL = 40.0, 10000.0
"""What copying a number and calling a product cost, in multiply-add operations of a row (measured on one core of 2026
with chunks of about 64 rows); they only choose the blocks' size."""

_LARGEST_TEMPLATE = 4 << 20
"""Numbers in a template at most."""


@dataclass(frozen=True, eq=False)
class Template:
    """How one block of ``block`` input pixels depends on the ``reach`` output pixels that meet it.

    matrix   ``[C * block pixels, O * reach pixels]``.
    first    output pixel at which the first block's reach begins (often negative); the next block's begins ``advance``
             further on.
    """

    matrix: np.ndarray
    block: tuple[int, int]
    reach: tuple[int, int]
    first: tuple[int, int]
    advance: tuple[int, int]


class Part(NamedTuple):
    """``result[to] = matrix @ values[of]``."""

    to: np.ndarray
    of: np.ndarray
    matrix: np.ndarray


def make_template(weight: np.ndarray, spatial: tuple[int, int], window: Window) -> Template:
    """The template of a convolution with weight ``[O, C, kh, kw]`` on inputs of the given spatial sizes."""
    sizes = [_side(spatial[axis], weight.shape[2 + axis], window, axis) for axis in (0, 1)]
    outputs, channels = weight.shape[:2]
    (bh, first_y, rh), (bw, first_x, rw) = _best(sizes, outputs, channels, spatial)
    matrix = np.zeros((channels, bh, bw, outputs, rh, rw), dtype=weight.dtype)
    for ky in range(weight.shape[2]):
        for kx in range(weight.shape[3]):
            for u in range(rh):
                y = (first_y + u) * window.strides[0] + ky * window.dilations[0] - window.pads[0]
                if not 0 <= y < bh:
                    continue
                for v in range(rw):
                    x = (first_x + v) * window.strides[1] + kx * window.dilations[1] - window.pads[1]
                    if 0 <= x < bw:
                        matrix[:, y, x, :, u, v] = weight[:, :, ky, kx].T
    return Template(
        matrix.reshape(channels * bh * bw, outputs * rh * rw),
        (bh, bw),
        (rh, rw),
        (first_y, first_x),
        (bh // window.strides[0], bw // window.strides[1]),
    )


def make_enlarging_template(weight: np.ndarray, spatial: tuple[int, int], window: Window) -> Template:
    """The template of a transposed convolution with weight ``[C, O, kh, kw]`` on inputs of the given spatial sizes."""
    channels, outputs = weight.shape[:2]
    reaches = [(weight.shape[2 + axis] - 1) * window.dilations[axis] + 1 for axis in (0, 1)]
    sizes = [
        [
            (block, -window.pads[axis], (block - 1) * window.strides[axis] + reaches[axis])
            for block in _powers(1, spatial[axis])
        ]
        for axis in (0, 1)
    ]
    (bh, first_y, rh), (bw, first_x, rw) = _best(sizes, outputs, channels, spatial)
    matrix = np.zeros((channels, bh, bw, outputs, rh, rw), dtype=weight.dtype)
    for y in range(bh):
        for x in range(bw):
            down, right = (
                slice(first * stride, first * stride + reach, dilation)
                for first, stride, reach, dilation in zip(
                    (y, x), window.strides, reaches, window.dilations, strict=True
                )
            )
            matrix[:, y, x, :, down, right] = weight
    return Template(
        matrix.reshape(channels * bh * bw, outputs * rh * rw),
        (bh, bw),
        (rh, rw),
        (first_y, first_x),
        (bh * window.strides[0], bw * window.strides[1]),
    )


_Side = tuple[int, int, int]
"""A block along one axis: its size, where its reach begins and how long it is."""


def _best(sizes: list[list[_Side]], outputs: int, channels: int, spatial: tuple[int, int]) -> tuple[_Side, _Side]:
    """The cheapest block of the choices along both axes."""
    return min(
        ((down, right) for down in sizes[0] for right in sizes[1]),
        key=lambda pair: _cost(pair, outputs, channels, spatial),
    )


def _powers(first: int, size: int) -> list[int]:
    """A block's sizes: the first one, doubled until it covers the axis."""
    blocks = [first]
    while blocks[-1] < size:
        blocks.append(2 * blocks[-1])
    return blocks


def _side(size: int, kernel: int, window: Window, axis: int) -> list[_Side]:
    """Choices of a block along one axis."""
    stride, dilation, pad = window.strides[axis], window.dilations[axis], window.pads[axis]
    first = math.ceil((pad - (kernel - 1) * dilation) / stride)
    return [(block, first, (block - 1 + pad) // stride - first + 1) for block in _powers(stride, size)]


def _cost(pair: tuple[_Side, _Side], outputs: int, channels: int, spatial: tuple[int, int]) -> float:
    (bh, _, rh), (bw, _, rw) = pair
    if channels * bh * bw * outputs * rh * rw > _LARGEST_TEMPLATE:
        return math.inf
    blocks = math.ceil(spatial[0] / bh) * math.ceil(spatial[1] / bw)
    return blocks * (channels * bh * bw * outputs * rh * rw + _COPY * (outputs * rh * rw + channels * bh * bw) + _CALL)


def choose(
    template: Template,
    to: np.ndarray,
    of: np.ndarray,
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> list[Part]:
    """The products from output entries `of` to input entries `to` (sorted flat indices into ``shapes``: of the input
    ``(C, H, W)``, then of the output ``(O, H', W')``). Every entry of `to` is in exactly one part."""
    (_, height, width), (outputs, tall, wide) = shapes
    (bh, bw), (rh, rw) = template.block, template.reach
    across = math.ceil(width / bw)
    channel, pixel = np.divmod(to, height * width)
    y, x = np.divmod(pixel, width)
    block = (y // bh) * across + x // bw
    row = (channel * bh + y % bh) * bw + x % bw
    order = np.argsort(block, kind="stable")
    block, row = block[order], row[order]
    starts = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
    if len(to) == 0:
        return []
    down, right = np.divmod(block[starts[:-1]], across)
    places = _places(template, of, (outputs, tall, wide), math.ceil(height / bh), across)
    windows = np.lib.stride_tricks.sliding_window_view(places, (rh, rw), axis=(1, 2))
    seen = windows[:, down * template.advance[0], right * template.advance[1]].swapaxes(0, 1).reshape(len(down), -1)
    number, columns = (seen >= 0).nonzero()
    ends = np.searchsorted(number, np.arange(len(down) + 1)).tolist()
    sources = seen[number, columns]
    parts = []
    for k, (start, stop) in enumerate(itertools.pairwise(starts)):
        here = slice(ends[k], ends[k + 1])
        # A block all of whose entries are wanted has them in the template's order.
        matrix = template.matrix if stop - start == len(template.matrix) else template.matrix[row[start:stop]]
        parts.append(Part(order[start:stop], sources[here], matrix.take(columns[here], axis=1)))
    return parts


def _places(template: Template, of: np.ndarray, shape: tuple[int, int, int], down: int, across: int) -> np.ndarray:
    """For every output entry that some block's reach meets, its place in `of` or -1: ``[O, H'', W'']``, beginning with
    the first block's reach."""
    outputs, tall, wide = shape
    (rh, rw), (first_y, first_x), (step_y, step_x) = template.reach, template.first, template.advance
    inner = np.full(outputs * tall * wide, -1)
    inner[of] = np.arange(len(of))
    above, before = max(0, -first_y), max(0, -first_x)
    high = max((down - 1) * step_y + rh + first_y, tall) + above
    broad = max((across - 1) * step_x + rw + first_x, wide) + before
    places = np.full((outputs, high, broad), -1)
    places[:, above : above + tall, before : before + wide] = inner.reshape(shape)
    return places[:, first_y + above :, first_x + before :]


def apply(parts: list[Part], values: np.ndarray, count: int) -> np.ndarray:
    """``[entries of the output, R]`` to ``[count entries of the input, R]``."""
    result = np.empty((count, values.shape[1]), dtype=values.dtype)
    for to, of, matrix in parts:
        result[to] = matrix @ values[of]
    return result
