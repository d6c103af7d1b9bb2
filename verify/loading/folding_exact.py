"""What operators on constants are over the reals.

`folding` answers what the runtime computes, in the source's own element types: shapes and positions depend on that.
But a network is a statement about the numbers that it stores, so where such a result becomes a parameter, it has to be
what the stored numbers make exactly, or come with a bound on its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from types import MappingProxyType

import numpy as np

from ..errors import UndefinedOnRegion
from ..graph import Graph
from ..ops import rule
from .builder import GraphBuilder, LoweringError, Value
from .lowering import Call, Lowering
from .lowering_reduce import reduced_axes
from .precise import Precise

FUNCTION_ERROR = 2.0**-46
"""Relative error of a library's functions in float64, generously."""

_EXACT = frozenset(
    {"Input", "Relu", "Max", "Min", "Abs", "Clip", "Floor", "Ceil", "Round", "Sign", "Where", "ArgMax"}
    | {"IsPositive", "IsNonNegative", "IsZero"}
)
"""Core operators without rounding."""

LARGEST_ERROR = 1e-6
"""Relative error of a constant from which on it is refused as a parameter."""

Fold = Callable[[Call, Lowering], tuple[Value, ...]]

MOVES = frozenset(
    {
        *("Identity", "Reshape", "Squeeze", "Unsqueeze", "Concat", "Gather", "Slice", "Expand", "Transpose", "Cast"),
        *("Constant", "ConstantOfShape", "Where", "Flatten", "Split", "Pad", "Tile", "GatherElements", "GatherND"),
        *("DepthToSpace", "SpaceToDepth", "CastLike", "EyeLike", "Dropout"),
    }
)
"""Operators that only move entries, or take them over."""

_ROUND_NOTHING = frozenset(
    {"Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Relu", "Max", "Min", "Clip", "ReduceMax", "ReduceMin", *MOVES}
)
"""Operators whose results are exact in any floating-point type that holds their operands."""


def exact_results(
    call: Call, lowering: Lowering, operands: Sequence[Precise | None], made: Sequence[np.ndarray], fold: Fold
) -> list[Precise | None]:
    """The outputs of a call on arrays over the reals; None for those that are what the runtime made of it.

    operands   the inputs over the reals; None where that is the input itself.
    made       the runtime's results;  fold  what computes them.
    """
    rounded = any(operand is not None for operand in operands)
    real = [array.dtype.kind == "f" for array in made]
    if not any(real) or (call.op_type in _ROUND_NOTHING and not rounded):
        return [None] * len(made)
    found: list[Precise]
    if call.op_type == "Range":
        start, _, step = (np.asarray(value) for value in call.inputs)
        found = [Precise.of(start) + Precise.of(np.arange(made[0].size)) * Precise.of(step)]
    elif call.op_type in MOVES:
        found = _moved(call, lowering, operands, fold)
    else:
        found = _calculated(call, lowering, operands, len(made))
    same = [
        not np.any(exactly.distance) and np.array_equal(exactly.high, array)
        for exactly, array in zip(found, made, strict=True)
    ]
    return [None if alike or not used else one for one, alike, used in zip(found, same, real, strict=True)]


def relative_error(value: Precise) -> float:
    """By how much the numbers may be off, relative to themselves. Raises `LoweringError` where that is much."""
    distance = value.distance
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(distance > 0, distance / abs(value.high), 0.0)
    worst = float(shares.max(initial=0.0))
    if not worst <= LARGEST_ERROR:
        raise LoweringError("it reads constants that are computed from others which cancel; store their exact values")
    return worst


def _moved(call: Call, lowering: Lowering, operands: Sequence[Precise | None], fold: Fold) -> list[Precise]:
    """Each part of the numbers moved as the numbers are."""
    whole = [
        found if found is not None or value is None or np.asarray(value).dtype.kind != "f" else Precise.of(value)
        for value, found in zip(call.inputs, operands, strict=True)
    ]
    attributes = {**call.attributes, "to": np.dtype(np.float64)}

    def part(name: str) -> list[np.ndarray]:
        inputs = tuple(
            value if found is None else np.broadcast_to(getattr(found, name), found.shape)
            for value, found in zip(call.inputs, whole, strict=True)
        )
        return [np.asarray(array) for array in fold(replace(call, inputs=inputs, attributes=attributes), lowering)]

    return [Precise(*parts) for parts in zip(part("high"), part("low"), part("error"), strict=True)]


