"""Slices that a variable position may cut short.

``data[p : p + length]`` has fewer entries, or none, where it reaches past the end of the data. Graphs have static
shapes, so such a tensor is imported at its full length, and this module follows which of its axes are shortened by
which slice, and through shape arithmetic which numbers are such an extent. A ScatterND takes notice: entries that the
source does not have write nothing. Any other use that would depend on them is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known
from .lowering import Call, normal_axis
from .lowering_shape import resolved_shape
from .marks import NONE, Marks, Short

_Rule = Callable[[Call, Sequence[Marks], Value], Marks]


def follow(call: Call, result: Value) -> Marks:
    """The marks of an operator's first output; raises `LoweringError` where a shortened input cannot be expressed."""
    if call.op_type == "Slice" and not all(is_known(value) for value in call.inputs[1:3]):
        return _sliced(call, result)
    marks = [call.mark(position) for position in range(len(call.inputs))]
    if not any(mark.matters for mark in marks):
        return NONE
    rule = _RULES.get(call.op_type)
    try:
        if rule is None:
            raise LoweringError("it reads a slice whose length depends on the network's inputs")
        return rule(call, marks, result)
    except LoweringError:
        usable = all(mark.checked and not mark.entries for mark in marks if mark.matters)
        if not usable or call.op_type in ("Shape", "Size"):
            raise
        return Marks(checked=True)


# --- which entries exist ---------------------------------------------------------------------------------------------


def origin(builder: GraphBuilder, x: Variable) -> tuple[int, float]:
    """A one-element tensor as (node it comes from, constant added to that node's value)."""
    index, offset = x.index, 0.0
    while True:
        node = builder.nodes[index]
        if node.op == "Scale" and "scale" not in node.params:
            offset += float(np.asarray(node.params["shift"]).reshape(()))
        elif node.op != "Reshape":
            return index, offset
        index = node.inputs[0]


def first_entry(builder: GraphBuilder, start: Variable, extent: int) -> Variable:
    """Where a slice that starts at ``start`` ``[1]`` begins: negative positions count from the end."""
    negative = builder.unary("IsPositive", builder.affine(start, -1.0), integral=True)
    from_end = builder.unary("Relu", builder.affine(start, 1.0, extent), integral=True)
    return builder.elementwise("Where", (negative, from_end, start), integral=True)


def present(builder: GraphBuilder, short: Short) -> Variable:
    """Which entries ``[length]`` of a slice exist, as 0 or 1: ONNX's clamping of both ends, written out."""
    root = builder.nodes[short.root]
    start = builder.affine(
        builder.reshape(Variable(short.root, root.shape, builder.dtype, True), (1,)), 1.0, short.offset
    )
    places = np.arange(short.length, dtype=np.float64)
    row = builder.broadcast(start, (short.length,))
    negative = builder.unary("IsPositive", builder.affine(row, -1.0), integral=True)
    from_front = builder.unary("IsPositive", builder.scale(row, np.asarray(-1.0), short.extent - places), integral=True)
    begin = builder.unary("Relu", builder.affine(row, 1.0, short.extent), integral=True)
    end = builder.affine(row, 1.0, short.length)
    end_from_end = builder.unary("Relu", builder.affine(end, 1.0, short.extent), integral=True)
    end_before_end = builder.unary("Clip", end, {"min": 0.0, "max": float(short.extent)}, integral=True)
    end_negative = builder.unary("IsPositive", builder.affine(end, -1.0), integral=True)
    finish = builder.elementwise("Where", (end_negative, end_from_end, end_before_end), integral=True)
    left = builder.scale(builder.difference(finish, begin), shift=-places)
    from_back = builder.unary("IsPositive", left, integral=True)
    return builder.elementwise("Where", (negative, from_back, from_front), integral=True)


def existing(builder: GraphBuilder, axes: Mapping[int, Short], shape: Sequence[int]) -> Variable:
    """Which entries of a tensor of a shape exist, as 0 or 1, broadcastable to it."""
    parts = [
        builder.reshape(present(builder, short), [short.length if k == axis else 1 for k in range(len(shape))])
        for axis, short in axes.items()
    ]
    return parts[0] if len(parts) == 1 else builder.elementwise("Min", parts, integral=True)


