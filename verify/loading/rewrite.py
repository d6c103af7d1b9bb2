"""Rewriting a graph node by node: each node absorbs what it can of its producers, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..graph import Graph, Node

if TYPE_CHECKING:
    from ..graph import Array

_MOST_ROUNDS = 64
"""Rewrites of a single node before giving up on it; every rule shrinks something, so this is never reached."""


class Rewriter:
    """The graph while it is rewritten: nodes by index, aliases for removed ones, and how often each is read.

    Only what the outputs depend on counts as a read.
    """

    def __init__(self, graph: Graph, rules: tuple[Rule, ...]) -> None:
        self.graph = graph
        self.nodes = list(graph.nodes)
        self.alias = list(range(len(self.nodes)))
        self.rules = rules
        self.reads = [0] * len(self.nodes)
        for output in graph.outputs:
            self.reads[output] += 1
        for index in range(len(self.nodes) - 1, -1, -1):
            if self.reads[index]:
                self._count(self.nodes[index])

    def result(self) -> Graph:
        """Apply the rules to every node in order; the graph of what is then still needed."""
        for index in range(len(self.graph.nodes)):
            node = self.nodes[index]
            self.nodes[index] = replace(node, inputs=tuple(self.alias[source] for source in node.inputs))
            if self.reads[index]:
                self.settle(index)
        return self._compacted()

    def append(self, node: Node) -> int:
        """Add a node that rules make beside the one they answer; its index."""
        self.nodes.append(node)
        self.alias.append(len(self.alias))
        self.reads.append(0)
        self._count(node)
        return len(self.nodes) - 1

    def _count(self, node: Node) -> None:
        for source in node.inputs:
            self.reads[source] += 1

    def settle(self, index: int) -> None:
        """Apply rules to a node until none applies."""
        for _ in range(_MOST_ROUNDS):
            if not any(self._apply(rule, index) for rule in self.rules):
                break

    def _apply(self, rule: Rule, index: int) -> bool:
        """Try a rule on a node: it answers a new node, the index of an equal node, or None."""
        node = self.nodes[index]
        made = rule(self, node)
        if made is None:
            return False
        if isinstance(made, int):
            self.alias[index] = made
            self.reads[made] += self.reads[index]
            self._release(node)
            self.nodes[index] = replace(node, op="Identity", inputs=(made,), params={}, attributes={})
            self.reads[index] = 0
            return False
        self._count(made)
        self.nodes[index] = replace(made, input_shapes=())
        self._release(node)
        return True

    def _release(self, node: Node) -> None:
        """Stop counting a node's reads; producers that nothing reads any more stop reading, too."""
        for source in node.inputs:
            self.reads[source] -= 1
            if self.reads[source] == 0 and self.nodes[source].op != "Input":
                self._release(self.nodes[source])

    def producer(self, node: Node, op: str, position: int = 0, alone: bool = True) -> Node | None:
        """The producer of an input if it is an `op` node (and, with `alone`, read by nothing else)."""
        if len(node.inputs) <= position:
            return None
        source = node.inputs[position]
        found = self.nodes[source]
        return found if found.op == op and (not alone or self.reads[source] == 1) else None

    def _compacted(self) -> Graph:
        """The graph without the nodes that no output depends on, in topological order."""
        outputs = tuple(self.alias[output] for output in self.graph.outputs)
        order = self._ordered((*self.graph.inputs, *outputs))
        place = {index: position for position, index in enumerate(order)}
        names = dict(zip(outputs, (self.graph.nodes[output].name for output in self.graph.outputs), strict=True))
        nodes = []
        for index in order:
            node = self.nodes[index]
            name = names.get(index, node.name) if node.op != "Input" else node.name
            nodes.append(
                replace(node, name=name, inputs=tuple(place[source] for source in node.inputs), input_shapes=())
            )
        return Graph(
            tuple(nodes), tuple(place[index] for index in self.graph.inputs), tuple(place[index] for index in outputs)
        )

    def _ordered(self, roots: tuple[int, ...]) -> list[int]:
        """The roots and all they depend on, every node after those it reads."""
        order: dict[int, None] = {}
        stack = [(root, False) for root in reversed(roots)]
        while stack:
            index, ready = stack.pop()
            if ready:
                order.setdefault(index)
            elif index not in order:
                stack.append((index, True))
                stack.extend((source, False) for source in reversed(self.nodes[index].inputs))
        return list(order)


Rule = Callable[[Rewriter, Node], Node | int | None]
"""Looks at a node and its producers; answers the node to put in its place, the index of an equal node, or None."""


def with_params(node: Node, inputs: tuple[int, ...], params: Mapping[str, Array], **attributes: Any) -> Node:
    """`node` with other inputs and parameters, and some attributes changed."""
    return replace(
        node,
        inputs=inputs,
        params=MappingProxyType(dict(params)),
        attributes=MappingProxyType({**node.attributes, **attributes}),
    )
