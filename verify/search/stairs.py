"""Inputs that the network reads only through whole numbers: finitely many values stand for all.

Where an input goes nowhere but into ``Floor`` or ``Ceil`` (positions of a patch, truncated to pixels), the network is
constant between whole numbers. A few points, one on every stair, then have every value that the network takes, and a
box is split between two of them instead of ever closer to the edge of a stair. Inputs of integer or boolean type have
no other values than whole numbers, whatever the network does with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from ..graph import Graph
from ..loading.evaluate import evaluate
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array, Node

STAIRS_AT_MOST = 10_000
"""Whole numbers in an input's range up to which its stairs are looked for; also far below where float32 has gaps."""

INPUTS_AT_MOST = 64
"""Uncertain inputs up to which stairs are looked for."""


def find_stairs(
    graph: Graph, lower: Array, upper: Array, uncertain: np.ndarray, whole: np.ndarray | None = None
) -> dict[int, Array]:
    """For every input of those `uncertain` that the network reads through whole numbers only: ascending values, one a
    stair.

    The graph has one flat input; `lower` and `upper` are all boxes ``[G, n]``. Whatever the input's value in the boxes
    (they must agree about its range), the network takes the same value where it is the one of these on its stair, and
    stairs are intervals in the same order. Inputs with `whole` (bool ``[n]``) have no other values than whole numbers:
    theirs are those between the ends of all boxes. The answer has the dtype of `lower`.
    """
    low, high = to_numpy(lower), to_numpy(upper)
    if len(uncertain) > INPUTS_AT_MOST:
        return {}
    given = uncertain[whole[uncertain]] if whole is not None else uncertain[:0]
    stairs = _whole_numbers(lower, low, high, given)
    uncertain = np.setdiff1d(uncertain, given)
    edges, others = _edges(graph, uncertain)
    if not edges:
        return stairs
    first = Graph(graph.nodes[: edges[-1] + 1], graph.inputs, tuple(edges))
    for entry in uncertain:
        least, most = float(low[0, entry]), float(high[0, entry])
        agreed = (low[:, entry] == least).all() and (high[:, entry] == most).all()
        if entry in others or not agreed or not max(abs(least), abs(most)) <= STAIRS_AT_MOST:
            continue
        points = _candidates(least, most)
        xp = array_namespace(lower)
        values = xp.asarray(points, dtype=lower.dtype, **options_like(lower))
        boxes = xp.broadcast_to(lower[:1], (len(points), lower.shape[1])) + 0
        boxes[:, int(entry)] = values
        seen = evaluate(first, [boxes.reshape(-1, *graph.nodes[graph.inputs[0]].shape)])
        flat = np.concatenate([to_numpy(x).reshape(len(points), -1) for x in seen], axis=1)
        new = np.concatenate([[True], (flat[1:] != flat[:-1]).any(axis=1)])
        stairs[int(entry)] = values[xp.asarray(np.flatnonzero(new), **options_like(lower))]
    return stairs


def _whole_numbers(like: Array, low: np.ndarray, high: np.ndarray, entries: np.ndarray) -> dict[int, Array]:
    """The whole numbers between the ends of all boxes, for those of the entries for which they are not too many."""
    made = {}
    for entry in entries:
        least, most = np.ceil(low[:, entry].min()), np.floor(high[:, entry].max())
        if most - least < STAIRS_AT_MOST:
            values = least + np.arange(int(most - least) + 1)
            made[int(entry)] = array_namespace(like).asarray(values, dtype=like.dtype, **options_like(like))
    return made


def _candidates(least: float, most: float) -> np.ndarray:
    """The ends, the whole numbers between, and a point between any two of these."""
    points = np.unique(np.concatenate([[least, most], np.arange(np.ceil(least), most)]))
    return np.sort(np.concatenate([points, 0.5 * points[1:] + 0.5 * points[:-1]]))


