"""S-shaped functions: convex left of 0, concave right of it, point-symmetric about ``(0, f(0))``.

On a side where the function bends away, the line is the tangent through the far end point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arrays import array_namespace
from ..graph import Array, Node
from .arrays import outwards, quiet, unit_roundoff, with_sign_of
from .functions import erf, sigmoid
from .lines import Line, chord_slope, line_above, unary_relaxation
from .rule import Interval, OpRule
from .touching import Curve, Touching

Touch = Callable[[Any, Array, Array, Array], Array]
"""Takes the namespace, anchors left of 0, the largest answer, and where it is needed: the points right of 0 at which
tangents through the anchors touch."""


def bent_touch(curve: Curve, farthest: float = 1e4) -> Touch:
    """The touching points of a curve that is convex left of 0, concave right of it and point-symmetric; anchors beyond
    `farthest` have the point of that one."""
    # By symmetry the chord from the anchor to its mirror image is steeper than the tangent there.
    table = Touching(curve, 1.0, lambda anchor: (np.zeros_like(anchor), -anchor), 0.0, -1.0, farthest)

    def touch(xp: Any, anchor: Array, largest: Array, needed: Array) -> Array:
        return table.at(xp, anchor, xp.zeros_like(anchor), largest, needed)

    return touch


def _line_above(xp: Any, curve: Curve, touching: Touch, lower: Array, upper: Array, slope: Array | None) -> Line:
    """Above a function that is convex up to 0 and concave from there: chord, tangent, or the tangent through the
    lower end.
    """
    at_lower = curve(xp, lower)[0]
    at_upper, end_slope = curve(xp, upper)
    chord = chord_slope(xp, lower, upper, at_lower, at_upper)
    concave_from = lower.clip(0)
    across = (lower < 0) & (upper > 0)
    reach = xp.minimum(upper.clip(0), -lower.clip(None, 0))
    use_chord = (upper <= 0) | (across & (chord <= end_slope))
    touch = touching(xp, lower, reach, across & ~use_chord)
    first = xp.where(across, touch, concave_from)
    if slope is None:
        # The concave envelope at the centre: the tangent there, unless it would cut off the lower end.
        touch = xp.maximum(first, 0.5 * (lower + upper))
    else:
        touch = first + slope * (upper - first)
    touch = xp.minimum(xp.maximum(touch, concave_from), upper)
    at_touch, tangent = curve(xp, touch)
    # The chord's intercept must not be taken from a touching point: there it is the curve that is above.
    touch, at_touch = xp.where(use_chord, upper, touch), xp.where(use_chord, at_upper, at_touch)
    return line_above(xp, xp.where(use_chord, chord, tangent), lower, upper, (lower, at_lower), (touch, at_touch))


def bent_lines(
    xp: Any, curve: Curve, touching: Touch, centre_value: float, lower: Array, upper: Array, slope: Array | None
) -> tuple[Line, Line]:
    """Lines of a function that is convex left of 0, concave right of it, and symmetric about ``(0, centre_value)``."""
    above = _line_above(xp, curve, touching, lower, upper, slope)
    mirror = _line_above(xp, curve, touching, -upper, -lower, slope)
    turned = 2.0 * centre_value * (1.0 - 2.0 * unit_roundoff(lower))
    return (mirror[0], turned - mirror[1]), above


# --- the functions ---------------------------------------------------------------------------------------------------


def _sigmoid_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    y = sigmoid(xp, x)
    return y, y * (1.0 - y)


def _tanh_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    y = xp.tanh(x)
    return y, 1.0 - y * y


def _arctan_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    return xp.atan(x), 1.0 / (1.0 + x * x)


def _erf_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    return erf(xp, x), (2.0 / math.sqrt(math.pi)) * xp.exp(-x * x)


def _row(
    curve: Curve,
    function: Callable[[Any, Array], Array],
    centre_value: float,
    summary: str,
    most: float = 1.0,
) -> OpRule:
    """The row of a function between ``2 centre_value - most`` and `most`."""
    touching = bent_touch(curve)

    @quiet
    def evaluate(node: Node, xs: Sequence[Array]) -> Array:
        return function(array_namespace(xs[0]), xs[0])

    @quiet
    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        low, high = outwards(evaluate(node, [lower]), evaluate(node, [upper]))
        if centre_value == 0.0:
            low, high = with_sign_of((lower, upper), (low, high))
        return low.clip(2.0 * centre_value - most, None), high.clip(None, most)

    def lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
        return bent_lines(xp, curve, touching, centre_value, lower, upper, slope)

    @quiet
    def vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
        return (gradient * curve(array_namespace(xs[0]), xs[0])[1],)

    return OpRule(
        evaluate=evaluate,
        interval=interval,
        relax=unary_relaxation(lines, interval),
        curved=True,
        vjp=vjp,
        summary=summary,
    )


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Sigmoid": _row(_sigmoid_curve, sigmoid, 0.5, "1 / (1 + exp(-x))."),
        "Tanh": _row(_tanh_curve, lambda xp, x: xp.tanh(x), 0.0, "Hyperbolic tangent."),
        "Arctan": _row(_arctan_curve, lambda xp, x: xp.atan(x), 0.0, "Inverse tangent.", 1.5707964),
        "Erf": _row(_erf_curve, erf, 0.0, "Error function."),
    }
)