def _calculated(call: Call, lowering: Lowering, operands: Sequence[Precise | None], outputs: int) -> list[Precise]:
    values = [
        found if found is not None else None if value is None else Precise.of(value)
        for value, found in zip(call.inputs, operands, strict=True)
    ]
    own = _RULES.get(call.op_type)
    given = [value for value in values if value is not None]
    if own is not None and len(given) == len(values):
        found = own(call, given)
        if found is not None:
            if not found.is_finite:
                raise LoweringError("its constants are NaN, infinite, or nearly cancel")
            return [found]
    return _enclosed(call, lowering, operands, outputs)


def _enclosed(call: Call, lowering: Lowering, operands: Sequence[Precise | None], outputs: int) -> list[Precise]:
    """Bounds of the values by interval arithmetic in float64."""
    scratch = GraphBuilder(np.dtype(np.float64))
    values = [value if found is None else found.high for value, found in zip(call.inputs, operands, strict=True)]
    first = np.asarray(values[0])
    source = scratch.input("constant", first.shape, first.dtype)
    scratch.relative_error = max((relative_error(found) for found in operands[1:] if found is not None), default=0.0)
    results = lowering.lower(replace(call, builder=scratch, inputs=(source, *values[1:])))
    wanted = [scratch.variable(value) for value in (results if isinstance(results, tuple) else (results,))][:outputs]
    spread = 0.0 if operands[0] is None else 2.0 * operands[0].distance
    start = first.astype(np.float64)
    graph = Graph(tuple(scratch.nodes), (source.index,), tuple(value.index for value in wanted))
    made = enclosed(graph, {source.index: ((start - spread)[None], (start + spread)[None])})
    if any(value is None for value in made):
        raise LoweringError("its constants are outside its domain")
    return [value for value in made if value is not None]


def enclosed(graph: Graph, inputs: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> list[Precise | None]:
    """The outputs of a graph on intervals (float64, by index of its inputs), which are usually points; None for those
    that have no bounded value there."""
    from ..bounding.interval import node_interval

    bounds: list[tuple[np.ndarray, np.ndarray]] = []
    for index, node in enumerate(graph.nodes):
        if index in inputs:
            bounds.append(inputs[index])
            continue
        wide = replace(node, params=MappingProxyType({key: _in_double(array) for key, array in node.params.items()}))
        pairs = [bounds[source] for source in node.inputs]
        linear = rule(node.op).linear
        try:
            low, high = node_interval(wide, rule(node.op), pairs)
        except UndefinedOnRegion:
            return [None] * len(graph.outputs)
        reach = [np.maximum(abs(pair[0]), abs(pair[1])) for pair in pairs]
        lost = None if linear is None else linear.parameter_error(wide, reach)
        if linear is None and node.op not in _EXACT:
            # Intervals of curves do not count how exactly the library knows them.
            lost = FUNCTION_ERROR * np.maximum(abs(low), abs(high))
        bounds.append((low, high) if lost is None else (low - lost, high + lost))
    return [_middle(*bounds[output], graph.nodes[output].shape) for output in graph.outputs]


def _in_double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array


def _middle(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]) -> Precise | None:
    low, high = (np.broadcast_to(end, (1, *shape))[0] for end in (low, high))
    middle = 0.5 * low + 0.5 * high
    found = Precise.of(middle, error=np.maximum(high - middle, middle - low) * (1.0 + 2.0**-50))
    return found if found.is_finite else None


def _dequantised(call: Call, values: Sequence[Precise]) -> Precise | None:
    """``(x - zero) * scale``, both numbers or along an axis."""
    x, scale, *zero = values
    axis = call.axis("axis", 1, len(x.shape)) if len(scale.shape) and scale.high.size > 1 else 0
    shape = (-1,) + (1,) * (len(x.shape) - 1 - axis) if scale.high.size > 1 else (1,) * len(x.shape)
    return (x - zero[0].reshape(*shape) if zero else x) * scale.reshape(*shape)


