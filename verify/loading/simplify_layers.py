"""Simplifications that merge scalings and dense layers.

Arithmetic on parameters is that of `precise`: what is merged says the same about the stored numbers, or carries a bound
on the difference.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..graph import Graph
from .builder import LARGEST_TENSOR
from .folding_exact import LARGEST_ERROR, enclosed
from .precise import Precise, is_exact, parameter_of, parameters, settled
from .rewrite import with_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array, Node
    from .rewrite import Rewriter, Rule

LARGEST_FOLDED = 1 << 22
"""Weights with more entries than this are left alone rather than copied in float64."""

_FEW_INPUTS = 16
"""Dense layers of at most this many inputs are so cheap that they may be repeated to get rid of nodes."""

_SMALL_PRODUCT = 1024
"""Two dense layers whose product has at most this many entries are merged even if that adds multiplications."""


def _constant(work: Rewriter, node: Node) -> Node | int | None:
    """A node that reads constants only."""
    if node.op == "Constant" or not node.inputs or node.size > LARGEST_TENSOR:
        return None
    sources = [work.nodes[source] for source in node.inputs]
    if any(source.op != "Constant" for source in sources):
        return None
    # Passes that read `value_error` know nothing of `value_low`.
    plain = [settled(source) for source in sources]
    last = replace(node, inputs=tuple(range(len(sources))), input_shapes=())
    value = enclosed(Graph((*plain, settled(last)), (), (len(sources),)), {})[0]
    if value is None or bool(np.any(value.distance > LARGEST_ERROR * abs(value.high))):
        return None
    return replace(node, op="Constant", inputs=(), params=MappingProxyType(parameters(value=value)), attributes={})


def _vector(value: Precise | None, rank: int, axis: int, absent: float) -> Precise | None:
    """Numbers that broadcast to `rank` axes but vary along `axis` only, as a vector (or one number); else None."""
    if value is None:
        return Precise.of(np.full(1, absent))
    full = value.reshape(*(1,) * (rank - len(value.shape)), *value.shape)
    return full.reshape(-1) if full.high.size == full.shape[axis] else None


def scale_along(node: Node, axis: int) -> tuple[Precise, Precise] | None:
    """Scale and shift of a Scale node as vectors (or numbers) along one axis, if they vary along no other."""
    rank = len(node.shape)
    factors = _vector(parameter_of(node.params, "scale"), rank, axis, 1.0)
    shifts = _vector(parameter_of(node.params, "shift"), rank, axis, 0.0)
    return None if factors is None or shifts is None else (factors, shifts)


def _usable(params: Mapping[str, Array]) -> bool:
    """Whether nothing has overflown in merging."""
    return all(bool(np.isfinite(array).all()) for array in params.values())


def _scale_of_scale(work: Rewriter, node: Node) -> Node | int | None:
    if node.op != "Scale":
        return None
    earlier = work.producer(node, "Scale")
    if earlier is None:
        return None
    scale, shift = (parameter_of(node.params, key) for key in ("scale", "shift"))
    first_scale, first_shift = (parameter_of(earlier.params, key) for key in ("scale", "shift"))
    carried = None if first_shift is None else _times(first_shift, scale)
    params = parameters(scale=_times(first_scale, scale), shift=_plus(carried, shift))
    return with_params(node, earlier.inputs, params) if _usable(params) else None


def _times(a: Precise | None, b: Precise | None) -> Precise | None:
    """``a * b``; None is 1."""
    return a if b is None else b if a is None else a * b


def _plus(a: Precise | None, b: Precise | None) -> Precise | None:
    """``a + b``; None is 0."""
    return b if a is None else a if b is None else a + b


def _neutral_scale(work: Rewriter, node: Node) -> Node | int | None:
    """A Scale by 1 with shift 0."""
    if node.op != "Scale" or work.nodes[node.inputs[0]].shape != node.shape:
        return None
    scale, shift = node.params.get("scale"), node.params.get("shift")
    if not is_exact(node):
        return None
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


def _scaled_output(layer: Node, node: Node, factors: Precise, shifts: Precise) -> Node | None:
    stored = layer.params["weight"]
    axis = 1 if layer.op == "ConvTranspose" else 0
    groups = int(layer.attributes.get("groups", 1))
    channels = stored.shape[axis] * (groups if layer.op == "ConvTranspose" else 1)
    bias = parameter_of(layer.params, "bias")
    moved = shifts.broadcast_to((channels,)) if bias is None else bias * factors + shifts
    params = {key: array for key, array in layer.params.items() if key.startswith("weight")}
    if np.any(factors.high != 1.0) or np.any(factors.distance):
        weight = parameter_of(layer.params, "weight")
        if weight is None or stored.size > LARGEST_FOLDED:
            return None
        per_channel = factors.broadcast_to((channels,))
        if layer.op == "ConvTranspose":
            # Its weight is [C, O/groups, *k]: input channels of group g make output channels of group g.
            per_input = per_channel.reshape(groups, -1).repeat(stored.shape[0] // groups, axis=0)
            scaled = weight * per_input.reshape(*per_input.shape, *(1,) * (stored.ndim - 2))
        else:
            scaled = weight * per_channel.reshape(-1, *(1,) * (stored.ndim - 1))
        params = parameters(weight=scaled)
    params |= parameters(bias=moved)
    return replace(layer, name=node.name, params=MappingProxyType(params)) if _usable(params) else None


def _scale_before_layer(work: Rewriter, node: Node) -> Node | int | None:
    """A Scale into the layer after it: input normalisation."""
    if node.op not in ("Linear", "Conv"):
        return None
    earlier = work.producer(node, "Scale")
    weight = parameter_of(node.params, "weight")
    if earlier is None or weight is None or weight.high.size > LARGEST_FOLDED:
        return None
    axis = len(earlier.shape) - 1 if node.op == "Linear" else 1
    vectors = scale_along(earlier, axis)
    if vectors is None:
        return None
    factors, shifts = (vector.broadcast_to((earlier.shape[axis],)) for vector in vectors)
    shifted = bool(np.any(shifts.high)) or bool(np.any(shifts.distance))
    if node.op == "Linear":
        scaled = weight * factors
        moved = (weight @ shifts.reshape(-1, 1)).reshape(-1) if shifted else None
    else:
        if shifted and any(node.attributes["pads"]):
            return None
        scaled = weight * _per_output(node, factors)
        terms = (weight * _per_output(node, shifts)).reshape(weight.shape[0], -1) if shifted else None
        moved = None if terms is None else terms.sum(axis=1)
    params = parameters(weight=scaled, bias=_plus(moved, parameter_of(node.params, "bias")))
    return with_params(node, earlier.inputs, params) if _usable(params) else None


def _per_output(node: Node, vector: Precise) -> Precise:
    """Numbers a channel of a convolution's input, as they lie along axis 1 of the output channels of each group."""
    shape = node.params["weight"].shape
    groups = int(node.attributes["groups"])
    rows = vector.reshape(groups, -1).repeat(shape[0] // groups, axis=0)
    return rows.reshape(*shape[:2], *(1,) * (len(shape) - 2))


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
    weights = [parameter_of(layer.params, "weight") for layer in (earlier, node)]
    biases = [parameter_of(layer.params, "bias") for layer in (earlier, node)]
    inner, outer = weights
    assert inner is not None
    assert outer is not None
    carried = None if biases[0] is None else (outer @ biases[0].reshape(-1, 1)).reshape(-1)
    params = parameters(weight=outer @ inner, bias=_plus(carried, biases[1]))
    return with_params(node, earlier.inputs, params) if _usable(params) else None


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
    merged: dict[str, Precise | None] = {"weight": None, "bias": None}
    for sign, layer in zip(signs, found, strict=True):
        for key, total in merged.items():
            term = parameter_of(layer.params, key)
            merged[key] = _plus(total, term if term is None or sign > 0 else -term)
    params = parameters(**merged)
    return replace(found[0], name=node.name, params=MappingProxyType(params)) if _usable(params) else None


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