# --- rules -----------------------------------------------------------------------------------------------------------


def _sliced(call: Call, result: Value) -> Marks:
    """A slice at a variable position: its axis is shortened, besides those of its data."""
    if call.mark(1).matters or call.mark(2).matters or call.mark(0).entries:
        raise LoweringError("its positions depend on the length of a slice that depends on the network's inputs")
    rank = len(result.shape)
    axis = normal_axis(call.known_ints(3, "axes")[0], rank) if call.has(3) else 0
    before = dict(call.mark(0).axes)
    if axis in before:
        raise LoweringError("it slices an axis again whose length depends on the network's inputs")
    root, offset = origin(call.builder, call.x(1))
    made = Short(root, offset, result.shape[axis], call.value(0).shape[axis])
    dynamic = isinstance(result, Variable) and call.builder.nodes[result.index].op == "DynamicSlice"
    checked = dynamic and (call.mark(0).checked or not call.mark(0).matters)
    return Marks(axes={**before, axis: made}, checked=checked)


def _combined(axes: Mapping[int, Short], marks: Sequence[Marks]) -> Marks:
    """Marks with these axes of what is made of tensors with `marks`."""
    if not axes:
        return Marks(checked=any(mark.checked for mark in marks))
    if any(mark.checked and not mark.axes for mark in marks):
        raise LoweringError("it combines tensors whose lengths depend on the network's inputs in different ways")
    return Marks(axes=axes, checked=all(mark.checked for mark in marks if mark.axes))


def _joined(call: Call, marks: Sequence[Marks], shape: Sequence[int]) -> Marks:
    """Marks of an elementwise operator, by numpy's broadcasting."""
    if any(mark.entries for mark in marks):
        raise LoweringError("it calculates with a length that depends on the network's inputs")
    rank = len(shape)
    axes: dict[int, Short] = {}
    for axis in range(rank):
        found = set()
        plain = 1
        for value, mark in zip(call.inputs, marks, strict=True):
            own = axis - rank + (0 if value is None else len(value.shape))
            if value is None or own < 0:
                continue
            if own in mark.axes:
                found.add(mark.axes[own])
            else:
                plain = max(plain, value.shape[own])
        if found and (len(found) > 1 or plain > 1):
            raise LoweringError("it combines axes whose lengths depend on the network's inputs in different ways")
        if found:
            axes[axis] = found.pop()
    return _combined(axes, marks)


