"""Simplifications that merge scalings and dense layers; arithmetic on parameters is in float64, rounded once."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Graph
from .builder import LARGEST_TENSOR
from .evaluate import evaluate
from .rewrite import with_params

if TYPE_CHECKING:
    from ..graph import Array, Node
    from .rewrite import Rewriter, Rule

LARGEST_FOLDED = 1 << 22
"""Weights with more entries than this are left alone rather than copied in float64."""

_FEW_INPUTS = 16
"""Dense layers of at most this many inputs are so cheap that they may be repeated to get rid of nodes."""

_SMALL_PRODUCT = 1024
"""Two dense layers whose product has at most this many entries are merged even if that adds multiplications."""


def _like(array: np.ndarray, model: Array) -> np.ndarray:
    """A float64 result rounded to the dtype of the parameter it replaces."""
    return array.astype(model.dtype, copy=False)


def _constant(work: Rewriter, node: Node) -> Node | int | None:
    """A node that reads constants only."""
    if node.op == "Constant" or not node.inputs or node.size > LARGEST_TENSOR:
        return None
    sources = [work.nodes[source] for source in node.inputs]
    if any(source.op != "Constant" for source in sources):
        return None
    alone = Graph((*sources, replace(node, inputs=tuple(range(len(sources))))), (), (len(sources),))
    (value,) = evaluate(alone, [])
    return replace(node, op="Constant", inputs=(), params={"value": value[0]}, attributes={})


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


def scale_along(node: Node, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of a Scale node as vectors (or numbers) along one axis, if they vary along no other."""
    rank = len(node.shape)
    scale, shift = _parts(node)
    factors = np.ones(1) if scale is None else _along(scale, rank, axis)
    shifts = np.zeros(1) if shift is None else _along(shift, rank, axis)
    return None if factors is None or shifts is None else (factors, shifts)


def _scale_of_scale(work: Rewriter, node: Node) -> Node | int | None:
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
    return with_params(node, earlier.inputs, {key: _like(np.asarray(value), model) for key, value in params.items()})


def _neutral_scale(work: Rewriter, node: Node) -> Node | int | None:
    """A Scale by 1 with shift 0."""
    if node.op != "Scale" or work.nodes[node.inputs[0]].shape != node.shape:
        return None
    scale, shift = node.params.get("scale"), node.params.get("shift")
    if (scale is None or bool(np.all(scale == 1))) and (shift is None or not np.any(shift)):
        return node.inputs[0]
    return None


def _scale_after_layer(work: Rewriter, node: Node) -> Node | int | None:
    """A Scale into the layer before it: batch normalisation, biases."""
    if node.op != "Scale":
        return None
    for op in ("Linear", "Conv", "ConvTranspose"):
        layer = work.producer(node, op)
        if layer is None or layer.shape != node.shape:
            continue
        vectors = scale_along(node, len(node.shape) - 1 if op == "Linear" else 1)
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
        if weight.size > LARGEST_FOLDED:
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


def _scale_before_layer(work: Rewriter, node: Node) -> Node | int | None:
    """A Scale into the layer after it: input normalisation."""
    if node.op not in ("Linear", "Conv"):
        return None
    earlier = work.producer(node, "Scale")
    weight = node.params["weight"]
    if earlier is None or weight.size > LARGEST_FOLDED:
        return None
    axis = len(earlier.shape) - 1 if node.op == "Linear" else 1
    vectors = scale_along(earlier, axis)
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
    return with_params(node, earlier.inputs, params)


def _scale_below_reshape(work: Rewriter, node: Node) -> Node | int | None:
    """Reshape of a Scale becomes Scale of a Reshape, so that the Scale may meet a layer."""
    if node.op != "Reshape":
        return None
    earlier = work.producer(node, "Scale")
    if earlier is None or earlier.size > LARGEST_FOLDED:
        return None
    moved = {
        key: array.reshape(()) if array.size == 1 else np.broadcast_to(array, earlier.shape).reshape(node.shape)
        for key, array in earlier.params.items()
    }
    source = node.inputs[0]
    # The Scale is read by this node only, so its place is free for the Reshape.
    work.nodes[source] = replace(node, inputs=earlier.inputs, input_shapes=())
    return replace(earlier, name=node.name, inputs=(source,), shape=node.shape, params=MappingProxyType(moved))


def _scale_above_reshape(work: Rewriter, node: Node) -> Node | int | None:
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


def _linear_of_linear(work: Rewriter, node: Node) -> Node | int | None:
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
    if merged > max(before, _SMALL_PRODUCT) or max(first.size, second.size) > LARGEST_FOLDED:
        return None
    wide = second.astype(np.float64)
    params = {"weight": _like(wide @ first.astype(np.float64), second)}
    biases = [layer.params.get("bias") for layer in (earlier, node)]
    if any(bias is not None for bias in biases):
        carried = np.zeros(second.shape[0]) if biases[0] is None else wide @ biases[0].astype(np.float64)
        params["bias"] = _like(carried + (0.0 if biases[1] is None else biases[1].astype(np.float64)), second)
    return with_params(node, earlier.inputs, params)


def _take_of_layer(work: Rewriter, node: Node) -> Node | int | None:
    """Some outputs of a dense layer of few inputs: a dense layer of their rows."""
    if node.op != "Take" or node.params["indices"].min(initial=0) < 0:
        return None
    layer = work.producer(node, "Linear", alone=False)
    if layer is None or layer.size != layer.shape[-1] or node.size != node.shape[-1] or node.size > layer.size:
        return None
    if layer.params["weight"].shape[1] > _FEW_INPUTS or len(node.shape) != len(layer.shape):
        return None
    rows = node.params["indices"].reshape(-1)
    params = MappingProxyType({key: array[rows] for key, array in layer.params.items()})
    return replace(layer, name=node.name, shape=node.shape, params=params)


def _add_of_linears(work: Rewriter, node: Node) -> Node | int | None:
    """A sum of dense layers of the same tensor is one dense layer."""
    if node.op != "Add" or len(set(node.inputs)) != len(node.inputs):
        return None
    layers = [work.producer(node, "Linear", position, alone=False) for position in range(len(node.inputs))]
    found = [layer for layer in layers if layer is not None and layer.shape == node.shape]
    if len(found) < len(layers):
        return None
    alone = all(work.reads[source] == 1 for source in node.inputs)
    if not alone and found[0].params["weight"].shape[1] > _FEW_INPUTS:
        return None
    if len({layer.inputs for layer in found}) != 1 or found[0].params["weight"].size > LARGEST_FOLDED:
        return None
    signs = node.attributes["signs"]
    model = found[0].params["weight"]
    weight = sum(sign * layer.params["weight"].astype(np.float64) for sign, layer in zip(signs, found, strict=True))
    params = {"weight": _like(np.asarray(weight), model)}
    biases = [(sign, layer.params["bias"]) for sign, layer in zip(signs, found, strict=True) if "bias" in layer.params]
    if biases:
        params["bias"] = _like(np.asarray(sum(sign * bias.astype(np.float64) for sign, bias in biases)), model)
    return replace(found[0], name=node.name, params=MappingProxyType(params))


RULES: tuple[Rule, ...] = (
    _constant,
    _neutral_scale,
    _scale_of_scale,
    _scale_after_layer,
    _scale_before_layer,
    _scale_above_reshape,
    _scale_below_reshape,
    _linear_of_linear,
    _take_of_layer,
    _add_of_linears,
)
