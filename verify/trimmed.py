"""A problem without what its clauses do not ask about: queries about one line of a power grid read one of thousands of
outputs, and what computes the others need neither be bounded nor split.

Where every node works entry by entry, moves entries, or is a dense layer on a vector, each is cut to the entries that
the rows depend on. Others (images) are left as they are: windows make nearly all of them depend on all. So are graphs
with operators that may have no value (a logarithm): `unsat` says that they have one, in all entries.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .bounding.relevance import relevant_entries, selected
from .graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .problem import Problem

WORTH = 0.5
"""A problem is cut where at most this share of all entries is left: its nodes lose their shapes."""

ENTRYWISE = frozenset(
    {"Add", "Scale", "Mul", "Max", "Min", "Relu", "LeakyRelu", "Clip", "Abs", "Piecewise"}
    | {"Sigmoid", "Tanh", "Arctan", "Erf", "Gelu", "Silu", "Softplus", "Elu", "Exp", "Sin", "Cos"}
    | {"Sign", "Floor", "Ceil", "Round", "IsPositive", "IsNonNegative", "IsZero"}
)
"""Operators on inputs of the output's shape that have a value everywhere; and powers with a natural number."""

MOVES = frozenset({"Reshape", "Transpose", "Take", "Concat"})

Origins = list[tuple[int, np.ndarray, np.ndarray]]
"""Where the entries of a node come from: inputs (by place), entries there, and which entries of the node these are."""


def trimmed(problem: Problem) -> Problem:
    """The problem on the outputs that its rows mention, and on the entries of nodes that these depend on; the problem
    itself where that is most of it, or where a node cannot be cut."""
    graph = problem.graph
    used = np.flatnonzero(np.any([(group.rows != 0).any(axis=0) for group in problem.groups], axis=0))
    if len(used) == 0 or not all(_can_be_cut(node) for node in graph.nodes):
        return problem
    needed = _needed(graph, used)
    if sum(int(mask.sum()) for mask in needed) > WORTH * sum(node.size for node in graph.nodes):
        return problem
    groups = tuple(replace(group, rows=group.rows[:, used]) for group in problem.groups)
    return replace(problem, graph=_cut(graph, [np.flatnonzero(mask) for mask in needed]), groups=groups)


def _can_be_cut(node: Node) -> bool:
    if node.op == "Linear":
        return node.size == node.shape[-1]
    if node.op == "Pow":
        exponent = float(node.attributes["exponent"])
        return exponent >= 0 and exponent.is_integer()
    return node.op in ("Input", "Constant") or node.op in MOVES or node.op in ENTRYWISE


def _needed(graph: Graph, used: np.ndarray) -> list[np.ndarray]:
    """Masks ``[size]`` of the entries of every node that the used outputs depend on; all of the input."""
    (output,) = graph.outputs
    wanted = np.zeros(graph.nodes[output].size, dtype=bool)
    wanted[used] = True
    known = relevant_entries(graph, wanted)
    masks = [known.get(place, np.full(node.size, place <= output)) for place, node in enumerate(graph.nodes)]
    return [mask | (node.op == "Input") for node, mask in zip(graph.nodes, masks, strict=True)]


def _origins(node: Node, kept: np.ndarray) -> Origins:
    """Where the kept entries of a node that moves entries come from."""
    if node.op == "Concat":
        axis = int(node.attributes["axis"])
        parts = [np.full(shape, place) for place, shape in enumerate(node.input_shapes)]
        origin = np.concatenate(parts, axis=axis).reshape(-1)[kept]
        inner = [np.arange(part.size).reshape(part.shape) for part in parts]
        entry = np.concatenate(inner, axis=axis).reshape(-1)[kept]
        return [(place, entry[origin == place], np.flatnonzero(origin == place)) for place in range(len(parts))]
    if node.op == "Take":
        entry = np.asarray(node.params["indices"]).reshape(-1)[kept]
        return [(0, entry[entry >= 0], np.flatnonzero(entry >= 0))]
    entries = np.arange(node.size).reshape(node.input_shapes[0])
    if node.op == "Transpose":
        entries = entries.transpose(node.attributes["perm"])
    return [(0, entries.reshape(-1)[kept], np.arange(len(kept)))]


