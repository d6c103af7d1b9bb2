"""Rewriting a freshly imported graph into fewer, larger nodes with the same meaning up to rounding.

One pass over the nodes in order: each node absorbs what it can of its producers (a batch normalisation into the
convolution before it, a shift into the next dense layer, ...), so that by the time a node is looked at its producers
are final. Arithmetic on parameters is done in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..graph import Array, Graph, Node
from .builder import LARGEST_TENSOR
from .evaluate import evaluate

_LARGEST_FOLDED = 1 << 22
"""Weights with more entries than this are left alone rather than copied in float64."""

_SMALL_PRODUCT = 1024
"""Two dense layers whose product has at most this many entries are merged even if that adds multiplications."""

_MOST_ROUNDS = 64
"""Rewrites of a single node before giving up on it; every rule shrinks something, so this is never reached."""


def simplify(graph: Graph, fold_parameters: bool = True) -> Graph:
    """An equivalent graph with the same inputs and outputs.

    `fold_parameters` false leaves every parameter array as it is (they may be live and trained) and only removes
    and joins nodes that move values.
    """
    work = _Work(graph, fold_parameters)
    work.run()
    return work.compacted()


class _Work:
    """The graph while it is rewritten: nodes by index, aliases for removed ones, and how often each is read."""

    def __init__(self, graph: Graph, fold_parameters: bool) -> None:
        self.graph = graph
        self.nodes = list(graph.nodes)
        self.alias = list(range(len(self.nodes)))
        self.rules = (*_STRUCTURAL, *_FOLDING) if fold_parameters else _STRUCTURAL
        self.reads = [0] * len(self.nodes)
        for node in self.nodes:
            for source in node.inputs:
                self.reads[source] += 1
        for output in graph.outputs:
            self.reads[output] += 1

    def run(self) -> None:
        for index in range(len(self.nodes)):
            node = self.nodes[index]
            self.nodes[index] = replace(node, inputs=tuple(self.alias[source] for source in node.inputs))
            self.settle(index)

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
        for source in made.inputs:
            self.reads[source] += 1
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

    def compacted(self) -> Graph:
        """The graph without the nodes that no output depends on."""
        outputs = tuple(self.alias[output] for output in self.graph.outputs)
        needed = set(self.graph.inputs) | set(outputs)
        for index in range(len(self.nodes) - 1, -1, -1):
            if index in needed:
                needed.update(self.nodes[index].inputs)
        kept = sorted(needed)
        place = {index: position for position, index in enumerate(kept)}
        nodes = tuple(
            replace(
                self.nodes[index], inputs=tuple(place[source] for source in self.nodes[index].inputs), input_shapes=()
            )
            for index in kept
        )
        names = dict(zip(outputs, (self.graph.nodes[output].name for output in self.graph.outputs), strict=True))
        nodes = tuple(
            replace(node, name=names[index]) if index in names and node.op != "Input" else node
            for index, node in zip(kept, nodes, strict=True)
        )
        return Graph(
            nodes, tuple(place[index] for index in self.graph.inputs), tuple(place[index] for index in outputs)
        )


Rule = Callable[[_Work, Node], "Node | int | None"]


def _like(array: np.ndarray, model: Array) -> np.ndarray:
    """A float64 result rounded to the dtype of the parameter it replaces."""
    return array.astype(model.dtype, copy=False)


def _with(node: Node, inputs: tuple[int, ...], params: Mapping[str, Array], **attributes: Any) -> Node:
    return replace(
        node,
        inputs=inputs,
        params=MappingProxyType(dict(params)),
        attributes=MappingProxyType({**node.attributes, **attributes}),
    )


def _same_shape(work: _Work, node: Node) -> Node | int | None:
    """A Reshape, Transpose, Take or Concat that changes nothing."""
    if len(node.inputs) != 1 or work.nodes[node.inputs[0]].shape != node.shape:
        return None
    if node.op in ("Reshape", "Concat"):
        return node.inputs[0]
    if node.op == "Transpose" and tuple(node.attributes["perm"]) == tuple(range(len(node.shape))):
        return node.inputs[0]
    if node.op == "Take" and np.array_equal(node.params["indices"].reshape(-1), np.arange(node.size)):
        return node.inputs[0]
    return None


def _through_reshape(work: _Work, node: Node) -> Node | int | None:
    """Reshape or Take of a Reshape reads the original."""
    if node.op not in ("Reshape", "Take") or work.producer(node, "Reshape", alone=False) is None:
        return None
    return replace(node, inputs=work.nodes[node.inputs[0]].inputs)


def _take_of_take(work: _Work, node: Node) -> Node | int | None:
    if node.op != "Take":
        return None
    earlier = work.producer(node, "Take", alone=False)
    if earlier is None or node.params["indices"].min(initial=0) < 0:
        return None
    indices = earlier.params["indices"].reshape(-1)[node.params["indices"]]
    return _with(node, earlier.inputs, {"indices": indices}, fill=earlier.attributes["fill"])


def _transpose_of_transpose(work: _Work, node: Node) -> Node | int | None:
    if node.op != "Transpose":
        return None
    earlier = work.producer(node, "Transpose", alone=False)
    if earlier is None:
        return None
    perm = tuple(earlier.attributes["perm"][axis] for axis in node.attributes["perm"])
    return _with(node, earlier.inputs, {}, perm=perm)


def _constant(work: _Work, node: Node) -> Node | int | None:
    """A node that reads constants only."""
    if node.op == "Constant" or not node.inputs or node.size > LARGEST_TENSOR:
        return None
    sources = [work.nodes[source] for source in node.inputs]
    if any(source.op != "Constant" for source in sources):
        return None
    alone = Graph((*sources, replace(node, inputs=tuple(range(len(sources))))), (), (len(sources),))
    (value,) = evaluate(alone, [])
    return replace(node, op="Constant", inputs=(), params={"value": value[0]}, attributes={})


def _add_of_add(work: _Work, node: Node) -> Node | int | None:
    """A sum of sums as one sum."""
    if node.op != "Add":
        return None
    inputs: list[int] = []
    signs: list[int] = []
    for position, (source, sign) in enumerate(zip(node.inputs, node.attributes["signs"], strict=True)):
        inner = work.producer(node, "Add", position)
        inputs.extend((source,) if inner is None else inner.inputs)
        signs.extend((sign,) if inner is None else (sign * own for own in inner.attributes["signs"]))
    if len(inputs) == len(node.inputs):
        return None
    return _with(node, tuple(inputs), {}, signs=tuple(signs))


def _gated(work: _Work, node: Node) -> Node | int | None:
    """``x * sigmoid(x)`` is Silu, for which a tighter relaxation exists than for a product."""
    if node.op != "Mul":
        return None
    for position in (0, 1):
        gate = work.producer(node, "Sigmoid", position)
        if gate is not None and gate.inputs[0] == node.inputs[1 - position]:
            return replace(node, op="Silu", inputs=gate.inputs)
    return None


def _parts(node: Node) -> tuple[Array | None, Array | None]:
    """Scale and shift of a Scale node in float64."""
    scale, shift = (node.params.get(key) for key in ("scale", "shift"))
    return (
        None if scale is None else scale.astype(np.float64),
        None if shift is None else shift.astype(np.float64),
    )


def _along(array: Array | None, rank: int, axis: int) -> Array | None:
    """An array that broadcasts to `rank` axes but varies along `axis` only, as a vector (or number); else None."""
    if array is None:
        return None
    full = array.reshape((1,) * (rank - array.ndim) + array.shape)
    return full.reshape(-1) if full.size == full.shape[axis] else None


def _scale_along(node: Node, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of a Scale node as vectors (or numbers) along one axis, if they vary along no other."""
    rank = len(node.shape)
    scale, shift = _parts(node)
    factors = np.ones(1) if scale is None else _along(scale, rank, axis)
    shifts = np.zeros(1) if shift is None else _along(shift, rank, axis)
    return None if factors is None or shifts is None else (factors, shifts)


