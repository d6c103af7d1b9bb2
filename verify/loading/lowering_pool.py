"""Lowering of pooling, padding and resizing."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from .lowering import Call, Lowering, LoweringError, normal_axis
from .lowering_linear import matmul, output_extents, window_pads, window_settings
from .precise import Precise, one_over

if TYPE_CHECKING:
    from .builder import GraphBuilder, Value, Variable

_MOST_WINDOW_POSITIONS = 4096

Windows = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""kernel, strides, dilations, pads (begins then ends) and output extents."""


def _windows(call: Call, x: Variable) -> Windows:
    kernel = call.ints("kernel_shape") or ()
    rank = len(x.shape) - 2
    if rank < 1 or len(kernel) != rank or min(kernel) < 1:
        raise LoweringError(f"its window {list(kernel)} does not fit an input of shape {list(x.shape)}")
    if math.prod(kernel) > _MOST_WINDOW_POSITIONS:
        raise LoweringError(f"its window {list(kernel)} is larger than {_MOST_WINDOW_POSITIONS} positions")
    strides, dilations = window_settings(call, rank)
    pads = window_pads(call, x.shape[2:], kernel, strides, dilations)
    if not call.integer("ceil_mode", 0):
        return kernel, strides, dilations, pads, output_extents(x.shape[2:], kernel, strides, dilations, pads)
    made = []
    for k in range(rank):
        span = x.shape[2 + k] + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1
        extent = -(-span // strides[k]) + 1
        # A last window that would start in the end padding is dropped.
        made.append(extent - 1 if (extent - 1) * strides[k] >= x.shape[2 + k] + pads[k] else extent)
    if min(made) < 1:
        raise LoweringError(f"its window {list(kernel)} is larger than its input {list(x.shape[2:])}")
    return kernel, strides, dilations, pads, tuple(made)


def _max_pool(call: Call) -> Value:
    if call.outputs > 1:
        raise LoweringError("its second output (the indices) is used")
    x = call.x()
    kernel, strides, dilations, pads, extents = _windows(call, x)
    shape = call.builder.claim((*x.shape[:2], *extents))
    flat = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    operands = []
    for offset in np.ndindex(*kernel):
        picked = flat
        for k, extent in enumerate(extents):
            position = np.arange(extent) * strides[k] - pads[k] + offset[k] * dilations[k]
            outside = (position < 0) | (position >= x.shape[2 + k])
            picked = np.take(picked, np.where(outside, 0, position), axis=2 + k)
            picked = np.where(outside.reshape((-1,) + (1,) * (len(extents) - 1 - k)), -1, picked)
        if picked.max(initial=-1) >= 0:
            operands.append(call.builder.take(x, picked.reshape(shape), fill=-math.inf))
    if not operands:
        raise LoweringError("its windows lie in the padding only")
    if len(operands) == 1:
        return operands[0]
    return call.builder.elementwise("Max", operands, integral=x.integral)


def _average_pool(call: Call) -> Value:
    x = call.x()
    builder = call.builder
    kernel, strides, dilations, pads, extents = _windows(call, x)
    rank, channels = len(kernel), x.shape[1]
    # Windows that reach past the end padding (ceil_mode) see zeros there, which never count.
    ends = [
        max((extents[k] - 1) * strides[k] + dilations[k] * (kernel[k] - 1) + 1 - x.shape[2 + k] - pads[k], 0)
        for k in range(rank)
    ]
    counts = np.ones((1,) * rank)
    for k in range(rank):
        low, high = (
            (-pads[k], x.shape[2 + k] + pads[rank + k]) if call.integer("count_include_pad", 0) else (0, x.shape[2 + k])
        )
        position = np.arange(extents[k])[:, None] * strides[k] - pads[k] + np.arange(kernel[k]) * dilations[k]
        inside = ((position >= low) & (position < high)).sum(axis=1)
        counts = counts * inside.reshape((-1,) + (1,) * (rank - 1 - k))
    if not counts.all():
        raise LoweringError("a window lies in the padding only")
    uniform = float(counts.flat[0]) if np.all(counts == counts.flat[0]) else 1.0
    shape = (x.shape[0], channels, *extents)
    attributes = {"strides": strides, "pads": (*pads[:rank], *ends), "dilations": dilations, "groups": channels}
    weight = one_over(uniform).broadcast_to((channels, 1, *kernel))
    sums = builder.add("Conv", (x,), shape, {"weight": weight}, attributes)
    return sums if uniform != 1.0 or counts.max() == 1 else builder.scale(sums, one_over(counts))


def _global_average(call: Call) -> Value:
    x = call.x()
    axes = tuple(range(2, len(x.shape)))
    total = call.builder.reduce_sum(x, axes, keepdims=True)
    return call.builder.affine(total, one_over(math.prod(x.shape[2:])))


def extreme_over(builder: GraphBuilder, x: Variable, axes: tuple[int, ...], op: str, keepdims: bool) -> Variable:
    """Max or Min over `axes`: one Take per position, then one n-ary operator."""
    count = math.prod(x.shape[axis] for axis in axes)
    if not 1 <= count <= _MOST_WINDOW_POSITIONS:
        raise LoweringError(f"it reduces {count} values at once; between 1 and {_MOST_WINDOW_POSITIONS} are covered")
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape) if keepdims or axis not in axes)
    builder.claim(x.shape)
    flat = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    front = np.moveaxis(flat, axes, range(len(axes))).reshape(count, *shape)
    operands = [builder.take(x, picked) for picked in front]
    return operands[0] if count == 1 else builder.elementwise(op, operands, integral=x.integral)


