"""Lowering of slicing, gathering, scattering and argmax, with constant and, where possible, variable indices."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from .builder import GraphBuilder, Value, Variable, is_known, shape_of
from .lowering import Call, Lowering, LoweringError, Outputs, normal_axis
from .lowering_pool import extreme_over
from .lowering_shape import rearranged
from .precise import Precise
from .shortening import existing, first_entry, origin


def _slice(call: Call) -> Value:
    data = call.value(0)
    shape = shape_of(data)
    if call.opset < 10:
        starts, ends = call.ints("starts") or (), call.ints("ends") or ()
        axes, steps = call.ints("axes"), None
    else:
        axes = call.known_ints(3, "axes") if call.has(3) else None
        steps = call.known_ints(4, "steps") if call.has(4) else None
        if not (is_known(call.value(1)) and is_known(call.value(2))):
            return _slice_at_variable(call, axes, steps)
        starts, ends = call.known_ints(1, "starts"), call.known_ints(2, "ends")
    chosen = tuple(range(len(starts))) if axes is None else tuple(normal_axis(a, len(shape)) for a in axes)
    strides = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(chosen) == len(strides) or 0 in strides:
        raise LoweringError("its starts, ends, axes and steps do not fit each other")
    cuts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(chosen, starts, ends, strides, strict=True):
        cuts[axis] = slice(*_python_slice(start, end, step, shape[axis]))
    return rearranged(call.builder, call.x(), lambda flat: flat[tuple(cuts)])


def _python_slice(start: int, end: int, step: int, extent: int) -> tuple[int, int | None, int]:
    """ONNX's slice limits as Python's: far ends are clamped, and "before the first" is None."""
    begin, stop, stride = slice(start, end, step).indices(extent)
    return begin, None if stop < 0 else stop, stride


def _slice_at_variable(call: Call, axes: tuple[int, ...] | None, steps: tuple[int, ...] | None) -> Value:
    """``data[start : start + length]`` along one axis, where start depends on the inputs but length does not.

    Where it reaches past the data, ONNX shortens it; `shortening` follows what becomes of the result.
    """
    data, start, end = call.value(0), call.x(1), call.x(2)
    if start.size != 1 or (axes is not None and len(axes) != 1) or (steps or (1,)) != (1,):
        raise LoweringError("it slices several axes or with a step, at positions that depend on the inputs")
    shape = shape_of(data)
    axis = normal_axis(axes[0], len(shape)) if axes else 0
    builder = call.builder
    root, low = origin(builder, start)
    same, high = origin(builder, end)
    length = int(high - low)
    if root != same or length != high - low or not 0 < length <= shape[axis]:
        raise LoweringError("the length of its result depends on the network's inputs")
    made = (*shape[:axis], length, *shape[axis + 1 :])
    if is_known(data) and data.size and np.all(data == data.reshape(-1)[0]):
        return np.full(builder.claim(made), data.reshape(-1)[0])
    if isinstance(data, np.ndarray) and _is_whole_line(data):
        step = data[1] - data[0]
        begin = first_entry(builder, builder.reshape(start, (1,)), data.size)
        first = builder.broadcast(begin, (length,))
        line = builder.scale(first, np.asarray(step), data[0] + np.arange(length) * step)
        return Variable(line.index, line.shape, data.dtype, line.integral)
    source = builder.variable(data)
    position = builder.reshape(start, (1,))
    return builder.add("DynamicSlice", (source, position), made, attributes={"axis": axis, "length": length})


def _is_whole_line(data: np.ndarray) -> bool:
    """Whether an array holds whole numbers at equal distances."""
    if data.ndim != 1 or data.size < 2 or not np.all(data == np.floor(data)):
        return False
    return bool(np.all(np.diff(data) == data[1] - data[0]))


def _gather(call: Call) -> Value:
    data, indices = call.value(0), call.value(1)
    shape = shape_of(data)
    axis = call.axis("axis", 0, len(shape))
    builder = call.builder
    if is_known(indices):
        wanted = np.asarray(indices, dtype=np.int64)
        builder.claim((*shape[:axis], *wanted.shape, *shape[axis + 1 :]))
        return rearranged(builder, call.x(), lambda flat: np.take(flat, wanted, axis=axis, mode="raise"))
    source = builder.variable(data)
    if axis:
        source = builder.transpose(source, (axis, *(k for k in range(len(shape)) if k != axis)))
    rest = source.shape[1:]
    positions = builder.reshape(indices, (*indices.shape, 1))
    picked = builder.add("GatherND", (source, positions), (*indices.shape, *rest), like=source)
    if axis:
        places = len(indices.shape)
        front = [places + k for k in range(axis)]
        order = [*front, *range(places), *(places + k for k in range(axis, len(rest)))]
        picked = builder.transpose(picked, order)
    return picked


def _gather_nd_in_batches(call: Call, batch: int) -> Value:
    """A separate gather for every position of the first axes."""
    x = call.x()
    wanted = np.asarray(call.known(1, "indices"), dtype=np.int64)
    depth = wanted.shape[-1]
    if wanted.shape[:batch] != x.shape[:batch] or not 1 <= depth <= len(x.shape) - batch:
        raise LoweringError(f"indices of shape {list(wanted.shape)} do not fit data of shape {list(x.shape)}")
    lead = tuple(np.indices(wanted.shape[:-1])[:batch])
    return rearranged(call.builder, x, lambda flat: flat[(*lead, *np.moveaxis(wanted, -1, 0))])


def _gather_nd(call: Call) -> Value:
    if call.integer("batch_dims", 0):
        return _gather_nd_in_batches(call, call.integer("batch_dims", 0))
    data, indices = call.value(0), call.value(1)
    depth = shape_of(indices)[-1]
    shape = shape_of(data)
    if not 1 <= depth <= len(shape):
        raise LoweringError(f"indices of shape {list(shape_of(indices))} do not fit data of shape {list(shape)}")
    made = (*shape_of(indices)[:-1], *shape[depth:])
    if is_known(indices):
        call.builder.claim(made)
        columns = tuple(np.moveaxis(np.asarray(indices, dtype=np.int64), -1, 0))
        return rearranged(call.builder, call.x(), lambda flat: flat[columns])
    return call.builder.add("GatherND", (call.x(0), call.x(1)), made)


def _gather_elements(call: Call) -> Value:
    x = call.x()
    axis = call.axis("axis", 0, len(x.shape))
    wanted = np.asarray(call.known(1, "indices"), dtype=np.int64)
    wanted = np.where(wanted < 0, wanted + x.shape[axis], wanted)
    return rearranged(call.builder, x, lambda flat: np.take_along_axis(flat, wanted, axis))


def overwritten(builder: GraphBuilder, data: Variable, updates: Variable, places: np.ndarray) -> Variable:
    """`data` with its flat positions `places` replaced by the flat elements of `updates`, later ones winning."""
    builder.claim(data.shape)
    flat = np.arange(data.size, dtype=np.int64)
    flat[places.reshape(-1)] = data.size + np.arange(updates.size)
    ends = [builder.reshape(x, (x.size,)) for x in (data, updates)]
    joined = builder.add(
        "Concat", ends, (data.size + updates.size,), attributes={"axis": 0}, integral=data.integral and updates.integral
    )
    return builder.take(joined, flat.reshape(data.shape))


def _combined(call: Call, data: Variable, updates: Variable, places: np.ndarray) -> Variable:
    """`data` with `updates` written, or added, at flat positions."""
    way = call.text("reduction", "none")
    if way == "none":
        return overwritten(call.builder, data, updates, places)
    if way != "add":
        raise LoweringError(f"its reduction {way} is not covered (none and add are)")
    # A place that is named several times takes one round each.
    flat = places.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    turn = np.empty(flat.size, dtype=np.int64)
    turn[order] = np.arange(flat.size) - np.repeat(starts, np.diff(starts, append=flat.size))
    terms = [data]
    for number in range(int(turn.max(initial=-1)) + 1):
        picked = np.full(data.size, -1)
        picked[flat[turn == number]] = np.flatnonzero(turn == number)
        terms.append(call.builder.take(updates, picked.reshape(data.shape)))
    return call.builder.sum_of(terms, (1,) * len(terms))


def _scatter_nd(call: Call) -> Value:
    data, indices, updates = call.x(0), call.value(1), call.x(2)
    depth = shape_of(indices)[-1]
    if not 1 <= depth <= len(data.shape) or updates.shape != (*shape_of(indices)[:-1], *data.shape[depth:]):
        raise LoweringError(f"indices of shape {list(shape_of(indices))} do not fit data of shape {list(data.shape)}")
    if is_known(indices):
        call.builder.claim(data.shape)
        flat = np.arange(data.size).reshape(data.shape)
        places = flat[tuple(np.moveaxis(np.asarray(indices, dtype=np.int64), -1, 0))]
        return _combined(call, data, updates, places)
    if call.text("reduction", "none") != "none":
        raise LoweringError("it combines values at positions that depend on the network's inputs")
    spare = {"spare": True} if call.mark(1).axes else {}
    return call.builder.add("ScatterND", (data, _existing_positions(call), updates), data.shape, attributes=spare)


def _existing_positions(call: Call) -> Variable:
    """Index vectors, those that the source does not have moved out of range, where they write nothing."""
    builder, indices = call.builder, call.x(1)
    axes = call.mark(1).axes
    if not axes:
        return indices
    mask = existing(builder, axes, indices.shape)
    outside = builder.constant(np.full((1,) * len(indices.shape), max(call.value(0).shape), dtype=np.int64))
    return builder.elementwise("Where", (mask, indices, outside), integral=True)


def _scatter_elements(call: Call) -> Value:
    data, updates = call.x(0), call.x(2)
    axis = call.axis("axis", 0, len(data.shape))
    wanted = np.asarray(call.known(1, "indices"), dtype=np.int64)
    if wanted.shape != updates.shape:
        raise LoweringError("its indices and updates differ in shape")
    wanted = np.where(wanted < 0, wanted + data.shape[axis], wanted)
    call.builder.claim(data.shape)
    flat = np.arange(data.size).reshape(data.shape)
    grid: list[np.ndarray] = list(np.indices(wanted.shape, sparse=True))
    grid[axis] = wanted
    return _combined(call, data, updates, flat[tuple(grid)])


def _compress(call: Call) -> Value:
    x = call.x()
    chosen = np.flatnonzero(np.asarray(call.known(1, "condition")))
    if "axis" not in call.attributes:
        return rearranged(call.builder, x, lambda flat: flat.reshape(-1)[chosen])
    axis = call.axis("axis", 0, len(x.shape))
    return rearranged(call.builder, x, lambda flat: np.take(flat, chosen, axis=axis))


def _reverse_sequence(call: Call) -> Value:
    x = call.x()
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    if {time, batch} != {0, 1} or len(x.shape) < 2:
        raise LoweringError(f"its axes {time} and {batch} are not the first two")
    lengths = call.known_ints(1, "lengths")

    def move(flat: np.ndarray) -> np.ndarray:
        turned = np.moveaxis(flat, batch, 0).copy()
        for row, length in zip(turned, lengths, strict=True):
            row[:length] = row[:length][::-1].copy()
        return np.moveaxis(turned, 0, batch)

    return rearranged(call.builder, x, move)


def _arg_extreme(call: Call, sign: float) -> Value:
    x = call.x()
    if not x.shape:
        raise LoweringError("its input has no axis")
    axis = call.axis("axis", 0, len(x.shape))
    keepdims = bool(call.integer("keepdims", 1))
    shape = tuple(1 if k == axis else extent for k, extent in enumerate(x.shape) if keepdims or k != axis)
    attributes = {"axis": axis, "keepdims": keepdims, "select_last": bool(call.integer("select_last_index", 0))}
    ranked = x if sign > 0 else call.builder.affine(x, -1.0)
    made = call.builder.add("ArgMax", (ranked,), shape, attributes=attributes, integral=True)
    return Variable(made.index, made.shape, np.dtype(np.int64), True)


def _top(call: Call) -> Outputs:
    """The largest or smallest entry along an axis, and its position."""
    x = call.x()
    axis = call.axis("axis", -1, len(x.shape))
    if call.known_ints(1, "number of entries") != (1,):
        raise LoweringError("it takes more than one entry")
    op, sign = ("Max", 1.0) if call.integer("largest", 1) else ("Min", -1.0)
    position = _arg_extreme(replace(call, attributes={"axis": axis}), sign)
    return extreme_over(call.builder, x, (axis,), op, keepdims=True), position


def _one_hot(call: Call) -> Value:
    builder = call.builder
    indices = call.x(0)
    if not indices.integral:
        raise LoweringError("its indices are real numbers, whose rounding ONNX does not define; round them before")
    depth = int(call.known_number(1, "depth"))
    off, on = (float(value) for value in np.asarray(call.known(2, "values"), dtype=np.float64).reshape(-1))
    rank = len(indices.shape) + 1
    axis = normal_axis(call.integer("axis", -1), rank)
    shape = builder.claim((*indices.shape[:axis], depth, *indices.shape[axis:]))
    column = builder.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    places = np.arange(depth, dtype=np.float64).reshape((-1,) + (1,) * (rank - 1 - axis))
    hits = builder.unary("IsZero", builder.scale(builder.broadcast(column, shape), shift=-places), integral=True)
    # Index -k counts from the end.
    late = builder.unary("IsZero", builder.scale(builder.broadcast(column, shape), shift=depth - places), integral=True)
    gap = Precise.of(on) - Precise.of(off)
    result = builder.scale(builder.sum_of((hits, late), (1, 1)), gap, Precise.of(off))
    dtype = np.asarray(call.known(2, "values")).dtype
    return Variable(result.index, result.shape, dtype, result.integral)


ROWS: tuple[Lowering, ...] = (
    Lowering("Slice", _slice, ("Take", "DynamicSlice"), note="variable starts only with results of constant length"),
    Lowering("Gather", _gather, ("Take", "GatherND")),
    Lowering("GatherND", _gather_nd, ("Take", "GatherND"), since=11, note="batch_dims only with constant indices"),
    Lowering("GatherElements", _gather_elements, ("Take",), since=11, note="constant indices"),
    Lowering(
        "ScatterND",
        _scatter_nd,
        ("Take", "Concat", "ScatterND"),
        since=11,
        note="reductions none and, with constant indices, add",
    ),
    Lowering(
        "ScatterElements",
        _scatter_elements,
        ("Take", "Concat"),
        since=11,
        note="constant indices, reductions none and add",
    ),
    Lowering("Compress", _compress, ("Take",), since=9, note="constant condition"),
    Lowering("ReverseSequence", _reverse_sequence, ("Take",), since=10, note="constant lengths"),
    Lowering("ArgMax", partial(_arg_extreme, sign=1.0), ("ArgMax",)),
    Lowering("ArgMin", partial(_arg_extreme, sign=-1.0), ("Scale", "ArgMax")),
    Lowering("TopK", _top, ("Take", "Max", "Min", "ArgMax"), since=10, note="k 1"),
    Lowering("OneHot", _one_hot, ("Take", "Scale", "IsZero", "Add"), since=9, note="constant depth and values"),
)