def _scale_of_scale(work: _Work, node: Node) -> Node | int | None:
    if node.op != "Scale":
        return None
    earlier = work.producer(node, "Scale")
    if earlier is None:
        return None
    scale, shift = _parts(node)
    first_scale, first_shift = _parts(earlier)
    params = {}
    if scale is not None or first_scale is not None:
        params["scale"] = (1.0 if scale is None else scale) * (1.0 if first_scale is None else first_scale)
    if shift is not None or first_shift is not None:
        carried = 0.0 if first_shift is None else first_shift if scale is None else first_shift * scale
        params["shift"] = carried + (0.0 if shift is None else shift)
    model = next(iter(node.params.values()))
    return _with(node, earlier.inputs, {key: _like(np.asarray(value), model) for key, value in params.items()})


def _neutral_scale(work: _Work, node: Node) -> Node | int | None:
    """A Scale by 1 with shift 0."""
    if node.op != "Scale" or work.nodes[node.inputs[0]].shape != node.shape:
        return None
    scale, shift = node.params.get("scale"), node.params.get("shift")
    if (scale is None or bool(np.all(scale == 1))) and (shift is None or not np.any(shift)):
        return node.inputs[0]
    return None


def _scale_after_layer(work: _Work, node: Node) -> Node | int | None:
    """A Scale into the layer before it: batch normalisation, biases."""
    if node.op != "Scale":
        return None
    for op in ("Linear", "Conv", "ConvTranspose"):
        layer = work.producer(node, op)
        if layer is None or layer.shape != node.shape:
            continue
        vectors = _scale_along(node, len(node.shape) - 1 if op == "Linear" else 1)
        if vectors is None:
            return None
        return _scaled_output(layer, node, *vectors)
    return None


