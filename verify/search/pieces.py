"""An equivalent graph for branch-and-bound, in which one split leaves one piece.

A maximum has no kink in any of its inputs, so that splitting these never ends. In its place stand differences:
``max(a, b) = a + relu(b - a)``, ``min(a, b) = a - relu(a - b)``, in a balanced tree for more inputs. And a step gets a
copy of what it reads where others read that, too, so that "z > 0" is a bound that nobody takes for more than it is.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from ..bounding.crown import relax
from ..bounding.interval import intersect
from ..bounding.parameters import Base
from ..bounding.plan import MOVES, is_step, make_plan
from ..graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..budget import Deadline, MemoryBudget
    from ..graph import Array
    from ..ops.rule import Interval


_Operand = tuple[int, np.ndarray]
"""A node of the new graph, and for which entries (bool ``[*shape]``) its value counts."""


def with_exact_pieces(base: Base, deadline: Deadline, memory: MemoryBudget) -> tuple[Base, frozenset[int]]:
    """The base on the equivalent graph (the same function on its boxes), and the nodes of the new graph whose values
    the old one did not have. What was known of the other nodes is kept.

    Returns the base itself where there is nothing to rewrite. Raises `TimeUp`.
    """
    build = _Rewriting(base)
    graph = build.graph()
    if graph is None:
        return base, frozenset()
    known = {new: base.intervals[old] for old, new in enumerate(build.place)}
    plan = make_plan(graph, base.plan.wanted)
    inherited = {
        index: (low.reshape(low.shape[0], -1), high.reshape(high.shape[0], -1))
        for index, (low, high) in known.items()
        if index in plan.targets
    }
    state = relax(plan, base.lower, base.upper, inherited=inherited, deadline=deadline, memory=memory, constrained=True)
    intervals: Mapping[int, Interval] = {
        index: intersect(pair, known[index]) if index in known else pair for index, pair in enumerate(state.intervals)
    }
    fresh = frozenset(range(len(graph.nodes))) - known.keys()
    return Base(plan, base.lower, base.upper, intervals), fresh


class _Rewriting:
    """The new graph under construction; `place` are the old nodes' new indices."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.nodes: list[Node] = []
        self.place: list[int] = []
        self._changed = False

    def graph(self) -> Graph | None:
        """The rewritten graph; None where nothing is to be rewritten."""
        old = self.base.plan.graph
        for index, node in enumerate(old.nodes):
            result = None
            if node.op in ("Max", "Min"):
                result = self._extremum(node)
            elif is_step(node) and self._shared(index):
                result = self._keep(node, (self._copy(node, self.place[node.inputs[0]]),))
            self._changed = self._changed or result is not None
            if result is None:
                result = self._keep(node, tuple(self.place[source] for source in node.inputs))
            self.place.append(result)
        if not self._changed:
            return None
        inputs, outputs = (tuple(self.place[index] for index in ends) for ends in (old.inputs, old.outputs))
        return Graph(tuple(self.nodes), inputs, outputs)

    def _keep(self, node: Node, inputs: tuple[int, ...]) -> int:
        self.nodes.append(replace(node, inputs=inputs))
        return len(self.nodes) - 1

    def _add(
        self, node: Node, role: str, op: str, inputs: tuple[int, ...], params: Mapping[str, Array], **settings: object
    ) -> int:
        """A new node of the shape of an old one, after which it is named."""
        self.nodes.append(
            Node(f"{node.name} ({role})", op, inputs, node.shape, MappingProxyType(params), MappingProxyType(settings))
        )
        return len(self.nodes) - 1

    def _like(self, values: np.ndarray) -> Array:
        """The values in the library and, for floating-point ones, the dtype of the boxes."""
        like = self.base.lower
        dtype = {"dtype": like.dtype} if values.dtype.kind == "f" else {}
        return array_namespace(like).asarray(values, **dtype, **options_like(like))

    # --- steps -----------------------------------------------------------------------------------------------------

    def _shared(self, index: int) -> bool:
        """Whether others would see the bounds of what a step reads."""
        plan = self.base.plan
        (root,) = plan.graph.nodes[index].inputs
        while plan.graph.nodes[root].op in MOVES:
            (root,) = plan.graph.nodes[root].inputs
        return root in plan.sources and not any(plan.sources[root].opened)

    def _copy(self, node: Node, source: int) -> int:
        return self._add(node, "its input", "Scale", (source,), {"scale": self._like(np.ones(()))})

    # --- extrema ---------------------------------------------------------------------------------------------------

    def _extremum(self, node: Node) -> int | None:
        """The node as a tree of differences; None where that cannot be said in finite numbers."""
        ends = [[to_numpy(end) for end in self.base.intervals[source]] for source in node.inputs]
        gathered = self._gathered(node, ends)
        if gathered is not None:
            level = gathered
        elif all(np.isfinite(end).all() for pair in ends for end in pair):
            level = [(self.place[source], np.ones(node.shape, dtype=bool)) for source in node.inputs]
        else:
            return None
        while len(level) > 1:
            pairs = [self._pair(node, *level[k : k + 2]) for k in range(0, len(level) - 1, 2)]
            level = pairs + level[len(level) - len(level) % 2 :]
        return level[0][0]

    def _pair(self, node: Node, first: _Operand, second: _Operand) -> _Operand:
        """The larger (smaller) of two values, the first one where the second does not count."""
        (left, counts), (right, matters) = first, second
        minimum = node.op == "Min"
        gap = self._add(node, "difference", "Add", (left, right) if minimum else (right, left), {}, signs=(1, -1))
        if not matters.all():
            gap = self._add(node, "difference that counts", "Scale", (gap,), {"scale": self._like(matters * 1.0)})
        excess = self._add(node, "excess", "Relu", (gap,), {})
        return self._add(node, "of two", "Add", (left, excess), {}, signs=(1, -1 if minimum else 1)), counts

    def _gathered(self, node: Node, ends: list[list[np.ndarray]]) -> list[_Operand] | None:
        """The inputs with those of every entry that can win in front, and where they can, if all inputs gather from one
        node (the windows of max-pooling, with infinite padding)."""
        nodes = self.base.plan.graph.nodes
        sources = {nodes[source].inputs for source in node.inputs}
        if len(sources) > 1 or any(nodes[source].op != "Take" for source in node.inputs):
            return None
        indices = np.stack([to_numpy(nodes[source].params["indices"]).reshape(node.shape) for source in node.inputs])
        low, high = (np.stack(np.broadcast_arrays(*(pair[end] for pair in ends))) for end in (0, 1))
        if node.op == "Min":
            low, high = -high, -low
        wins = (indices >= 0) & (high >= low.max(axis=0)).any(axis=1)
        # A fill that can win is not an entry of the common source.
        fills = np.isfinite(high) & (indices < 0)[:, None]
        if fills.any() or not wins.any(axis=0).all():
            return None
        order = np.argsort(~wins, axis=0, kind="stable")
        indices, wins = np.take_along_axis(indices, order, axis=0), np.take_along_axis(wins, order, axis=0)
        indices = np.where(wins, indices, indices[0])
        ((source,),) = sources
        found = []
        for entries, counts in zip(indices, wins, strict=True):
            if counts.any():
                params = {"indices": self._like(np.ascontiguousarray(entries))}
                found.append((self._add(node, "window", "Take", (self.place[source],), params, fill=0.0), counts))
        return found
