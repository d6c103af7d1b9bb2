"""How aten operators that only move, repeat or join values are lowered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .builder import LoweringError, Value, is_known, shape_of
from .lowering import normal_axis
from .lowering_index import overwritten
from .lowering_shape import rearranged, resolved_shape

if TYPE_CHECKING:
    from .torch_call import AtenCall, Handler


def _flatten(call: AtenCall) -> Value:
    x = call.x
    first = normal_axis(call.get("start_dim", 0), len(x.shape))
    last = normal_axis(call.get("end_dim", -1), len(x.shape))
    shape = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    return call.builder.reshape(x, shape)


def _view(call: AtenCall) -> Value:
    target = call.get("size", call.get("shape"))
    return call.builder.reshape(call.x, resolved_shape(call.x.shape, target, zero_copies=False))


def _unflatten(call: AtenCall) -> Value:
    x = call.x
    axis = normal_axis(call["dim"], len(x.shape))
    sizes = resolved_shape((x.shape[axis],), call["sizes"], zero_copies=False)
    return call.builder.reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


def _permute(call: AtenCall) -> Value:
    return call.builder.transpose(call.x, call["dims"])


def _swap_axes(call: AtenCall) -> Value:
    x = call.x
    order = list(range(len(x.shape)))
    if order:
        a, b = (normal_axis(call.get(name, default), len(order)) for name, default in (("dim0", 0), ("dim1", -1)))
        order[a], order[b] = order[b], order[a]
    return call.builder.transpose(x, order)


def _squeeze(call: AtenCall) -> Value:
    x = call.x
    dim = call.get("dim")
    wanted = range(len(x.shape)) if dim is None else dim if isinstance(dim, Sequence) else (dim,)
    axes = {normal_axis(axis, len(x.shape)) for axis in wanted}
    return call.builder.reshape(x, [e for axis, e in enumerate(x.shape) if axis not in axes or e != 1])


def _unsqueeze(call: AtenCall) -> Value:
    return call.onnx("Unsqueeze", call.x, np.asarray([call["dim"]]))


def _concatenate(call: AtenCall) -> Value:
    return call.onnx("Concat", *call["tensors"], axis=call.get("dim", 0))


def _stack(call: AtenCall) -> Value:
    axis = normal_axis(call.get("dim", 0), len(shape_of(call["tensors"][0])) + 1)
    widened = [call.onnx("Unsqueeze", call.builder.variable(x), np.asarray([axis])) for x in call["tensors"]]
    return call.onnx("Concat", *widened, axis=axis)


def _pieces(call: AtenCall, sizes: Sequence[int]) -> tuple[Value, ...]:
    split = call.onnx("Split", call.x, np.asarray(sizes), axis=call.get("dim", 0))
    return split if isinstance(split, tuple) else (split,)


def _split(call: AtenCall) -> tuple[Value, ...]:
    x = call.x
    extent = x.shape[normal_axis(call.get("dim", 0), len(x.shape))]
    given = call.get("split_size", call.get("split_sizes"))
    if isinstance(given, Sequence):
        return _pieces(call, given)
    return _pieces(call, [min(given, extent - start) for start in range(0, extent, given)])


def _chunk(call: AtenCall) -> tuple[Value, ...]:
    x = call.x
    extent = x.shape[normal_axis(call.get("dim", 0), len(x.shape))]
    size = -(-extent // call["chunks"])
    return _pieces(call, [min(size, extent - start) for start in range(0, extent, size)])


def _slice(call: AtenCall) -> Value:
    start, end = call.get("start", 0), call.get("end", np.iinfo(np.int64).max)
    axis, step = np.asarray([call.get("dim", 0)]), np.asarray([call.get("step", 1)])
    return call.onnx("Slice", call.x, np.asarray([start]), np.asarray([end]), axis, step)


def _select(call: AtenCall) -> Value:
    return call.onnx("Gather", call.x, np.asarray(call["index"]), axis=call["dim"])


def _index_select(call: AtenCall) -> Value:
    return call.onnx("Gather", call.x, call["index"], axis=call["dim"])


def _expand(call: AtenCall) -> Value:
    x = call.x
    target = list(call["size"])
    offset = len(target) - len(x.shape)
    shape = [x.shape[k - offset] if extent == -1 else extent for k, extent in enumerate(target)]
    return call.builder.broadcast(x, shape)


def _repeat(call: AtenCall) -> Value:
    repeats = tuple(call["repeats"])
    x = call.builder.reshape(call.x, (1,) * (len(repeats) - len(call.x.shape)) + call.x.shape)
    return call.onnx("Tile", x, np.asarray(repeats))


def _pad(call: AtenCall) -> Value:
    x, given = call.x, list(call["pad"])
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(
        call.get("mode", "constant")
    )
    if mode is None:
        raise LoweringError("its mode is unknown")
    widths = [(0, 0)] * (len(x.shape) - len(given) // 2) + list(zip(given[::2], given[1::2], strict=True))[::-1]
    pads = np.asarray([*(low for low, _ in widths), *(high for _, high in widths)])
    return call.onnx("Pad", x, pads, np.asarray(float(call.get("value", 0.0))), mode=mode)


def _upsample(call: AtenCall, mode: str, rank: int) -> Value:
    x = call.x
    sizes = call.get("output_size")
    if sizes is None:
        factors = call["scale_factors"]
        sizes = [int(extent * factor) for extent, factor in zip(x.shape[-rank:], factors, strict=True)]
    transformation = "asymmetric" if mode == "nearest" else "pytorch_half_pixel"
    if mode == "linear" and call.get("align_corners", False):
        transformation = "align_corners"
    return call.onnx(
        "Resize",
        x,
        None,
        None,
        np.asarray([*x.shape[:-rank], *sizes]),
        mode=mode,
        coordinate_transformation_mode=transformation,
        nearest_mode="floor",
    )


def _flip(call: AtenCall) -> Value:
    axes = tuple(normal_axis(axis, len(call.x.shape)) for axis in call["dims"])
    return rearranged(call.builder, call.x, lambda flat: np.flip(flat, axes))


def _positions(value: Value | None, what: str) -> np.ndarray:
    """Constant indices as whole numbers."""
    if not is_known(value):
        raise LoweringError(f"its {what} depend on the network's inputs")
    return np.asarray(value)


def _index(call: AtenCall) -> Value:
    """Fancy indexing; None stands for a whole axis."""
    cuts = tuple(slice(None) if part is None else _positions(part, "indices") for part in call["indices"])
    return rearranged(call.builder, call.x, lambda flat: flat[cuts])


def _gather(call: AtenCall) -> Value:
    x = call.x
    axis = normal_axis(call["dim"], len(x.shape))
    wanted = _positions(call["index"], "indices")
    cuts = tuple(slice(None) if k == axis else slice(extent) for k, extent in enumerate(wanted.shape))
    return rearranged(call.builder, x, lambda flat: np.take_along_axis(flat[cuts], wanted, axis))


def _diagonal(call: AtenCall) -> Value:
    settings = call.get("offset", 0), call.get("dim1", 0), call.get("dim2", 1)
    return rearranged(call.builder, call.x, lambda flat: np.diagonal(flat, *settings))


def _unfold(call: AtenCall) -> Value:
    """Windows of a size along an axis, at every step, their entries as a new last axis."""
    x = call.x
    axis = normal_axis(call["dimension"], len(x.shape))

    def windows(flat: np.ndarray) -> np.ndarray:
        every = np.lib.stride_tricks.sliding_window_view(flat, call["size"], axis=axis)
        return every[(slice(None),) * axis + (slice(None, None, call["step"]),)]

    return rearranged(call.builder, x, windows)


def _filled(call: AtenCall, fill: float | None = None) -> Value:
    """A constant of a tensor's shape."""
    value = call["fill_value"] if fill is None else fill
    return np.full(call.builder.claim(call.x.shape), value, dtype=call.builder.dtype)


