"""The part of a condensed network that some neurons depend on: a neuron of an early convolution sees a window of the
image and few neurons of the layers between (numpy only)."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from ..graph import Graph, Node
from .live import is_plain_dense
from .parameters import Base, ancestors
from .plan import make_plan
from .relevance import read_by, selected

WORTH = 0.6
"""A part is taken where its matrices have at most this share of all numbers."""


def cone(base: Base, start: int, entries: np.ndarray) -> tuple[Base, np.ndarray] | None:
    """The base on the network that computes some entries (flat indices, ascending) of a node, which is its output, and
    the entries' places there; None where the network is no chain of ``Linear``, ``Add`` and ``Relu`` on vectors, where
    another node reads what an ``Add`` or ``Relu`` reads, or where the entries depend on most of it."""
    nodes = base.plan.graph.nodes
    order = ancestors(base.plan, start)
    if not isinstance(base.lower, np.ndarray) or not all(_is_plain(nodes[position]) for position in order):
        return None
    needed = {position: np.zeros(nodes[position].size, dtype=bool) for position in order}
    needed[start][entries] = True
    # An input that no entry depends on is harmless, a network without input is not.
    needed[base.plan.input][0] = True
    whole = sum(nodes[position].params["weight"].size for position in order if nodes[position].op == "Linear")
    part = 0
    for position in order:
        node, mask = nodes[position], needed[position]
        if node.op == "Linear":
            columns = read_by(node)[mask].any(axis=0)
            part += int(mask.sum()) * int(columns.sum())
            if part > WORTH * whole:
                return None
            needed[node.inputs[0]] |= columns
        else:
            for source in node.inputs:
                needed[source] |= mask
    if not all(_agrees(nodes[position], needed, needed[position]) for position in order):
        return None
    kept = {position: np.flatnonzero(mask) for position, mask in needed.items()}
    return _cut(base, start, order, kept), np.searchsorted(kept[start], entries)


def _is_plain(node: Node) -> bool:
    return len(node.shape) == 1 and (node.op in ("Input", "Add", "Relu") or is_plain_dense(node))


def _agrees(node: Node, needed: dict[int, np.ndarray], mask: np.ndarray) -> bool:
    """Whether the inputs of an entrywise operator are needed by nothing else: it takes them entry by entry."""
    return node.op == "Linear" or all(np.array_equal(needed[source], mask) for source in node.inputs)


def _cut(base: Base, start: int, order: list[int], kept: dict[int, np.ndarray]) -> Base:
    """The base on the kept entries of every node."""
    made: dict[int, int] = {}
    nodes: list[Node] = []
    for position in reversed(order):
        node, entries = base.plan.graph.nodes[position], kept[position]
        if len(entries) == 0:
            continue
        params, attributes = node.params, node.attributes
        if node.op == "Linear":
            if len(kept[node.inputs[0]]) == 0 and "bias" not in params:
                continue
            params = MappingProxyType(selected(node, entries, kept[node.inputs[0]]))
        sources = [place for place, source in enumerate(node.inputs) if source in made]
        if node.op == "Add":
            attributes = MappingProxyType({"signs": tuple(node.attributes["signs"][place] for place in sources)})
        inputs = tuple(made[node.inputs[place]] for place in sources)
        made[position] = len(nodes)
        nodes.append(Node(node.name, node.op, inputs, (len(entries),), params, attributes))
    columns = kept[base.plan.input]
    intervals = {
        made[position]: (low.reshape(low.shape[0], -1)[:, entries], high.reshape(high.shape[0], -1)[:, entries])
        for position, entries in kept.items()
        if position in made and position in base.intervals
        for low, high in (base.intervals[position],)
    }
    plan = make_plan(Graph(tuple(nodes), (made[base.plan.input],), (made[start],)))
    return Base(plan, base.lower[:, columns], base.upper[:, columns], intervals)
