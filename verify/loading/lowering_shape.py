"""Lowering of operators that only move, repeat or join values."""

from __future__ import annotations

import math
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .builder import GraphBuilder, Value, Variable
from .lowering import DOUBLE, FLOAT, Call, Lowering, LoweringError, Outputs, normal_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CONSTANT_FORMS: Mapping[str, type | None] = MappingProxyType(
    {
        "value": None,
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
)


def rearranged(builder: GraphBuilder, x: Variable, move: Callable[[np.ndarray], np.ndarray]) -> Variable:
    """`x` with its elements moved as `move` moves the elements of an array of its shape."""
    builder.claim(x.shape)
    return builder.take(x, move(np.arange(x.size, dtype=np.int64).reshape(x.shape)))


def _identity(call: Call) -> Value:
    return call.x()


def _dropout(call: Call) -> Outputs:
    if call.has(2) and bool(np.any(call.known(2, "training flag"))):
        raise LoweringError("it is in training mode")
    x = call.x()
    return x, np.ones(x.shape, dtype=bool)


def _flatten(call: Call) -> Value:
    x = call.x()
    axis = call.integer("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise LoweringError(f"axis {axis} is outside a tensor of {len(x.shape)} axes")
    cut = axis + len(x.shape) if axis < 0 else axis
    return call.builder.reshape(x, (math.prod(x.shape[:cut]), math.prod(x.shape[cut:])))


def resolved_shape(shape: Sequence[int], target: Sequence[int], zero_copies: bool = True) -> tuple[int, ...]:
    """The shape that a reshape of `shape` to `target` gives: 0 copies an extent, one -1 takes what is left."""
    if zero_copies and any(extent == 0 and k >= len(shape) for k, extent in enumerate(target)):
        raise LoweringError(f"cannot reshape {list(shape)} to {list(target)}")
    made = [shape[k] if extent == 0 and zero_copies else int(extent) for k, extent in enumerate(target)]
    size, rest = math.prod(shape), math.prod(extent for extent in made if extent != -1)
    if made.count(-1) == 1 and rest > 0 and size % rest == 0:
        made[made.index(-1)] = size // rest
    if min(made, default=0) < 0 or math.prod(made) != size:
        raise LoweringError(f"cannot reshape {list(shape)} to {list(target)}")
    return tuple(made)


def _reshape(call: Call) -> Value:
    x = call.x()
    target = call.known_ints(1, "target shape") if call.opset >= 5 else call.ints("shape") or ()
    return call.builder.reshape(x, resolved_shape(x.shape, target, not call.integer("allowzero", 0)))


def axes_of(call: Call, rank: int, input_since: int) -> tuple[int, ...] | None:
    """The axes of an operator: an attribute before opset `input_since`, input 1 from then on."""
    axes = call.ints("axes")
    if call.opset >= input_since and call.has(1):
        axes = call.known_ints(1, "axes")
    return None if axes is None else tuple(normal_axis(axis, rank) for axis in axes)


def _squeeze(call: Call) -> Value:
    x = call.x()
    axes = axes_of(call, len(x.shape), 13)
    if axes is None:
        axes = tuple(axis for axis, extent in enumerate(x.shape) if extent == 1)
    return call.builder.reshape(x, (extent for axis, extent in enumerate(x.shape) if axis not in axes))


def _unsqueeze(call: Call) -> Value:
    x = call.x()
    given = call.known_ints(1, "axes") if call.opset >= 13 else call.ints("axes") or ()
    rank = len(x.shape) + len(given)
    axes = {normal_axis(axis, rank) for axis in given}
    old = iter(x.shape)
    return call.builder.reshape(x, [1 if axis in axes else next(old) for axis in range(rank)])


def _transpose(call: Call) -> Value:
    x = call.x()
    return call.builder.transpose(x, call.ints("perm") or tuple(reversed(range(len(x.shape)))))


def _concat(call: Call) -> Value:
    builder = call.builder
    operands = [builder.variable(value) for value in call.inputs if value is not None and 0 not in tuple(value.shape)]
    if not operands:
        raise LoweringError("it has no inputs")
    axis = call.axis("axis", 0, len(operands[0].shape))
    shape = list(operands[0].shape)
    for other in operands[1:]:
        if len(other.shape) != len(shape) or any(
            a != b for k, (a, b) in enumerate(zip(shape, other.shape, strict=True)) if k != axis
        ):
            raise LoweringError(f"shapes {[list(x.shape) for x in operands]} cannot be joined along axis {axis}")
    if len(operands) == 1:
        return operands[0]
    shape[axis] = sum(x.shape[axis] for x in operands)
    like = next((v for v in call.inputs if isinstance(v, Variable)), operands[0])
    whole = all(x.integral for x in operands)
    return builder.add("Concat", operands, shape, attributes={"axis": axis}, like=like, integral=whole)


def _split(call: Call) -> Outputs:
    x = call.x()
    axis = call.axis("axis", 0, len(x.shape))
    extent = x.shape[axis]
    if call.opset >= 13 and call.has(1):
        sizes = call.known_ints(1, "sizes")
    elif call.ints("split") is not None:
        sizes = call.ints("split") or ()
    else:
        parts = call.integer("num_outputs", call.outputs)
        if parts != call.outputs:
            raise LoweringError(f"its num_outputs is {parts}, but it has {call.outputs} outputs")
        chunk = -(-extent // parts) if parts > 0 else 0
        sizes = tuple(max(min(chunk, extent - k * chunk), 0) for k in range(parts))
    if sum(sizes) != extent or min(sizes, default=-1) < 0:
        raise LoweringError(f"it splits an axis of {extent} into {list(sizes)}")
    edges = np.cumsum((0, *sizes)).tolist()
    pieces = []
    for begin, end in pairwise(edges):
        cut = (slice(None),) * axis + (slice(begin, end),)
        pieces.append(rearranged(call.builder, x, lambda flat, cut=cut: flat[cut]))  # type: ignore[misc]
    return tuple(pieces)


def _expand(call: Call) -> Value:
    x = call.x()
    target = call.known_ints(1, "target shape")
    call.builder.check_axes(len(target))
    return call.builder.broadcast(x, np.broadcast_shapes(x.shape, target))


def _tile(call: Call) -> Value:
    x = call.x()
    repeats = call.known_ints(1, "repeats")
    if len(repeats) != len(x.shape) or min(repeats, default=1) < 0:
        raise LoweringError(f"its repeats {list(repeats)} do not fit shape {list(x.shape)}")
    call.builder.claim(extent * times for extent, times in zip(x.shape, repeats, strict=True))
    return rearranged(call.builder, x, lambda flat: np.tile(flat, repeats))


def _blocks(call: Call, x: Variable) -> int:
    block = call.integer("blocksize", 0)
    if block < 1 or len(x.shape) != 4:
        raise LoweringError(f"block size {block} does not fit shape {list(x.shape)}")
    return block


def _depth_to_space(call: Call) -> Value:
    x = call.x()
    block = _blocks(call, x)
    batch, channels, height, width = x.shape
    if channels % (block * block):
        raise LoweringError(f"{channels} channels cannot be split into blocks of {block}")
    depth = channels // (block * block)

    call.choice("mode", "DCR", "CRD")

    def move(flat: np.ndarray) -> np.ndarray:
        if call.text("mode", "DCR") == "DCR":
            cells = flat.reshape(batch, block, block, depth, height, width).transpose(0, 3, 4, 1, 5, 2)
        else:
            cells = flat.reshape(batch, depth, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
        return cells.reshape(batch, depth, height * block, width * block)

    return rearranged(call.builder, x, move)


def _space_to_depth(call: Call) -> Value:
    x = call.x()
    call.choice("mode", "DCR")
    block = _blocks(call, x)
    batch, channels, height, width = x.shape
    if height % block or width % block:
        raise LoweringError(f"{height} by {width} positions cannot be split into blocks of {block}")

    def move(flat: np.ndarray) -> np.ndarray:
        cells = flat.reshape(batch, channels, height // block, block, width // block, block)
        return cells.transpose(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // block, width // block)

    return rearranged(call.builder, x, move)


def _trilu(call: Call) -> Value:
    x = call.x()
    offset = int(call.known_number(1, "diagonal")) if call.has(1) else 0
    if len(x.shape) < 2:
        raise LoweringError("its input is not a matrix")
    side = np.triu if call.integer("upper", 1) else np.tril
    call.builder.claim(x.shape[-2:])
    return call.builder.scale(x, scale=side(np.ones(x.shape[-2:]), offset))


def static_shape(call: Call) -> np.ndarray:
    """The shape of input 0, known whether or not its values are."""
    shape = tuple(call.value(0).shape)
    start, end = call.integer("start", 0), call.attributes.get("end")
    return np.asarray(shape[start : None if end is None else int(end)], dtype=np.int64)


def static_size(call: Call) -> np.ndarray:
    """The number of elements of input 0."""
    return np.asarray(math.prod(call.value(0).shape), dtype=np.int64)


def _constant_of_shape(call: Call) -> np.ndarray:
    shape = call.builder.claim(call.known_ints(0, "shape"))
    value = call.attributes.get("value")
    fill = np.zeros((), np.float32) if value is None else np.asarray(value).reshape(-1)[0]
    return np.full(shape, fill, dtype=fill.dtype)


def _single(call: Call, position: int, what: str) -> np.ndarray:
    value = np.asarray(call.known(position, what))
    if value.size != 1:
        raise LoweringError(f"its {what} is not a single number")
    return value.reshape(())


def _range(call: Call) -> np.ndarray:
    call.choice("stash_type", FLOAT, DOUBLE)
    start, limit, step = (_single(call, k, what) for k, what in enumerate(("start", "limit", "step")))
    if not step.all():
        raise LoweringError("its step is zero")
    if start.dtype.kind in "iu":
        # Exactly, in Python's whole numbers.
        count = -((int(start) - int(limit)) // int(step))
    else:
        count = math.ceil((float(limit) - float(start)) / float(step))
    call.builder.claim((max(count, 0),))
    return (start + np.arange(max(count, 0)) * step).astype(start.dtype)


def _eye_like(call: Call) -> np.ndarray:
    shape = call.builder.claim(call.value(0).shape)
    if len(shape) != 2:
        raise LoweringError("its input is not a matrix")
    dtype = np.dtype(call.attributes.get("dtype") or call.value(0).dtype)
    return np.eye(shape[0], shape[1], call.integer("k", 0), dtype=dtype)


def _constant(call: Call) -> np.ndarray:
    for name, dtype in _CONSTANT_FORMS.items():
        if call.attributes.get(name) is not None:
            return np.asarray(call.attributes[name], dtype=dtype)
    raise LoweringError("it holds no numeric value (text and sparse constants are not covered)")


ROWS: tuple[Lowering, ...] = (
    Lowering("Identity", _identity),
    Lowering("Dropout", _dropout, note="inference"),
    Lowering("Flatten", _flatten, ("Reshape",)),
    Lowering("Reshape", _reshape, ("Reshape",), note="constant shape"),
    Lowering("Squeeze", _squeeze, ("Reshape",), note="constant axes"),
    Lowering("Unsqueeze", _unsqueeze, ("Reshape",), note="constant axes"),
    Lowering("Transpose", _transpose, ("Transpose", "Reshape")),
    Lowering("Concat", _concat, ("Concat",)),
    Lowering("Split", _split, ("Take",), since=2, note="constant sizes"),
    Lowering("Expand", _expand, ("Take",), since=8, note="constant shape"),
    Lowering("Tile", _tile, ("Take",), since=6, note="constant repeats"),
    Lowering("DepthToSpace", _depth_to_space, ("Take",)),
    Lowering("SpaceToDepth", _space_to_depth, ("Take",)),
    Lowering("Trilu", _trilu, ("Scale",), since=14, note="constant diagonal"),
    Lowering("Shape", static_shape, note="folded"),
    Lowering("Size", static_size, note="folded"),
    Lowering("ConstantOfShape", _constant_of_shape, since=9, note="folded; constant shape"),
    Lowering("Range", _range, since=11, note="folded; constant arguments"),
    Lowering("EyeLike", _eye_like, since=9, note="folded"),
    Lowering("Constant", _constant, ("Constant",)),
)
