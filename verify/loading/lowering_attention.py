"""Lowering of scaled dot-product attention."""

from __future__ import annotations

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known
from .lowering import DOUBLE, FLOAT, Call, Lowering
from .lowering_arithmetic import hides
from .lowering_linear import matmul
from .lowering_softmax import CORE, softmax
from .precise import Precise


def causal(queries: int, keys: int) -> np.ndarray:
    """The mask ``[queries, keys]`` under which no position sees a later one, counted from the front."""
    return np.tril(np.ones((queries, keys), dtype=bool))


def attend(
    builder: GraphBuilder,
    query: Value,
    key: Variable,
    value: Value,
    factor: float | Precise,
    mask: np.ndarray | None = None,
    cap: float = 0.0,
    offset: Variable | None = None,
) -> Value:
    """``softmax(factor * query key^T + offset + mask) value`` over the last two axes; a `cap` above 0 limits the scores
    softly before anything is added.

    A mask of truth values says which keys a query sees; one of numbers is added, minus infinity hiding a key.
    """
    order = [*range(len(key.shape) - 2), len(key.shape) - 1, len(key.shape) - 2]
    scores = builder.affine(matmul(builder, query, builder.transpose(key, order)), factor)
    if cap:
        scores = builder.affine(builder.unary("Tanh", builder.affine(scores, 1.0 / cap)), cap)
    if offset is not None:
        scores = builder.sum_of((scores, offset), (1, 1))
    if mask is not None:
        added = np.where(mask, 0.0, -np.inf) if mask.dtype.kind == "b" else mask
        scores = builder.masked(scores, added) if hides(added) else builder.scale(scores, shift=added)
    return matmul(builder, softmax(builder, scores, len(scores.shape) - 1), value)


def usual_factor(query: Value) -> Precise:
    """One over the root of the queries' width."""
    return Precise.of(np.ones(())) / Precise.of(float(query.shape[-1])).sqrt()


def _heads(call: Call, position: int, setting: str) -> Variable:
    """An operand as ``[B, heads, steps, width]``; one of three axes has the heads side by side."""
    x = call.x(position)
    if len(x.shape) == 4:
        return x
    count = call.integer(setting, 0)
    if len(x.shape) != 3 or count < 1 or x.shape[2] % count:
        raise LoweringError(f"an operand of shape {list(x.shape)} does not fit {count} heads")
    split = call.builder.reshape(x, (*x.shape[:2], count, x.shape[2] // count))
    return call.builder.transpose(split, (0, 2, 1, 3))


def _attention(call: Call) -> Value:
    if call.outputs > 1:
        raise LoweringError("its outputs besides the first are not covered")
    call.choice("softmax_precision", FLOAT, DOUBLE)
    call.choice("left_window_size", -1)
    call.choice("right_window_size", -1)
    builder = call.builder
    query, key, value = (_heads(call, position, f"{name}_num_heads") for position, name in enumerate(("q", "kv", "kv")))
    groups, rest = divmod(query.shape[1], key.shape[1])
    if rest:
        raise LoweringError(f"{query.shape[1]} heads of queries do not fit {key.shape[1]} heads of keys")
    if groups > 1:
        key, value = (_repeated(builder, x, groups) for x in (key, value))
    given = call.value(3) if call.has(3) else None
    offset = given if isinstance(given, Variable) else None
    if offset is not None and offset.dtype.kind != "f":
        raise LoweringError("its mask depends on the network's inputs, and is not one of numbers that are added")
    mask = np.asarray(given) if is_known(given) else None
    if call.integer("is_causal", 0):
        below = causal(query.shape[2], key.shape[2])
        if mask is None or mask.dtype.kind == "b":
            mask = below if mask is None else mask & below
        else:
            mask = np.where(below, mask, -np.inf)
    factor = call.number("scale", 0.0) or usual_factor(query)
    made = builder.variable(attend(builder, query, key, value, factor, mask, call.number("softcap", 0.0), offset))
    if len(call.value(0).shape) == 4:
        return made
    side = builder.transpose(made, (0, 2, 1, 3))
    return builder.reshape(side, (*side.shape[:2], side.shape[2] * side.shape[3]))


def _repeated(builder: GraphBuilder, x: Variable, groups: int) -> Variable:
    """Every head of keys or values once for each head of queries that shares it."""
    rows = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    return builder.take(x, np.repeat(rows, groups, axis=1))


ROWS: tuple[Lowering, ...] = (
    Lowering(
        "Attention",
        _attention,
        ("MatMul", "Transpose", "Tanh", *CORE),
        since=23,
        note="mask constant or added; first output; no cache",
    ),
)
