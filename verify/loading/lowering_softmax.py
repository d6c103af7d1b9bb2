"""Lowering of the softmax and its logarithm: in two ways at once, so that bounds take the better one.

As ``exp(x_i - log(sum_j exp(x_j)))`` its lines are better above, and it has few neurons; as ``1 / sum_j exp(x_j -
x_i)`` its lines may be better below, and its interval is tight (Wei et al. 2023, "Convex Bounds on the Softmax Function
with Applications to Robustness Verification", who call them LSE and ER). Where there are too many differences, the
interval of `ops.softmax` takes the place of the second form.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .builder import GraphBuilder, LoweringError, Masked, Value, Variable
from .lowering import Call, Lowering, normal_axis

if TYPE_CHECKING:
    from ..graph import Node

MOST_DIFFERENCES = 1 << 10
"""Differences ``x_j - x_i`` up to which a softmax is also written with them: bounding each of them costs two backward
rows, and tightens the rest little (a transformer with 13,872 of them in each of three layers: 38 seconds for its CROWN
bounds instead of 2, which are as wide; with 300, alpha-CROWN bounds are a tenth narrower)."""

WIDEST_SPREAD = 40.0
"""How far apart constants may set scores that are written with differences: half of what float32's exp takes."""


def kept(builder: GraphBuilder, x: Variable, chosen: np.ndarray) -> Variable:
    """`x` where `chosen`, an array of its shape, and 0 elsewhere, whatever `x` is there."""
    return builder.take(x, np.where(chosen, np.arange(x.size, dtype=np.int64).reshape(x.shape), -1))


def softmax_denominator(builder: GraphBuilder, x: Variable, axis: int, hidden: np.ndarray | None = None) -> Variable:
    """``sum_j exp(x_j - x_i) = 1 / softmax(x)_i`` along `axis`, without subtracting an element from itself.

    Entries that are `hidden`, an array of `x`'s shape, do not count; the result means nothing there.
    """
    count = x.shape[axis]
    others = np.array([[j for j in range(count) if j != i] for i in range(count)], dtype=np.int64)
    builder.claim((*x.shape, count))
    along = np.moveaxis(np.arange(x.size, dtype=np.int64).reshape(x.shape), axis, -1)
    other, own = along[..., others], np.broadcast_to(along[..., :, None], (*along.shape, count - 1))
    if hidden is not None:
        seen = ~(hidden.reshape(-1)[other] | hidden.reshape(-1)[own])
        # What is hidden may be of any size: its difference is not even computed, so that it cannot overflow.
        other = np.where(seen, other, own)
    ratios = builder.unary("Exp", builder.sum_of((builder.take(x, other), builder.take(x, own)), (1, -1)))
    if hidden is not None:
        ratios = kept(builder, ratios, seen)
    total = builder.reduce_sum(ratios, (len(ratios.shape) - 1,), keepdims=False)
    moved = (*range(axis), len(x.shape) - 1, *range(axis, len(x.shape) - 1))
    return builder.transpose(builder.affine(total, shift=1.0), moved)


def log_sum_exp(builder: GraphBuilder, x: Variable, axis: int, hidden: np.ndarray | None = None) -> Variable:
    """``log(sum_j exp(x_j))`` along `axis` (kept, with extent 1), without the entries that are `hidden`.

    Two by two, ``log(exp(a) + exp(b)) = a + softplus(b - a)``: nothing overflows, and as every step is convex and
    increasing, tangents of all steps together are a tangent plane of the whole.
    """
    index = np.moveaxis(np.arange(x.size, dtype=np.int64).reshape(x.shape), axis, -1)
    present = np.ones(index.shape, dtype=bool) if hidden is None else ~hidden.reshape(-1)[index]
    count = present.sum(axis=-1)[..., None]
    index = np.take_along_axis(index, np.argsort(~present, axis=-1, kind="stable"), axis=-1)[..., : count.max()]
    values = x
    while index.shape[-1] > 1:
        first, second = index[..., ::2], index[..., 1::2]
        paired = np.arange(1, index.shape[-1], 2) < count
        place = np.full(first.shape, -1, dtype=np.int64)
        place[..., : second.shape[-1]][paired] = np.arange(paired.sum())
        own, other = first[..., : second.shape[-1]][paired], second[paired]
        steps = builder.sum_of((builder.take(values, other), builder.take(values, own)), (1, -1))
        more = builder.take(builder.unary("Softplus", steps), place)
        values = builder.sum_of((builder.take(values, first), more), (1, 1))
        index, count = np.arange(values.size).reshape(first.shape), (count + 1) // 2
    shape = tuple(1 if k == axis else extent for k, extent in enumerate(x.shape))
    return builder.take(values, index.reshape(shape))


