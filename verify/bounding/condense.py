"""A network of ReLUs as its undecided neurons alone: on a region, all others are affine and are multiplied out.

Between the input x and the undecided neurons' values everything is affine once active ReLUs are replaced by the
identity and inactive ones by 0, so that layer k reads ``z_k = N_k x + sum over j < k of M_kj relu(z_j) + c_k``, and so
does the output. A convolutional network with thousands of neurons, of which few hundreds are undecided, becomes a
few dense products.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ..arrays import array_namespace, in_double, options_like
from ..graph import Graph, Node
from ..ops import rule
from ..ops.arrays import as_like, quiet, smallest, unit_roundoff
from .charges import Charges
from .interval import intersect, node_interval
from .live import is_image, is_plain_dense
from .parameters import ancestors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array
    from ..ops.rule import Interval
    from .plan import Plan

COPY = 30.0
"""What copying an entry for a convolution costs, in multiply-adds of a dense product (fitted on one core of 2026 with
numpy to two networks of convolutions: right to a fifth)."""

ENTRY = 500.0
"""What a neuron costs beside the products, in the same unit."""

LARGEST = 16 << 20
"""Numbers in the condensed network's matrices at most."""

BLOCK = 1 << 22
"""Numbers in an array of coefficients while matrices are made."""


class _Layer(NamedTuple):
    """The ReLUs of one node: its index, its input's, where they are undecided (integers) and active (0 or 1)."""

    relu: int
    source: int
    undecided: Array
    active: Array


class _Map(NamedTuple):
    """Rows ``weight x + sum over ReLU nodes of through[node] relu(z) + bias``, in float64, and what their values may be
    off by on the boxes ``[rows]``: matrices that are multiplied out may cancel."""

    weight: Array
    through: Mapping[int, Array]
    bias: Array
    error: Array


def condense(plan: Plan, intervals: Mapping[int, Interval]) -> tuple[Graph, dict[int, Interval]] | None:
    """The graph on its undecided neurons, and bounds of its nodes.

    intervals are valid bounds ``[B or 1, *shape]`` of the input of every ReLU by node index. The answer has nodes
    ``Input``, ``Linear``, ``Add`` and ``Relu`` and one output of the same shape; on the boxes it is the same function
    up to rounding of its parameters (elsewhere it is not). None where a nonlinear node is no ReLU, where parameters
    carry errors, or where the graph as it is costs less.
    """
    graph = plan.graph
    order = ancestors(plan, plan.output)[::-1]
    if any(graph.nodes[index].op != "Relu" for index in plan.nonlinear if index in set(order)):
        return None
    if any(key.endswith("_error") for index in order for key in graph.nodes[index].params):
        # Products of matrices would have to carry the errors of their factors.
        return None
    layers = [_layer(graph, index, intervals) for index in order if graph.nodes[index].op == "Relu"]
    if not layers or not _cost(plan, layers) < _cost_as_is(graph, order, layers):
        return None
    charges = Charges(graph, intervals, intervals[plan.input][0], joint=True)
    return _assembled(replace(plan, graph=in_double(plan.graph)), layers, intervals, charges)


def _layer(graph: Graph, index: int, intervals: Mapping[int, Interval]) -> _Layer:
    source = graph.nodes[index].inputs[0]
    low, high = (end.reshape(end.shape[0], -1) for end in intervals[source])
    xp = array_namespace(low)
    active = xp.all(low >= 0, axis=0)
    undecided = xp.nonzero(~active & xp.any(high > 0, axis=0))[0]
    shape = graph.nodes[source].shape
    if is_image(shape):
        # Neighbours on the image are neighbours in the list: they depend on few of the neurons below (`cone`).
        undecided = undecided[xp.argsort(undecided % (shape[2] * shape[3]), stable=True)]
    return _Layer(index, source, undecided, active)