def _copied(call: AtenCall) -> Value:
    """A source in the shape of what it overwrites."""
    return call.builder.broadcast(call.builder.variable(call.operand("src")), call.x.shape)


def _sliced_over(call: AtenCall) -> Value:
    """A tensor with a slice (or, with an index, one entry of an axis) replaced."""
    x, source = call.x, call.builder.variable(call["src"])
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    axis = normal_axis(call.get("dim", 0), len(x.shape))
    cut: int | slice = slice(call.get("start"), call.get("end"), call.get("step", 1))
    if "index" in call.arguments:
        cut = int(call["index"])
    return overwritten(call.builder, x, source, places[(slice(None),) * axis + (cut,)])


def _scatter(call: AtenCall) -> Value:
    x, axis = call.x, normal_axis(call["dim"], len(call.x.shape))
    wanted = _positions(call["index"], "indices")
    if call.get("reduce") is not None:
        raise LoweringError("it combines values (its reduce is set)")
    source = call.builder.variable(call["src"]) if "src" in call.arguments else None
    if source is None:
        source = call.builder.constant(np.full(wanted.shape, call["value"], dtype=call.builder.dtype))
    elif source.shape != wanted.shape:
        source = rearranged(call.builder, source, lambda flat: flat[tuple(slice(extent) for extent in wanted.shape)])
    grid: list[np.ndarray] = list(np.indices(wanted.shape, sparse=True))
    grid[axis] = wanted
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    return overwritten(call.builder, x, source, places[tuple(grid)])


def _pixel_shuffle(call: AtenCall) -> Value:
    return call.onnx("DepthToSpace", call.x, blocksize=call["upscale_factor"], mode="CRD")


ROWS: Mapping[str, Handler] = MappingProxyType(
    {
        "flatten": _flatten,
        "view": _view,
        "_unsafe_view": _view,
        "reshape": _view,
        "unflatten": _unflatten,
        "permute": _permute,
        "transpose": _swap_axes,
        "t": _swap_axes,
        "squeeze": _squeeze,
        "unsqueeze": _unsqueeze,
        "cat": _concatenate,
        "concat": _concatenate,
        "stack": _stack,
        "split": _split,
        "split_with_sizes": _split,
        "chunk": _chunk,
        "slice": _slice,
        "select": _select,
        "index_select": _index_select,
        "expand": _expand,
        "repeat": _repeat,
        "pad": _pad,
        "constant_pad_nd": _pad,
        "upsample_nearest1d": partial(_upsample, mode="nearest", rank=1),
        "upsample_nearest2d": partial(_upsample, mode="nearest", rank=2),
        "upsample_bilinear2d": partial(_upsample, mode="linear", rank=2),
        "upsample_linear1d": partial(_upsample, mode="linear", rank=1),
        "pixel_shuffle": _pixel_shuffle,
        "flip": _flip,
        "index": _index,
        "gather": _gather,
        "diagonal": _diagonal,
        "unfold": _unfold,
        "full_like": _filled,
        "zeros_like": partial(_filled, fill=0.0),
        "ones_like": partial(_filled, fill=1.0),
        "copy": _copied,
        "slice_scatter": _sliced_over,
        "select_scatter": _sliced_over,
        "scatter": _scatter,
    }
)
