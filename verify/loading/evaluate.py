"""Running a graph on concrete points through the operator table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..ops import rule
from ..ops.arrays import as_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph


def evaluate(graph: Graph, inputs: Sequence[Array], wanted: Sequence[int] | None = None) -> tuple[Array, ...]:
    """The values ``[B, *shape]`` of the nodes `wanted` (default: the outputs) at the points `inputs`.

    `inputs` are one array ``[B, *shape]`` a graph input. Values that nothing reads any more are dropped on the way.
    Of a node that depends on no input, one value ``[1, *shape]`` stands for all unless it is an output.
    """
    targets = graph.outputs if wanted is None else tuple(wanted)
    last_use = {index: index for index in range(len(graph.nodes))}
    for index, node in enumerate(graph.nodes):
        for source in node.inputs:
            last_use[source] = index
    keep = set(targets)
    values: dict[int, Array] = dict(zip(graph.inputs, inputs, strict=True))
    like = next((x for x in inputs if "float" in str(x.dtype)), None)
    with np.errstate(all="ignore"):
        for index, node in enumerate(graph.nodes):
            if node.op == "Constant" and like is not None:
                # What was computed while loading is kept in float64.
                values[index] = as_like(node.params["value"], like)[None]
            elif node.op != "Input":
                values[index] = rule(node.op).evaluate(node, [values[source] for source in node.inputs])
            for source in dict.fromkeys((*node.inputs, index)):
                if last_use[source] == index and source not in keep:
                    del values[source]
    for index in set(graph.outputs) & keep if inputs else ():
        value = values[index]
        values[index] = array_namespace(value).broadcast_to(value, (inputs[0].shape[0], *value.shape[1:]))
    return tuple(values[index] for index in targets)


def output_vector(graph: Graph, points: Array) -> Array:
    """The output ``[P, m]`` of a graph with one input and one output node at flat points ``[P, n]``."""
    shape = graph.nodes[graph.inputs[0]].shape
    return evaluate(graph, [points.reshape(-1, *shape)])[0].reshape(points.shape[0], -1)
