"""What a split promises, without bounding the children (BBPS, Shi et al. 2024, "Neural Network Verification with
Branch-and-Bound for General Nonlinearities", section 3.2).

A bound is a sum over relaxed entries, coefficient times line. Splitting an entry's interval at a point changes the
lines of the nodes that read it and nothing else, so a child's gain is what its own lines add where the child's minimum
may lie, with all coefficients as they were. The child in which the parent's minimiser lies keeps that minimiser; the
other one is pushed to the point of the split, the nearest it may come to it. For a ReLU split at its kink these are
the two parts of what BaBSR scores, its cost at the minimiser and its intercept; with the same weights, too, where the
entry has kinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..bounding.relaxed import WORST_SHARE, follow
from ..ops import rule

if TYPE_CHECKING:
    from ..bounding.alpha import Ascent
    from ..bounding.relaxed import Observed
    from ..graph import Array, Node
    from ..ops.rule import Interval

PUSHED_SHARE = 1.0
"""Weight of what the child of a curved entry gains that the parent's minimiser is pushed out of, beside the other's
(MNIST 4x100, GELU: two images in 3 seconds instead of more than 8 with 4 or 10; sigmoid: 3.0 with 1, 2.6 with 10)."""


@np.errstate(all="ignore")
def gain(ascent: Ascent, position: int, own: Observed, which: int, point: Array) -> Array:
    """What splitting input `which` of a relaxed node at the points ``[N, n]`` adds to the bound ``[N, n]``, never less
    than 0."""
    node = ascent.base.plan.graph.nodes[position]
    xp = array_namespace(point)
    flat = [
        tuple(xp.broadcast_to(end.reshape(end.shape[0], -1), point.shape) for end in ascent.base.intervals[source])
        for source in node.inputs
    ]
    low, high = flat[which]
    point = xp.minimum(xp.maximum(point, low), high)
    inside = xp.minimum(xp.maximum(own.inputs[which], low), high)
    coefficients = own.chosen.coefficients
    at_point = [point if k == which else x for k, x in enumerate(own.inputs)]
    there = coefficients * follow(ascent.families[position], own.chosen, at_point)
    here = coefficients * own.output
    below = inside <= point
    promised = []
    for sign, half in ((-1, (low, point)), (1, (point, high))):
        intervals = [half if k == which else pair for k, pair in enumerate(flat)]
        kept = below if sign < 0 else ~below
        at = [xp.where(kept, inside, point) if k == which else x for k, x in enumerate(own.inputs)]
        child = _contribution(node, coefficients, intervals, at)
        promised.append(child - xp.where(kept, here, there))
    first, second = (xp.clip(xp.where(xp.isfinite(x), x, 0.0), 0.0, None) for x in promised)
    kept, pushed = xp.where(below, first, second), xp.where(below, second, first)
    return kept + (PUSHED_SHARE if rule(node.op).curved else WORST_SHARE) * pushed


def touching(node: Node, intervals: list[Interval], at: list[Array]) -> Array | None:
    """The `slope` with which a function of one input is relaxed by tangents near the given points ``[N, n]``; None for
    functions of several inputs."""
    if len(at) > 1:
        return None
    low, high = intervals[0]
    xp = array_namespace(low)
    width = high - low
    place = (at[0].reshape(-1, *node.shape) - low) / xp.where(width > 0, width, 1.0)
    return xp.clip(xp.where(xp.isfinite(place), place, 0.5), 0.0, 1.0)


def _contribution(node: Node, a: Array, intervals: list[Interval], at: list[Array]) -> Array:
    """Coefficient times line ``[N, n]`` on intervals ``[N, n]``, at the given inputs."""
    relax = rule(node.op).relax
    if relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    count = a.shape[0]
    shaped = [(low.reshape(count, *node.shape), high.reshape(count, *node.shape)) for low, high in intervals]
    xp = array_namespace(a)
    lines = relax(node, shaped, touching(node, shaped, at))
    below, above = lines.lower_intercept.reshape(-1, node.size), lines.upper_intercept.reshape(-1, node.size)
    for x, for_below, for_above in zip(at, lines.lower_slopes, lines.upper_slopes, strict=True):
        below = below + for_below.reshape(-1, node.size) * x
        above = above + for_above.reshape(-1, node.size) * x
    return a * xp.where(a > 0, below, above)