def _cost(plan: Plan, layers: list[_Layer]) -> float:
    """Multiply-adds of one evaluation of the condensed graph; infinite where its matrices are too large."""
    counts = [int(layer.undecided.shape[0]) for layer in layers]
    neurons, outputs = sum(counts), plan.graph.nodes[plan.output].size
    pairs = (neurons**2 - sum(count**2 for count in counts)) // 2
    products = (neurons + outputs) * plan.graph.nodes[plan.input].size + pairs + outputs * neurons
    return float("inf") if products > LARGEST else products + ENTRY * neurons


def _cost_as_is(graph: Graph, order: list[int], layers: list[_Layer]) -> float:
    """The same of the graph, of whose dense layers `shrink` leaves out what is inactive."""
    live = {layer.source: int(layer.undecided.shape[0]) + int(layer.active.sum()) for layer in layers}
    live |= {layer.relu: live[layer.source] for layer in layers}
    total = 0.0
    for index in order:
        node = graph.nodes[index]
        if node.op == "Relu":
            total += ENTRY * (live[index] if is_plain_dense(graph.nodes[node.inputs[0]]) else node.size)
        elif is_plain_dense(node):
            total += live.get(index, node.size) * live.get(node.inputs[0], node.params["weight"].shape[1])
        elif node.op == "Linear":
            total += node.size * node.params["weight"].shape[1]
        elif node.op in ("Conv", "ConvTranspose"):
            _, _, *image = node.shape if node.op == "Conv" else node.input_shapes[0]
            weight = node.params["weight"].shape
            total += math.prod(image) * math.prod(weight) * (1.0 + COPY / weight[0])
    return total


def _assembled(
    plan: Plan, layers: list[_Layer], intervals: Mapping[int, Interval], charges: Charges
) -> tuple[Graph, dict[int, Interval]]:
    shape = plan.graph.nodes[plan.input].shape
    nodes = [Node(plan.graph.nodes[plan.input].name, "Input", (), shape)]
    bounds = {0: intervals[plan.input]}
    flat = 0
    if len(shape) != 1:
        nodes.append(Node("flat", "Reshape", (0,), (plan.graph.nodes[plan.input].size,)))
        flat = 1
    like = intervals[plan.input][0]
    made: dict[int, int] = {}
    for layer in layers:
        if layer.undecided.shape[0] == 0:
            continue
        name = plan.graph.nodes[layer.source].name
        rows = _rows_of(plan, layers, layer.source, layer.undecided, charges, like)
        place = _append(nodes, name, flat, made, rows, like)
        low, high = (end.reshape(end.shape[0], -1)[:, layer.undecided] for end in intervals[layer.source])
        bounds[place] = (low, high)
        nodes.append(Node(plan.graph.nodes[layer.relu].name, "Relu", (place,), nodes[place].shape))
        made[layer.relu] = len(nodes) - 1
        bounds[made[layer.relu]] = (low.clip(0, None), high.clip(0, None))
    output = plan.graph.nodes[plan.output]
    xp = array_namespace(like)
    every = xp.arange(output.size, **options_like(like))
    place = _append(nodes, output.name, flat, made, _rows_of(plan, layers, plan.output, every, charges, like), like)
    if nodes[place].shape != output.shape:
        nodes.append(Node(f"{output.name} shaped", "Reshape", (place,), output.shape))
    graph = Graph(tuple(nodes), (0,), (len(nodes) - 1,))
    for position, node in enumerate(graph.nodes):
        if position not in bounds:
            bounds[position] = node_interval(node, rule(node.op), [bounds[source] for source in node.inputs])
    known = intervals.get(plan.output)
    if known is not None:
        bounds[graph.outputs[0]] = intersect(bounds[graph.outputs[0]], known)
    return graph, bounds