def _elementwise(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    return _joined(call, marks, result.shape)


def _shape(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    if marks[0].entries and not marks[0].axes:
        # Numbers of an unknown size, but as many as ever.
        return NONE
    if "start" in call.attributes or "end" in call.attributes or not marks[0].axes:
        raise LoweringError("it reads the shape of a tensor that depends on the network's inputs")
    return Marks(entries=marks[0].axes)


def _equal(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    """Comparing a shape with what no extent can be (-1) is no matter of the actual extents."""
    if not any(mark.entries for mark in marks):
        return _joined(call, marks, result.shape)
    other = 1 - next(k for k, mark in enumerate(marks) if mark.entries)
    entries = marks[1 - other].entries
    compared = call.known(other, "other operand")
    if marks[other].matters or len(call.value(1 - other).shape) != 1 or len(result.shape) != 1:
        raise LoweringError("it compares a length that depends on the network's inputs")
    values = np.broadcast_to(compared, result.shape)
    if any(0 <= values[entry] <= short.length for entry, short in entries.items()):
        raise LoweringError("it compares a length that depends on the network's inputs")
    return NONE


def _where(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    if not any(mark.entries for mark in marks):
        return _joined(call, marks, result.shape)
    shapes = {tuple(value.shape) for value in call.inputs if value is not None}
    if marks[0].matters or any(mark.axes for mark in marks) or len(shapes) != 1 or len(result.shape) != 1:
        raise LoweringError("it chooses by a length that depends on the network's inputs")
    chosen = call.known(0, "condition")
    return Marks(
        entries={
            entry: short
            for mark, wanted in ((marks[1], True), (marks[2], False))
            for entry, short in mark.entries.items()
            if bool(chosen[entry]) == wanted
        }
    )


def _concat(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    rank = len(result.shape)
    axis = normal_axis(call.integer("axis", 0), rank)
    if any(mark.entries for mark in marks):
        starts = np.cumsum([0, *(value.shape[0] for value in call.inputs if value is not None)])
        if rank != 1 or any(mark.axes for mark in marks) or len(starts) != len(marks) + 1:
            raise LoweringError("it joins lengths that depend on the network's inputs with other tensors")
        joined = zip(starts, marks, strict=False)
        return Marks(
            entries={int(start) + entry: short for start, mark in joined for entry, short in mark.entries.items()}
        )
    if axis in marks[0].axes or any(dict(mark.axes) != dict(marks[0].axes) for mark in marks):
        raise LoweringError("it joins tensors whose lengths depend on the network's inputs in different ways")
    return _combined(marks[0].axes, marks)


def _unsqueeze(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    if marks[0].entries or any(mark.matters for mark in marks[1:]):
        raise LoweringError("it reshapes a length that depends on the network's inputs")
    given = call.known_ints(1, "axes") if call.opset >= 13 else call.ints("axes") or ()
    rank = len(result.shape)
    added = {normal_axis(axis, rank) for axis in given}
    old = [axis for axis in range(rank) if axis not in added]
    return replace(marks[0], axes={old[axis]: short for axis, short in marks[0].axes.items()})


def _expand(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    """Broadcasting to a shape of which some extents are actual ones of slices."""
    if marks[0].entries or marks[1].axes:
        raise LoweringError("it repeats a length that depends on the network's inputs")
    target = call.known_ints(1, "target shape")
    rank, shape = len(result.shape), call.value(0).shape
    axes: dict[int, Short] = {}
    for axis in range(rank):
        own, wanted = axis - rank + len(shape), axis - rank + len(target)
        found = {mark[k] for mark, k in ((marks[0].axes, own), (marks[1].entries, wanted)) if k in mark}
        plain = max(
            shape[own] if own >= 0 and own not in marks[0].axes else 1,
            target[wanted] if wanted >= 0 and wanted not in marks[1].entries else 1,
        )
        if found and (len(found) > 1 or plain > 1):
            raise LoweringError("it repeats along an axis whose length depends on the network's inputs")
        if found:
            axes[axis] = found.pop()
    return Marks(axes=axes) if marks[1].entries else _combined(axes, marks)


def _reshape(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    """To the same shape, or of a vector along one axis."""
    if marks[0].entries or call.opset < 5 or call.integer("allowzero", 0) or marks[1].axes:
        raise LoweringError("it reshapes by a length that depends on the network's inputs")
    shape, axes = tuple(call.value(0).shape), marks[0].axes
    target = call.known_ints(1, "target shape")
    if dict(axes) == dict(marks[1].entries) and resolved_shape(shape, target) == shape == target:
        return Marks(axes=axes)
    one_column = sorted(target) == [-1, *(1,) * (len(target) - 1)]
    if len(shape) == 1 and 0 in axes and not marks[1].entries and one_column:
        return replace(marks[0], axes={target.index(-1): axes[0]})
    raise LoweringError("it reshapes a tensor whose length depends on the network's inputs")


def _constant_of_shape(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    if marks[0].axes:
        raise LoweringError("its shape has a length that depends on the network's inputs")
    return Marks(axes=marks[0].entries)


def _scatter_nd(call: Call, marks: Sequence[Marks], result: Value) -> Marks:
    """What does not exist is not written (see the lowering), and the result is whole again."""
    places = len(call.value(1).shape) - 1
    fit = dict(marks[1].axes) == dict(marks[2].axes) and all(axis < places for axis in marks[1].axes)
    if marks[0].matters or marks[1].entries or marks[2].entries or not fit or is_known(call.value(1)):
        raise LoweringError("its positions and values differ in how their lengths depend on the network's inputs")
    return NONE


_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Relu", "Identity", "Cast"), _elementwise),
        "Shape": _shape,
        "Equal": _equal,
        "Where": _where,
        "Concat": _concat,
        "Unsqueeze": _unsqueeze,
        "Expand": _expand,
        "Reshape": _reshape,
        "ConstantOfShape": _constant_of_shape,
        "ScatterND": _scatter_nd,
    }
)