def _product_of_matrices(call: Call, values: Sequence[Precise]) -> Precise | None:
    a, b = values
    if len(a.shape) > 2 or len(b.shape) > 2:
        return None
    rows = a.shape[:-1]
    columns = b.shape[1:]
    return (a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1)).reshape(*rows, *columns)


def _total(call: Call, values: Sequence[Precise]) -> Precise | None:
    return reduce(add, values)


def _summed(call: Call, x: Precise) -> tuple[Precise, int]:
    """The sum over a reduction's axes, and of how many entries."""
    found = reduced_axes(call, len(x.shape))
    order = [*(axis for axis in range(len(x.shape)) if axis not in found), *found]
    kept = [x.shape[axis] for axis in order[: len(order) - len(found)]]
    count = math.prod(x.shape[axis] for axis in found)
    total = x.transpose(order).reshape(*kept, count).sum(-1)
    if bool(call.integer("keepdims", 1)):
        total = total.reshape([1 if axis in found else extent for axis, extent in enumerate(x.shape)])
    return total, count


def _mean(call: Call, values: Sequence[Precise]) -> Precise | None:
    total, count = _summed(call, values[0])
    return total / Precise.of(float(count)) if count else None


def _norm(call: Call, values: Sequence[Precise]) -> Precise | None:
    total, _ = _summed(call, values[0] * values[0])
    return total.sqrt() if (total.high > 0).all() else None


def _general_product(call: Call, values: Sequence[Precise]) -> Precise | None:
    a, b, *added = values
    a, b = (x.T if call.integer(key, 0) else x for x, key in ((a, "transA"), (b, "transB")))
    product = (a @ b) * Precise.of(call.number("alpha", 1.0))
    return product + added[0] * Precise.of(call.number("beta", 1.0)) if added else product


def _larger(a: Precise, b: Precise) -> Precise:
    """The maximum; where errors hide which it is, `a` with what it may miss."""
    gap = a - b
    first = gap.high >= gap.distance
    missed = np.where(first | (gap.high <= -gap.distance), 0.0, abs(gap.high) + gap.distance)
    chosen = Precise(
        *(
            np.where(first | (missed > 0), *(np.broadcast_to(getattr(x, part), gap.shape) for x in (a, b)))
            for part in ("high", "low", "error")
        )
    )
    return Precise(chosen.high, chosen.low, chosen.error + missed)


def _relu(call: Call, values: Sequence[Precise]) -> Precise | None:
    return _larger(values[0], Precise.of(np.zeros(())))


def _power(call: Call, values: Sequence[Precise]) -> Precise | None:
    base, exponent = values
    return base * base if exponent.high.size == 1 and float(exponent.high.reshape(())) == 2.0 else None


_RULES: Mapping[str, Callable[[Call, Sequence[Precise]], Precise | None]] = MappingProxyType(
    {
        "Add": _total,
        "Sum": _total,
        "Sub": lambda call, values: values[0] - values[1],
        "Mul": lambda call, values: values[0] * values[1],
        "Div": lambda call, values: values[0] / values[1],
        "Neg": lambda call, values: -values[0],
        "Sqrt": lambda call, values: values[0].sqrt() if (values[0].high > 0).all() else None,
        "Pow": _power,
        "ReduceSum": lambda call, values: _summed(call, values[0])[0],
        "ReduceSumSquare": lambda call, values: _summed(call, values[0] * values[0])[0],
        "ReduceMean": _mean,
        "ReduceL2": _norm,
        "Reciprocal": lambda call, values: Precise.of(np.ones(())) / values[0],
        "MatMul": _product_of_matrices,
        "Gemm": _general_product,
        "Relu": _relu,
        "Max": lambda call, values: reduce(_larger, values),
        "Min": lambda call, values: -reduce(_larger, [-value for value in values]),
        "DequantizeLinear": _dequantised,
    }
)
