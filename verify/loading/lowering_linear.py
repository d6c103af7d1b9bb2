"""Lowering of matrix products, convolutions and batch normalisation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .builder import GraphBuilder, Value, Variable, is_known, shape_of
from .lowering import Call, Lowering, LoweringError
from .precise import Precise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array


def times(builder: GraphBuilder, array: Array, factor: float) -> Array | Precise:
    """A known array times a number, exactly; live parameters in their own arithmetic."""
    if not isinstance(array, np.ndarray | Precise):
        return array * factor
    return builder.exactly(array) * builder.computed(np.asarray(factor))


def matmul(builder: GraphBuilder, a: Value, b: Value) -> Variable:
    """``a @ b`` with numpy's semantics, at least one of them a variable."""
    a_shape, b_shape = shape_of(a), shape_of(b)
    if not a_shape or not b_shape:
        raise LoweringError("it multiplies a scalar")
    inner = b_shape[-2] if len(b_shape) > 1 else b_shape[0]
    if a_shape[-1] != inner:
        raise LoweringError(f"shapes {list(a_shape)} and {list(b_shape)} do not fit")
    if isinstance(a, Variable) and is_known(b):
        if len(b_shape) == 1:
            return builder.reshape(builder.linear(a, b.reshape(1, -1)), a_shape[:-1])
        if len(b_shape) == 2:
            return builder.linear(a, b.T)
    if is_known(a) and isinstance(b, Variable) and len(a_shape) <= 2:
        if len(b_shape) == 1:
            product = builder.linear(b, a.reshape(-1, a_shape[-1]))
            return builder.reshape(product, a_shape[:-1])
        if b_shape[-1] == 1:
            # Columns of width one are vectors: a dense layer over the last axis does the same.
            flat = builder.linear(builder.as_rows(b, b_shape[-2]), a.reshape(-1, a_shape[-1]))
            return builder.reshape(flat, (*b_shape[:-2], *a_shape[:-1], 1))
    a2 = _as_matrix(builder, a, (1, -1)) if len(a_shape) == 1 else a
    b2 = _as_matrix(builder, b, (-1, 1)) if len(b_shape) == 1 else b
    left, right = shape_of(a2), shape_of(b2)
    shape: tuple[int, ...] = (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    product = _matrix_product(builder, a2, b2, shape)
    if len(a_shape) == 1:
        shape = (*shape[:-2], shape[-1])
    if len(b_shape) == 1:
        shape = shape[:-1]
    return builder.reshape(product, shape)


def _as_matrix(builder: GraphBuilder, vector: Value, shape: tuple[int, int]) -> Value:
    if isinstance(vector, Variable):
        return builder.reshape(vector, tuple(vector.size if extent == -1 else extent for extent in shape))
    return vector.reshape(shape)


def _matrix_product(builder: GraphBuilder, a: Value, b: Value, shape: tuple[int, ...]) -> Variable:
    if isinstance(a, Variable) and isinstance(b, Variable):
        return builder.add("MatMul", (a, b), shape)
    if isinstance(a, Variable):
        return builder.add("ConstMatMul", (a,), shape, {"matrix": builder.real(b)}, {"side": "right"})
    return builder.add("ConstMatMul", (b,), shape, {"matrix": builder.real(a)}, {"side": "left"})


def _matmul(call: Call) -> Value:
    return matmul(call.builder, call.value(0), call.value(1))


def _transposed(builder: GraphBuilder, value: Value) -> Value:
    return builder.transpose(value, (1, 0)) if isinstance(value, Variable) else value.T


def _gemm(call: Call) -> Value:
    builder = call.builder
    a, b = call.value(0), call.value(1)
    if len(shape_of(a)) != 2 or len(shape_of(b)) != 2:
        raise LoweringError("its operands are not matrices")
    a = _transposed(builder, a) if call.integer("transA", 0) else a
    b = _transposed(builder, b) if call.integer("transB", 0) else b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if alpha != 1.0 and is_known(b):
        b, alpha = times(builder, b, alpha), 1.0
    bias = call.value(2) if call.has(2) and beta != 0.0 else None
    if is_known(bias) and beta != 1.0:
        bias, beta = times(builder, bias, beta), 1.0
    width = shape_of(b)[1]
    if is_known(bias) and is_known(b) and isinstance(a, Variable) and math.prod(bias.shape[:-1]) == 1:
        row = bias.reshape(-1)
        return builder.linear(a, b.T, row if row.shape[0] == width else _repeated(row, width))
    if is_known(a) and is_known(b):
        a = builder.variable(a)
    product = builder.affine(matmul(builder, a, b), alpha)
    if bias is None:
        return product
    if is_known(bias):
        return builder.scale(product, shift=bias)
    return builder.sum_of((product, builder.affine(bias, beta)), (1, 1))


def _repeated(number: Array | Precise, width: int) -> Array | Precise:
    """An array of one number as a row."""
    return number + Precise.of(np.zeros(width)) if isinstance(number, Precise) else number.repeat(width)


def window_pads(
    call: Call, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """Padding of a convolution or pooling, begins then ends, from `pads` or `auto_pad`."""
    mode = call.text("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * (2 * len(kernel))
    if mode == "NOTSET":
        pads = call.ints("pads") or (0,) * (2 * len(kernel))
        if len(pads) != 2 * len(kernel) or min(pads) < 0:
            raise LoweringError(f"its padding {list(pads)} is negative or does not fit a {len(kernel)}-d window")
        return pads
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise LoweringError(f"its padding mode {mode} is unknown")
    total = [
        max((-(-extent // stride) - 1) * stride + (size - 1) * dilation + 1 - extent, 0)
        for extent, size, stride, dilation in zip(extents, kernel, strides, dilations, strict=True)
    ]
    begins = [pad // 2 if mode == "SAME_UPPER" else pad - pad // 2 for pad in total]
    return (*begins, *(pad - begin for pad, begin in zip(total, begins, strict=True)))


def window_settings(call: Call, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilations of a window over `rank` axes; raises `LoweringError` unless they are positive and fit."""
    strides = call.ints("strides") or (1,) * rank
    dilations = call.ints("dilations") or (1,) * rank
    for name, setting in (("strides", strides), ("dilations", dilations)):
        if len(setting) != rank or min(setting, default=1) < 1:
            raise LoweringError(f"its {name} {list(setting)} do not fit a {rank}-d window")
    return strides, dilations


def output_extents(
    extents: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> tuple[int, ...]:
    """Output extents of a convolution (partial windows dropped)."""
    rank = len(kernel)
    made = tuple(
        (extents[k] + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1) // strides[k] + 1
        for k in range(rank)
    )
    if min(made, default=1) < 1:
        raise LoweringError(f"its window {list(kernel)} is larger than its input {list(extents)}")
    return made


def _operand_and_kernel(call: Call) -> tuple[Variable, Array, int]:
    x, weight = call.x(), call.known(1, "weight")
    rank = len(x.shape) - 2
    if not 1 <= rank <= 3 or len(weight.shape) != rank + 2 or 0 in tuple(weight.shape):
        raise LoweringError(
            f"an input of shape {list(x.shape)} with a weight of shape {list(weight.shape)} is not covered"
        )
    if call.ints("kernel_shape") not in (None, tuple(weight.shape[2:])):
        raise LoweringError(f"its kernel_shape is not that of its weight of shape {list(weight.shape)}")
    return x, weight, rank


def _bias(call: Call, channels: int) -> dict[str, Array]:
    if not call.has(2):
        return {}
    bias = call.known(2, "bias")
    if tuple(bias.shape) != (channels,):
        raise LoweringError(f"its bias of shape {list(bias.shape)} does not fit {channels} channels")
    return {"bias": bias}


def _conv(call: Call) -> Value:
    x, weight, rank = _operand_and_kernel(call)
    groups = call.integer("group", 1)
    channels, kernel = weight.shape[0], tuple(weight.shape[2:])
    if groups < 1 or x.shape[1] != weight.shape[1] * groups or channels % groups:
        raise LoweringError(f"weight {list(weight.shape)} with {groups} groups does not fit input {list(x.shape)}")
    strides, dilations = window_settings(call, rank)
    pads = window_pads(call, x.shape[2:], kernel, strides, dilations)
    shape = (x.shape[0], channels, *output_extents(x.shape[2:], kernel, strides, dilations, pads))
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups}
    return call.builder.add("Conv", (x,), shape, {"weight": weight, **_bias(call, channels)}, attributes)


def _conv_transpose(call: Call) -> Value:
    x, weight, rank = _operand_and_kernel(call)
    groups = call.integer("group", 1)
    if groups < 1 or x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise LoweringError(f"weight {list(weight.shape)} with {groups} groups does not fit input {list(x.shape)}")
    kernel, channels = tuple(weight.shape[2:]), weight.shape[1] * groups
    strides, dilations = window_settings(call, rank)
    extra = call.ints("output_padding") or (0,) * rank
    full = tuple(strides[k] * (x.shape[2 + k] - 1) + extra[k] + (kernel[k] - 1) * dilations[k] + 1 for k in range(rank))
    pads = _transposed_pads(call, x.shape[2:], full, strides)
    shape = (x.shape[0], channels, *(full[k] - pads[k] - pads[rank + k] for k in range(rank)))
    if min(shape) < 1 or min(extra) < 0 or len(extra) != rank:
        raise LoweringError(f"its settings give an output of shape {list(shape)}")
    attributes = {"strides": strides, "pads": pads, "output_padding": extra, "dilations": dilations, "groups": groups}
    return call.builder.add("ConvTranspose", (x,), shape, {"weight": weight, **_bias(call, channels)}, attributes)


def _transposed_pads(
    call: Call, extents: Sequence[int], full: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    """Padding that a transposed convolution cuts from its full output, begins then ends."""
    rank = len(full)
    mode = call.text("auto_pad", "NOTSET")
    wanted = call.ints("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(extent * stride for extent, stride in zip(extents, strides, strict=True))
    if wanted is None:
        pads = (0,) * (2 * rank) if mode == "VALID" else call.ints("pads") or (0,) * (2 * rank)
    else:
        total = [whole - part for whole, part in zip(full, wanted[-rank:], strict=True)]
        begins = [cut // 2 if mode == "SAME_UPPER" else cut - cut // 2 for cut in total]
        pads = (*begins, *(cut - begin for cut, begin in zip(total, begins, strict=True)))
    if len(pads) != 2 * rank or min(pads) < 0:
        raise LoweringError(f"its padding {list(pads)} is negative or does not fit a {rank}-d window")
    return pads


def _batch_norm(call: Call) -> Value:
    x = call.x()
    if call.integer("training_mode", 0) or not call.integer("spatial", 1):
        raise LoweringError("it is in training mode, or normalises every position by its own statistics")
    statistics = [call.known(place, what) for place, what in enumerate(("scale", "bias", "mean", "variance"), start=1)]
    rank = len(x.shape)
    if rank < 2:
        raise LoweringError("its input has no channel axis")
    epsilon = call.number("epsilon", 1e-5)
    channels = (-1,) + (1,) * (rank - 2)
    if all(isinstance(array, np.ndarray | Precise) for array in statistics):
        scale, shift, mean, variance = map(call.builder.exactly, statistics)
        factor = scale / (variance + call.builder.computed(np.asarray(epsilon))).sqrt()
    else:
        scale, shift, mean, variance = statistics
        factor = scale / (variance + epsilon) ** 0.5
    return call.builder.scale(x, factor.reshape(channels), (shift - mean * factor).reshape(channels))


ROWS: tuple[Lowering, ...] = (
    Lowering("MatMul", _matmul, ("Linear", "ConstMatMul", "MatMul")),
    Lowering("Gemm", _gemm, ("Linear", "ConstMatMul", "MatMul", "Scale", "Add")),
    Lowering("Conv", _conv, ("Conv",), note="1-, 2- and 3-d, constant weight"),
    Lowering("ConvTranspose", _conv_transpose, ("ConvTranspose",), note="1-, 2- and 3-d, constant weight"),
    Lowering("BatchNormalization", _batch_norm, ("Scale",), since=7, note="inference"),
)
