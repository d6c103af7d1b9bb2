"""How aten operators that only move, repeat or join values are lowered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .builder import LoweringError, Value, shape_of
from .lowering import normal_axis
from .lowering_shape import resolved_shape

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
        factors = call.get("scale_factors") or (call["scales_h"], call["scales_w"])
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
        "pixel_shuffle": _pixel_shuffle,
    }
)
