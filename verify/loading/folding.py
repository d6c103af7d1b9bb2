"""Evaluating operators whose inputs are all constant, while importing.

Shape arithmetic needs whole numbers to stay exact, so the usual operators have numpy forms here; any other operator
is lowered on its own and evaluated through the operator table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ..graph import Graph
from .builder import GraphBuilder, LoweringError, Value, Variable
from .evaluate import evaluate
from .lowering import DOUBLE, FLOAT, Call, Lowering, normal_axis
from .lowering_arithmetic import converted
from .lowering_shape import axes_of, resolved_shape

_EXACT_BELOW = 1 << 53
"""Whole numbers below it are exact in float64."""

Fold = Callable[[Call, tuple[np.ndarray, ...]], np.ndarray]


def fold(call: Call, lowering: Lowering) -> tuple[Value, ...]:
    """The outputs of a call whose inputs are all arrays."""
    exact = _FOLDS.get(call.op_type)
    arrays = tuple(np.asarray(value) for value in call.inputs if value is not None)
    if exact is not None and len(arrays) == len(call.inputs):
        call.builder.claim(
            np.broadcast_shapes(*(array.shape for array in arrays)) if call.op_type in _BROADCASTING else ()
        )
        return (exact(call, arrays),)
    if not arrays or call.op_type in _BUILT_DIRECTLY:
        return _as_tuple(lowering.lower(call))
    return _evaluated(call, lowering)


def _as_tuple(outputs: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _evaluated(call: Call, lowering: Lowering) -> tuple[Value, ...]:
    """Lower the call into a graph of its own, with its first input as a graph input, and run that."""
    first = np.asarray(call.value(0))
    single = first.dtype.kind == "f" and first.dtype.itemsize < np.dtype(np.float64).itemsize
    scratch = GraphBuilder(call.builder.dtype if single else np.dtype(np.float64))
    source = scratch.input("constant", first.shape, first.dtype)
    outputs = _as_tuple(lowering.lower(replace(call, builder=scratch, inputs=(source, *call.inputs[1:]))))
    variables = [value for value in outputs if isinstance(value, Variable)]
    graph = Graph(tuple(scratch.nodes), (source.index,), tuple(value.index for value in variables))
    if _is_inexact(first):
        return tuple(_moved(first, array[0]) for array in evaluate(graph, [_places(first, graph)]))
    values = iter(evaluate(graph, [first.astype(scratch.dtype)[None]]))
    return tuple(_retyped(next(values)[0], value.dtype) if isinstance(value, Variable) else value for value in outputs)


def _is_inexact(array: np.ndarray) -> bool:
    """Whether whole numbers are too large for float64 to hold each of them."""
    return array.dtype.kind in "iu" and bool(((array >= _EXACT_BELOW) | (array <= -_EXACT_BELOW)).any())


def _places(array: np.ndarray, graph: Graph) -> np.ndarray:
    """The flat index of every entry in place of its value, for a graph that only moves entries."""
    moving = all(
        node.op in ("Input", "Reshape", "Transpose")
        or (node.op == "Take" and node.params["indices"].min(initial=0) >= 0)
        for node in graph.nodes
    )
    if not moving:
        raise LoweringError(f"it calculates with whole numbers beyond {_EXACT_BELOW}")
    return np.arange(array.size, dtype=np.float64).reshape(1, *array.shape)


def _moved(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    return array.reshape(-1)[places.astype(np.int64)]


def _retyped(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind not in "iu":
        return array.astype(dtype)
    if not bool((abs(array) < _EXACT_BELOW).all()):
        raise LoweringError(f"it calculates whole numbers beyond {_EXACT_BELOW}")
    return np.rint(array).astype(dtype)


def _divide(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    a, b = arrays
    if a.dtype.kind not in "iu":
        return a / b
    if not b.all():
        raise LoweringError("it divides by zero")
    rounded_down = a // b
    return rounded_down + ((rounded_down * b != a) & ((a < 0) != (b < 0)))


def _modulo(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    if arrays[0].dtype.kind in "iu" and not arrays[1].all():
        raise LoweringError("it divides by zero")
    return (np.fmod if call.integer("fmod", 0) else np.mod)(*arrays)


def _cast(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return converted(arrays[0], np.dtype(call.attributes["to"]))


def _reshape(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return arrays[0].reshape(
        resolved_shape(arrays[0].shape, arrays[1].reshape(-1).tolist(), not call.integer("allowzero", 0))
    )


def _squeeze(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.squeeze(arrays[0], axes_of(call, arrays[0].ndim, 13))


def _unsqueeze(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    axes = tuple(arrays[1].reshape(-1).tolist()) if len(arrays) > 1 else call.ints("axes") or ()
    return np.expand_dims(arrays[0], axes)


def _concat(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    call.builder.claim((sum(array.size for array in arrays),))
    return np.concatenate(arrays, axis=call.integer("axis", 0))


def _gather(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    axis = call.axis("axis", 0, arrays[0].ndim)
    shape = arrays[0].shape
    call.builder.claim((*shape[:axis], *arrays[1].shape, *shape[axis + 1 :]))
    return np.take(arrays[0], arrays[1], axis=axis)


def _slice(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    data = arrays[0]
    if call.opset < 10:
        starts, ends, axes = call.ints("starts") or (), call.ints("ends") or (), call.ints("axes")
        steps: tuple[int, ...] = (1,) * len(starts)
    else:
        starts, ends = call.known_ints(1, "starts"), call.known_ints(2, "ends")
        axes = call.known_ints(3, "axes") if call.has(3) else None
        steps = call.known_ints(4, "steps") if call.has(4) else (1,) * len(starts)
    chosen = tuple(range(len(starts))) if axes is None else tuple(normal_axis(axis, data.ndim) for axis in axes)
    cuts = [slice(None)] * data.ndim
    for axis, start, end, step in zip(chosen, starts, ends, steps, strict=True):
        cuts[axis] = slice(start, end, step)
    return data[tuple(cuts)]


def _expand(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    call.builder.check_axes(arrays[1].size)
    shape = call.builder.claim(np.broadcast_shapes(arrays[0].shape, tuple(arrays[1].reshape(-1).tolist())))
    return np.broadcast_to(arrays[0], shape)


def _transpose(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return arrays[0].transpose(call.ints("perm"))


def _matmul(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    a, b = arrays
    call.builder.claim((*a.shape[:-1], *b.shape[-1:]))
    return a @ b


def _reduce_product(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    axes = axes_of(call, arrays[0].ndim, 18)
    return np.prod(arrays[0], axis=axes, keepdims=bool(call.integer("keepdims", 1)), dtype=arrays[0].dtype)


def _dequantise(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """``(x - zero) * scale``, both numbers or along an axis."""
    x, scale, *zero = arrays
    call.choice("output_dtype", 0, FLOAT, DOUBLE)
    types = {0: scale.dtype, FLOAT: np.dtype(np.float32), DOUBLE: np.dtype(np.float64)}
    if scale.ndim > 1 or call.integer("block_size", 0):
        raise LoweringError("its scale is given for blocks")
    axis = call.axis("axis", 1, x.ndim) if scale.ndim and scale.size > 1 else 0
    shape = (-1,) + (1,) * (x.ndim - 1 - axis) if scale.size > 1 else (1,) * x.ndim
    shift = zero[0].astype(np.float64).reshape(shape) if zero else 0.0
    return ((x.astype(np.float64) - shift) * scale.reshape(shape)).astype(types[call.integer("output_dtype", 0)])


def _infinite(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    below = np.isneginf(arrays[0]) & bool(call.integer("detect_negative", 1))
    return below | (np.isposinf(arrays[0]) & bool(call.integer("detect_positive", 1)))


def _elementwise(function: Callable[..., np.ndarray]) -> Fold:
    return lambda call, arrays: function(*arrays)


def _accumulated(function: Callable[..., np.ndarray]) -> Fold:
    def folded(call: Call, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return result

    return folded


_ELEMENTWISE: Mapping[str, Fold] = MappingProxyType(
    {
        "Add": _elementwise(np.add),
        "Sub": _elementwise(np.subtract),
        "Mul": _elementwise(np.multiply),
        "Div": _divide,
        "Mod": _modulo,
        "Equal": _elementwise(np.equal),
        "Less": _elementwise(np.less),
        "LessOrEqual": _elementwise(np.less_equal),
        "Greater": _elementwise(np.greater),
        "GreaterOrEqual": _elementwise(np.greater_equal),
        "And": _elementwise(np.logical_and),
        "Or": _elementwise(np.logical_or),
        "Xor": _elementwise(np.logical_xor),
        "Where": _elementwise(np.where),
        "Max": _accumulated(np.maximum),
        "Min": _accumulated(np.minimum),
        "Sum": _accumulated(np.add),
    }
)

_FOLDS: Mapping[str, Fold] = MappingProxyType(
    {
        **_ELEMENTWISE,
        "Neg": _elementwise(np.negative),
        "Abs": _elementwise(np.abs),
        "Sign": _elementwise(np.sign),
        "Floor": _elementwise(np.floor),
        "Ceil": _elementwise(np.ceil),
        "Sqrt": _elementwise(np.sqrt),
        "Not": _elementwise(np.logical_not),
        "Identity": lambda call, arrays: arrays[0],
        "Cast": _cast,
        "Reshape": _reshape,
        "Squeeze": _squeeze,
        "Unsqueeze": _unsqueeze,
        "Concat": _concat,
        "Gather": _gather,
        "Slice": _slice,
        "Expand": _expand,
        "Transpose": _transpose,
        "MatMul": _matmul,
        "ReduceProd": _reduce_product,
        "DequantizeLinear": _dequantise,
        "IsNaN": _elementwise(np.isnan),
        "IsInf": _infinite,
    }
)

_BROADCASTING = frozenset(_ELEMENTWISE)

_BUILT_DIRECTLY = frozenset({"ConstantOfShape", "Range", "EyeLike", "Shape", "Size"})

FOLDED_ONLY = ("DequantizeLinear",)
"""Operators that are understood of constants only."""
