"""Matrix products and quotients of two variables in parts, whose lines an optimiser may choose one by one.

As one node a matrix product has fixed planes (`ops.matmul`: the linearisation at the centres), carried by matrix
products; as a sum of single products, each has weights of its own, which attention gains most from. A quotient has one
parameter for a plane and a line of the reciprocal; as a product with the reciprocal it has one for each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..graph import Graph, Node
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ops.rule import Interval

LARGEST_EXPANDED = 1 << 14
"""Single products of a matrix product up to which it is expanded: they take the room of as many neurons."""


def expand(graph: Graph, intervals: Sequence[Interval]) -> tuple[Graph, list[Interval]]:
    """The graph with its matrix products and quotients of two variables expanded, and the bounds of its nodes.

    intervals are bounds of every node's value, ``[B or 1, *shape]`` by node index. Returns `graph` itself where nothing
    is small enough to be expanded.
    """
    if not any(node.op == "Div" or _is_small(node) for node in graph.nodes):
        return graph, list(intervals)
    nodes: list[Node] = []
    bounds: list[Interval] = []
    place: list[int] = []

    def add(node: Node, interval: Interval | None = None) -> int:
        shapes = tuple(nodes[source].shape for source in node.inputs)
        node = replace(node, input_shapes=shapes)
        known = [bounds[source] for source in node.inputs]
        nodes.append(node)
        bounds.append(rule(node.op).interval(node, known) if interval is None else interval)
        return len(nodes) - 1

    for index, node in enumerate(graph.nodes):
        inputs = tuple(place[source] for source in node.inputs)
        if node.op == "Div":
            inverse = add(Node(node.name, "Reciprocal", inputs[1:], node.shape))
            place.append(add(Node(node.name, "Mul", (inputs[0], inverse), node.shape), intervals[index]))
            continue
        if not _is_small(node):
            place.append(add(replace(node, inputs=inputs), intervals[index]))
            continue
        xp = array_namespace(intervals[index][0])
        factors = []
        for source, entries in zip(inputs, _entries(*node.input_shapes), strict=True):
            # The indices live where the bounds do, so that no pass has to move them.
            indices = xp.asarray(entries, **options_like(intervals[index][0]))
            factors.append(add(Node(node.name, "Take", (source,), entries.shape, {"indices": indices}, {"fill": 0.0})))
        shape = nodes[factors[0]].shape
        products = add(Node(node.name, "Mul", tuple(factors), shape))
        axis = len(shape) - 2
        summed = (*shape[:axis], shape[-1])
        total = Node(node.name, "Sum", (products,), summed, {}, {"axes": (axis,), "keepdims": False})
        place.append(add(Node(node.name, "Reshape", (add(total),), node.shape), intervals[index]))
    outputs = tuple(place[output] for output in graph.outputs)
    return Graph(tuple(nodes), tuple(place[start] for start in graph.inputs), outputs), bounds


def _is_small(node: Node) -> bool:
    if node.op != "MatMul":
        return False
    depth = node.input_shapes[0][-1]
    return node.size * depth <= LARGEST_EXPANDED


def _entries(left: Sequence[int], right: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The entries of both factors in every single product, ``[..., I, K, J]``."""
    first = np.arange(int(np.prod(left)), dtype=np.int64).reshape(left if len(left) > 1 else (1, *left))
    second = np.arange(int(np.prod(right)), dtype=np.int64).reshape(right if len(right) > 1 else (*right, 1))
    both = np.broadcast_arrays(first[..., :, :, None], second[..., None, :, :])
    return np.ascontiguousarray(both[0]), np.ascontiguousarray(both[1])
