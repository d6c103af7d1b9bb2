"""How aten's reductions, normalisations and attention are lowered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import LoweringError, Value, Variable, is_known
from .lowering_attention import attend, causal, usual_factor
from .lowering_pool import extreme_over
from .precise import one_over

if TYPE_CHECKING:
    from .torch_call import AtenCall, Handler


def _axes(call: AtenCall) -> tuple[tuple[int, ...], bool]:
    """The axes to reduce, counted from the front (all of them if none are named), and whether they stay."""
    rank = len(call.x.shape)
    dim = call.get("dim")
    named = tuple(range(rank)) if dim is None or dim == () else tuple(dim) if isinstance(dim, Sequence) else (dim,)
    return tuple(axis % rank for axis in named) if rank else (), bool(call.get("keepdim", False))


def _extreme(call: AtenCall, op: str) -> Value | tuple[Value, Value]:
    """``max(x)``, ``max(x, other)``, or ``max(x, dim)`` with the positions beside the values."""
    if "other" in call.arguments:
        return call.onnx(op, call.operand("self"), call.operand("other"))
    axes, keep = _axes(call)
    values = extreme_over(call.builder, call.x, axes, op, keep)
    return values if "dim" not in call.arguments else (values, _position(call, op))


def _position(call: AtenCall, op: str) -> Value:
    """Where an axis (of the flat tensor if none is named) has its largest or smallest entry."""
    axes, keep = _axes(call)
    x = call.x if len(axes) == 1 else call.builder.reshape(call.x, (call.x.size,))
    axis = axes[0] if len(axes) == 1 else 0
    found: Value = call.onnx(f"Arg{op}", x, axis=axis, keepdims=int(keep))
    return found if len(axes) == 1 else call.builder.reshape(found, (1,) * len(call.x.shape) * keep)


def _reduced(call: AtenCall, op_type: str) -> Value:
    axes, keep = _axes(call)
    return call.onnx(op_type, call.x, np.asarray(axes), keepdims=int(keep))


def _norm(call: AtenCall) -> Value:
    order = call.get("ord", 2)
    if order not in (1, 2, math.inf):
        raise LoweringError(f"its order {order} is none of 1, 2 and infinity")
    if order == math.inf:
        axes, keep = _axes(call)
        return extreme_over(call.builder, call.onnx("Abs", call.x), axes, "Max", keep)
    return _reduced(call, f"ReduceL{int(order)}")


def _variance(call: AtenCall) -> Value:
    """The mean squared distance from the mean, by n - correction."""
    axes, keep = _axes(call)
    correction = call.get("correction", int(call.get("unbiased", True)))
    x, builder = call.x, call.builder
    count = math.prod(x.shape[axis] for axis in axes)
    if count <= correction:
        raise LoweringError("it takes the variance of too few values")
    mean = builder.affine(builder.reduce_sum(x, axes, keepdims=True), one_over(count))
    squares = builder.unary("Pow", builder.sum_of((x, mean), (1, -1)), {"exponent": 2.0})
    return builder.affine(builder.reduce_sum(squares, axes, keepdims=keep), one_over(count - correction))


def _deviation(call: AtenCall) -> Value:
    return call.onnx("Sqrt", _variance(call))


def _cumulative(call: AtenCall) -> Value:
    return call.onnx("CumSum", call.x, np.asarray(call["dim"]))


def _instance_norm(call: AtenCall) -> Value:
    if not call.get("use_input_stats", True):
        raise LoweringError("it normalises by running statistics")
    channels = call.x.shape[1]
    scale, shift = call.get("weight", np.ones(channels)), call.get("bias", np.zeros(channels))
    return call.onnx("InstanceNormalization", call.x, scale, shift, epsilon=call.number("eps"))


def _affine(call: AtenCall, op_type: str, before: float = 0.0, factor: float = 1.0, after: float = 0.0) -> Value:
    """``factor * f(x + before) + after``."""
    inner = call.builder.affine(call.x, 1.0, before)
    return call.builder.affine(call.onnx(op_type, inner), factor, after)


def _log_sigmoid(call: AtenCall) -> Value:
    builder = call.builder
    return builder.affine(builder.unary("Softplus", builder.affine(call.x, -1.0)), -1.0)


def _truncated(call: AtenCall) -> Value:
    builder, x = call.builder, call.x
    above, below = (call.onnx("Floor", call.onnx("Relu", part)) for part in (x, builder.affine(x, -1.0)))
    return call.onnx("Sub", above, below)


def _logical(call: AtenCall, op_type: str) -> Value:
    operands = [call.operand("self"), call.operand("other")]
    if any(isinstance(value, Variable) and value.dtype.kind != "b" for value in operands):
        raise LoweringError("it works on the bits of whole numbers")
    return call.onnx(op_type, *operands)


def _logical_not(call: AtenCall) -> Value:
    if call.x.dtype.kind != "b":
        raise LoweringError("it works on the bits of whole numbers")
    return call.onnx("Not", call.x)


def _attention(call: AtenCall) -> Any:
    if call.get("dropout_p", 0.0):
        raise LoweringError("dropout is not covered")
    builder = call.builder
    query, key, value = (builder.variable(call[name]) for name in ("query", "key", "value"))
    mask = call.get("attn_mask")
    if mask is not None and not is_known(mask):
        raise LoweringError("its mask depends on the network's inputs")
    if call.get("is_causal", False):
        mask = causal(query.shape[-2], key.shape[-2])
    if mask is not None and not isinstance(mask, np.ndarray):
        mask = mask.detach().cpu().numpy()
    if call.get("enable_gqa", False) and query.shape[-3] != key.shape[-3]:
        raise LoweringError("it has fewer heads of keys than of queries")
    given = call.get("scale")
    factor = usual_factor(query) if given is None else float(given)
    return attend(builder, query, key, value, factor, mask)


ROWS: Mapping[str, Handler] = MappingProxyType(
    {
        "max": partial(_extreme, op="Max"),
        "min": partial(_extreme, op="Min"),
        "argmax": partial(_position, op="Max"),
        "argmin": partial(_position, op="Min"),
        "prod": partial(_reduced, op_type="ReduceProd"),
        "logsumexp": partial(_reduced, op_type="ReduceLogSumExp"),
        "linalg_vector_norm": _norm,
        "var": _variance,
        "std": _deviation,
        "cumsum": _cumulative,
        "instance_norm": _instance_norm,
        "expm1": partial(_affine, op_type="Exp", after=-1.0),
        "log1p": partial(_affine, op_type="Log", before=1.0),
        "log2": partial(_affine, op_type="Log", factor=1.0 / math.log(2.0)),
        "log10": partial(_affine, op_type="Log", factor=1.0 / math.log(10.0)),
        "erfc": partial(_affine, op_type="Erf", factor=-1.0, after=1.0),
        "log_sigmoid": _log_sigmoid,
        "trunc": _truncated,
        "bitwise_and": partial(_logical, op_type="And"),
        "bitwise_or": partial(_logical, op_type="Or"),
        "bitwise_xor": partial(_logical, op_type="Xor"),
        "bitwise_not": _logical_not,
        "scaled_dot_product_attention": _attention,
    }
)
