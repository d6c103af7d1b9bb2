"""Interval bound propagation (IBP), with rounding errors on the safe side.

An affine operator is bounded in centre/radius form, ``M c + b -+ |M| r`` (Gowal et al. 2018, "On the Effectiveness of
Interval Bound Propagation"). Floating-point evaluation of ``M c + b`` is off by at most ``g (|M| |c| + |b|)`` with the
allowance g for its sums (`rounding`); that term is added to the radius by using ``(1 + g) r + g |c|`` in place of
``r``, so it costs no further product.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..errors import CrossedBounds
from ..ops import rule
from ..ops.arrays import as_like, defined, quiet
from ..rounding import WHOLE_BELOW, element_type, rounding, smallest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph, Node
    from ..ops.rule import Interval, LinearRule, OpRule

MOVES = frozenset({"Input", "Constant", "Reshape", "Transpose", "Take", "Concat"})
"""Operators that only move entries around: exact in floating point."""


def _all_finite(arrays: Sequence[Array]) -> bool:
    for x in arrays:
        total = x.sum(dtype=np.float64) if isinstance(x, np.ndarray) else float(x.detach().sum())
        if not math.isfinite(total):
            return False
    return True


@quiet
def node_interval(node: Node, operator: OpRule, intervals: Sequence[Interval]) -> Interval:
    """Bounds ``[B, *shape]`` of one node's value from bounds of its inputs: perhaps infinite, never NaN.

    Raises `UndefinedOnRegion`.
    """
    if node.op in MOVES:
        return operator.interval(node, intervals)
    if operator.linear is None:
        bounds = operator.interval(node, intervals)
    elif _all_finite([end for pair in intervals for end in pair]):
        bounds = _affine(node, operator.linear, intervals)
    else:
        bounds = _half_infinite(node, operator, operator.linear, intervals)
    return defined(*bounds)


def _half_infinite(node: Node, operator: OpRule, linear: LinearRule, intervals: Sequence[Interval]) -> Interval:
    """An affine operator where some input is unbounded: entries that do not read it are finite, and rounded."""
    terms = linear.sums(node)[0]
    if node.op == "Scale":
        return _scaled(node, linear, intervals, rounding(intervals[0][0], terms))
    lower, upper = operator.interval(node, intervals)
    if node.op in _SUMS:
        lower, upper = (
            lower - _end_rounding(node, linear, intervals, 0),
            upper + _end_rounding(node, linear, intervals, 1),
        )
        return _positive(node, linear, intervals, defined(lower, upper))
    xp = array_namespace(lower)
    reaches = [xp.maximum(abs(low), abs(high)) for low, high in intervals]
    size = linear.magnitude(node, [xp.where(xp.isfinite(reach), reach, 0.0) for reach in reaches])
    shift = linear.bias(node)
    if shift is not None:
        size = size + abs(as_like(shift, size))
    off = 2.0 * rounding(size, terms) * size + terms * smallest(size)
    error = _parameter_error(node, linear, intervals)
    if error is not None:
        off = off + error
    return lower - off, upper + off


def _end_rounding(node: Node, linear: LinearRule, intervals: Sequence[Interval], side: int) -> Array:
    """The allowance for a sum's lower (0) or upper end (1), which is a sum of ends; for infinite ones nothing."""
    signs = node.attributes.get("signs", (1,))
    ends = [abs(pair[side if sign > 0 else 1 - side]) for sign, pair in zip(signs, intervals, strict=True)]
    xp = array_namespace(ends[0])
    size = linear.magnitude(node, [xp.where(xp.isfinite(end), end, 0.0) for end in ends])
    return rounding(size, linear.sums(node)[0]) * size


def _affine(node: Node, linear: LinearRule, intervals: Sequence[Interval]) -> Interval:
    """``M c + b -+ |M| r`` with its rounding allowance."""
    terms = linear.sums(node)[0]
    slack = rounding(intervals[0][0], terms)
    if node.op == "Scale":
        return _scaled(node, linear, intervals, slack)
    centres = [0.5 * (lower + upper) for lower, upper in intervals]
    radii = [
        (0.5 + slack) * (upper - lower) + slack * abs(centre)
        for (lower, upper), centre in zip(intervals, centres, strict=True)
    ]
    centre = linear.apply(node, centres)
    radius = linear.magnitude(node, radii) + slack * abs(centre)
    error = _parameter_error(node, linear, intervals)
    if error is not None:
        radius = radius + error
    if node.op not in _SUMS:
        radius = radius + _underflow(node, linear, intervals, centre, radius, terms)
    lower, upper = centre - radius, centre + radius
    if node.op == "Add":
        lower, upper = _exact_where_whole(node, linear, intervals, (lower, upper))
    return _positive(node, linear, intervals, (lower, upper))