def _edges(graph: Graph, uncertain: np.ndarray) -> tuple[list[int], set[int]]:
    """The ``Floor`` and ``Ceil`` nodes that read uncertain inputs, and the inputs that anything else reads.

    On the way there, an operator may move entries, change signs, or cut at whole numbers: the edges stay at whole
    numbers.
    """
    edges: list[int] = []
    others: set[int] = set()
    # For each entry of a node: 1 plus the input that it is a function of, 0 for none.
    origins: list[np.ndarray] = []
    for position, node in enumerate(graph.nodes):
        none = np.zeros((1, *node.shape))
        read = [origins[source] for source in node.inputs]
        if node.op == "Input":
            own = none.reshape(-1)
            own[uncertain] = uncertain + 1
            origins.append(own.reshape(none.shape))
            continue
        if not any(origin.any() for origin in read):
            origins.append(none)
        elif node.op == "Take":
            indices = to_numpy(node.params["indices"])
            origins.append((read[0].reshape(-1)[np.maximum(indices, 0)] * (indices >= 0))[None])
        elif node.op in ("Reshape", "Transpose", "Concat"):
            origins.append(rule(node.op).evaluate(node, read))
        elif _keeps_whole(node):
            origins.append(read[0])
        else:
            if node.op in ("Floor", "Ceil"):
                edges.append(position)
            else:
                others.update(_inputs(read))
            origins.append(none)
    for output in graph.outputs:
        others.update(_inputs([origins[output]]))
    return edges, others


def _inputs(origins: list[np.ndarray]) -> set[int]:
    return {int(entry) - 1 for origin in origins for entry in np.unique(origin) if entry > 0}


def _keeps_whole(node: Node) -> bool:
    """Whether the operator, entry by entry, maps whole numbers and nothing else to whole numbers, or is constant."""
    if node.op == "Relu":
        return True
    if node.op == "Clip":
        ends = (float(node.attributes.get(name, 0.0)) for name in ("min", "max"))
        return all(end.is_integer() or np.isinf(end) for end in ends)
    if node.op != "Scale" or "shift" in node.params:
        return False
    if {"scale_error", "scale_rest"} & node.params.keys():
        return False
    return bool((abs(to_numpy(node.params["scale"])) == 1.0).all()) if "scale" in node.params else True


def snap(stairs: Mapping[int, Array], lower: Array, upper: Array, whole: Array | None = None) -> tuple[Array, Array]:
    """Boxes ``[N, n]`` shrunk to the stairs' values in them, and to whole numbers for the inputs `whole` ``[n]``; where
    there is none, the box is empty (lower > upper)."""
    xp = array_namespace(lower)
    if whole is not None:
        lower, upper = xp.where(whole, xp.ceil(lower), lower), xp.where(whole, xp.floor(upper), upper)
    if not stairs:
        return lower, upper
    lower, upper = lower + 0, upper + 0
    for entry, values in stairs.items():
        first = xp.searchsorted(values, lower[:, entry] + 0, side="left")
        last = xp.searchsorted(values, upper[:, entry] + 0, side="right") - 1
        count = values.shape[0]
        low, high = values[xp.clip(first, None, count - 1)], values[xp.clip(last, 0, None)]
        empty = first > last
        lower[:, entry] = xp.where(empty, xp.inf, low)
        upper[:, entry] = xp.where(empty, -xp.inf, high)
    return lower, upper


def part(stairs: Mapping[int, Array], axis: Array, point: Array, whole: Array | None = None) -> tuple[Array, Array]:
    """Where the parts of boxes that are split along the inputs `axis` ``[N]`` at points ``[N]`` end and begin: at the
    point, or at the stairs, or for the inputs `whole` ``[n]`` the whole numbers, next to it."""
    xp = array_namespace(point)
    end = begin = point
    if whole is not None:
        end, begin = xp.where(whole[axis], xp.floor(point), end), xp.where(whole[axis], xp.floor(point) + 1, begin)
    for entry, values in stairs.items():
        after = xp.clip(xp.searchsorted(values, point, side="right"), 1, max(1, values.shape[0] - 1))
        after = xp.clip(after, None, values.shape[0] - 1)
        end = xp.where(axis == entry, values[xp.clip(after - 1, 0, None)], end)
        begin = xp.where(axis == entry, values[after], begin)
    return end, begin