def _global_max(call: Call) -> Value:
    x = call.x()
    return extreme_over(call.builder, x, tuple(range(2, len(x.shape))), "Max", keepdims=True)


def _pad(call: Call) -> Value:
    x = call.x()
    rank = len(x.shape)
    mode = call.text("mode", "constant")
    if call.opset < 11:
        pads = call.ints("pads") or ()
        fill = call.number("value", 0.0)
    else:
        pads = call.known_ints(1, "padding")
        fill = call.known_number(2, "fill value") if call.has(2) else 0.0
    axes = [normal_axis(a, rank) for a in call.known_ints(3, "axes")] if call.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise LoweringError(f"its padding {list(pads)} does not fit a tensor of {rank} axes")
    widths = [(0, 0)] * rank
    for k, axis in enumerate(axes):
        widths[axis] = (pads[k], pads[len(axes) + k])
    grown = [(max(low, 0), max(high, 0)) for low, high in widths]
    call.builder.claim(extent + low + high for extent, (low, high) in zip(x.shape, grown, strict=True))
    flat = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    if mode == "constant":
        indices = np.pad(flat, grown, constant_values=-1)
    elif mode in ("reflect", "edge", "wrap"):
        indices = np.pad(flat, grown, mode=mode)  # type: ignore[call-overload]
    else:
        raise LoweringError(f"its mode {mode} is unknown")
    cuts = tuple(slice(max(-low, 0), indices.shape[k] - max(-high, 0)) for k, (low, high) in enumerate(widths))
    return call.builder.take(x, indices[cuts], fill=fill)


def _resize(call: Call) -> Value:
    x = call.x()
    rank = len(x.shape)
    scales_at, sizes_at = (1, 2) if call.opset < 11 else (2, 3)
    axes = tuple(normal_axis(a, rank) for a in call.ints("axes") or range(rank))
    if call.integer("antialias", 0) or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise LoweringError("antialiasing and keeping the aspect ratio are not covered")
    call.choice("exclude_outside", 0)
    scales, extents = [1.0] * rank, list(x.shape)
    if call.op_type == "Upsample" and call.opset < 9:
        given: tuple[float, ...] = tuple(float(value) for value in call.attributes.get("scales", ()))
    else:
        given = tuple(np.asarray(call.known(scales_at, "scales"), float).reshape(-1)) if call.has(scales_at) else ()
    sizes = call.known_ints(sizes_at, "sizes") if call.has(sizes_at) and call.op_type == "Resize" else ()
    if len(given or sizes) != len(axes):
        raise LoweringError("its scales or sizes do not fit its input")
    for position, axis in enumerate(axes):
        if given:
            scales[axis], extents[axis] = given[position], math.floor(x.shape[axis] * given[position])
        else:
            scales[axis], extents[axis] = sizes[position] / x.shape[axis], sizes[position]
    if min(extents) < 1 or min(scales) <= 0:
        raise LoweringError(f"its output shape {extents} is empty")
    call.builder.claim(extents)
    old_style = call.op_type == "Upsample" or call.opset < 11
    transformation = "asymmetric" if old_style else call.text("coordinate_transformation_mode", "half_pixel")
    mode = call.text("mode", "nearest")
    if mode == "nearest":
        # Which entry is nearest to a place half way between two is what float32, in which runtimes compute it, says.
        kind = np.float32
        positions = [
            _source_positions(transformation, np.arange(made, dtype=kind), extent, kind(scale))
            for made, extent, scale in zip(extents, x.shape, scales, strict=True)
        ]
        rounding = "floor" if old_style else call.text("nearest_mode", "round_prefer_floor")
        return _resize_nearest(call.builder, x, positions, rounding)
    if mode == "linear":
        exact = [Fraction(scale) for scale in scales]
        for position, axis in enumerate(axes if not given else ()):
            exact[axis] = Fraction(sizes[position], x.shape[axis])
        places = [
            _source_positions(transformation, np.array([Fraction(k) for k in range(made)]), extent, scale)
            for made, extent, scale in zip(extents, x.shape, exact, strict=True)
        ]
        return _resize_linear(call.builder, x, places)
    raise LoweringError(f"its mode {mode} is not covered (nearest and linear are)")