def _scaled_output(layer: Node, node: Node, factors: np.ndarray, shifts: np.ndarray) -> Node | None:
    weight = layer.params["weight"]
    axis = 1 if layer.op == "ConvTranspose" else 0
    groups = int(layer.attributes.get("groups", 1))
    channels = weight.shape[axis] * (groups if layer.op == "ConvTranspose" else 1)
    bias = layer.params.get("bias")
    new_bias = (np.zeros(channels) if bias is None else bias.astype(np.float64)) * factors + shifts
    params = {"weight": weight, "bias": _like(new_bias, weight)}
    if np.any(factors != 1.0):
        if weight.size > _LARGEST_FOLDED:
            return None
        per_channel = np.broadcast_to(factors, (channels,))
        if layer.op == "ConvTranspose":
            # Its weight is [C, O/groups, *k]: input channels of group g make output channels of group g.
            per_input = np.repeat(per_channel.reshape(groups, -1), weight.shape[0] // groups, axis=0)
            scaled = weight.astype(np.float64) * per_input.reshape(*per_input.shape, *(1,) * (weight.ndim - 2))
        else:
            scaled = weight.astype(np.float64) * per_channel.reshape(-1, *(1,) * (weight.ndim - 1))
        params["weight"] = _like(scaled, weight)
    return replace(layer, name=node.name, params=MappingProxyType(params))


def _scale_before_layer(work: _Work, node: Node) -> Node | int | None:
    """A Scale into the layer after it: input normalisation."""
    if node.op not in ("Linear", "Conv"):
        return None
    earlier = work.producer(node, "Scale")
    weight = node.params["weight"]
    if earlier is None or weight.size > _LARGEST_FOLDED:
        return None
    axis = len(earlier.shape) - 1 if node.op == "Linear" else 1
    vectors = _scale_along(earlier, axis)
    if vectors is None:
        return None
    factors, shifts = (np.broadcast_to(vector, (earlier.shape[axis],)) for vector in vectors)
    wide = weight.astype(np.float64)
    if node.op == "Linear":
        scaled, moved = wide * factors, wide @ shifts
    else:
        if np.any(shifts) and any(node.attributes["pads"]):
            return None
        # Channels of the input, group by group, lie along axis 1 of the output channels of that group.
        per_output = np.repeat(
            np.stack((factors, shifts)).reshape(2, node.attributes["groups"], -1),
            weight.shape[0] // node.attributes["groups"],
            axis=1,
        ).reshape(2, *weight.shape[:2], *(1,) * (weight.ndim - 2))
        scaled = wide * per_output[0]
        moved = (wide * per_output[1]).reshape(weight.shape[0], -1).sum(axis=1)
    params = {**node.params, "weight": _like(scaled, weight)}
    if np.any(shifts):
        bias = node.params.get("bias")
        params["bias"] = _like(moved + (0.0 if bias is None else bias.astype(np.float64)), weight)
    return _with(node, earlier.inputs, params)


def _scale_below_reshape(work: _Work, node: Node) -> Node | int | None:
    """Reshape of a Scale becomes Scale of a Reshape, so that the Scale may meet a layer."""
    if node.op != "Reshape":
        return None
    earlier = work.producer(node, "Scale")
    if earlier is None or earlier.size > _LARGEST_FOLDED:
        return None
    moved = {
        key: array.reshape(()) if array.size == 1 else np.broadcast_to(array, earlier.shape).reshape(node.shape)
        for key, array in earlier.params.items()
    }
    source = node.inputs[0]
    # The Scale is read by this node only, so its place is free for the Reshape.
    work.nodes[source] = replace(node, inputs=earlier.inputs, input_shapes=())
    return replace(earlier, name=node.name, inputs=(source,), shape=node.shape, params=MappingProxyType(moved))


def _scale_above_reshape(work: _Work, node: Node) -> Node | int | None:
    """Scale of a reshaped vector out of a dense layer becomes part of that layer."""
    if node.op != "Scale":
        return None
    view = work.producer(node, "Reshape")
    layer = None if view is None else work.producer(view, "Linear")
    if view is None or layer is None or layer.size != layer.shape[-1] or view.shape != node.shape:
        return None
    full = {key: np.broadcast_to(array, node.shape).reshape(layer.shape) for key, array in node.params.items()}
    source = node.inputs[0]
    # The Reshape is read by this node only, so its place is free for the Scale.
    work.nodes[source] = replace(node, inputs=view.inputs, shape=layer.shape, params=MappingProxyType(full))
    work.settle(source)
    return replace(view, name=node.name, inputs=(source,))


def _linear_of_linear(work: _Work, node: Node) -> Node | int | None:
    """Two dense layers with nothing between them, where one is not more work than both."""
    if node.op != "Linear":
        return None
    earlier = work.producer(node, "Linear", alone=False)
    if earlier is None:
        return None
    first, second = earlier.params["weight"], node.params["weight"]
    merged = second.shape[0] * first.shape[1]
    alone = work.reads[node.inputs[0]] == 1
    before = second.size + (first.size if alone else 0)
    if merged > max(before, _SMALL_PRODUCT) or max(first.size, second.size) > _LARGEST_FOLDED:
        return None
    wide = second.astype(np.float64)
    params = {"weight": _like(wide @ first.astype(np.float64), second)}
    biases = [layer.params.get("bias") for layer in (earlier, node)]
    if any(bias is not None for bias in biases):
        carried = np.zeros(second.shape[0]) if biases[0] is None else wide @ biases[0].astype(np.float64)
        params["bias"] = _like(carried + (0.0 if biases[1] is None else biases[1].astype(np.float64)), second)
    return _with(node, earlier.inputs, params)


def _add_of_linears(work: _Work, node: Node) -> Node | int | None:
    """A sum of dense layers of the same tensor is one dense layer."""
    if node.op != "Add" or len(set(node.inputs)) != len(node.inputs):
        return None
    layers = [work.producer(node, "Linear", position) for position in range(len(node.inputs))]
    if any(layer is None or layer.shape != node.shape for layer in layers):
        return None
    found = [layer for layer in layers if layer is not None]
    if len({layer.inputs for layer in found}) != 1 or found[0].params["weight"].size > _LARGEST_FOLDED:
        return None
    signs = node.attributes["signs"]
    model = found[0].params["weight"]
    weight = sum(sign * layer.params["weight"].astype(np.float64) for sign, layer in zip(signs, found, strict=True))
    params = {"weight": _like(np.asarray(weight), model)}
    biases = [(sign, layer.params["bias"]) for sign, layer in zip(signs, found, strict=True) if "bias" in layer.params]
    if biases:
        params["bias"] = _like(np.asarray(sum(sign * bias.astype(np.float64) for sign, bias in biases)), model)
    return replace(found[0], name=node.name, params=MappingProxyType(params))


_STRUCTURAL: tuple[Rule, ...] = (
    _same_shape,
    _through_reshape,
    _take_of_take,
    _transpose_of_transpose,
    _add_of_add,
    _gated,
)

_FOLDING: tuple[Rule, ...] = (
    _constant,
    _neutral_scale,
    _scale_of_scale,
    _scale_after_layer,
    _scale_before_layer,
    _scale_above_reshape,
    _scale_below_reshape,
    _linear_of_linear,
    _add_of_linears,
)
