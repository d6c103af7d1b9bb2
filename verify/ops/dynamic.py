"""Operators whose result depends on an index that the network computes: argmax, and slices, gathers and scatters at
variable positions.

Indices are whole numbers kept in the float dtype of the graph. Bounds are hulls over the index values that are
possible; there is no linear relaxation, so that `backward` answers a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arrays import array_namespace, options_like
from ..graph import Array, Node
from .arrays import bound_by_constants, same_batch, zeros_like_shape
from .convex import require
from .rule import Interval, OpRule

_SLACK = 0.01
"""Indices are whole numbers; by this much their bounds may be off through rounding."""

IntervalFunction = Callable[[Node, Sequence[Interval]], Interval]


def _constant_backward(
    interval: IntervalFunction,
) -> Callable[[Node, Sequence[Interval], Array], tuple[tuple[Array, ...], Array]]:
    """A `backward` that uses the interval of the result alone."""

    def backward(node: Node, intervals: Sequence[Interval], a: Array) -> tuple[tuple[Array, ...], Array]:
        zeros = tuple(zeros_like_shape((*a.shape[:2], *shape), a) for shape in node.input_shapes)
        return zeros, bound_by_constants(a, interval(node, intervals))

    return backward


def _whole(x: Array) -> Array:
    """The indices as integers."""
    xp = array_namespace(x)
    return xp.astype(xp.round(x), xp.int64)


def _range_like(x: Array, count: int) -> Array:
    """0, 1, ... as integers on the device of ``x``."""
    xp = array_namespace(x)
    return xp.arange(count) if isinstance(x, np.ndarray) else xp.arange(count, device=x.device)


# --- ArgMax ----------------------------------------------------------------------------------------------------------


def _argmax_axis(node: Node) -> int:
    return node.attributes["axis"] % len(node.input_shapes[0]) + 1


def _argmax(node: Node, xs: Sequence[Array]) -> Array:
    """The index as a float of the input's dtype."""
    x, axis = xs[0], _argmax_axis(node)
    xp = array_namespace(x)
    if node.attributes.get("select_last", False):
        position = x.shape[axis] - 1 - xp.argmax(xp.flip(x, axis=axis), axis=axis)
    else:
        position = xp.argmax(x, axis=axis)
    return xp.astype(position, x.dtype).reshape(-1, *node.shape)


def _argmax_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """From the first to the last index whose upper bound reaches the largest lower bound."""
    lower, upper = intervals[0]
    axis = _argmax_axis(node)
    xp = array_namespace(lower)
    possible = upper >= xp.max(lower, axis=axis, keepdims=True)
    count = lower.shape[axis]
    places = _range_like(lower, count).reshape(-1, *(1,) * (lower.ndim - 1 - axis))
    first = xp.min(xp.where(possible, places, count), axis=axis)
    last = xp.max(xp.where(possible, places, -1), axis=axis)
    return (
        xp.astype(first, lower.dtype).reshape(-1, *node.shape),
        xp.astype(last, lower.dtype).reshape(-1, *node.shape),
    )


def _zero_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return tuple(array_namespace(x).zeros_like(x) for x in xs)


# --- flat positions --------------------------------------------------------------------------------------------------


def _flat_positions(indices: Array, extents: Sequence[int]) -> Array:
    """Index vectors ``[B, *places, depth]`` to flat positions ``[B, places]``; negative ones count from the end."""
    xp = array_namespace(indices)
    vectors = _whole(indices).reshape(indices.shape[0], -1, len(extents))
    flat = xp.zeros_like(vectors[..., 0])
    for axis, extent in enumerate(extents):
        coordinate = vectors[..., axis]
        coordinate = xp.where(coordinate < 0, coordinate + extent, coordinate).clip(0, extent - 1)
        flat = flat * extent + coordinate
    return flat


def _writable(indices: Array, extents: Sequence[int]) -> Array:
    """Flat positions as `_flat_positions` has them, but one past the last for index vectors out of range."""
    xp = array_namespace(indices)
    vectors = _whole(indices).reshape(indices.shape[0], -1, len(extents))
    outside = vectors[..., 0] != vectors[..., 0]
    for axis, extent in enumerate(extents):
        outside = outside | (vectors[..., axis] < -extent) | (vectors[..., axis] >= extent)
    return xp.where(outside, math.prod(extents), _flat_positions(indices, extents))