def softmax(builder: GraphBuilder, x: Variable, axis: int, log: bool = False) -> Variable:
    """The softmax of a tensor along `axis`, or its logarithm; entries that a mask hides get 0."""
    hidden = x.hidden if isinstance(x, Masked) else None
    if hidden is not None and (log or bool(hidden.all(axis=axis).any())):
        raise LoweringError("all entries of a row are minus infinity, or their logarithms are asked for")
    if x.shape[axis] == 1:
        return builder.constant(np.full(x.shape, 0.0 if log else 1.0, dtype=x.dtype))
    if x.shape[axis] == 2 and hidden is None:
        index = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        ahead = builder.sum_of((x, builder.take(x, np.flip(index, axis))), (1, -1))
        if log:
            return builder.affine(builder.unary("Softplus", builder.affine(ahead, -1.0)), -1.0)
        return builder.unary("Sigmoid", ahead)
    seen = None if hidden is None else _seen(x.shape, axis, hidden)
    logarithm = log_sum_exp(builder, x, axis, hidden)
    joint = builder.sum_of((x if seen is None else builder.take(x, seen), logarithm), (1, -1))
    if x.size * (x.shape[axis] - 1) > MOST_DIFFERENCES or _is_spread(builder, x):
        whole = _whole(builder, x, axis, hidden)
        shares = builder.same(joint, whole if seen is None else builder.take(whole, seen))
        result = shares if log else builder.unary("Exp", shares)
    else:
        total = softmax_denominator(builder, x, axis, hidden)
        total = total if seen is None else builder.take(total, seen)
        shares = builder.same(joint, builder.affine(builder.unary("Log", total), -1.0))
        if log:
            return shares
        result = builder.same(builder.unary("Exp", shares), builder.unary("Reciprocal", total))
    return result if hidden is None else kept(builder, result, ~hidden)


def _is_spread(builder: GraphBuilder, x: Variable) -> bool:
    """Whether constants, as masks of large numbers are, set entries so far apart that exponentials of differences may
    overflow."""
    node = builder.nodes[x.index]
    while node.op in ("Reshape", "Transpose", "Scale", "Take"):
        added = node.params.get("shift")
        if node.op == "Take" and node.params["indices"].min() < 0:
            added = np.asarray([0.0, node.attributes["fill"]])
        if isinstance(added, np.ndarray) and float(added.max()) - float(added.min()) > WIDEST_SPREAD:
            return True
        node = builder.nodes[node.inputs[0]]
    return node.op in ("Where", "Add") and _reads_spread_constant(builder, node)


def _reads_spread_constant(builder: GraphBuilder, node: Node) -> bool:
    constants = [builder.nodes[source] for source in node.inputs if builder.nodes[source].op == "Constant"]
    return any(abs(constant.params["value"]).max() > WIDEST_SPREAD for constant in constants)


def _whole(builder: GraphBuilder, x: Variable, axis: int, hidden: np.ndarray | None) -> Variable:
    """The logarithm of the softmax in one node; what it is in hidden entries means nothing."""
    if hidden is not None:
        index = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        x = builder.take(x, np.where(hidden, -1, index), fill=-np.inf)
    return builder.add("LogSoftmax", (x,), x.shape, attributes={"axis": axis})


def _seen(shape: tuple[int, ...], axis: int, hidden: np.ndarray) -> np.ndarray:
    """Every entry's own index, for hidden ones that of the first entry along `axis` that is not."""
    index = np.arange(hidden.size, dtype=np.int64).reshape(shape)
    first = np.take_along_axis(index, np.argmin(hidden.reshape(shape), axis=axis, keepdims=True), axis=axis)
    return np.where(hidden.reshape(shape), first, index)


def _softmax(call: Call, log: bool) -> Value:
    builder = call.builder
    x = call.x()
    shape = x.shape
    if call.opset < 13:
        # Before opset 13 the tensor is flattened to a matrix at the axis and normalised over its rows.
        cut = normal_axis(call.integer("axis", 1), len(shape))
        if any(extent != 1 for extent in shape[cut + 1 :]):
            if isinstance(x, Masked):
                raise LoweringError("it reads entries that are minus infinity over several axes")
            x = builder.reshape(x, (*shape[:cut], int(np.prod(shape[cut:], dtype=np.int64))))
        axis = cut
    else:
        axis = normal_axis(call.integer("axis", -1), len(shape))
    return builder.reshape(softmax(builder, x, axis, log), shape)


CORE = ("Take", "Add", "Exp", "Sum", "Scale", "Log", "Softplus", "Sigmoid", "Same", "LogSoftmax", "Reciprocal")
"""The core operators that a softmax becomes."""

ROWS: tuple[Lowering, ...] = (
    Lowering("Softmax", partial(_softmax, log=False), CORE),
    Lowering("LogSoftmax", partial(_softmax, log=True), CORE),
)
