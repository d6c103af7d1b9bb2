"""Interval bound propagation (IBP), with rounding errors on the safe side.

An affine operator is bounded in centre/radius form, ``M c + b -+ |M| r`` (Gowal et al. 2018, "On the Effectiveness of
Interval Bound Propagation"). Floating-point evaluation of ``M c + b`` is off by at most about ``u (|M| |c| + |b|)``
times a small factor; that term is added to the radius by using ``(1 + g) r + g |c|`` in place of ``r``, so it costs
no further product.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph, Node
    from ..ops.rule import Interval, OpRule

ROUNDING_STEPS = 16
"""Unit roundoffs by which a computed sum of products may be off, relative to the sum of the products' magnitudes."""

MOVES = frozenset({"Input", "Constant", "Reshape", "Transpose", "Take", "Concat"})
"""Operators that only move entries around: exact in floating point."""


def rounding(x: Array) -> float:
    """The relative rounding allowance of a sum of products in the dtype of `x`."""
    return ROUNDING_STEPS * (1.2e-16 if x.dtype.itemsize == 8 else 6e-8)


def _all_finite(arrays: Sequence[Array]) -> bool:
    for x in arrays:
        total = x.sum(dtype=np.float64) if isinstance(x, np.ndarray) else float(x.detach().sum())
        if not math.isfinite(total):
            return False
    return True


def node_interval(node: Node, operator: OpRule, intervals: Sequence[Interval]) -> Interval:
    """Bounds ``[B, *shape]`` of one node's value from bounds of its inputs."""
    if operator.linear is None or node.op in MOVES or not _all_finite([end for pair in intervals for end in pair]):
        return operator.interval(node, intervals)
    linear = operator.linear
    slack = rounding(intervals[0][0])
    centres = [0.5 * (lower + upper) for lower, upper in intervals]
    radii = [
        (0.5 + slack) * (upper - lower) + slack * abs(centre)
        for (lower, upper), centre in zip(intervals, centres, strict=True)
    ]
    centre = linear.apply(node, centres)
    radius = linear.magnitude(node, radii) + slack * abs(centre)
    return centre - radius, centre + radius


def intersect(first: Interval, second: Interval) -> Interval:
    """The common part of two valid bounds of the same value; where rounding makes it empty, the hull of the crossed
    ends."""
    xp = array_namespace(first[0])
    lower, upper = xp.maximum(first[0], second[0]), xp.minimum(first[1], second[1])
    return xp.minimum(lower, upper), xp.maximum(lower, upper)


def interval_bounds(graph: Graph, lower: Array, upper: Array) -> list[Interval]:
    """Interval bounds of every node for boxes ``lower <= x <= upper`` ``[B, *input shape]``; differentiable on torch.

    Raises `UndefinedOnRegion` where an operator has no finite meaning on a box.
    """
    bounds: list[Interval] = []
    for node in graph.nodes:
        if node.op == "Input":
            bounds.append((lower, upper))
        else:
            bounds.append(node_interval(node, rule(node.op), [bounds[source] for source in node.inputs]))
    return bounds