def _require_existing(node: Node, first: Array, last: Array, extents: Sequence[int]) -> None:
    """Raise `UndefinedOnRegion` unless index vectors with these bounds ``[B, *places, depth]`` name entries that exist:
    -n to n - 1 along an axis of n; from n on nothing is meant where the node has `spare` ones."""
    xp = array_namespace(first)
    size = xp.asarray(extents, dtype=first.dtype, **options_like(first))
    inside = first > -size - 1.0 + _SLACK
    if not node.attributes.get("spare", False):
        inside = inside & (last < size - _SLACK)
    require(node, inside, "its index may lie outside of the data", about=1)


def _possible_positions(lower: Array, upper: Array, place: int, extents: Sequence[int], clamped: bool) -> Array:
    """Which flat positions ``[B, count]`` the index vector at `place` may name, by its bounds ``[B, places,
    depth]``; those out of range name none, or the nearest if `clamped`.
    """
    possible = None
    for axis, extent in enumerate(extents):
        candidates = _range_like(lower, extent)
        low, high = lower[:, place, axis, None] - _SLACK, upper[:, place, axis, None] + _SLACK
        if clamped:
            low, high = low.clip(None, extent - 1), high.clip(-extent, None)
        hit = (candidates >= low) & (candidates <= high)
        hit = hit | ((candidates - extent >= low) & (candidates - extent <= high))
        possible = hit if possible is None else (possible[:, :, None] & hit[:, None, :]).reshape(hit.shape[0], -1)
    return possible


def _batch_index(x: Array) -> Array:
    return _range_like(x, x.shape[0])[:, None]


def _hull(xp: Any, mask: Array, interval: Interval) -> Interval:
    """Least lower and largest upper bound ``[B, rest]`` over the positions of ``[B, count, rest]`` in the mask."""
    mask = mask[:, :, None]
    return (
        xp.min(xp.where(mask, interval[0], math.inf), axis=1),
        xp.max(xp.where(mask, interval[1], -math.inf), axis=1),
    )


# --- GatherND --------------------------------------------------------------------------------------------------------


def _gather_layout(node: Node) -> tuple[tuple[int, ...], int, int]:
    """Extents that are indexed, how many positions they make, and how many entries each has."""
    shape, depth = node.input_shapes[0], node.input_shapes[1][-1]
    return shape[:depth], math.prod(shape[:depth]), math.prod(shape[depth:])


def _gather(node: Node, xs: Sequence[Array]) -> Array:
    data, indices = same_batch(xs)
    extents, count, rest = _gather_layout(node)
    picked = data.reshape(-1, count, rest)[_batch_index(data), _flat_positions(indices, extents)]
    return picked.reshape(-1, *node.shape)


def _gather_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    (low, high), (first, last) = intervals
    extents, count, rest = _gather_layout(node)
    _require_existing(node, first, last, extents)
    low, high, first, last = same_batch((low, high, first, last))
    xp = array_namespace(low)
    if bool(xp.all(first == last)):
        return _gather(node, [low, first]), _gather(node, [high, first])
    data = (low.reshape(-1, count, rest), high.reshape(-1, count, rest))
    first, last = (end.reshape(end.shape[0], -1, len(extents)) for end in (first, last))
    masks = [_possible_positions(first, last, place, extents, True) for place in range(first.shape[1])]
    hulls = [_hull(xp, mask, data) for mask in masks]
    return tuple(xp.stack(ends, axis=1).reshape(-1, *node.shape) for ends in zip(*hulls, strict=True))


def _gather_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    data, indices = same_batch(xs)
    extents, count, rest = _gather_layout(node)
    zeros = zeros_like_shape((data.shape[0], count, rest), gradient)
    flat = _flat_positions(indices, extents)
    amounts = gradient.reshape(data.shape[0], -1, rest)
    return _added_at(zeros, flat, amounts).reshape(data.shape), array_namespace(xs[1]).zeros_like(indices)


