"""A smaller network that is the same on a region: neurons that are inactive on all of it are left out."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from .live import is_plain_dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph, Node
    from ..ops.rule import Interval


def shrink(graph: Graph, intervals: Sequence[Interval]) -> tuple[Graph, list[Interval]]:
    """The graph without the neurons of dense layers whose ReLU is 0 on every box, and the bounds of its nodes.

    intervals are valid bounds of every node's value on the boxes, ``[B or 1, *shape]`` by node index (`Relaxed` has
    them). The answer has the same nodes, inputs and outputs, with smaller arrays between ``Linear``, ``Relu`` and
    ``Linear``; on the boxes it is the same function (elsewhere it is not). A layer keeps one neuron at least. Returns
    `graph` itself where there is nothing to leave out.
    """
    nodes = list(graph.nodes)
    bounds = list(intervals)
    changed = False
    for position, node in enumerate(graph.nodes):
        above = _dense_readers(graph, position)
        if not above:
            continue
        active = (to_numpy(intervals[position][1]) > 0).reshape(-1, node.size).any(axis=0)
        if active.all():
            continue
        kept = np.flatnonzero(active) if active.any() else np.zeros(1, dtype=np.intp)
        changed = True
        shape = (*node.shape[:-1], len(kept))
        (relu,) = graph.readers[position]
        rows = dict.fromkeys(nodes[position].params, (kept, 0))
        nodes[position] = _selected(nodes[position], rows, shape)
        nodes[relu] = replace(nodes[relu], shape=shape)
        for index in (position, relu):
            low, high = bounds[index]
            bounds[index] = (low[..., kept], high[..., kept])
        for reader in above:
            columns = dict.fromkeys((key for key in nodes[reader].params if key.startswith("weight")), (kept, 1))
            nodes[reader] = _selected(nodes[reader], columns, nodes[reader].shape)
    return (replace(graph, nodes=tuple(nodes)) if changed else graph), bounds


def _dense_readers(graph: Graph, position: int) -> tuple[int, ...]:
    """The dense layers that read a dense layer through its ReLU, if nothing else reads either; else nothing."""
    if not is_plain_dense(graph.nodes[position]) or position in graph.outputs or len(graph.readers[position]) != 1:
        return ()
    (relu,) = graph.readers[position]
    if graph.nodes[relu].op != "Relu" or relu in graph.outputs:
        return ()
    found = graph.readers[relu]
    return found if all(is_plain_dense(graph.nodes[reader]) for reader in found) else ()


def _selected(node: Node, entries: dict[str, tuple[np.ndarray, int]], shape: tuple[int, ...]) -> Node:
    """The node with only the given entries of parameters along an axis."""

    def pick(key: str, value: Array) -> Array:
        if key not in entries:
            return value
        kept, axis = entries[key]
        xp = array_namespace(value)
        return xp.take(value, xp.asarray(kept, **options_like(value)), axis=axis)

    params = MappingProxyType({key: pick(key, value) for key, value in node.params.items()})
    return replace(node, params=params, shape=shape)
