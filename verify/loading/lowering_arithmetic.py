"""Lowering of arithmetic, comparisons, logic and element type changes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .builder import GraphBuilder, Value, Variable, is_known
from .lowering import Call, Lowering, LoweringError
from .precise import Precise, one_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..graph import Array

_WRAPPING_TYPES = ("int8", "uint8", "int16", "uint16", "uint32", "uint64", "float16")

_LARGEST_DIVISOR = 1 << 16
"""Of whole numbers: beyond it float32 no longer tells neighbouring quotients apart."""


def truncated(builder: GraphBuilder, x: Variable) -> Variable:
    """`x` rounded towards zero."""
    if x.integral:
        return x
    above = builder.unary("Floor", builder.unary("Relu", x), integral=True)
    below = builder.unary("Floor", builder.unary("Relu", builder.affine(x, -1.0)), integral=True)
    return builder.sum_of((above, below), (1, -1))


def _add(call: Call, sign: int) -> Value:
    a, b = call.value(0), call.value(1)
    if sign < 0:
        return call.builder.difference(a, b)
    if is_known(a):
        a, b = b, a
    if not is_known(b):
        return call.builder.sum_of((a, b), (1, 1))
    x = call.builder.variable(a)
    return call.builder.masked(x, b) if hides(b) else call.builder.scale(x, shift=b)


def hides(added: Array) -> bool:
    """Whether adding a constant array excludes some entries from a softmax: by minus infinity."""
    if isinstance(added, Precise):
        return False
    return bool((added == -np.inf).any())


def _multiply(call: Call) -> Value:
    a, b = call.value(0), call.value(1)
    if is_known(a):
        a, b = b, a
    if is_known(b):
        return call.builder.scale(call.builder.variable(a), scale=b)
    return call.builder.product(a, b)


def _divide(call: Call) -> Value:
    a, b = call.value(0), call.value(1)
    builder = call.builder
    whole = (a if isinstance(a, Variable) else call.x(1)).dtype.kind in "iu"
    if is_known(b):
        quotient = builder.scale(builder.variable(a), scale=_inverse(builder, b))
    elif is_known(a):
        quotient = builder.scale(builder.unary("Reciprocal", b), scale=a)
    else:
        quotient = builder.elementwise("Div", (a, b))
    if not whole:
        return quotient
    if not is_known(b) or np.abs(b).max() > _LARGEST_DIVISOR:
        raise LoweringError("it divides whole numbers by something other than a constant of moderate size")
    return _truncated_with_slack(builder, quotient, 0.5 / np.abs(b))


def _inverse(builder: GraphBuilder, divisor: Array | Precise) -> Array | Precise:
    if not isinstance(divisor, np.ndarray | Precise):
        return 1.0 / divisor
    number = builder.exactly(divisor)
    if not number.high.all():
        raise LoweringError("it divides by a constant that is zero")
    return Precise.of(np.ones(())) / number


def _truncated_with_slack(builder: GraphBuilder, x: Variable, slack: Array) -> Variable:
    """`x`, known to be a multiple of ``2 * slack``, rounded towards zero in spite of rounding errors."""
    above = builder.unary("Floor", builder.scale(builder.unary("Relu", x), shift=slack), integral=True)
    below = builder.unary(
        "Floor", builder.scale(builder.unary("Relu", builder.affine(x, -1.0)), shift=slack), integral=True
    )
    return builder.sum_of((above, below), (1, -1))


def _modulo(call: Call) -> Value:
    """``a - b * floor(a / b)`` of whole numbers, with `fmod` ``a - b * truncate(a / b)``."""
    builder, x = call.builder, call.x()
    divisor = call.known(1, "divisor")
    if x.dtype.kind not in "iu" or not divisor.all() or np.abs(divisor).max() > _LARGEST_DIVISOR:
        raise LoweringError("it is covered of whole numbers by a constant of moderate size other than zero")
    ratio, slack = 1.0 / divisor.astype(np.float64), 0.5 / np.abs(divisor)
    if call.integer("fmod", 0):
        quotient = _truncated_with_slack(builder, builder.scale(x, scale=ratio), slack)
    else:
        quotient = builder.unary("Floor", builder.scale(x, scale=ratio, shift=slack), integral=True)
    rest = builder.difference(x, builder.scale(quotient, scale=divisor))
    return Variable(rest.index, rest.shape, x.dtype, True)


def _negate(call: Call) -> Value:
    return call.builder.affine(call.x(), -1.0)


def _sum(call: Call) -> Variable:
    builder = call.builder
    variables = [v for v in call.inputs if isinstance(v, Variable)]
    knowns = [v for v in call.inputs if is_known(v)]
    if not variables:
        variables, knowns = [call.x()], list(call.inputs[1:])
    total = builder.sum_of(variables, (1,) * len(variables))
    for known in knowns:
        total = builder.scale(total, shift=known)
    return total


def _mean(call: Call) -> Variable:
    return call.builder.affine(_sum(call), one_over(len(call.inputs)))


def _power(call: Call) -> Value:
    builder = call.builder
    base, exponent = call.value(0), call.value(1)
    if is_known(exponent):
        values = np.asarray(exponent, dtype=np.float64).reshape(-1)
        if values.size == 0 or np.any(values != values[0]):
            raise LoweringError("its exponents differ from element to element")
        if call.x(0).dtype.kind != "f" and not (values[0] >= 0 and float(values[0]).is_integer()):
            raise LoweringError(f"it raises whole numbers to the power {values[0]}, and rounds the result")
        x = builder.broadcast(call.x(0), np.broadcast_shapes(call.x(0).shape, tuple(exponent.shape)))
        return power(builder, x, float(values[0]))
    if is_known(base):
        number = np.asarray(base, dtype=np.float64)
        if np.asarray(base).dtype.kind != "f":
            raise LoweringError("it raises constant whole numbers to a power, and rounds the result")
        if np.any(number <= 0):
            raise LoweringError("its base is a constant that is not positive")
        return builder.unary("Exp", builder.scale(exponent, scale=np.log(number)))
    raise LoweringError("both its base and its exponent depend on the network's inputs")


def power(builder: GraphBuilder, x: Variable, exponent: float) -> Variable:
    """``x ** exponent`` in its simplest form."""
    if not np.isfinite(exponent):
        raise LoweringError(f"its exponent is {exponent}")
    if exponent == 1.0:
        return x
    if exponent == 0.0:
        return builder.affine(x, 0.0, 1.0)
    if exponent == 0.5:
        return builder.unary("Sqrt", x)
    if exponent == -1.0:
        return builder.unary("Reciprocal", x)
    return builder.unary(
        "Pow", x, {"exponent": exponent}, integral=x.integral and exponent > 0 and exponent.is_integer()
    )


def _extreme(call: Call, op: str) -> Value:
    """Max and Min; a constant operand of one value becomes a Clip or Relu."""
    builder = call.builder
    variables = [v for v in call.inputs if isinstance(v, Variable)]
    knowns = [v for v in call.inputs if is_known(v)]
    if len(variables) == 1 and len(knowns) == 1 and np.asarray(knowns[0]).size == 1:
        x = builder.broadcast(variables[0], np.broadcast_shapes(variables[0].shape, tuple(knowns[0].shape)))
        edge = float(np.asarray(knowns[0]).reshape(()))
        return clip(builder, x, edge if op == "Max" else -np.inf, edge if op == "Min" else np.inf)
    operands = [builder.variable(v) for v in call.inputs if v is not None]
    if len(operands) == 1:
        return operands[0]
    return builder.elementwise(op, operands, integral=all(x.integral for x in operands))


def clip(builder: GraphBuilder, x: Variable, lower: float, upper: float) -> Variable:
    """`x` limited to ``[lower, upper]`` (the upper limit wins); a Relu or `x` itself where that is all there is."""
    if np.isnan(lower) or np.isnan(upper):
        raise LoweringError("a limit is NaN")
    if lower == np.inf or upper == -np.inf:
        raise LoweringError("its limits leave no finite value")
    if lower == -np.inf and upper == np.inf:
        return x
    if lower == 0.0 and upper == np.inf:
        return builder.unary("Relu", x, integral=x.integral)
    whole = x.integral and all(np.isinf(edge) or float(edge).is_integer() for edge in (lower, upper))
    return builder.unary("Clip", x, {"min": min(lower, upper), "max": upper}, integral=whole)


def _clip(call: Call) -> Value:
    if call.opset < 11:
        return clip(call.builder, call.x(), call.number("min", -np.inf), call.number("max", np.inf))
    lower = call.known_number(1, "lower limit") if call.has(1) else -np.inf
    upper = call.known_number(2, "upper limit") if call.has(2) else np.inf
    return clip(call.builder, call.x(), lower, upper)


def _unary(call: Call, op: str, keeps_whole: bool = False) -> Value:
    x = call.x()
    return call.builder.unary(op, x, integral=keeps_whole and x.integral)


def _rounding(call: Call, op: str) -> Value:
    x = call.x()
    return x if x.integral else call.builder.unary(op, x, integral=True)


def _sign(call: Call) -> Value:
    return call.builder.unary("Sign", call.x(), integral=True)


def _boolean(builder: GraphBuilder, x: Variable) -> Variable:
    return builder.retyped(Variable(x.index, x.shape, x.dtype, True), np.dtype(np.bool_))


def _compare(call: Call, op: str, swap: bool) -> Value:
    a, b = (call.value(1), call.value(0)) if swap else (call.value(0), call.value(1))
    builder = call.builder
    for limit, other, sign in ((b, a, -1.0), (a, b, 1.0)):
        if isinstance(limit, np.ndarray) and limit.dtype.kind == "f" and limit.size and np.isinf(limit).all():
            # Real numbers are finite, so that an infinite limit decides.
            signs = np.broadcast_to(sign * np.sign(limit), np.broadcast_shapes(limit.shape, tuple(other.shape)))
            builder.claim(signs.shape)
            return np.zeros(signs.shape, dtype=bool) if op == "IsZero" else signs > 0
    return _boolean(builder, builder.unary(op, builder.difference(a, b), integral=True))


def _never(call: Call) -> Value:
    """False: real numbers are neither NaN nor infinite (and bounds are refused where an operator has no value)."""
    return np.zeros(call.builder.claim(call.x().shape), dtype=bool)


def _not(call: Call) -> Value:
    return _boolean(call.builder, call.builder.affine(call.x(), -1.0, 1.0))


def _logical(call: Call, op: str) -> Value:
    operands = [call.x(0), call.x(1)]
    return _boolean(call.builder, call.builder.elementwise(op, operands, integral=True))


def _xor(call: Call) -> Value:
    builder = call.builder
    return _boolean(builder, builder.unary("Abs", builder.difference(call.value(0), call.value(1)), integral=True))


def converted(array: np.ndarray, target: np.dtype) -> np.ndarray:
    """A constant in another element type; raises `LoweringError` where runtimes differ: for a real number that the
    whole numbers of that type do not reach."""
    if array.dtype.kind == "f" and target.kind in "iu":
        limits = np.iinfo(target)
        cut = np.trunc(array.astype(np.float64))
        # (The upper limit itself may not be exact in float64; the first number beyond it is.)
        if not bool(((cut >= limits.min) & (cut < 2.0 ** (limits.bits - (target.kind == "i")))).all()):
            raise LoweringError(f"it casts a constant that {target.name} does not reach")
    return array.astype(target)


def cast(builder: GraphBuilder, x: Variable, target: np.dtype) -> Variable:
    """`x` under another element type with ONNX's conversion of values."""
    if target.name in _WRAPPING_TYPES and x.dtype.kind != "b" and target != x.dtype:
        raise LoweringError(
            f"it casts values that depend on the inputs to {target.name}, which would round or wrap them"
        )
    if target.kind == "b" and x.dtype.kind != "b":
        return _boolean(builder, builder.affine(builder.unary("IsZero", x, integral=True), -1.0, 1.0))
    if target.kind in "iu":
        x = truncated(builder, x)
    return Variable(x.index, x.shape, target, x.integral)


