"""Simplifications of nodes that only move or add values; parameters stay as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .rewrite import with_params

if TYPE_CHECKING:
    from ..graph import Node
    from .rewrite import Rewriter, Rule


def _same_shape(work: Rewriter, node: Node) -> Node | int | None:
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


def _through_reshape(work: Rewriter, node: Node) -> Node | int | None:
    """Reshape or Take of a Reshape reads the original."""
    if node.op not in ("Reshape", "Take") or work.producer(node, "Reshape", alone=False) is None:
        return None
    return replace(node, inputs=work.nodes[node.inputs[0]].inputs)


def _take_of_take(work: Rewriter, node: Node) -> Node | int | None:
    if node.op != "Take":
        return None
    earlier = work.producer(node, "Take", alone=False)
    if earlier is None or node.params["indices"].min(initial=0) < 0:
        return None
    indices = earlier.params["indices"].reshape(-1)[node.params["indices"]]
    return with_params(node, earlier.inputs, {"indices": indices}, fill=earlier.attributes["fill"])


def _transpose_of_transpose(work: Rewriter, node: Node) -> Node | int | None:
    if node.op != "Transpose":
        return None
    earlier = work.producer(node, "Transpose", alone=False)
    if earlier is None:
        return None
    perm = tuple(earlier.attributes["perm"][axis] for axis in node.attributes["perm"])
    return with_params(node, earlier.inputs, {}, perm=perm)


def _add_of_add(work: Rewriter, node: Node) -> Node | int | None:
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
    return with_params(node, tuple(inputs), {}, signs=tuple(signs))


def _gated(work: Rewriter, node: Node) -> Node | int | None:
    """``x * sigmoid(x)`` is Silu, for which a tighter relaxation exists than for a product."""
    if node.op != "Mul":
        return None
    for position in (0, 1):
        gate = work.producer(node, "Sigmoid", position)
        if gate is not None and gate.inputs[0] == node.inputs[1 - position]:
            return replace(node, op="Silu", inputs=gate.inputs)
    return None


RULES: tuple[Rule, ...] = (
    _same_shape,
    _through_reshape,
    _take_of_take,
    _transpose_of_transpose,
    _add_of_add,
    _gated,
)
