"""Rows on windows (`kernels/patches.py`) through operators that only move, scale or enlarge an image, and rows of
entries that moves and sums reach from an image (numpy only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels import patches
from ..kernels.patches import Patches
from ..ops.conv import window_of
from .live import is_image, is_plane_enlarging, spatial
from .structure import Repeat, Shift

if TYPE_CHECKING:
    from ..graph import Node
    from .structure import Structure

SEED_TERMS = 8
"""Entries of an image up to which a row starts on a window that holds them all."""


class Carried(NamedTuple):
    """Windows on the inputs, one each, and a constant to add (``[rows]`` or None)."""

    pieces: tuple[Patches, ...]
    part: np.ndarray | None = None


def carry(structure: Structure, position: int, piece: Patches) -> Carried | None:
    """Windows on a node's value carried to its inputs; None where the operator is none of those treated here."""
    node = structure.nodes[position]
    if node.op == "Concat" and node.attributes["axis"] % len(node.shape) == 1 and all(map(is_image, node.input_shapes)):
        ends = np.cumsum([shape[1] for shape in node.input_shapes])[:-1]
        # Pieces are changed in place further down.
        return Carried(tuple(piece._replace(values=part.copy()) for part in np.split(piece.values, ends, axis=2)))
    if node.op == "Scale":
        return _scaled(node, piece.within(spatial(node.shape)))
    if node.op == "Take":
        return _moved(structure.movement(position), node, piece)
    if is_plane_enlarging(node):
        piece = piece.within(spatial(node.shape))
        kernel = spatial(node.params["weight"].shape)
        below = patches.through_transposed(piece, structure.kernel(position), kernel, window_of(node))
        return Carried((below,), bias_of(node, piece))
    return None


def carries(structure: Structure, position: int) -> bool:
    """Whether `carry` treats the node."""
    node = structure.nodes[position]
    if node.op == "Concat":
        return node.attributes["axis"] % len(node.shape) == 1 and all(map(is_image, node.input_shapes))
    if node.op == "Take":
        return structure.movement(position) is not None
    return node.op == "Scale" or is_plane_enlarging(node)


def bias_of(node: Node, piece: Patches) -> np.ndarray | None:
    """What the bias of a convolution (or its transpose) adds to rows without overhang."""
    bias = node.params.get("bias")
    return None if bias is None else bias @ piece.values.sum(axis=(0, 1))


def _scaled(node: Node, piece: Patches) -> Carried:
    kind = piece.values.dtype
    tables = [
        np.broadcast_to(node.params[key], node.shape)[0].transpose(1, 2, 0).astype(kind, copy=False)
        for key in ("scale", "shift")
        if key in node.params
    ]
    if not tables:
        return Carried((piece,))
    found = list(patches.look_up(np.stack(tables), piece))
    part = (piece.values * found.pop()).sum(axis=(0, 1, 2)) if "shift" in node.params else None
    return Carried((piece._replace(values=piece.values * found[0]) if found else piece,), part)


def _moved(how: Shift | Repeat | None, node: Node, piece: Patches) -> Carried | None:
    if how is None:
        return None
    piece = piece.within(spatial(node.shape))
    if isinstance(how, Repeat):
        return Carried((patches.through_repeated(piece, how.factors),))
    channels, values = node.input_shapes[0][1], piece.values
    if how.channel or values.shape[2] != channels:
        values = np.zeros((*values.shape[:2], channels, values.shape[3]), dtype=values.dtype)
        first, last = max(0, -how.channel), min(node.shape[1], channels - how.channel)
        values[:, :, first + how.channel : last + how.channel] = piece.values[:, :, first:last]
    return Carried((Patches(values, piece.top + how.down, piece.left + how.right, True),))


class Terms(NamedTuple):
    """Rows that are sums of a few entries of a node: flat indices and coefficients ``[terms, rows]``."""

    entries: np.ndarray
    values: np.ndarray


def seeds(structure: Structure, target: int, entries: np.ndarray, signs: np.ndarray) -> tuple[int, Patches] | None:
    """Rows that pick entries of a node (times signs), on windows of an image that they are sums of entries of, and that
    image's node; None where there is none.

    Of several, it is the one furthest back that moves and sums lead to (a difference of channels, taken in another
    order of axes, belongs to the image before).
    """
    nodes = structure.nodes
    waiting = {target: Terms(entries[None], signs[None])}
    found: tuple[int, Patches] | None = None
    while True:
        position = max(waiting)
        node, terms = nodes[position], waiting.pop(position)
        if not waiting and is_image(node.shape) and node.op not in _MOVES:
            found = position, _on_windows(node.shape, terms)
        below = _step_back(node, terms)
        if below is None:
            return found
        for source, part in zip(node.inputs, below, strict=True):
            known = waiting.get(source)
            together = part if known is None else Terms(*map(np.concatenate, zip(known, part, strict=True)))
            if len(together.entries) > SEED_TERMS:
                return found
            waiting[source] = together


_MOVES = ("Reshape", "Transpose", "Take")


def _step_back(node: Node, terms: Terms) -> list[Terms] | None:
    """The rows as sums of entries of the node's inputs; None where the operator is no move or sum."""
    if node.op == "Reshape":
        return [terms]
    if node.op == "Transpose":
        order = np.arange(node.size).reshape(node.input_shapes[0]).transpose(node.attributes["perm"])
        return [terms._replace(entries=order.reshape(-1)[terms.entries])]
    if node.op == "Add":
        return [terms._replace(values=sign * terms.values) for sign in node.attributes["signs"]]
    if node.op == "Take":
        found = node.params["indices"].reshape(-1)[terms.entries]
        if node.attributes.get("fill", 0.0) != 0.0 and (found < 0).any():
            return None
        return [Terms(np.maximum(found, 0), np.where(found < 0, 0, terms.values))]
    return None


def _on_windows(shape: tuple[int, ...], terms: Terms) -> Patches:
    """The rows on the smallest windows that hold their entries."""
    _, channels, height, width = shape
    counts = terms.values != 0
    # Terms that are 0 lie where the row's first other one does.
    first = np.take_along_axis(terms.entries, counts.argmax(axis=0)[None], axis=0)
    channel, pixel = np.divmod(np.where(counts, terms.entries, first), height * width)
    y, x = np.divmod(pixel, width)
    top, left = y.min(axis=0), x.min(axis=0)
    down, right = y - top, x - left
    shown = (int(down.max()) + 1, int(right.max()) + 1)
    values = np.zeros((*shown, channels, terms.values.shape[1]), dtype=terms.values.dtype)
    rows = np.broadcast_to(np.arange(terms.values.shape[1]), terms.values.shape)
    np.add.at(values, (down, right, channel, rows), terms.values)
    return Patches(values, top, left, False)