def _cast(call: Call) -> Value:
    return cast(call.builder, call.x(), np.dtype(call.attributes["to"]))


def _cast_like(call: Call) -> Value:
    target = np.dtype(call.value(1).dtype)
    value = call.value(0)
    return converted(np.asarray(value), target) if is_known(value) else cast(call.builder, call.x(), target)


def _where(call: Call) -> Value:
    builder = call.builder
    condition, a, b = call.value(0), call.value(1), call.value(2)
    if not is_known(condition):
        operands = [builder.variable(v) for v in (condition, a, b)]
        result = builder.elementwise("Where", operands, integral=operands[1].integral and operands[2].integral)
        return Variable(result.index, result.shape, operands[1].dtype, result.integral)
    shape = np.broadcast_shapes(*(tuple(v.shape) for v in (condition, a, b)))
    builder.claim(shape)
    mask = np.broadcast_to(np.asarray(condition, dtype=bool), shape)
    if mask.all() or not mask.any():
        return builder.broadcast(builder.variable(a if mask.all() else b), shape)
    for known, other, chosen in ((a, b, mask), (b, a, ~mask)):
        if is_known(known) and isinstance(other, Variable) and hides(known):
            if not bool((known == -np.inf).all()):
                raise LoweringError("it chooses between values some of which are infinite")
            return builder.masked(builder.broadcast(other, shape), np.where(chosen, -np.inf, 0.0))
    terms = [builder.scale(v, scale=chosen) for v, chosen in ((a, mask), (b, ~mask)) if isinstance(v, Variable)]
    if len(terms) == 2:
        return builder.sum_of(terms, (1, 1))
    known, chosen = (a, mask) if is_known(a) else (b, ~mask)
    return builder.scale(terms[0], shift=np.where(chosen, np.asarray(known), np.zeros((), np.asarray(known).dtype)))


