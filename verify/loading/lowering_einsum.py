"""Lowering of Einstein sums: operands are contracted from left to right, each pair by one matrix product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known
from .lowering import Call, Lowering
from .lowering_linear import matmul

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, eq=False)
class _Term:
    """An operand and the label of each of its axes."""

    value: Value
    labels: str


def _parsed(equation: str, operands: Sequence[Value]) -> tuple[list[str], str]:
    """The labels of every operand's axes and of the result's, ellipses written out."""
    plain = equation.replace(" ", "")
    left, arrow, right = plain.partition("->")
    sides = left.split(",")
    if len(sides) != len(operands) or not plain.isascii():
        raise LoweringError(f"its equation {equation} does not fit {len(operands)} operands")
    spare = [label for label in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if label not in plain]
    extra = [len(value.shape) - len(side.replace("...", "")) for side, value in zip(sides, operands, strict=True)]
    hidden = "".join(
        spare[: max((count for count, side in zip(extra, sides, strict=True) if "..." in side), default=0)]
    )
    terms = []
    for side, count in zip(sides, extra, strict=True):
        if count < 0 or (count and "..." not in side) or side.count("...") > 1:
            raise LoweringError(f"its equation {equation} does not fit its operands' axes")
        terms.append(side.replace("...", hidden[len(hidden) - count :] if count else ""))
    once = sorted(label for label in set("".join(terms)) - set(hidden) if "".join(terms).count(label) == 1)
    return terms, right.replace("...", hidden) if arrow else hidden + "".join(once)


def _gathered(builder: GraphBuilder, value: Value, places: np.ndarray) -> Value:
    """Entries of a value by flat index."""
    return builder.take(value, places) if isinstance(value, Variable) else value.reshape(-1)[places]


def _diagonal(builder: GraphBuilder, term: _Term) -> _Term:
    """Axes with the same label become one."""
    value, labels = term.value, term.labels
    for label in set(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            places = np.arange(math.prod(value.shape), dtype=np.int64).reshape(value.shape)
            value = _gathered(builder, value, np.diagonal(places, axis1=first, axis2=second))
            rest = labels[:first] + labels[first + 1 : second] + labels[second + 1 :]
            labels = rest + label
    return _Term(value, labels)


def _without(builder: GraphBuilder, term: _Term, needed: str) -> _Term:
    """Axes that nothing else needs, summed over."""
    gone = tuple(axis for axis, label in enumerate(term.labels) if label not in needed)
    if not gone:
        return term
    labels = "".join(label for label in term.labels if label in needed)
    if isinstance(term.value, Variable):
        return _Term(builder.reduce_sum(term.value, gone, keepdims=False), labels)
    total = term.value
    for axis in reversed(gone):
        total = total.sum(axis)
    return _Term(total, labels)


def _arranged(builder: GraphBuilder, term: _Term, groups: Sequence[str], extents: Mapping[str, int]) -> Value:
    """A term with its axes in the groups' order; the first group's axes stay, each other group becomes one axis."""
    order = [term.labels.index(label) for group in groups for label in group]
    shape = [extents[label] for label in groups[0]]
    shape += [math.prod(extents[label] for label in group) for group in groups[1:]]
    if isinstance(term.value, Variable):
        return builder.reshape(builder.transpose(term.value, order), shape)
    return term.value.transpose(order).reshape(shape)


def _contracted(builder: GraphBuilder, a: _Term, b: _Term, needed: str) -> _Term:
    """Two terms as one: a sum over the labels that they share and nothing else needs."""
    extents: dict[str, int] = {}
    for term in (a, b):
        for label, extent in zip(term.labels, term.value.shape, strict=True):
            if extents.setdefault(label, extent) != extent:
                raise LoweringError(f"its axes {label} have extents {extents[label]} and {extent}")
    if is_known(a.value) and is_known(b.value):
        return _known_product(builder, a, b, extents, needed)
    shared = [label for label in a.labels if label in b.labels]
    batch = "".join(label for label in shared if label in needed)
    summed = "".join(label for label in shared if label not in needed)
    own = ["".join(label for label in term.labels if label not in shared) for term in (a, b)]
    left = _arranged(builder, a, (batch, own[0], summed), extents)
    right = _arranged(builder, b, (batch, summed, own[1]), extents)
    labels = batch + own[0] + own[1]
    made = matmul(builder, left, right) if summed else _product(builder, left, right)
    return _Term(builder.reshape(made, [extents[label] for label in labels]), labels)


def _known_product(builder: GraphBuilder, a: _Term, b: _Term, extents: Mapping[str, int], needed: str) -> _Term:
    """Two terms of constants as one: all products, then their sums."""
    kept = [label for label in extents if label in needed]
    order = [*kept, *(label for label in extents if label not in needed)]
    builder.claim(extents[label] for label in order)

    def spread(term: _Term) -> Any:
        own = [label for label in order if label in term.labels]
        value: Any = term.value
        moved = value.transpose([term.labels.index(label) for label in own])
        return moved.reshape([extents[label] if label in term.labels else 1 for label in order])

    products = spread(a) * spread(b)
    total = products.reshape([*(extents[label] for label in kept), -1]).sum(-1)
    return _Term(total, "".join(kept))


def _product(builder: GraphBuilder, a: Value, b: Value) -> Variable:
    """An elementwise product with broadcasting, at least one factor a variable."""
    if is_known(a):
        a, b = b, a
    x = builder.variable(a)
    return builder.scale(x, scale=b) if is_known(b) else builder.product(x, builder.variable(b))


def _einsum(call: Call) -> Value:
    builder = call.builder
    values = [call.value(position) for position in range(len(call.inputs))]
    # Sums of products of constants are to be exact.
    operands = [builder.exactly(value) if isinstance(value, np.ndarray) else value for value in values]
    sides, result = _parsed(call.text("equation", ""), operands)
    terms = [_diagonal(builder, _Term(value, labels)) for value, labels in zip(operands, sides, strict=True)]
    if any(label not in "".join(sides) for label in result) or len(set(result)) != len(result):
        raise LoweringError(f"its equation {call.text('equation', '')} makes axes that it does not read")
    total = None
    for position, term in enumerate(terms):
        later = "".join(other.labels for other in terms[position + 1 :]) + result
        if total is None:
            total = _without(builder, term, later)
        else:
            own = _without(builder, term, later + total.labels)
            total = _without(builder, _contracted(builder, total, own, later), later)
    if total is None:
        raise LoweringError("it has no operands")
    return builder.transpose(builder.variable(total.value), [total.labels.index(label) for label in result])


ROWS: tuple[Lowering, ...] = (
    Lowering("Einsum", _einsum, ("Linear", "ConstMatMul", "MatMul", "Mul", "Scale", "Sum", "Transpose"), since=12),
)