def _cut(graph: Graph, kept: Sequence[np.ndarray]) -> Graph:
    """The graph on the kept entries, every node but the input a vector of them, in order."""
    work = _Cutter(graph, kept)
    for position in range(len(graph.nodes)):
        if len(kept[position]):
            work.cut(position)
    return Graph(tuple(work.nodes), (work.place[graph.inputs[0]],), (work.place[graph.outputs[0]],))


class _Cutter:
    """The new graph under construction; `place` says where an old node's kept entries are."""

    def __init__(self, graph: Graph, kept: Sequence[np.ndarray]) -> None:
        self.graph, self.kept = graph, kept
        self.nodes: list[Node] = []
        self.place: dict[int, int] = {}

    def cut(self, position: int) -> None:
        """Add what answers the kept entries of an old node."""
        node, kept = self.graph.nodes[position], self.kept[position]
        if node.op in ("Input", "Constant"):
            values = {key: np.asarray(value).reshape(-1)[kept] for key, value in node.params.items()}
            shape = node.shape if node.op == "Input" else (len(kept),)
            index = self._add(node, (), shape, values, node.attributes)
        elif node.op == "Linear":
            source = self.kept[node.inputs[0]]
            params = selected(node, kept, source)
            if len(source):
                read = self.place[node.inputs[0]]
            else:
                # A layer without columns is no layer: this one takes an entry of the input times 0.
                read = self._taken(self.place[self.graph.inputs[0]], np.zeros(1, int))
                params["weight"] = np.zeros((len(kept), 1), dtype=params["weight"].dtype)
                params.pop("weight_error", None)
            index = self._add(node, (read,), (len(kept),), params, node.attributes)
        elif node.op in MOVES:
            index = self._moved(node, kept)
        else:
            params = {key: np.broadcast_to(x, node.shape).reshape(-1)[kept] for key, x in node.params.items()}
            inputs = tuple(self._entries(source, kept) for source in node.inputs)
            index = self._add(node, inputs, (len(kept),), params, node.attributes)
        self.place[position] = index

    def _moved(self, node: Node, kept: np.ndarray) -> int:
        """The kept entries of a node that moves entries: those of each input, one after the other, in their order."""
        origins = [origin for origin in _origins(node, kept) if len(origin[1])]
        parts = [self._entries(node.inputs[place], entries) for place, entries, _ in origins]
        # Of entries that are all filling, any node is the source.
        joined = parts[0] if parts else self.place[self.graph.inputs[0]]
        if len(parts) > 1:
            length = sum(len(entries) for _, entries, _ in origins)
            joined = self._add(replace(node, op="Concat"), tuple(parts), (length,), {}, {"axis": 0})
        order = np.full(len(kept), -1, dtype=np.int64)
        places = np.concatenate([np.zeros(0, dtype=np.int64), *(places for _, _, places in origins)])
        order[places] = np.arange(len(places))
        return self._taken(joined, order, float(node.attributes.get("fill", 0.0)))

    def _entries(self, source: int, entries: np.ndarray) -> int:
        """These entries of an old node as a vector."""
        return self._taken(self.place[source], np.searchsorted(self.kept[source], entries))

    def _taken(self, source: int, indices: np.ndarray, fill: float = 0.0) -> int:
        """These entries of a new node as a vector, -1 the filling."""
        node = self.nodes[source]
        if node.shape == (len(indices),) and np.array_equal(indices, np.arange(len(indices))):
            return source
        take = replace(node, op="Take")
        return self._add(take, (source,), indices.shape, {"indices": indices.astype(np.int64)}, {"fill": fill})

    def _add(
        self,
        like: Node,
        inputs: tuple[int, ...],
        shape: tuple[int, ...],
        params: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
    ) -> int:
        frozen = MappingProxyType(dict(params)), MappingProxyType(dict(attributes))
        self.nodes.append(Node(like.name, like.op, inputs, shape, *frozen))
        return len(self.nodes) - 1