def _added_at(target: Array, flat: Array, amounts: Array) -> Array:
    """``target[b, flat[b, j]] += amounts[b, j]``; `target` is a fresh array."""
    if isinstance(target, np.ndarray):
        np.add.at(target, (_batch_index(target), flat), amounts)
        return target
    return target.index_put((_batch_index(target), flat), amounts, accumulate=True)


# --- ScatterND -------------------------------------------------------------------------------------------------------


def _written(data: Array, flat: Array, updates: Array) -> Array:
    """A copy of ``data`` ``[B, count, rest]`` with ``updates`` ``[B, places, rest]`` at positions ``flat`` ``[B,
    places]``; position ``count`` is nowhere.
    """
    where = (array_namespace(data).broadcast_to(_batch_index(data), flat.shape), flat)
    result = _with_spare(data)
    if isinstance(data, np.ndarray):
        result[where] = updates
        return result[:, :-1]
    return result.index_put(where, updates)[:, :-1]


def _with_spare(data: Array) -> Array:
    """A copy of ``[B, count, rest]`` with a further position of zeros."""
    spare = zeros_like_shape((data.shape[0], 1, data.shape[2]), data)
    return array_namespace(data).concat((data, spare), axis=1)


def _scatter(node: Node, xs: Sequence[Array]) -> Array:
    data, indices, updates = same_batch(xs)
    extents, count, rest = _gather_layout(node)
    flat = _writable(indices, extents)
    return _written(data.reshape(-1, count, rest), flat, updates.reshape(data.shape[0], -1, rest)).reshape(data.shape)


def _scatter_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """Updates one after the other: at the one possible position they replace, at several they widen.

    Index vectors out of range write nothing (the importer makes them so where the source has no entry, and marks the
    node as one with `spare` index vectors; elsewhere there is no value).
    """
    _require_existing(node, *intervals[1], _gather_layout(node)[0])
    return _scatter_bounds(node, intervals)


