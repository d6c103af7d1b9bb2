"""What backward passes about all boxes of a graph share: matrices of convolutions, and how images move (numpy only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels import blocks, patches
from ..ops.conv import window_of
from .live import is_image, spatial

if TYPE_CHECKING:
    from ..graph import Node
    from .plan import Plan


class Shift(NamedTuple):
    """A `Take` that reads ``(c + channel, y + down, x + right)`` of an image at ``(c, y, x)``, and 0 outside of it."""

    channel: int
    down: int
    right: int


class Repeat(NamedTuple):
    """A `Take` that repeats every pixel of an image ``factors`` times along each axis."""

    factors: tuple[int, int]


def movement(node: Node) -> Shift | Repeat | None:
    """How a `Take` moves an image; None where it does something else."""
    if not (is_image(node.shape) and is_image(node.input_shapes[0])):
        return None
    indices = node.params["indices"].reshape(node.shape[1:])
    valid = np.flatnonzero(indices.reshape(-1) >= 0)
    if len(valid) == 0 or (len(valid) < indices.size and node.attributes.get("fill", 0.0) != 0.0):
        return None
    _, channels, height, width = node.input_shapes[0]
    c, y, x = np.ogrid[: node.shape[1], : node.shape[2], : node.shape[3]]
    here = np.unravel_index(int(valid[0]), node.shape[1:])
    there = np.unravel_index(int(indices.reshape(-1)[valid[0]]), (channels, height, width))
    shift = Shift(*(int(b) - int(a) for a, b in zip(here, there, strict=True)))
    source = (c + shift.channel, y + shift.down, x + shift.right)
    inside = np.ones(node.shape[1:], dtype=bool)
    for place, limit in zip(source, (channels, height, width), strict=True):
        inside &= (place >= 0) & (place < limit)
    flat = (source[0] * height + source[1]) * width + source[2]
    if np.array_equal(indices, np.where(inside, flat, -1)):
        return shift
    if node.shape[1] == channels and node.shape[2] % height == 0 and node.shape[3] % width == 0:
        factors = node.shape[2] // height, node.shape[3] // width
        if np.array_equal(indices, (c * height + y // factors[0]) * width + x // factors[1]):
            return Repeat(factors)
    return None


class Structure:
    """What all boxes of a graph share: matrices of convolutions in the forms the kernels take.

    image   the node that is the flat input as an image and all that reads the input, if there is one.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes = plan.graph.nodes
        readers = [position for position, node in enumerate(self.nodes) if plan.input in node.inputs]
        shown = len(readers) == 1 and self.nodes[readers[0]].op == "Reshape" and is_image(self.nodes[readers[0]].shape)
        self.image = readers[0] if shown else None
        self._kernels: dict[int, np.ndarray] = {}
        self._movements: dict[int, Shift | Repeat | None] = {}
        self._templates: dict[int, blocks.Template] = {}

    def kernel(self, position: int) -> np.ndarray:
        """The matrices of a convolution that `patches.fold` takes, or that of a transposed one for
        `patches.through_transposed`."""
        if position not in self._kernels:
            node = self.nodes[position]
            weight = node.params["weight"]
            transposed = node.op == "ConvTranspose"
            self._kernels[position] = (
                patches.enlarging_matrix(weight)
                if transposed
                else patches.kernel_matrix(weight, node.attributes["groups"])
            )
        return self._kernels[position]

    def movement(self, position: int) -> Shift | Repeat | None:
        """How a `Take` moves an image."""
        if position not in self._movements:
            self._movements[position] = movement(self.nodes[position])
        return self._movements[position]

    def template(self, position: int) -> blocks.Template:
        """The template of a convolution (or a transposed one) in one group that `blocks.choose` takes."""
        if position not in self._templates:
            node = self.nodes[position]
            make = blocks.make_template if node.op == "Conv" else blocks.make_enlarging_template
            self._templates[position] = make(node.params["weight"], spatial(node.input_shapes[0]), window_of(node))
        return self._templates[position]
