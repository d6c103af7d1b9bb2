"""Lowering of reductions over axes."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .lowering import Call, Lowering, LoweringError
from .lowering_pool import extreme_over
from .lowering_shape import axes_of
from .precise import one_over

if TYPE_CHECKING:
    from .builder import GraphBuilder, Value, Variable


_MOST_FACTORS = 64


def reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The axes that a reduction of a tensor of so many axes is over; all of them if none are named."""
    axes = axes_of(call, rank, 13 if call.op_type == "ReduceSum" else 18)
    if axes:
        return tuple(sorted(set(axes)))
    return () if call.integer("noop_with_empty_axes", 0) else tuple(range(rank))


def _axes(call: Call, x: Variable) -> tuple[int, ...]:
    return reduced_axes(call, len(x.shape))


def _keepdims(call: Call) -> bool:
    return bool(call.integer("keepdims", 1))


def _reduce_sum(call: Call) -> Value:
    x = call.x()
    return call.builder.reduce_sum(x, _axes(call, x), _keepdims(call))


def _reduce_mean(call: Call) -> Value:
    x = call.x()
    axes = _axes(call, x)
    count = math.prod(x.shape[axis] for axis in axes)
    if not count:
        raise LoweringError("it averages no values")
    return call.builder.affine(call.builder.reduce_sum(x, axes, _keepdims(call)), one_over(count))


def _reduce_extreme(call: Call, op: str) -> Value:
    x = call.x()
    axes = _axes(call, x)
    return extreme_over(call.builder, x, axes, op, _keepdims(call)) if axes else x


def _square(builder: GraphBuilder, x: Variable) -> Variable:
    return builder.unary("Pow", x, {"exponent": 2.0}, integral=x.integral)


def _reduce_norm(call: Call, order: int, root: bool) -> Value:
    x = call.x()
    builder = call.builder
    terms = builder.unary("Abs", x, integral=x.integral) if order == 1 else _square(builder, x)
    total = builder.reduce_sum(terms, _axes(call, x), _keepdims(call))
    return builder.unary("Sqrt", total) if root else total


def _reduce_log_sum(call: Call, exponential: bool) -> Value:
    x = call.x()
    terms = call.builder.unary("Exp", x) if exponential else x
    return call.builder.unary("Log", call.builder.reduce_sum(terms, _axes(call, x), _keepdims(call)))


def _reduce_product(call: Call) -> Value:
    """Products of neighbours, then of those, and so on."""
    x = call.x()
    builder = call.builder
    axes, keepdims = _axes(call, x), _keepdims(call)
    count = math.prod(x.shape[axis] for axis in axes)
    if not 1 <= count <= _MOST_FACTORS:
        raise LoweringError(f"it multiplies {count} values; between 1 and {_MOST_FACTORS} are covered")
    shape = tuple(1 if axis in axes else e for axis, e in enumerate(x.shape) if keepdims or axis not in axes)
    places = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    factors = [builder.take(x, p) for p in np.moveaxis(places, axes, range(len(axes))).reshape(count, *shape)]
    while len(factors) > 1:
        paired = [builder.product(a, b) for a, b in zip(factors[::2], factors[1::2], strict=False)]
        factors = paired + factors[2 * len(paired) :]
    return factors[0]


def _lp_normalise(call: Call) -> Value:
    x = call.x()
    builder = call.builder
    order, axis = call.integer("p", 2), call.axis("axis", -1, len(x.shape))
    if order not in (1, 2):
        raise LoweringError(f"its p is {order}; 1 and 2 are covered")
    terms = builder.unary("Abs", x) if order == 1 else _square(builder, x)
    total = builder.reduce_sum(terms, (axis,), keepdims=True)
    return builder.elementwise("Div", (x, total if order == 1 else builder.unary("Sqrt", total)))


def _cumulative_sum(call: Call) -> Value:
    x = call.x()
    builder = call.builder
    rank = len(x.shape)
    axis = int(call.known_number(1, "axis"))
    if not -rank <= axis < rank:
        raise LoweringError(f"axis {axis} is outside a tensor of {rank} axes")
    axis %= rank
    extent = x.shape[axis]
    builder.claim((extent, extent))
    matrix = np.tril(np.ones((extent, extent)), -1 if call.integer("exclusive", 0) else 0)
    if call.integer("reverse", 0):
        matrix = matrix[::-1, ::-1]
    order = [*(k for k in range(rank) if k != axis), axis]
    sums = builder.linear(builder.transpose(x, order), matrix)
    return builder.transpose(sums, np.argsort(order).tolist())


ROWS: tuple[Lowering, ...] = (
    Lowering("ReduceSum", _reduce_sum, ("Sum",)),
    Lowering("ReduceMean", _reduce_mean, ("Sum", "Scale")),
    Lowering("ReduceMax", partial(_reduce_extreme, op="Max"), ("Take", "Max")),
    Lowering("ReduceMin", partial(_reduce_extreme, op="Min"), ("Take", "Min")),
    Lowering("ReduceL1", partial(_reduce_norm, order=1, root=False), ("Abs", "Sum")),
    Lowering("ReduceL2", partial(_reduce_norm, order=2, root=True), ("Pow", "Sum", "Sqrt")),
    Lowering("ReduceSumSquare", partial(_reduce_norm, order=2, root=False), ("Pow", "Sum")),
    Lowering("ReduceLogSum", partial(_reduce_log_sum, exponential=False), ("Sum", "Log")),
    Lowering("ReduceLogSumExp", partial(_reduce_log_sum, exponential=True), ("Exp", "Sum", "Log")),
    Lowering("ReduceProd", _reduce_product, ("Take", "Mul"), note="up to 64 values"),
    Lowering("LpNormalization", _lp_normalise, ("Abs", "Pow", "Sum", "Sqrt", "Div"), note="p 1 and 2"),
    Lowering("CumSum", _cumulative_sum, ("Linear", "Transpose"), since=11, note="constant axis"),
)
