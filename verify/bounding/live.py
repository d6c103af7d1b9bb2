"""Which entries count in backward bounds about one box, and in which order rows are bounded (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..graph import Node
    from ..kernels.relaxation import Step


@dataclass(frozen=True, eq=False)
class Entries:
    """Which entries of a node an array of coefficients holds: sorted flat indices, or None for all."""

    index: np.ndarray | None

    def pick(self, table: np.ndarray) -> np.ndarray:
        """The rows of a table ``[size, ...]``."""
        return table if self.index is None else table[self.index]

    def count(self, size: int) -> int:
        """How many entries of a node of `size` these are."""
        return size if self.index is None else len(self.index)

    def flat(self, size: int) -> np.ndarray:
        """Their flat indices."""
        return np.arange(size) if self.index is None else self.index


ALL = Entries(None)


class Columns(NamedTuple):
    """Coefficients ``[entries, rows]``; owned by whoever holds them, who may change them."""

    entries: Entries
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Lines:
    """A unary relaxation on the entries where it is not zero.

    step        the relaxation as it is, arrays ``[1, size]``.
    live        those entries.
    bent        positions within `live` where it is anything but the identity.
    slope, spread, below, above   the numbers of `Step` at the bent entries; intercepts None where all zero.
    """

    step: Step
    live: Entries
    bent: np.ndarray
    slope: np.ndarray
    spread: np.ndarray
    below: np.ndarray | None
    above: np.ndarray | None

    @classmethod
    def of(cls, step: Step) -> Lines:
        """The relaxation of one box (arrays ``[1, size]``)."""
        slope, spread = step.lower_slopes[0][0], step.spread[0][0]
        intercepts = [None if x is None else x[0] for x in (step.lower_intercept, step.upper_intercept)]
        at_work = (slope != 0) | (spread != 0)
        identity = (slope == 1) & (spread == 0)
        for intercept in intercepts:
            if intercept is not None:
                at_work |= intercept != 0
                identity &= intercept == 0
        live = np.flatnonzero(at_work)
        bent = np.flatnonzero(~identity[live])
        where = live[bent]
        below, above = (None if x is None else x[where] for x in intercepts)
        entries = ALL if len(live) == len(slope) else Entries(live)
        return cls(step, entries, bent, slope[where, None], spread[where, None], below, above)


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether the shape is ``[1, C, H, W]``."""
    return len(shape) == 4 and shape[0] == 1


def spatial(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of an image's shape ``[1, C, H, W]``."""
    return shape[2], shape[3]


def is_plane_convolution(node: Node) -> bool:
    """Whether the node is a convolution over two axes."""
    return node.op == "Conv" and is_image(node.shape)


def is_plane_enlarging(node: Node) -> bool:
    """Whether the node is a transposed convolution over two axes in one group."""
    return node.op == "ConvTranspose" and is_image(node.shape) and node.attributes["groups"] == 1


def is_plain_dense(node: Node) -> bool:
    """Whether the node is a dense layer on one vector."""
    return node.op == "Linear" and node.size == node.shape[-1]


_FEW_ROWS = 24
"""Below this many rows, sharing them among threads costs more than it saves."""


def neighbours(node: Node, entries: np.ndarray, at_once: int, sharers: int) -> list[np.ndarray]:
    """Positions in `entries` (of a node) in parts of similar length, at most `at_once`, each close together on an
    image; as many parts as `sharers` at least where that leaves each enough rows."""
    count = len(entries)
    if count == 0:
        return []
    area = node.shape[2] * node.shape[3] if is_image(node.shape) else 1
    order = np.argsort(entries % area, kind="stable") if area > 1 else np.arange(count)
    return np.array_split(order, max(-(-count // at_once), min(sharers, count // _FEW_ROWS), 1))
