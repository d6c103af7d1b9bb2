"""Interval bounds in rational arithmetic, for boxes that floating-point numbers cannot settle.

Where a clause is only just not met (``f(0) > 0`` asked of an ``f`` with ``f(0) = 0``), every bound that gives away
something for rounding stays short of it, on the smallest box, too. Such boxes are few, and on points or nearly so the
plain rules of interval arithmetic, without rounding, tell all there is.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import to_numpy
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..budget import Deadline
    from ..graph import Array, Graph, Node
    from ..problem import Group

PRODUCTS_AT_MOST = 50_000
"""Products of a network up to which a box is looked at: a tenth of a second."""

PRODUCTS_IN_ALL = 1_000_000
"""Products of all boxes together."""

NODE_COSTS = 50
"""Products that could be made in the time that a node takes besides its own."""

_PARAMETERS = {"Linear": {"weight", "bias"}, "Scale": {"scale", "shift"}, "Constant": {"value"}, "Take": {"indices"}}
_PLAIN = frozenset({"Input", "Add", "Sum", "Reshape", "Transpose", "Concat", "Relu", "Abs", "Max", "Min"})

_MERGED = Fraction(1, 1 << 48)
"""Float64 parameters may be merged from others, rounded: they stand for numbers within this share of themselves."""

_EXACT = Fraction(0)

Ends = tuple[np.ndarray, np.ndarray]
"""Arrays of fractions."""

_fractions = np.frompyfunc(Fraction, 1, 1)


class Ties:
    """Looks at the boxes of a search that only rounding, or a strict comparison, keeps open."""

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self._graph, self._groups = graph, groups
        self._left = PRODUCTS_IN_ALL if is_exact(graph) else 0
        self._each = _products(graph)

    def settled(
        self,
        lower: Array,
        upper: Array,
        group: Array,
        active: Array,
        tried: Array,
        deadline: Deadline,
    ) -> np.ndarray:
        """Which of those boxes ``[N, n]`` that are to be tried (bool ``[N]``) are refuted for their active clauses
        ``[N, K]``, bool ``[N]``; none once that took too long."""
        refuted = np.zeros(tried.shape[0], dtype=bool)
        for box in np.flatnonzero(to_numpy(tried)).tolist():
            if self._left <= 0 or deadline.passed:
                break
            self._left -= self._each
            low, high = (to_numpy(end[box]).astype(np.float64) for end in (lower, upper))
            clauses = np.flatnonzero(to_numpy(active[box]))
            refuted[box] = refuted_exactly(self._graph, self._groups[int(group[box])], low, high, clauses)
        return refuted


def _products(graph: Graph) -> int:
    """What a look at a box costs, in products."""
    return NODE_COSTS * len(graph.nodes) + sum(
        node.size * (node.input_shapes[0][-1] if node.op == "Linear" else 1) for node in graph.nodes
    )


def is_exact(graph: Graph) -> bool:
    """Whether a graph has nothing but operators that are known here, and is small enough."""
    for node in graph.nodes:
        if node.op not in _PLAIN and not set(node.params) <= _PARAMETERS.get(node.op, set()):
            return False
        if node.op not in _PLAIN and node.op not in _PARAMETERS:
            return False
        if node.op in _PLAIN and node.params:
            return False
    return _products(graph) <= PRODUCTS_AT_MOST


def refuted_exactly(graph: Graph, group: Group, lower: np.ndarray, upper: np.ndarray, clauses: np.ndarray) -> bool:
    """Whether each of the clauses (positions) of a group has a row that holds nowhere on a box ``[n]`` of float64."""
    low, high = _output(graph, _fractions(lower), _fractions(upper))
    for clause in clauses:
        mine = np.flatnonzero(group.clause == clause)
        rows, offsets = _fractions(group.rows[mine]), _fractions(group.offsets[mine])
        least = np.maximum(rows, 0) @ low + np.minimum(rows, 0) @ high
        failed = (least > offsets) | ((least == offsets) & group.strict[mine])
        if not failed.any():
            return False
    return True


def _output(graph: Graph, lower: np.ndarray, upper: np.ndarray) -> Ends:
    values: list[Ends] = []
    for node in graph.nodes:
        if node.op == "Input":
            ends = lower.reshape(1, *node.shape), upper.reshape(1, *node.shape)
        else:
            ends = _bounds(node, [values[source] for source in node.inputs])
        values.append((ends[0].reshape(1, *node.shape), ends[1].reshape(1, *node.shape)))
    low, high = values[graph.outputs[0]]
    return low.reshape(-1), high.reshape(-1)


def _bounds(node: Node, inputs: Sequence[Ends]) -> Ends:
    """The ends of a node's value from those of its inputs, ``[1, *shape]`` each."""
    if node.op == "Constant":
        value, error = _parameter(node, "value")
        return (value - error)[None], (value + error)[None]
    low, high = inputs[0]
    if node.op == "Linear":
        weight, error = _parameter(node, "weight")
        positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
        lost = np.maximum(abs(low), abs(high)) @ error.T
        ends = low @ positive.T + high @ negative.T - lost, high @ positive.T + low @ negative.T + lost
        return _shifted(node, "bias", ends)
    if node.op == "Scale":
        return _shifted(node, "shift", _times(node, low, high))
    if node.op == "Add":
        signs = node.attributes["signs"]
        pairs = [pair if sign > 0 else (-pair[1], -pair[0]) for sign, pair in zip(signs, inputs, strict=True)]
        first, second = zip(*pairs, strict=True)
        return sum(first[1:], first[0]), sum(second[1:], second[0])
    if node.op == "Take":
        indices = np.asarray(node.params["indices"])
        fill: Any = Fraction(float(node.attributes.get("fill", 0.0)))
        first, last = (np.where(indices < 0, fill, end.reshape(-1)[np.maximum(indices, 0)]) for end in (low, high))
        return first, last
    if node.op == "Abs":
        return np.maximum(np.maximum(low, -high), 0), np.maximum(abs(low), abs(high))
    if node.op == "Relu":
        return np.maximum(low, 0), np.maximum(high, 0)
    if node.op in ("Max", "Min"):
        take = np.maximum if node.op == "Max" else np.minimum
        lows, highs = zip(*inputs, strict=True)
        return take.reduce(np.broadcast_arrays(*lows)), take.reduce(np.broadcast_arrays(*highs))
    if node.op in ("Sum", "Reshape", "Transpose", "Concat"):
        evaluate = rule(node.op).evaluate
        return evaluate(node, [pair[0] for pair in inputs]), evaluate(node, [pair[1] for pair in inputs])
    raise ValueError(f"operator {node.op} has no bounds in rational arithmetic")


def _parameter(node: Node, key: str) -> Ends:
    """A parameter, and by how much each entry may differ from what it stands for."""
    array = np.asarray(node.params[key])
    values: Any = _fractions(array.astype(np.float64))
    return values, abs(values) * (_MERGED if array.dtype == np.float64 else _EXACT)


def _times(node: Node, low: np.ndarray, high: np.ndarray) -> Ends:
    if "scale" not in node.params:
        return low, high
    scale, error = _parameter(node, "scale")
    lost = np.maximum(abs(low), abs(high)) * error
    first, second = low * scale, high * scale
    return np.minimum(first, second) - lost, np.maximum(first, second) + lost


def _shifted(node: Node, key: str, ends: Ends) -> Ends:
    if key not in node.params:
        return ends
    shift, error = _parameter(node, key)
    return ends[0] + shift - error, ends[1] + shift + error
