"""How aten operators that compute are lowered: each becomes a call of an ONNX lowering, or of the builder directly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import LoweringError, Value, Variable, is_known
from .lowering import Call
from .lowering_activation import SELU_ALPHA, SELU_GAMMA
from .lowering_arithmetic import clip, power
from .lowering_linear import matmul
from .lowering_table import LOWERINGS

if TYPE_CHECKING:
    from .torch_call import AtenCall, Handler


_LEAST_THRESHOLD = 5.0
"""Of a softplus: below it the jump to a line is so high that bounds would be loose."""


def _number(call: AtenCall, name: str, default: float) -> float:
    """A number among the arguments, rounded to the graph's type as torch's kernels round it. Raises `LoweringError` for
    one that is not finite there."""
    value = call.number(name, default)
    if not math.isfinite(value):
        raise LoweringError(f"its {name} is {value}")
    return value


def _onnx(call: AtenCall, op_type: str) -> Value:
    _, *settings = call.arguments.items()
    for name, value in settings:
        if value is not None:
            raise LoweringError(f"its {name} is {value}")
    return call.onnx(op_type, call.x)


def _binary(call: AtenCall, op_type: str) -> Value:
    return call.onnx(op_type, call.operand("self"), call.operand("other"))


def _not_equal(call: AtenCall) -> Value:
    return call.onnx("Not", _binary(call, "Equal"))


def _add(call: AtenCall, op_type: str) -> Value:
    first, second = ("other", "self") if op_type == "rsub" else ("self", "other")
    b = call.operand(second)
    factor = call.get("alpha", 1)
    if op_type == "rsub" and factor != 1:
        raise LoweringError("its alpha is not 1")
    if factor != 1:
        factor = _number(call, "alpha", 1.0) if isinstance(factor, float) else factor
        if isinstance(b, Variable):
            b = call.builder.affine(b, float(factor))
        else:
            b = (b.astype(np.float64) if isinstance(b, np.ndarray) else b) * factor
    return call.onnx("Add" if op_type == "add" else "Sub", call.operand(first), b)


def _divide(call: AtenCall) -> Value:
    if call.get("rounding_mode") is not None:
        raise LoweringError("its rounding_mode is not None")
    return _binary(call, "Div")


def _linear(call: AtenCall) -> Value:
    weight = call["weight"]
    if not is_known(weight) or is_known(call["input"]):
        raise LoweringError("its weight depends on the network's inputs")
    bias = call.get("bias")
    if bias is not None and not is_known(bias):
        raise LoweringError("its bias depends on the network's inputs")
    return call.builder.linear(call.x, weight, bias)


def _addmm(call: AtenCall) -> Value:
    if call.get("alpha", 1) != 1 or call.get("beta", 1) != 1:
        raise LoweringError("its alpha or beta is not 1")
    return call.onnx("Add", matmul(call.builder, call["mat1"], call["mat2"]), call["self"])


def _matmul(call: AtenCall) -> Value:
    a, b = list(call.arguments.values())[:2]
    return matmul(call.builder, a, b)


def _pairs(value: Any, rank: int) -> tuple[int, ...]:
    """A setting per axis from one number or a list."""
    items = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple(int(item) for item in (items * rank if len(items) == 1 else items))


def _conv(call: AtenCall, transposed: bool = False) -> Value:
    x, weight, bias = call.x, call["weight"], call.get("bias")
    rank = len(weight.shape) - 2
    batched = len(x.shape) == rank + 2
    if not batched:
        x = call.builder.reshape(x, (1, *x.shape))
    padding = call.get("padding", 0)
    attributes: dict[str, Any] = {
        "strides": _pairs(call.get("stride", 1), rank),
        "dilations": _pairs(call.get("dilation", 1), rank),
        "group": call.get("groups", 1),
    }
    if isinstance(padding, str):
        attributes["auto_pad"] = "SAME_UPPER" if padding == "same" else "VALID"
    else:
        attributes["pads"] = _pairs(padding, rank) * 2
    if transposed or call.get("transposed", False):
        attributes["output_padding"] = _pairs(call.get("output_padding", 0), rank)
        made = call.onnx("ConvTranspose", x, weight, bias, **attributes)
    else:
        made = call.onnx("Conv", x, weight, bias, **attributes)
    return made if batched else call.builder.reshape(made, made.shape[1:])


def _batch_norm(call: AtenCall) -> Any:
    if call.get("training", False) or call.get("running_mean") is None:
        raise LoweringError("it normalises by the statistics of its batch")
    mean, variance = call["running_mean"], call["running_var"]
    scale = call.get("weight", mean * 0 + 1)
    shift = call.get("bias", mean * 0)
    return (call.onnx("BatchNormalization", call.x, scale, shift, mean, variance, epsilon=call.number("eps")),)


def _batch_norm_single(call: AtenCall) -> Value:
    return _batch_norm(call)[0]


def _layer_norm(call: AtenCall) -> Value:
    count = len(call["normalized_shape"])
    scale = call.get("weight", np.ones(call.x.shape[-count:]))
    return call.onnx("LayerNormalization", call.x, scale, call.get("bias"), axis=-count, epsilon=call.number("eps"))


def _group_norm(call: AtenCall) -> Value:
    channels = call.x.shape[1]
    scale, shift = call.get("weight", np.ones(channels)), call.get("bias", np.zeros(channels))
    lowering = LOWERINGS["GroupNormalization"]
    attributes = {"num_groups": call["num_groups"], "epsilon": call.number("eps")}
    return lowering.lower(Call(call.builder, "GroupNormalization", (call.x, scale, shift), attributes, 21))


def _leaky_relu(call: AtenCall) -> Value:
    return call.onnx("LeakyRelu", call.x, alpha=_number(call, "negative_slope", 0.01))


def _prelu(call: AtenCall) -> Value:
    x, slope = call.x, call["weight"]
    if slope.shape[0] != 1:
        slope = slope.reshape((-1,) + (1,) * (len(x.shape) - 2))
    return call.onnx("PRelu", x, slope)


def _elu(call: AtenCall) -> Value:
    if call.get("scale", 1) != 1 or call.get("input_scale", 1) != 1:
        raise LoweringError("its scales are not 1")
    return call.onnx("Elu", call.x, alpha=_number(call, "alpha", 1.0))


def _softplus(call: AtenCall) -> Value:
    """``log(1 + exp(beta x)) / beta``, and x itself where ``beta x`` exceeds the threshold."""
    builder, beta = call.builder, _number(call, "beta", 1.0)
    never = call.get("threshold", 20.0) == math.inf
    threshold = math.inf if never else _number(call, "threshold", 20.0)
    if beta == 0.0:
        raise LoweringError("its beta is zero")
    if threshold < _LEAST_THRESHOLD:
        raise LoweringError(f"its threshold is under {_LEAST_THRESHOLD}, where it jumps far to a line")
    curve = builder.unary("Softplus", builder.affine(call.x, beta), {"threshold": threshold})
    return builder.affine(curve, 1.0 / beta)


def _gelu(call: AtenCall) -> Value:
    return call.onnx("Gelu", call.x, approximate=call.get("approximate", "none"))


def _clamp(call: AtenCall, lower: str | float, upper: str | float) -> Value:
    """Clip to limits that are numbers or the names of arguments."""
    limits = []
    for limit, absent in ((lower, -math.inf), (upper, math.inf)):
        value = call.get(limit, absent) if isinstance(limit, str) else limit
        if not isinstance(value, int | float):
            raise LoweringError("its limits are tensors")
        limits.append(float(np.asarray(value, dtype=call.builder.dtype)))
    return clip(call.builder, call.x, *limits)


def _celu(call: AtenCall) -> Value:
    return call.onnx("Celu", call.x, alpha=_number(call, "alpha", 1.0))


def _selu(call: AtenCall) -> Value:
    kind = call.builder.dtype.type
    return call.onnx("Selu", call.x, alpha=float(kind(SELU_ALPHA)), gamma=float(kind(SELU_GAMMA)))


def _hard_sigmoid(call: AtenCall) -> Value:
    return call.onnx("HardSigmoid", call.x, alpha=1.0 / 6.0, beta=0.5)


def _square(call: AtenCall) -> Value:
    return power(call.builder, call.x, 2.0)


def _power(call: AtenCall) -> Value:
    exponent = call["exponent"]
    if not isinstance(exponent, int | float):
        return call.onnx("Pow", call["self"], exponent)
    return power(call.builder, call.x, _number(call, "exponent", 1.0))


def _reciprocal_root(call: AtenCall) -> Value:
    return call.builder.unary("Reciprocal", call.builder.unary("Sqrt", call.x))


def _axes(call: AtenCall) -> dict[str, Any]:
    """Reduction settings for ONNX: axes as given, all if none."""
    dim = call.get("dim", ())
    axes = np.asarray(dim if isinstance(dim, Sequence) else (dim,), dtype=np.int64)
    return {"axes": axes, "keepdims": int(call.get("keepdim", False))}


def _reduce(call: AtenCall, op_type: str) -> Value:
    settings = _axes(call)
    return call.onnx(op_type, call.x, settings["axes"], keepdims=settings["keepdims"])


def _softmax(call: AtenCall, op_type: str) -> Value:
    return call.onnx(op_type, call.x, axis=call["dim"])


def _unpadded_first(call: AtenCall, op_type: str, rank: int, **attributes: Any) -> Value:
    """A pooling operator, whose input may lack the batch axis."""
    x = call.x
    batched = len(x.shape) == rank + 2
    made = call.onnx(op_type, x if batched else call.builder.reshape(x, (1, *x.shape)), **attributes)
    return made if batched else call.builder.reshape(made, made.shape[1:])


def _window(call: AtenCall, rank: int) -> dict[str, Any]:
    kernel = _pairs(call["kernel_size"], rank)
    return {
        "kernel_shape": kernel,
        "strides": _pairs(call.get("stride") or kernel, rank),
        "pads": _pairs(call.get("padding", 0), rank) * 2,
        "dilations": _pairs(call.get("dilation", 1), rank),
        "ceil_mode": int(call.get("ceil_mode", False)),
    }


def _max_pool(call: AtenCall, rank: int) -> Value:
    return _unpadded_first(call, "MaxPool", rank, **_window(call, rank))


def _average_pool(call: AtenCall, rank: int) -> Value:
    if call.get("divisor_override") is not None:
        raise LoweringError("its divisor_override is set")
    include = int(call.get("count_include_pad", True))
    return _unpadded_first(call, "AveragePool", rank, count_include_pad=include, **_window(call, rank))


def _adaptive_average_pool(call: AtenCall, rank: int) -> Value:
    extents = call.x.shape[-rank:]
    wanted = tuple(
        extent if size is None else int(size) for extent, size in zip(extents, call["output_size"], strict=True)
    )
    if any(size < 1 or extent % size for extent, size in zip(extents, wanted, strict=True)):
        raise LoweringError(f"its output size {list(wanted)} does not divide its input's {list(extents)}")
    kernel = tuple(extent // size for extent, size in zip(extents, wanted, strict=True))
    return _unpadded_first(call, "AveragePool", rank, kernel_shape=kernel, strides=kernel)


def _where(call: AtenCall) -> Value:
    return call.onnx("Where", call["condition"], call.operand("self"), call.operand("other"))


def _unchanged(call: AtenCall) -> Value:
    return call.x


def _dropout(call: AtenCall) -> Value:
    dropped, training = call["p"], call["train"]
    if dropped and training:
        raise LoweringError("it is in training mode")
    return call.x


def _converted(call: AtenCall) -> Value:
    dtype = call.get("dtype")
    if dtype is not None and not dtype.is_floating_point:
        raise LoweringError(f"it converts values that depend on the inputs to {dtype}")
    if dtype is not None and dtype.itemsize < 4:
        raise LoweringError(f"it rounds values that depend on the inputs to {dtype}")
    return call.x


_ALIKE: Mapping[str, str] = MappingProxyType(
    {
        "relu": "Relu",
        "mish": "Mish",
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "erf": "Erf",
        "hardswish": "HardSwish",
        "abs": "Abs",
        "sign": "Sign",
        "floor": "Floor",
        "ceil": "Ceil",
        "round": "Round",
        "exp": "Exp",
        "log": "Log",
        "sqrt": "Sqrt",
        "reciprocal": "Reciprocal",
        "sin": "Sin",
        "cos": "Cos",
        "tan": "Tan",
        "atan": "Atan",
        "neg": "Neg",
        "softsign": "Softsign",
        "silu": "Swish",
        "logical_not": "Not",
    }
)
"""aten operators of one operand to the ONNX operator that is the same."""

_ALIKE_BINARY: Mapping[str, str] = MappingProxyType(
    {
        "mul": "Mul",
        "maximum": "Max",
        "minimum": "Min",
        "eq": "Equal",
        "gt": "Greater",
        "lt": "Less",
        "ge": "GreaterOrEqual",
        "le": "LessOrEqual",
        "logical_and": "And",
        "logical_or": "Or",
    }
)

ROWS: Mapping[str, Handler] = MappingProxyType(
    {
        **{name: partial(_onnx, op_type=op_type) for name, op_type in _ALIKE.items()},
        **{name: partial(_binary, op_type=op_type) for name, op_type in _ALIKE_BINARY.items()},
        "ne": _not_equal,
        "add": partial(_add, op_type="add"),
        "sub": partial(_add, op_type="sub"),
        "rsub": partial(_add, op_type="rsub"),
        "div": _divide,
        "true_divide": _divide,
        "linear": _linear,
        "addmm": _addmm,
        "mm": _matmul,
        "bmm": _matmul,
        "matmul": _matmul,
        "mv": _matmul,
        "conv1d": _conv,
        "conv2d": _conv,
        "conv3d": _conv,
        "convolution": _conv,
        "conv_transpose1d": partial(_conv, transposed=True),
        "conv_transpose2d": partial(_conv, transposed=True),
        "conv_transpose3d": partial(_conv, transposed=True),
        "batch_norm": _batch_norm_single,
        "_native_batch_norm_legit_no_training": _batch_norm,
        "layer_norm": _layer_norm,
        "group_norm": _group_norm,
        "leaky_relu": _leaky_relu,
        "prelu": _prelu,
        "_prelu_kernel": _prelu,
        "elu": _elu,
        "celu": _celu,
        "selu": _selu,
        "gelu": _gelu,
        "softplus": _softplus,
        "hardsigmoid": _hard_sigmoid,
        "hardtanh": partial(_clamp, lower="min_val", upper="max_val"),
        "relu6": partial(_clamp, lower=0.0, upper=6.0),
        "clamp": partial(_clamp, lower="min", upper="max"),
        "clip": partial(_clamp, lower="min", upper="max"),
        "clamp_min": partial(_clamp, lower="min", upper=math.inf),
        "clamp_max": partial(_clamp, lower=-math.inf, upper="max"),
        "pow": _power,
        "square": _square,
        "rsqrt": _reciprocal_root,
        "sum": partial(_reduce, op_type="ReduceSum"),
        "mean": partial(_reduce, op_type="ReduceMean"),
        "amax": partial(_reduce, op_type="ReduceMax"),
        "amin": partial(_reduce, op_type="ReduceMin"),
        "softmax": partial(_softmax, op_type="Softmax"),
        "_softmax": partial(_softmax, op_type="Softmax"),
        "log_softmax": partial(_softmax, op_type="LogSoftmax"),
        "_log_softmax": partial(_softmax, op_type="LogSoftmax"),
        "max_pool1d": partial(_max_pool, rank=1),
        "max_pool2d": partial(_max_pool, rank=2),
        "max_pool3d": partial(_max_pool, rank=3),
        "avg_pool1d": partial(_average_pool, rank=1),
        "avg_pool2d": partial(_average_pool, rank=2),
        "avg_pool3d": partial(_average_pool, rank=3),
        "adaptive_avg_pool1d": partial(_adaptive_average_pool, rank=1),
        "adaptive_avg_pool2d": partial(_adaptive_average_pool, rank=2),
        "adaptive_avg_pool3d": partial(_adaptive_average_pool, rank=3),
        "where": _where,
        "dropout": _dropout,
        "alias": _unchanged,
        "clone": _unchanged,
        "contiguous": _unchanged,
        "detach": _unchanged,
        "lift_fresh_copy": _unchanged,
        "to": _converted,
        "_to_copy": _converted,
    }
)
