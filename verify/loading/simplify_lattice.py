"""Recognising minima and maxima that are spelt as dense layers.

Two-level lattice networks (and others that were compiled from piecewise linear functions) compute

    max(a, b) = (relu(a + b) - relu(-a - b) + relu(a - b) + relu(b - a)) / 2
    min(a, b) = (relu(a + b) - relu(-a - b) - relu(a - b) - relu(b - a)) / 2

with two dense layers that are almost all zeros. The same values are ``b + relu(a - b)`` and ``b - relu(b - a)``: a
quarter of the neurons, no relaxation error for the sum, and no weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .precise import is_exact

if TYPE_CHECKING:
    from ..graph import Node
    from .rewrite import Rewriter, Rule

_NEURONS_PER_PAIR = 4


@dataclass(frozen=True, eq=False)
class _Pairs:
    """A bank of minima or maxima: positions of both operands of every output, and which of the two it is."""

    first: np.ndarray
    second: np.ndarray
    maximum: bool


def _bank_of_extrema(work: Rewriter, node: Node) -> Node | int | None:
    """Dense layer, Relu and dense layer that take pairwise minima or maxima."""
    if node.op != "Linear" or "bias" in node.params:
        return None
    rectified = work.producer(node, "Relu")
    layer = None if rectified is None else work.producer(rectified, "Linear")
    if layer is None or "bias" in layer.params or not (is_exact(layer) and is_exact(node)):
        return None
    pairs = _pairs(layer.params["weight"], node.params["weight"])
    return None if pairs is None else _rewritten(work, node, layer.inputs[0], pairs)


def _pairs(weight: np.ndarray, after: np.ndarray) -> _Pairs | None:
    """The pairs that ``after @ relu(weight @ x)`` takes minima or maxima of, or None if it does something else."""
    neurons, outputs = weight.shape[0], after.shape[0]
    if not outputs or neurons != _NEURONS_PER_PAIR * outputs:
        return None
    # The weights are mostly zeros and large: look at one row and column before looking at all.
    if np.count_nonzero(weight[0]) != 2 or np.count_nonzero(after[0]) != _NEURONS_PER_PAIR:
        return None
    if np.count_nonzero(weight) != 2 * neurons or np.count_nonzero(after) != neurons:
        return None
    rows, columns = _nonzero(weight)
    read, neuron = _nonzero(after)
    if not np.array_equal(rows, np.repeat(np.arange(neurons), 2)):
        return None
    if not np.array_equal(read, np.repeat(np.arange(outputs), _NEURONS_PER_PAIR)) or np.unique(neuron).size != neurons:
        return None
    operands = columns.reshape(neurons, 2)[neuron].reshape(outputs, _NEURONS_PER_PAIR, 2)
    signs = weight[rows, columns].reshape(neurons, 2)[neuron].reshape(outputs, _NEURONS_PER_PAIR, 2)
    factors = after[read, neuron].reshape(outputs, _NEURONS_PER_PAIR)
    if np.any(operands != operands[:, :1]) or np.any(np.abs(signs) != 1):
        return None
    return _kind(operands[:, 0], signs, factors)


def _nonzero(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the non-zero entries by row, found in the order in which the matrix lies in memory."""
    if matrix.flags.f_contiguous and not matrix.flags.c_contiguous:
        columns, rows = np.nonzero(matrix.T)
        order = np.lexsort((columns, rows))
        return rows[order], columns[order]
    rows, columns = np.nonzero(matrix)
    return rows, columns


def _kind(operands: np.ndarray, signs: np.ndarray, factors: np.ndarray) -> _Pairs | None:
    """Which of minimum and maximum all outputs are, from the signs and factors ``[outputs, 4]`` of their neurons."""
    # The four sign patterns, numbered --, -+, +-, ++, each once an output.
    pattern = (signs[..., 0] > 0) * 2 + (signs[..., 1] > 0)
    order = np.argsort(pattern, axis=1)
    if np.any(np.take_along_axis(pattern, order, 1) != np.arange(_NEURONS_PER_PAIR)):
        return None
    found = np.take_along_axis(factors, order, 1)
    for maximum in (True, False):
        spread = 0.5 if maximum else -0.5
        if np.all(found == np.asarray([-0.5, spread, spread, 0.5], dtype=found.dtype)):
            return _Pairs(operands[:, 0], operands[:, 1], maximum)
    return None


def _rewritten(work: Rewriter, node: Node, source: int, pairs: _Pairs) -> Node:
    """``b + relu(a - b)`` or ``b - relu(b - a)`` over the last axis of node `source`."""
    shape = work.nodes[source].shape
    flat = np.arange(work.nodes[source].size, dtype=np.int64).reshape(shape)
    plain = replace(node, params=MappingProxyType({}), attributes=MappingProxyType({}), input_shapes=())
    first, second = (
        work.append(
            replace(
                plain,
                op="Take",
                inputs=(source,),
                params=MappingProxyType({"indices": np.ascontiguousarray(flat[..., positions])}),
                attributes=MappingProxyType({"fill": 0.0}),
            )
        )
        for positions in (pairs.first, pairs.second)
    )
    sign = 1 if pairs.maximum else -1
    signs = MappingProxyType({"signs": (sign, -sign)})
    gap = work.append(replace(plain, op="Add", inputs=(first, second), attributes=signs))
    excess = work.append(replace(plain, op="Relu", inputs=(gap,)))
    return replace(plain, op="Add", inputs=(second, excess), attributes=MappingProxyType({"signs": (1, sign)}))


RULES: tuple[Rule, ...] = (_bank_of_extrema,)
