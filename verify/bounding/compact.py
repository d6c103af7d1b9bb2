"""A graph of few entries with everything affine between its nonlinear nodes multiplied out (numpy only).

Every nonlinear node then reads affine functions of the input and of earlier nonlinear nodes, and a backward pass is a
few small products instead of a step for each reshape, gather, scale and sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import ERROR, REST, in_double
from ..ops import rule
from ..ops.arrays import as_like
from ..rounding import element_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Graph, Node
    from .plan import Plan

LARGEST = 32
"""Entries of a node up to which a graph is worth this form: with more, choosing which rows are needed in which box pays
(ACAS Xu 1_1, property 6, 50 entries: 244 microseconds a box for 176; reach_prob_density gcas, 30: 11 for 23)."""

ENTRIES = 1024
"""Entries of all nonlinear nodes up to which it is made."""


CLEARLY = 1.05
"""Up to so many times their magnitudes, the sizes of a matrix's entries make no difference that allowances would not
cover."""


class Part(NamedTuple):
    """What an affine function takes from one node: ``matrix @ value[entries]``.

    entries  the range of entries that count.
    matrix   ``[size, entries]``.
    sizes    how large its entries are, for rounding, ``[size, entries]``: their magnitudes, and more where they are
             sums that cancel.
    cancels  whether `sizes` is clearly more than the magnitudes somewhere.
    """

    node: int
    entries: slice
    matrix: np.ndarray
    sizes: np.ndarray
    cancels: bool


class Affine(NamedTuple):
    """``bias + sum of the parts``, values ``[size]``; bias None for zero.

    bias_sizes  how large its entries are, for rounding, as `Part.sizes`.
    picked      where the function only picks entries of one node's value: the node, and which they are.
    """

    parts: tuple[Part, ...]
    bias: np.ndarray | None
    bias_sizes: np.ndarray | None
    size: int
    picked: tuple[int, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class Compact:
    """The affine functions of a graph.

    dtype     of all matrices: that of the graph's parameters.
    readers   by how many affine functions each node's value is read.
    order     the nonlinear nodes and the targets, ascending.
    inputs    by nonlinear node, what each of its inputs is in terms of the graph's input and nonlinear nodes.
    known     the same in terms of targets, too, whose bounds may be better than those of what they are made of.
    targets   by target and for the output: in terms of the graph's input and nonlinear nodes, and in terms of (other)
              targets, too.
    """

    dtype: np.dtype[np.floating]
    readers: Mapping[int, int]
    order: tuple[int, ...]
    inputs: Mapping[int, tuple[Affine, ...]]
    known: Mapping[int, tuple[Affine, ...]]
    targets: Mapping[int, tuple[Affine, Affine]]


def compact(plan: Plan) -> Compact | None:
    """The compact form of a plan's graph; None where it is too large, has a nonlinear node that is not elementwise or
    has no relaxation, or parameters that are no numpy arrays of one dtype or carry errors."""
    nodes = plan.graph.nodes
    bent = frozenset(plan.nonlinear)
    if not bent <= plan.elementwise or plan.largest > LARGEST or sum(nodes[index].size for index in bent) > ENTRIES:
        return None
    parameters = [value for node in nodes for key, value in node.params.items() if not key.endswith(REST)]
    floats = {value.dtype for value in parameters if isinstance(value, np.ndarray) and value.dtype.kind == "f"}
    if any(key.endswith(ERROR) for node in nodes for key in node.params):
        return None
    if len(floats) != 1 or not all(isinstance(value, np.ndarray) for value in parameters):
        return None
    dtype = floats.pop()
    graph = in_double(plan.graph)
    ends = bent | {plan.input}
    better = ends | frozenset(plan.targets)

    def of(index: int, stops: frozenset[int]) -> Affine:
        return _multiplied_out(graph, index, stops, dtype)

    inputs = {index: tuple(of(source, ends) for source in nodes[index].inputs) for index in bent}
    return Compact(
        dtype,
        Counter(part.node for functions in inputs.values() for affine in functions for part in affine.parts),
        tuple(sorted(bent | frozenset(plan.targets))),
        inputs,
        {index: tuple(of(source, better) for source in nodes[index].inputs) for index in bent},
        {index: (of(index, ends), of(index, better - {index})) for index in {*plan.targets, plan.output} - bent}
        | {index: (of(index, ends), of(index, ends)) for index in {*plan.targets, plan.output} & bent},
    )


def _multiplied_out(graph: Graph, start: int, stops: frozenset[int], dtype: np.dtype[np.floating]) -> Affine:
    """A node's value in terms of those at `stops`, computed with more digits than it is kept with.

    Sums of products may cancel to what even those digits do not hold: the same walk with all magnitudes says by how
    much they may be off.
    """
    nodes = graph.nodes
    size = nodes[start].size
    exact = np.eye(size, dtype=np.longdouble)
    pending = {start: (exact, exact)}
    parts: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    bias, bias_terms = np.zeros((2, size), dtype=np.longdouble)
    sums = 1.0
    for position in range(start, -1, -1):
        pair = pending.pop(position, None)
        if pair is None:
            continue
        if position in stops:
            parts[position] = pair
            continue
        node = nodes[position]
        linear = rule(node.op).linear
        if linear is None:
            raise ValueError(f"{node.name} is not linear")
        a, terms = pair
        shift = linear.bias(node)
        if shift is not None:
            column = np.broadcast_to(as_like(shift, a), node.shape).reshape(-1)
            bias, bias_terms = bias + a @ column, bias_terms + terms @ abs(column)
        sums += node.size + len(nodes)
        if node.inputs:
            positive = _with_magnitudes(node)
            pieces = zip(
                linear.adjoint(node, a.reshape(size, *node.shape)),
                linear.adjoint(positive, terms.reshape(size, *node.shape)),
                strict=True,
            )
            for source, (piece, part) in zip(node.inputs, pieces, strict=True):
                more = piece.reshape(size, -1), abs(part).reshape(size, -1)
                known = pending.get(source)
                pending[source] = more if known is None else (known[0] + more[0], known[1] + more[1])
    share = sums * float(np.finfo(np.longdouble).eps) / element_type(dtype).unit
    kept = tuple(_part(source, *pair, share, dtype) for source, pair in parts.items() if pair[1].any())
    if not bias_terms.any():
        return Affine(kept, None, None, size, _picked(kept))
    sizes = abs(bias) + share * bias_terms + element_type(dtype).smallest / element_type(dtype).unit
    return Affine(kept, bias.astype(dtype), sizes.astype(dtype), size, None)


def _with_magnitudes(node: Node) -> Node:
    """The node with the magnitudes of its parameters."""
    params = {
        key: abs(value) if value.dtype.kind == "f" else value
        for key, value in node.params.items()
        if not key.endswith((REST, ERROR))
    }
    return replace(node, params=MappingProxyType(params))


def _part(source: int, exact: np.ndarray, terms: np.ndarray, share: float, dtype: np.dtype[np.floating]) -> Part:
    used = np.flatnonzero(terms.any(axis=0))
    entries = slice(int(used[0]), int(used[-1]) + 1)
    # What the type does not hold is lost when it is rounded.
    own = element_type(dtype)
    lost = np.where((terms > 0) & (abs(exact) < own.smallest), own.smallest / own.unit, 0.0)
    matrix, sizes = (x[:, entries].astype(dtype) for x in (exact, abs(exact) + share * terms + lost))
    cancels = bool((sizes > CLEARLY * abs(matrix)).any())
    return Part(source, entries, np.ascontiguousarray(matrix), np.ascontiguousarray(sizes), cancels)


def _picked(parts: tuple[Part, ...]) -> tuple[int, np.ndarray] | None:
    if len(parts) != 1:
        return None
    source, entries, matrix, *_ = parts[0]
    places = matrix.argmax(axis=1)
    return (source, entries.start + places) if np.array_equal(matrix, np.eye(matrix.shape[1])[places]) else None