def _positive(node: Node, linear: LinearRule, intervals: Sequence[Interval], bounds: Interval) -> Interval:
    """The bounds of a sum of what is not negative, which is at least the sum of its lower ends: beside wide terms the
    allowance would hide that it is positive, which a root or logarithm must know."""
    if not _sums_what_is_not_negative(node, intervals):
        return bounds
    xp = array_namespace(bounds[0])
    least = linear.apply(node, [low for low, _ in intervals]).clip(None, element_type(bounds[0].dtype).largest)
    return xp.maximum(bounds[0], (1.0 - rounding(least, linear.sums(node)[0])) * least), bounds[1]


def _parameter_error(node: Node, linear: LinearRule, intervals: Sequence[Interval]) -> Array | None:
    """What parameters that are not exact may change the value by."""
    if not node.has_errors:
        return None
    xp = array_namespace(intervals[0][0])
    return linear.parameter_error(node, [xp.maximum(abs(low), abs(high)) for low, high in intervals])


_SUMS = frozenset({"Add", "Sum"})
"""Operators without products, which alone can underflow."""


def _underflow(
    node: Node, linear: LinearRule, intervals: Sequence[Interval], centre: Array, radius: Array, terms: int
) -> Array | float:
    """What products below the smallest normal number may have lost; nothing where all of them are of a zero."""
    lost = terms * smallest(centre)
    nothing = (radius == 0) & (centre == 0)
    if not bool(nothing.any()):
        return lost
    xp = array_namespace(centre)
    read = [xp.astype((low != 0) | (high != 0), low.dtype) for low, high in intervals]
    at_work = linear.magnitude(node, read) != 0
    return xp.astype(at_work | ~nothing, centre.dtype) * lost


def _scaled(node: Node, linear: LinearRule, intervals: Sequence[Interval], slack: float) -> Interval:
    """A scaling at the two ends, each with the allowance of its own size: one more than a number between 0 and the
    largest one is at least 1, as a softmax and a sigmoid in parts need to know."""
    lower, upper = rule(node.op).interval(node, intervals)
    shift = linear.bias(node)
    added = 0.0 if shift is None else 2.0 * slack * abs(as_like(shift, lower))
    if "scale" in node.params:
        # A product of numbers other than zero may have underflowed.
        xp = array_namespace(lower)
        read = (intervals[0][0] != 0) | (intervals[0][1] != 0)
        added = added + smallest(lower) * xp.astype(read, lower.dtype)
    error = _parameter_error(node, linear, intervals)
    if error is not None:
        added = added + error
    bounds = lower - slack * abs(lower) - added, upper + slack * abs(upper) + added
    return _exact_where_whole(node, linear, intervals, bounds)


def _exact_where_whole(node: Node, linear: LinearRule, intervals: Sequence[Interval], bounds: Interval) -> Interval:
    """The bounds without an allowance in entries computed from known, not too large whole numbers."""
    if node.has_errors or not all(bool((low == high).any()) for low, high in intervals):
        return bounds
    xp = array_namespace(bounds[0])
    parameters = [as_like(value, bounds[0]) for value in node.params.values()]
    if not all(bool((value == xp.floor(value)).all()) for value in parameters):
        return bounds
    values = [lower for lower, _ in intervals]
    exact = linear.apply(node, values)
    whole = linear.magnitude(node, [abs(value) for value in values]) + abs(exact) < WHOLE_BELOW
    for lower, upper in intervals:
        whole = whole & (lower == upper) & (lower == xp.floor(lower))
    return xp.where(whole, exact, bounds[0]), xp.where(whole, exact, bounds[1])


def _sums_what_is_not_negative(node: Node, intervals: Sequence[Interval]) -> bool:
    if node.op != "Sum" and not (node.op == "Add" and all(sign > 0 for sign in node.attributes["signs"])):
        return False
    return all(bool((low >= 0).all()) for low, _ in intervals)


def intersect(first: Interval, second: Interval, whole: Node | None = None) -> Interval:
    """The common part of two bounds of the same value. Where it is empty, bounds under constraints that exclude each
    other become the hull of the crossed ends; bounds of all values of a node (`whole`) raise `CrossedBounds`."""
    xp = array_namespace(first[0])
    lower, upper = xp.maximum(first[0], second[0]), xp.minimum(first[1], second[1])
    if whole is not None:
        return ordered(whole, (lower, upper))
    return xp.minimum(lower, upper), xp.maximum(lower, upper)


def ordered(node: Node, bounds: Interval) -> Interval:
    """The bounds of all values of a node. Raises `CrossedBounds` where a lower one exceeds an upper one."""
    if bool((bounds[0] > bounds[1]).any()):
        raise CrossedBounds(node.name)
    return bounds


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