def _scatter_bounds(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The same where all index vectors name entries."""
    ends = same_batch([end for pair in intervals for end in pair])
    xp = array_namespace(ends[0])
    first, last = ends[2:4]
    known = xp.all((first == last).reshape(first.shape[0], -1), axis=1)
    if bool(xp.all(known)):
        low, high, _, _, low_update, high_update = ends
        return _scatter(node, [low, first, low_update]), _scatter(node, [high, first, high_update])
    if not bool(xp.any(known)):
        return _scatter_widened(node, ends)
    # Where positions are known, all updates are made at once.
    chosen = [xp.nonzero(known)[0], xp.nonzero(~known)[0]]
    split = [[end[index] for end in ends] for index in chosen]
    parts = [_scatter_bounds(node, list(zip(part[::2], part[1::2], strict=True))) for part in split]
    order = xp.argsort(xp.concat(chosen))
    low, high = (xp.concat(pair)[order] for pair in zip(*parts, strict=True))
    return low, high


def _scatter_widened(node: Node, ends: Sequence[Array]) -> Interval:
    """Bounds where positions may be uncertain; ends are those of data, indices and updates in turn."""
    xp = array_namespace(ends[0])
    extents, count, rest = _gather_layout(node)
    low, high = (end.reshape(-1, count, rest) + 0 for end in ends[:2])
    first, last = (end.reshape(end.shape[0], -1, len(extents)) for end in ends[2:4])
    low_update, high_update = (end.reshape(end.shape[0], -1, rest) for end in ends[4:])
    for place in range(first.shape[1]):
        possible = _possible_positions(first, last, place, extents, False)
        reached = xp.nonzero(xp.any(possible, axis=0))[0]
        possible = possible[:, reached, None]
        certain = possible & xp.all(first[:, place] == last[:, place], axis=-1)[:, None, None]
        for bound, update, outer in ((low, low_update, xp.minimum), (high, high_update, xp.maximum)):
            old, new = bound[:, reached], update[:, place, None]
            bound[:, reached] = xp.where(certain, new, xp.where(possible, outer(old, new), old))
    return low.reshape(-1, *node.shape), high.reshape(-1, *node.shape)


def _scatter_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    data, indices, updates = same_batch(xs)
    extents, count, rest = _gather_layout(node)
    flat = _writable(indices, extents)
    grid = gradient.reshape(data.shape[0], count, rest)
    on_updates = _with_spare(grid)[_batch_index(grid), flat].reshape(updates.shape)
    zeros = zeros_like_shape((data.shape[0], flat.shape[1], rest), gradient)
    return _written(grid, flat, zeros).reshape(data.shape), array_namespace(indices).zeros_like(indices), on_updates


# --- DynamicSlice ----------------------------------------------------------------------------------------------------


def _slice_layout(node: Node) -> tuple[int, int, int, int, int]:
    """Entries before the axis, its extent, the slice's length, entries after the axis, and the last possible start."""
    shape = node.input_shapes[0]
    axis, length = node.attributes["axis"], node.attributes["length"]
    return math.prod(shape[:axis]), shape[axis], length, math.prod(shape[axis + 1 :]), shape[axis] - length


def _slice(node: Node, xs: Sequence[Array]) -> Array:
    """``data[start : start + length]`` along the axis; a start out of range is moved into it."""
    data, start = same_batch(xs)
    xp = array_namespace(data)
    before, extent, length, after, last = _slice_layout(node)
    table = xp.permute_dims(data.reshape(-1, before, extent, after), (0, 2, 1, 3))
    places = _whole(start).reshape(-1, 1).clip(0, last) + _range_like(data, length)
    picked = table[_batch_index(data), places]
    return xp.permute_dims(picked, (0, 2, 1, 3)).reshape(-1, *node.shape)


def _slice_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """Hull over all possible starts."""
    low, high, first, last_start = same_batch([end for pair in intervals for end in pair])
    xp = array_namespace(low)
    before, extent, length, after, last = _slice_layout(node)
    # Elsewhere ONNX shortens the slice, which a static shape cannot express.
    inside = (first > -1.0 + _SLACK) & (last_start < last + 1.0 - _SLACK)
    require(node, inside, "its start may lie where the slice would leave the data", about=1)
    low, high = (end.reshape(-1, before, extent, after) for end in (low, high))
    first, last_start = (
        _whole(end).reshape(-1, 1, 1, 1).clip(0, last)
        for end in (xp.ceil(first - _SLACK), xp.floor(last_start + _SLACK))
    )
    least, most = xp.full_like(low[:, :, :length], math.inf), xp.full_like(low[:, :, :length], -math.inf)
    for start in range(last + 1):
        possible = (first <= start) & (start <= last_start)
        part = slice(start, start + length)
        least = xp.where(possible, xp.minimum(least, low[:, :, part]), least)
        most = xp.where(possible, xp.maximum(most, high[:, :, part]), most)
    return least.reshape(-1, *node.shape), most.reshape(-1, *node.shape)


def _slice_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    data, start = same_batch(xs)
    xp = array_namespace(data)
    before, extent, length, after, last = _slice_layout(node)
    places = _whole(start).reshape(-1, 1).clip(0, last) + _range_like(data, length)
    amounts = xp.permute_dims(gradient.reshape(-1, before, length, after), (0, 2, 1, 3))
    zeros = zeros_like_shape((data.shape[0], extent, before, after), gradient)
    table = _added_at(zeros, places, amounts)
    return xp.permute_dims(table, (0, 2, 1, 3)).reshape(data.shape), xp.zeros_like(start)


def _row(
    evaluate: Callable[[Node, Sequence[Array]], Array],
    interval: IntervalFunction,
    vjp: Callable[[Node, Sequence[Array], Array, Array], tuple[Array, ...]],
    summary: str,
) -> OpRule:
    return OpRule(evaluate=evaluate, interval=interval, backward=_constant_backward(interval), vjp=vjp, summary=summary)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "ArgMax": _row(_argmax, _argmax_interval, _zero_vjp, "Index of the largest entry along an axis."),
        "GatherND": _row(_gather, _gather_interval, _gather_vjp, "Entries picked at variable positions."),
        "ScatterND": _row(_scatter, _scatter_interval, _scatter_vjp, "Entries overwritten at variable positions."),
        "DynamicSlice": _row(_slice, _slice_interval, _slice_vjp, "A slice of constant length at a variable start."),
    }
)
