"""Queries that compare outputs of a softmax: attacks look at what the softmax reads.

In the reals a softmax keeps the order of its entries, so a row ``y_i <= y_j`` may as well be asked of its inputs. In
floating point it forgets: beside an entry that leads by a hundred, all others are 0 and so are all gradients. Only
attacks use this: what they find is replayed on the network itself, and bounds stay those of its own outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from ..graph import Graph, Node
from ..loading.rewrite import with_params

if TYPE_CHECKING:
    from ..rows import Rows


def before_softmax(graph: Graph, rows: Rows) -> Graph:
    """The graph up to what its last softmax reads, where every row compares two entries of one softmax; else the graph
    itself. The graph has one output."""
    nodes = graph.nodes
    end = graph.outputs[0]
    while nodes[end].op == "Reshape":
        end = nodes[end].inputs[0]
    found = _softmax(nodes, end)
    if found is None or not _compares(rows, found[1].shape[1]):
        return graph
    source, entries = found
    indices = {"indices": array_namespace(rows.rows).asarray(entries.reshape(-1), **options_like(rows.rows))}
    output = nodes[graph.outputs[0]]
    logits = with_params(output, (source,), indices, fill=0.0)
    logits = Node(logits.name, "Take", logits.inputs, output.shape, logits.params, logits.attributes)
    return Graph((*nodes[: source + 1], logits), graph.inputs, (source + 1,))


def _softmax(nodes: tuple[Node, ...], index: int) -> tuple[int, np.ndarray] | None:
    """The node that a softmax as the importers write it reads (see `loading.lowering_softmax`) and which of its
    entries, an array with one row for each softmax; None for anything else."""
    node = nodes[index]
    if node.op == "Same":
        return _by_differences(nodes, node.inputs[1])
    if node.op == "Sigmoid":
        return _of_two(nodes, node.inputs[0])
    if node.op == "Exp" and nodes[node.inputs[0]].op == "Same":
        return _by_logarithm(nodes, nodes[node.inputs[0]].inputs[1])
    return None


def _of_two(nodes: tuple[Node, ...], index: int) -> tuple[int, np.ndarray] | None:
    """``x_i - x_j`` and its opposite, side by side."""
    node = nodes[index]
    if node.op != "Add" or len(node.inputs) != 2 or node.attributes["signs"] != (1, -1) or node.size % 2:
        return None
    (source, own), (other_source, other) = (_origin(nodes, position) for position in node.inputs)
    entries = own.reshape(-1, 2)
    same = source == other_source and (other.reshape(-1, 2) == entries[:, ::-1]).all()
    return (source, entries) if same and entries.min() >= 0 else None


def _by_logarithm(nodes: tuple[Node, ...], index: int) -> tuple[int, np.ndarray] | None:
    node = nodes[index]
    if node.op != "LogSoftmax" or node.attributes["axis"] not in (-1, len(node.shape) - 1):
        return None
    return node.inputs[0], np.arange(node.size).reshape(-1, node.shape[-1])


def _by_differences(nodes: tuple[Node, ...], index: int) -> tuple[int, np.ndarray] | None:
    """``1 / (1 + sum_(j != i) exp(x_j - x_i))``."""
    chain = []
    for op in (("Reciprocal",), ("Scale",), ("Sum", "Reshape"), ("Exp",), ("Add",)):
        node = nodes[index]
        if node.op not in op:
            return None
        chain.append(node)
        index = node.inputs[0]
    _, scale, total, ratios, difference = chain
    shift = to_numpy(scale.params["shift"]) if "shift" in scale.params else np.zeros(1)
    if "scale" in scale.params or not (shift == 1.0).all() or difference.attributes["signs"] != (1, -1):
        return None
    count = ratios.shape[-1] + 1 if ratios.shape else 0
    if not count or total.size % count:
        return None
    summed = tuple(total.attributes["axes"]) == (len(ratios.shape) - 1,) if total.op == "Sum" else count == 2
    if not summed:
        return None
    (source, others), (other_source, own) = (_origin(nodes, position) for position in difference.inputs)
    entries = own.reshape(-1, count - 1)[:, 0].reshape(-1, count)
    wanted = np.stack([np.delete(entries, position, axis=1) for position in range(count)], axis=1)
    same = (others.reshape(wanted.shape) == wanted) & (own.reshape(wanted.shape) == entries[:, :, None])
    return (source, entries) if same.all() and source == other_source and entries.min() >= 0 else None


def _origin(nodes: tuple[Node, ...], index: int) -> tuple[int, np.ndarray]:
    """The node whose entries a node's are, and which, in a flat array; -1 for a constant."""
    entries = np.arange(nodes[index].size)
    while nodes[index].op in ("Reshape", "Take"):
        node = nodes[index]
        if node.op == "Take":
            entries = np.where(entries < 0, -1, to_numpy(node.params["indices"]).reshape(-1)[entries])
        index = node.inputs[0]
    return index, entries


def _compares(rows: Rows, count: int) -> bool:
    """Whether every row is a difference of two outputs among `count` in a row, against 0; rows that only pad do not
    count."""
    matrix, offsets = to_numpy(rows.rows), to_numpy(rows.offsets)
    used = np.isfinite(offsets)
    matrix, offsets = matrix[used], offsets[used]
    balanced = (matrix.max(axis=1, initial=0.0) == -matrix.min(axis=1, initial=0.0)) & (offsets == 0.0)
    first, second = matrix.argmax(axis=1) // count, matrix.argmin(axis=1) // count
    return bool((balanced & ((matrix != 0).sum(axis=1) == 2) & (first == second)).all())