def _append(nodes: list[Node], name: str, flat: int, made: Mapping[int, int], rows: _Map, like: Array) -> int:
    """Add the nodes that compute the rows; answers the index of their sum."""
    count = (int(rows.bias.shape[0]),)
    first = {"weight": rows.weight, "bias": rows.bias, "bias_error": rows.error}
    parts = [(flat, {key: as_like(value, like) for key, value in first.items()})]
    parts += [
        (made[relu], {"weight": as_like(weight, like)}) for relu, weight in rows.through.items() if bool(weight.any())
    ]
    places = []
    for number, (source, params) in enumerate(parts):
        places.append(len(nodes))
        nodes.append(Node(f"{name} part {number}", "Linear", (source,), count, MappingProxyType(params)))
    if len(places) > 1:
        nodes.append(Node(name, "Add", tuple(places), count, attributes={"signs": (1,) * len(places)}))
    return len(nodes) - 1


def _rows_of(plan: Plan, layers: list[_Layer], start: int, entries: Array, charges: Charges, like: Array) -> _Map:
    """Entries of a node's value as an affine map, some at a time."""
    xp = array_namespace(like)
    at_once = max(1, BLOCK // plan.largest)
    parts = [
        _multiplied_out(plan, layers, start, entries[first : first + at_once], charges, like)
        for first in range(0, entries.shape[0], at_once)
    ]
    return _Map(
        xp.concat([part.weight for part in parts]),
        {relu: xp.concat([part.through[relu] for part in parts]) for relu in parts[0].through},
        xp.concat([part.bias for part in parts]),
        xp.concat([part.error for part in parts]),
    )


@quiet
def _multiplied_out(
    plan: Plan, layers: list[_Layer], start: int, entries: Array, charges: Charges, like: Array
) -> _Map:
    """Coefficients carried back to the input, in float64: rounded once, when all is multiplied out.

    `charges` say what that takes in the arithmetic of `like`, of which float64's is a share.
    """
    xp = array_namespace(like)
    nodes = plan.graph.nodes
    by_relu = {layer.relu: layer for layer in layers}
    count = int(entries.shape[0])
    options = {**options_like(like), "dtype": xp.float64}
    seeds = xp.zeros((count, nodes[start].size), **options)
    seeds[xp.arange(count, **options_like(like)), entries] = 1.0
    bias = xp.zeros((count,), **options)
    weight = xp.zeros((count, nodes[plan.input].size), **options)
    share = unit_roundoff(bias) / unit_roundoff(like)
    error = xp.zeros((count,), **options)
    lost = smallest(like) * xp.sum(charges.reach(plan.input))
    through: dict[int, Array] = {}
    pending: dict[int, Array] = {start: seeds}
    for position in ancestors(plan, start):
        a = pending.pop(position, None)
        if a is None:
            continue
        node = nodes[position]
        if node.op == "Input":
            weight = a.reshape(count, -1)
            error = error + unit_roundoff(bias) * (abs(weight) @ as_like(charges.joint_reach(position), weight))
            continue
        charge = charges.at(position, start=position == start)
        if charge is not None:
            error = error + share * charge.of_rows(a)
        if position in by_relu:
            layer = by_relu[position]
            flat = a.reshape(count, -1)
            if layer.undecided.shape[0]:
                through[position] = flat[:, layer.undecided]
                lost = lost + smallest(like) * xp.sum(charges.joint_reach(layer.source))
            pieces = ((flat * as_like(layer.active, flat)).reshape(count, *node.shape),)
        else:
            linear = rule(node.op).linear
            if linear is None:
                raise ValueError(f"{node.op} is not linear")
            constant = linear.bias(node)
            if constant is not None:
                bias = bias + a.reshape(count, -1) @ as_like(constant, a).reshape(-1)
            pieces = linear.adjoint(node, a.reshape(count, *node.shape)) if node.inputs else ()
        for source, piece in zip(node.inputs, pieces, strict=True):
            known = pending.get(source)
            pending[source] = piece if known is None else known + piece
    # (Coefficients that the type of `like` does not hold are lost when they are rounded.)
    return _Map(weight, through, bias, 8.0 * error + as_like(lost, error))