def _row(op_type: str, lower: Callable[[Call], Value], *core: str, since: int = 1, note: str = "") -> Lowering:
    return Lowering(op_type, lower, core, since, note)


ROWS: tuple[Lowering, ...] = (
    _row("Add", partial(_add, sign=1), "Add", "Scale"),
    _row("Sub", partial(_add, sign=-1), "Add", "Scale"),
    _row("Mul", _multiply, "Scale", "Mul", "Pow"),
    _row("Div", _divide, "Scale", "Div", "Reciprocal", note="whole numbers only by constants"),
    _row("Mod", _modulo, "Floor", "Scale", "Add", since=10, note="whole numbers by constants"),
    _row("Neg", _negate, "Scale"),
    _row("Sum", _sum, "Add", "Scale"),
    _row("Mean", _mean, "Add", "Scale"),
    _row("Pow", _power, "Pow", "Sqrt", "Reciprocal", "Exp", note="one constant exponent, or a positive constant base"),
    _row("Max", partial(_extreme, op="Max"), "Max", "Clip", "Relu"),
    _row("Min", partial(_extreme, op="Min"), "Min", "Clip"),
    _row("Clip", _clip, "Clip", "Relu", note="constant limits"),
    _row("Abs", partial(_unary, op="Abs", keeps_whole=True), "Abs"),
    _row("Sign", _sign, "Sign", since=9),
    _row("Floor", partial(_rounding, op="Floor"), "Floor"),
    _row("Ceil", partial(_rounding, op="Ceil"), "Ceil"),
    _row("Round", partial(_rounding, op="Round"), "Round", since=11),
    _row("Sqrt", partial(_unary, op="Sqrt"), "Sqrt"),
    _row("Exp", partial(_unary, op="Exp"), "Exp"),
    _row("Log", partial(_unary, op="Log"), "Log"),
    _row("Reciprocal", partial(_unary, op="Reciprocal"), "Reciprocal"),
    _row("Sin", partial(_unary, op="Sin"), "Sin", since=7),
    _row("Cos", partial(_unary, op="Cos"), "Cos", since=7),
    _row("Tan", partial(_unary, op="Tan"), "Tan", since=7),
    _row("Atan", partial(_unary, op="Arctan"), "Arctan", since=7),
    _row("Equal", partial(_compare, op="IsZero", swap=False), "IsZero"),
    _row("Greater", partial(_compare, op="IsPositive", swap=False), "IsPositive"),
    _row("Less", partial(_compare, op="IsPositive", swap=True), "IsPositive"),
    _row("GreaterOrEqual", partial(_compare, op="IsNonNegative", swap=False), "IsNonNegative", since=12),
    _row("LessOrEqual", partial(_compare, op="IsNonNegative", swap=True), "IsNonNegative", since=12),
    _row("IsNaN", _never, since=9, note="false"),
    _row("IsInf", _never, since=10, note="false"),
    _row("Not", _not, "Scale"),
    _row("And", partial(_logical, op="Min"), "Min"),
    _row("Or", partial(_logical, op="Max"), "Max"),
    _row("Xor", _xor, "Abs"),
    _row("Where", _where, "Where", "Scale", "Add", since=9),
    _row("Cast", _cast, "Floor", "IsZero", note="not to float16 or integers under 32 bits"),
    _row("CastLike", _cast_like, "Floor", "IsZero", since=15, note="not to float16 or integers under 32 bits"),
)
