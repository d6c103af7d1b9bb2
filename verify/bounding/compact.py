"""A graph of few entries with everything affine between its nonlinear nodes multiplied out (numpy only).

Every nonlinear node then reads affine functions of the input and of earlier nonlinear nodes, and a backward pass is a
few small products instead of a step for each reshape, gather, scale and sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import ERROR, REST, in_double
from ..ops import rule
from ..ops.arrays import as_like

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Graph
    from .plan import Plan

LARGEST = 32
"""Entries of a node up to which a graph is worth this form: with more, choosing which rows are needed in which box pays
(ACAS Xu 1_1, property 6, 50 entries: 244 microseconds a box for 176; reach_prob_density gcas, 30: 11 for 23)."""

ENTRIES = 1024
"""Entries of all nonlinear nodes up to which it is made."""


class Part(NamedTuple):
    """What an affine function takes from one node: ``matrix @ value[entries]``, with the range of entries that count
    and the matrix ``[size, entries]``."""

    node: int
    entries: slice
    matrix: np.ndarray


class Affine(NamedTuple):
    """``bias + sum of the parts``, values ``[size]``; bias None for zero.

    picked   where the function only picks entries of one node's value: the node, and which they are.
    """

    parts: tuple[Part, ...]
    bias: np.ndarray | None
    size: int
    picked: tuple[int, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class Compact:
    """The affine functions of a graph.

    dtype     of all matrices: that of the graph's parameters.
    order     the nonlinear nodes and the targets, ascending.
    inputs    by nonlinear node, what each of its inputs is in terms of the graph's input and nonlinear nodes.
    known     the same in terms of targets, too, whose bounds may be better than those of what they are made of.
    targets   by target and for the output: in terms of the graph's input and nonlinear nodes, and in terms of (other)
              targets, too.
    """

    dtype: np.dtype[np.floating]
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

    return Compact(
        dtype,
        tuple(sorted(bent | frozenset(plan.targets))),
        {index: tuple(of(source, ends) for source in nodes[index].inputs) for index in bent},
        {index: tuple(of(source, better) for source in nodes[index].inputs) for index in bent},
        {index: (of(index, ends), of(index, better - {index})) for index in {*plan.targets, plan.output} - bent}
        | {index: (of(index, ends), of(index, ends)) for index in {*plan.targets, plan.output} & bent},
    )


def _multiplied_out(graph: Graph, start: int, stops: frozenset[int], dtype: np.dtype[np.floating]) -> Affine:
    """A node's value in terms of those at `stops`, computed with more digits than it is kept with."""
    nodes = graph.nodes
    size = nodes[start].size
    pending = {start: np.eye(size, dtype=np.longdouble)}
    parts: dict[int, np.ndarray] = {}
    bias = np.zeros(size, dtype=np.longdouble)
    for position in range(start, -1, -1):
        a = pending.pop(position, None)
        if a is None:
            continue
        if position in stops:
            parts[position] = np.ascontiguousarray(a, dtype=dtype)
            continue
        node = nodes[position]
        linear = rule(node.op).linear
        if linear is None:
            raise ValueError(f"{node.name} is not linear")
        shift = linear.bias(node)
        if shift is not None:
            bias += a @ np.broadcast_to(as_like(shift, a), node.shape).reshape(-1)
        if node.inputs:
            for source, piece in zip(node.inputs, linear.adjoint(node, a.reshape(size, *node.shape)), strict=True):
                known = pending.get(source)
                pending[source] = piece.reshape(size, -1) if known is None else known + piece.reshape(size, -1)
    kept = tuple(_part(source, matrix) for source, matrix in parts.items() if matrix.any())
    return Affine(kept, bias.astype(dtype) if bias.any() else None, size, None if bias.any() else _picked(kept))


def _part(source: int, matrix: np.ndarray) -> Part:
    used = np.flatnonzero(matrix.any(axis=0))
    entries = slice(int(used[0]), int(used[-1]) + 1)
    return Part(source, entries, np.ascontiguousarray(matrix[:, entries]))


def _picked(parts: tuple[Part, ...]) -> tuple[int, np.ndarray] | None:
    if len(parts) != 1:
        return None
    source, entries, matrix = parts[0]
    places = matrix.argmax(axis=1)
    return (source, entries.start + places) if np.array_equal(matrix, np.eye(matrix.shape[1])[places]) else None
