"""Where curved functions are best split: the point at which the relaxations of both halves enclose the least area.

The best point of every interval is computed beforehand on a grid (Shi et al. 2024, "Neural Network Verification with
Branch-and-Bound for General Nonlinearities", section 3.3) and kept in the user's cache folder; between grid points it
is interpolated. Any point inside the interval is sound, so a table decides about speed only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..cache import cached_array
from ..graph import Node
from ..ops import rule
from ..ops.arrays import as_like

if TYPE_CHECKING:
    from ..bounding.plan import Plan
    from ..graph import Array

CURVED = frozenset(
    {"Sigmoid", "Tanh", "Arctan", "Erf", "Gelu", "Silu", "HardSwish", "Softplus", "Elu", "Exp", "Sin", "Cos"}
)
"""Operators that have a table: curved, and defined everywhere."""

PERIODIC = frozenset({"Sin", "Cos"})

FORMAT = 1
REACH = 12.0
"""The grid's centres lie in ``[-REACH, REACH]``; wider intervals are cut to that first: beyond it most of these
functions are straight."""
CENTRES, WIDTHS = 65, 33
"""Grid points; the widths' square roots are equally spaced, so that narrow intervals have as many as wide ones."""
SHARES = np.linspace(0.08, 0.92, 29)
"""Where in the interval splits are tried."""

_MOVES = frozenset({"Reshape", "Transpose", "Take"})


@dataclass(frozen=True, eq=False)
class PointTable:
    """Shares of intervals (0 at the lower end, 1 at the upper) by centre and width ``[CENTRES, WIDTHS]``; `periodic`:
    centres may be moved by multiples of a period of two pi."""

    shares: np.ndarray
    periodic: bool

    def points(self, low: Array, high: Array) -> Array:
        """Points strictly inside intervals, arrays of one shape; the middle of intervals without any."""
        xp = array_namespace(low)
        middle = 0.5 * low + 0.5 * high
        turns = 2.0 * math.pi * xp.round(middle / (2.0 * math.pi)) if self.periodic else xp.zeros_like(middle)
        start = xp.clip(low - turns, -REACH, REACH)
        width = xp.clip(high - turns, -REACH, REACH) - start
        point = start + self._share(start + 0.5 * width, width) * width + turns
        # NaN compares false.
        return xp.where((point > low) & (point < high), point, middle)

    def _share(self, centre: Array, width: Array) -> Array:
        """The table's entry by linear interpolation."""
        xp = array_namespace(centre)
        across = xp.clip((centre + REACH) * ((CENTRES - 1) / (2.0 * REACH)), 0.0, CENTRES - 1.0)
        along = xp.clip(xp.sqrt(width * (1.0 / (2.0 * REACH))) * (WIDTHS - 1), 0.0, WIDTHS - 1.0)
        row, column = xp.clip(xp.floor(across), 0.0, CENTRES - 2.0), xp.clip(xp.floor(along), 0.0, WIDTHS - 2.0)
        down, right = across - row, along - column
        row, column = (xp.astype(xp.where(xp.isfinite(x), x, 0.0), xp.int64) for x in (row, column))
        flat = as_like(self.shares, centre).reshape(-1)
        first = (row * WIDTHS + column).reshape(-1)
        corners = [xp.take(flat, first + step).reshape(centre.shape) for step in (0, 1, WIDTHS, WIDTHS + 1)]
        upper = corners[0] + right * (corners[1] - corners[0])
        lower = corners[2] + right * (corners[3] - corners[2])
        return upper + down * (lower - upper)


def point_table(plan: Plan, source: int) -> PointTable | None:
    """The table for a node that nonlinear nodes read, by what reads it; None where none of them has one.

    Products and other readers of several inputs are left out: wherever they are split, their halves' areas depend on
    the other inputs.
    """
    readers = _readers(plan, source)
    if not readers:
        return None
    functions = tuple(sorted({_label(node): node for node in readers}.items()))
    name = "branching-points-" + "-".join(node.op.lower() for _, node in functions)
    nodes = [node for _, node in functions]
    shares = cached_array(name, _version(nodes), (CENTRES, WIDTHS), "float32", lambda: best_shares(nodes))
    return PointTable(shares, all(node.op in PERIODIC for node in nodes))


def best_shares(nodes: list[Node]) -> np.ndarray:
    """The shares ``[CENTRES, WIDTHS]`` at which the halves' relaxations of all the functions enclose least area."""
    centre = np.linspace(-REACH, REACH, CENTRES)[:, None, None]
    width = 2.0 * REACH * (np.linspace(0.0, 1.0, WIDTHS)[None, :, None]) ** 2
    low, high = np.broadcast_arrays(centre - 0.5 * width, centre + 0.5 * width, SHARES)[:2]
    split = low + SHARES * (high - low)
    total = sum(_area(node, low, split) + _area(node, split, high) for node in nodes)
    # A point of width 0 and rounding in narrow intervals must not decide: of equal ones the middle is taken.
    total = total + 1e-9 * (1.0 + abs(SHARES - 0.5))
    return SHARES[np.argmin(total, axis=2)].astype(np.float32)


def _area(node: Node, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Area between the lines below and above on intervals of any shape."""
    relax = rule(node.op).relax
    if relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    shaped = (low.reshape(1, -1), high.reshape(1, -1))
    with np.errstate(all="ignore"):
        lines = relax(_flat(node, low.size), [shaped])
        centre = 0.5 * shaped[0] + 0.5 * shaped[1]
        gap = (lines.upper_slopes[0] - lines.lower_slopes[0]) * centre + lines.upper_intercept - lines.lower_intercept
    return np.nan_to_num(gap * (shaped[1] - shaped[0])).reshape(low.shape)


def _flat(node: Node, size: int) -> Node:
    """The same function over a vector."""
    return Node(node.name, node.op, (0,), (size,), {}, dict(node.attributes), ((size,),))


def _readers(plan: Plan, source: int) -> list[Node]:
    """The curved nodes of one input that read `source`, through moves or not."""
    nodes = plan.graph.nodes
    found = []
    for index in plan.nonlinear:
        if nodes[index].op not in CURVED:
            continue
        root = nodes[index].inputs[0]
        while root != source and nodes[root].op in _MOVES:
            root = nodes[root].inputs[0]
        if root == source:
            found.append(nodes[index])
    return found


def _label(node: Node) -> str:
    """The function that a node computes."""
    return f"{node.op} {sorted(node.attributes.items())}"


def _version(nodes: list[Node]) -> str:
    """All that a table depends on; the relaxations themselves by what they answer on a few intervals."""
    low = np.repeat(np.linspace(-7.0, 3.0, 6), 5)
    high = low + np.tile(np.array([0.3, 1.0, 2.5, 5.0, 9.0]), 6)
    areas = [f"{area:.3g}" for node in nodes for area in _area(node, low, high)]
    labels = [_label(node) for node in nodes]
    return repr((FORMAT, REACH, CENTRES, WIDTHS, SHARES.tolist(), labels, areas))