def _source_positions(transformation: str, position: Any, extent: int, scale: np.floating | Fraction) -> np.ndarray:
    """The source coordinate of each output position along an axis; floats or fractions, as `position` and `scale`
    are."""
    made = len(position)
    half: Any = type(scale)(1) / 2
    if made == extent and scale == 1:
        return position
    match transformation:
        case "half_pixel":
            return (position + half) / scale - half
        case "half_pixel_symmetric":
            adjusted = extent * half * (1 - made / (scale * extent))
            return adjusted + (position + half) / scale - half
        case "pytorch_half_pixel":
            return (position + half) / scale - half if made > 1 else 0 * position
        case "align_corners":
            return position * (extent - 1) / (made - 1) if made > 1 else 0 * position
        case "asymmetric":
            return position / scale
    raise LoweringError(f"its coordinate transformation {transformation} is not covered")


def _resize_nearest(builder: GraphBuilder, x: Variable, positions: list[np.ndarray], rounding: str) -> Variable:
    picked = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    for axis, position in enumerate(positions):
        match rounding:
            case "round_prefer_floor":
                nearest = np.ceil(position - 0.5)
            case "round_prefer_ceil":
                nearest = np.floor(position + 0.5)
            case "floor":
                nearest = np.floor(position)
            case "ceil":
                nearest = np.ceil(position)
            case _:
                raise LoweringError(f"its rounding {rounding} is unknown")
        picked = np.take(picked, np.clip(nearest, 0, x.shape[axis] - 1).astype(np.int64), axis=axis)
    return builder.take(x, picked)


def _resize_linear(builder: GraphBuilder, x: Variable, positions: list[np.ndarray]) -> Variable:
    """One matrix of interpolation weights per resized axis; positions are fractions."""
    rank = len(x.shape)
    for axis, position in enumerate(positions):
        extent = x.shape[axis]
        if len(position) == extent and np.array_equal(position, np.arange(extent)):
            continue
        rows = []
        for place in position.tolist():
            clamped = min(max(place, Fraction(0)), Fraction(extent - 1))
            low = math.floor(clamped)
            row = [Fraction(0)] * extent
            row[low] = 1 - (clamped - low)
            row[min(low + 1, extent - 1)] += clamped - low
            rows.append(row)
        matrix = Precise.of_fractions(rows)
        if axis == rank - 1:
            x = builder.linear(x, matrix)
        elif axis == rank - 2:
            x = matmul(builder, matrix, x)
        else:
            order = [*(a for a in range(rank) if a != axis), axis]
            moved = builder.linear(builder.transpose(x, order), matrix)
            x = builder.transpose(moved, np.argsort(order).tolist())
    return x


ROWS: tuple[Lowering, ...] = (
    Lowering("MaxPool", _max_pool, ("Take", "Max"), note="first output only"),
    Lowering("AveragePool", _average_pool, ("Conv", "Scale")),
    Lowering("GlobalAveragePool", _global_average, ("Sum", "Scale")),
    Lowering("GlobalMaxPool", _global_max, ("Take", "Max")),
    Lowering("Pad", _pad, ("Take",), since=2, note="constant, reflect, edge, wrap"),
    Lowering("Resize", _resize, ("Take", "Linear", "ConstMatMul"), since=10, note="nearest and linear"),
    Lowering("Upsample", _resize, ("Take", "Linear", "ConstMatMul"), since=7, note="nearest and linear"),
)
