"""Which entries of a graph's nodes the rows of a query depend on: a pixel of a detector's output sees a window of the
image and of every layer between, and nothing else needs bounds.

The answer is structural (where a weight is not 0), so that it holds whatever the input.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import to_numpy
from ..ops import rule

if TYPE_CHECKING:
    from ..graph import Graph, Node

_TRACED = frozenset(
    {"Linear", "Conv", "ConvTranspose", "Add", "Scale", "Reshape", "Transpose", "Take", "Concat", "Sum"}
)
"""Linear operators that are traced entry by entry; what any other one reads counts as needed in full."""


def relevant_entries(graph: Graph, wanted: np.ndarray) -> dict[int, np.ndarray]:
    """For every node of which not all entries count towards the `wanted` entries (bool, flat ``[m]``) of the graph's
    only output: which do (bool, flat ``[size]``). Nodes that are not in the answer count in full."""
    nodes = graph.nodes
    (output,) = graph.outputs
    masks = {output: wanted}
    whole: set[int] = set()
    for position in range(output, -1, -1):
        if position not in masks and position not in whole:
            masks[position] = np.zeros(nodes[position].size, dtype=bool)
        mask = masks.get(position)
        if mask is not None and mask.all():
            del masks[position]
            whole.add(position)
            mask = None
        read = _read(nodes[position], mask)
        for number, source in enumerate(nodes[position].inputs):
            if source in whole:
                continue
            if read is None:
                masks.pop(source, None)
                whole.add(source)
            else:
                known = masks.get(source)
                masks[source] = read[number] if known is None else known | read[number]
    return masks


def _read(node: Node, mask: np.ndarray | None) -> list[np.ndarray] | None:
    """Which entries of each input the entries `mask` of a node depend on (None: all of them); None if all."""
    operator = rule(node.op)
    if mask is not None and not mask.any():
        return [np.zeros(int(np.prod(shape)), dtype=bool) for shape in node.input_shapes]
    entrywise = (operator.linear is None and operator.relax is not None) or node.op in ("Add", "Scale")
    if entrywise and all(shape == node.shape for shape in node.input_shapes):
        return None if mask is None else [mask] * len(node.inputs)
    if node.op not in _TRACED or operator.linear is None:
        return None
    ones = np.ones(node.size, dtype=np.float32) if mask is None else mask.astype(np.float32)
    pieces = operator.linear.adjoint(_pattern(node), ones.reshape(1, *node.shape))
    return [piece.reshape(-1) > 0 for piece in pieces]


def _pattern(node: Node) -> Node:
    """The node with 1 in place of every weight that is not 0."""
    if "weight" not in node.params:
        return replace(node, params=MappingProxyType({key: to_numpy(value) for key, value in node.params.items()}))
    weight = read_by(node).astype(np.float32)
    return replace(node, params=MappingProxyType({"weight": weight}))


def read_by(node: Node) -> np.ndarray:
    """Where a layer's weight may be other than 0, in the weight's shape."""
    weight = to_numpy(node.params["weight"]) != 0
    return weight | (to_numpy(node.params["weight_error"]) != 0) if "weight_error" in node.params else weight


def selected(node: Node, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of some outputs of a dense layer, of some of its inputs."""
    return {
        key: array[np.ix_(rows, columns)] if key.startswith("weight") else array[rows]
        for key, array in node.params.items()
    }
