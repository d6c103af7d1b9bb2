"""`Take`: every entry of the output is one entry of the input, or a constant.

Slices, gathers with constant indices, splits, expansions, tiles, pads and nearest-neighbour resizes are all this
operator.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, to_numpy
from ..rounding import worst_case
from .arrays import index_parameter, zeros_like_shape
from .rule import Interval, LinearRule, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node


def _fill(node: Node) -> float:
    return float(node.attributes.get("fill", 0.0))


def _block_start(indices: np.ndarray) -> int | None:
    """Where the block of consecutive entries starts that ``indices`` names, or None if it names something else."""
    start = int(indices[0])
    if start < 0 or int(indices[-1]) - start != indices.size - 1:
        return None
    return start if np.array_equal(indices, np.arange(start, start + indices.size)) else None


def _pick(node: Node, x: Array, fill: float) -> Array:
    """Entries of ``x`` ``[B, *input_shape]`` by flat index as ``[B, *shape]``; `fill` where the index is negative."""
    xp = array_namespace(x)
    shape = (x.shape[0], *node.shape)
    flat = x.reshape(x.shape[0], -1)
    indices = index_parameter(node, "indices", x).reshape(-1)
    if isinstance(x, np.ndarray) and indices.size:
        start = _block_start(indices)
        if start is not None:
            return flat[:, start : start + indices.size].reshape(shape)
        if indices.min() >= 0:
            return flat.take(indices, axis=1).reshape(shape)
    if flat.shape[1] == 0 or 0 in shape:
        return zeros_like_shape(shape, x) + fill
    return xp.where(indices < 0, fill, xp.take(flat, indices.clip(0), axis=1)).reshape(shape)


def _scatter_add_numpy(a: np.ndarray, indices: np.ndarray, size: int) -> np.ndarray:
    """``result[:, indices[j]] += a[:, j]`` for ``a`` ``[R, m]``, negative indices dropped; result ``[R, size]``."""
    result = np.zeros((a.shape[0], size), dtype=a.dtype)
    if not indices.size:
        return result
    start = _block_start(indices)
    if start is not None:
        result[:, start : start + indices.size] = a
        return result
    source = np.full(size + 1, -1)
    source[indices] = np.arange(indices.size)  # index -1 falls on the extra entry
    hit = source[:size] >= 0
    if np.count_nonzero(hit) == np.count_nonzero(indices >= 0):
        if hit.all():
            return a.take(source[:size], axis=1)
        return np.where(hit, a.take(source[:size].clip(0), axis=1), a.dtype.type(0))
    order = np.argsort(indices, kind="stable")
    order = order[np.searchsorted(indices[order], 0) :]
    firsts = np.flatnonzero(np.diff(indices[order], prepend=-1))
    result[:, hit] = np.add.reduceat(a.take(order, axis=1), firsts, axis=1)
    return result


def _scatter_add_torch(a: Array, indices: Array, size: int) -> Array:
    """As `_scatter_add_numpy`; negative indices go to one extra column that is cut off."""
    columns = (indices < 0) * (size - indices) + indices
    return a.new_zeros((a.shape[0], size + 1)).index_add(1, columns, a)[:, :size]


def _take(node: Node, xs: Sequence[Array]) -> Array:
    return _pick(node, xs[0], _fill(node))


def _take_linear(node: Node, xs: Sequence[Array]) -> Array:
    return _pick(node, xs[0], 0.0)


def _take_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    return _pick(node, lower, _fill(node)), _pick(node, upper, _fill(node))


def _take_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    shape = node.input_shapes[0]
    flat = a.reshape(a.shape[0], -1)
    indices = index_parameter(node, "indices", a).reshape(-1)
    scatter = _scatter_add_numpy if isinstance(a, np.ndarray) else _scatter_add_torch
    return (scatter(flat, indices, math.prod(shape)).reshape(a.shape[0], *shape),)


def _take_bias(node: Node) -> Array | None:
    """The fill where the index is negative, in float64.

    An infinite fill (the padding of a max-pool) is stated as the largest float32: relaxations give such entries
    slope 0, and ``0 * inf`` would poison the sum that this enters.
    """
    fill = _fill(node)
    indices = node.params["indices"]
    padded = indices < 0
    if fill == 0.0 or not bool(padded.any()):
        return None
    largest = 3.4028234663852886e38
    xp = array_namespace(indices)
    return xp.astype(padded, xp.float64) * max(-largest, min(largest, fill))


def _take_sums(node: Node) -> tuple[int, int]:
    """How often one entry of the input is taken."""
    indices = to_numpy(node.params["indices"]).reshape(-1)
    taken = indices[indices >= 0]
    return 1, worst_case(int(np.bincount(taken).max())) if taken.size else 1


TAKE = LinearRule(
    apply=_take,
    apply_linear=_take_linear,
    magnitude=_take_linear,
    adjoint=_take_adjoint,
    bias=_take_bias,
    sums=_take_sums,
)

ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Take": OpRule(
            evaluate=_take, interval=_take_interval, linear=TAKE, summary="Entries picked by constant flat indices."
        )
    }
)
