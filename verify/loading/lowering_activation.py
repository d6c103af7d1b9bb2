"""Lowering of activation functions and data-dependent normalisation."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .builder import Variable
from .lowering import DOUBLE, FLOAT, Call, Lowering, LoweringError, normal_axis
from .lowering_arithmetic import clip, power
from .lowering_linear import matmul
from .precise import one_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..graph import Array
    from .builder import GraphBuilder, Value

SELU_ALPHA = 1.6732632423543772848
SELU_GAMMA = 1.0507009873554804935


def _plain(call: Call, op: str) -> Value:
    return call.builder.unary(op, call.x())


def _relu(call: Call) -> Value:
    x = call.x()
    return call.builder.unary("Relu", x, integral=x.integral)


def _leaky_relu(call: Call) -> Value:
    x = call.x()
    slope = np.asarray(call.number("alpha", 0.01))
    return call.builder.add("LeakyRelu", (x,), x.shape, {"slope": slope})


def _prelu(call: Call) -> Value:
    x = call.x()
    if isinstance(call.value(1), Variable):
        below = call.builder.unary("Relu", call.builder.affine(x, -1.0))
        bent = call.builder.product(below, call.x(1))
        return call.builder.sum_of((call.builder.unary("Relu", x), bent), (1, -1))
    slope = call.known(1, "slope")
    if np.broadcast_shapes(x.shape, tuple(slope.shape)) != x.shape:
        raise LoweringError(f"its slope of shape {list(slope.shape)} does not fit {list(x.shape)}")
    return call.builder.add("LeakyRelu", (x,), x.shape, {"slope": slope})


def _thresholded_relu(call: Call) -> Value:
    x = call.x()
    gate = call.builder.unary("IsPositive", call.builder.affine(x, shift=-call.number("alpha", 1.0)))
    return call.builder.product(x, gate)


def _finite(call: Call, name: str, default: float) -> float:
    """A numeric attribute that the operator table takes as it is."""
    value = call.number(name, default)
    if not math.isfinite(value):
        raise LoweringError(f"its {name} is {value}")
    return value


def _elu(call: Call) -> Value:
    return call.builder.unary("Elu", call.x(), {"alpha": _finite(call, "alpha", 1.0)})


def _selu(call: Call) -> Value:
    curve = call.builder.unary("Elu", call.x(), {"alpha": _finite(call, "alpha", SELU_ALPHA)})
    return call.builder.affine(curve, _finite(call, "gamma", SELU_GAMMA))


def _celu(call: Call) -> Value:
    """``x`` where positive, else ``alpha (exp(x / alpha) - 1)``: with a negative alpha, an exponential that grows."""
    builder, x, alpha = call.builder, call.x(), _finite(call, "alpha", 1.0)
    if alpha == 0.0:
        raise LoweringError("its alpha is zero")
    if alpha > 0.0:
        curve = builder.unary("Elu", builder.affine(x, one_over(alpha)), {"alpha": 1.0})
        return builder.affine(curve, alpha)
    below = builder.unary("Relu", builder.affine(x, -1.0))
    grown = builder.unary("Exp", builder.affine(below, one_over(-alpha)))
    return builder.sum_of((builder.unary("Relu", x), builder.affine(grown, alpha, -alpha)), (1, 1))


def _hard_sigmoid(call: Call) -> Value:
    line = call.builder.affine(call.x(), call.number("alpha", 0.2), call.number("beta", 0.5))
    return clip(call.builder, line, 0.0, 1.0)


def _softsign(call: Call) -> Value:
    x = call.x()
    return call.builder.elementwise("Div", (x, call.builder.affine(call.builder.unary("Abs", x), shift=1.0)))


def _mish(call: Call) -> Value:
    x = call.x()
    gate = call.builder.unary("Tanh", call.builder.unary("Softplus", x))
    return call.builder.product(x, gate)


def _gelu(call: Call) -> Value:
    call.choice("approximate", "none", "tanh")
    return call.builder.unary("Gelu", call.x(), {"approximate": call.text("approximate", "none")})


def _swish(call: Call) -> Value:
    x = call.x()
    alpha = call.number("alpha", 1.0)
    if alpha == 1.0:
        return call.builder.unary("Silu", x)
    return call.builder.product(x, call.builder.unary("Sigmoid", call.builder.affine(x, alpha)))


def _normalise(builder: GraphBuilder, x: Variable, axes: tuple[int, ...], epsilon: float) -> Variable:
    """``(x - mean) / sqrt(variance + epsilon)`` with mean and variance over `axes`."""
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    mean = builder.affine(builder.reduce_sum(x, axes, keepdims=True), one_over(count))
    centred = builder.sum_of((x, mean), (1, -1))
    squares = builder.unary("Pow", centred, {"exponent": 2.0})
    variance = builder.affine(builder.reduce_sum(squares, axes, keepdims=True), one_over(count), epsilon)
    return builder.elementwise("Div", (centred, builder.unary("Sqrt", variance)))


def _per_channel(array: Array, rank: int) -> Array:
    """A vector over channels (axis 1) shaped to broadcast over a tensor of `rank` axes."""
    return array.reshape((-1,) + (1,) * (rank - 2))


def _instance_norm(call: Call) -> Value:
    x = call.x()
    rank = len(x.shape)
    unit = _normalise(call.builder, x, tuple(range(2, rank)), call.number("epsilon", 1e-5))
    scale, shift = call.known(1, "scale"), call.known(2, "bias")
    return call.builder.scale(unit, _per_channel(scale, rank), _per_channel(shift, rank))


def _layer_norm(call: Call) -> Value:
    call.choice("stash_type", FLOAT, DOUBLE)
    x = call.x()
    first = normal_axis(call.integer("axis", -1), len(x.shape))
    unit = _normalise(call.builder, x, tuple(range(first, len(x.shape))), call.number("epsilon", 1e-5))
    return call.builder.scale(unit, call.known(1, "scale"), call.known(2, "bias") if call.has(2) else None)


def _group_norm(call: Call) -> Value:
    call.choice("stash_type", FLOAT, DOUBLE)
    x = call.x()
    builder = call.builder
    groups = call.integer("num_groups", 1)
    batch, channels, *rest = x.shape
    if groups < 1 or channels % groups:
        raise LoweringError(f"its {channels} channels cannot be split into {groups} groups")
    grouped = builder.reshape(x, (batch, groups, channels // groups, *rest))
    unit = _normalise(builder, grouped, tuple(range(2, len(grouped.shape))), call.number("epsilon", 1e-5))
    scale, shift = call.known(1, "scale"), call.known(2, "bias")
    if scale.shape[0] == groups and call.opset < 21:
        unit = builder.scale(unit, _per_channel(scale, len(grouped.shape)), _per_channel(shift, len(grouped.shape)))
        return builder.reshape(unit, x.shape)
    rank = len(x.shape)
    return builder.scale(builder.reshape(unit, x.shape), _per_channel(scale, rank), _per_channel(shift, rank))


def _rms_norm(call: Call) -> Value:
    call.choice("stash_type", FLOAT, DOUBLE)
    x = call.x()
    builder = call.builder
    axes = tuple(range(normal_axis(call.integer("axis", -1), len(x.shape)), len(x.shape)))
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    squares = builder.reduce_sum(builder.unary("Pow", x, {"exponent": 2.0}), axes, keepdims=True)
    root = builder.unary("Sqrt", builder.affine(squares, one_over(count), call.number("epsilon", 1e-5)))
    return builder.scale(builder.elementwise("Div", (x, root)), call.known(1, "scale"))


def _local_response(call: Call) -> Value:
    """``x / (bias + alpha / size * sum of squares of the channels around) ** beta``."""
    x = call.x()
    builder = call.builder
    size, channels = call.integer("size", 1), x.shape[1]
    offset = np.arange(channels) - np.arange(channels)[:, None]
    band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    flat = builder.reshape(builder.unary("Pow", x, {"exponent": 2.0}), (x.shape[0], channels, math.prod(x.shape[2:])))
    sums = builder.reshape(matmul(builder, band * (call.number("alpha", 1e-4) / size), flat), x.shape)
    factor = power(builder, builder.affine(sums, shift=call.number("bias", 1.0)), -call.number("beta", 0.75))
    return builder.product(x, factor)


def _row(op_type: str, lower: Callable[[Call], Value], *core: str, since: int = 1, note: str = "") -> Lowering:
    return Lowering(op_type, lower, core, since, note)


_NORM = ("Sum", "Scale", "Add", "Pow", "Sqrt", "Div")

ROWS: tuple[Lowering, ...] = (
    _row("Relu", _relu, "Relu"),
    _row("LeakyRelu", _leaky_relu, "LeakyRelu"),
    _row("PRelu", _prelu, "LeakyRelu", "Relu", "Mul"),
    _row("ThresholdedRelu", _thresholded_relu, "IsPositive", "Mul", since=10),
    _row("Sigmoid", partial(_plain, op="Sigmoid"), "Sigmoid"),
    _row("Tanh", partial(_plain, op="Tanh"), "Tanh"),
    _row("Erf", partial(_plain, op="Erf"), "Erf", since=9),
    _row("Softplus", partial(_plain, op="Softplus"), "Softplus"),
    _row("HardSwish", partial(_plain, op="HardSwish"), "HardSwish", since=14),
    _row("Elu", _elu, "Elu"),
    _row("Selu", _selu, "Elu", "Scale"),
    _row("Celu", _celu, "Elu", "Scale", "Relu", "Exp", "Add", since=12),
    _row("HardSigmoid", _hard_sigmoid, "Scale", "Clip"),
    _row("Softsign", _softsign, "Abs", "Scale", "Div"),
    _row("Mish", _mish, "Softplus", "Tanh", "Mul", since=18),
    _row("Gelu", _gelu, "Gelu", since=20),
    _row("Swish", _swish, "Silu", "Sigmoid", "Mul", since=24),
    _row("InstanceNormalization", _instance_norm, *_NORM),
    _row("LayerNormalization", _layer_norm, *_NORM, since=17, note="first output only"),
    _row("GroupNormalization", _group_norm, *_NORM, since=18),
    _row("RMSNormalization", _rms_norm, "Sum", "Scale", "Pow", "Sqrt", "Div", since=23),
    _row("LRN", _local_response, "Pow", "ConstMatMul", "Scale", "Mul"),
)
