"""S-shaped functions: convex left of 0, concave right of it, point-symmetric about ``(0, f(0))``.

On a side where the function bends away, the line is the tangent through the far end point; its touching point is
found by a safeguarded Newton iteration. Soundness does not hang on its accuracy: the intercept is computed for
whichever slope comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..arrays import array_namespace
from ..graph import Array, Node
from .arrays import quiet, unit_roundoff
from .functions import constant, erf, sigmoid
from .lines import Line, chord_slope, line_above, unary_relaxation
from .rule import Interval, OpRule

Curve = Callable[[Any, Array], tuple[Array, Array, Array]]
"""Takes the namespace and x, answers f(x), f'(x) and f''(x)."""

NEWTON_STEPS = 6
"""Enough for gaps within 1e-4 of the best possible; fixed, so that the work is the same for all entries."""


def touching_point(xp: Any, curve: Curve, anchor: Array, low: Array, high: Array, sign: float, needed: Array) -> Array:
    """Where in ``[low, high]`` the tangent passes through ``(anchor, f(anchor))``, no gradient flowing through.

    `sign` (1 or -1) makes ``sign * (tangent at t evaluated at anchor - f(anchor))`` increase with t. Where there is no
    such point the answer is the end nearest to one; where it is not `needed` any point of the interval.
    """
    anchor, left, right = constant(anchor), constant(low), constant(high)
    if not isinstance(anchor, np.ndarray):
        return _newton(xp, curve, anchor, left, right, sign)
    at = left.copy()
    if needed.any():
        at[needed] = _newton(xp, curve, anchor[needed], left[needed], right[needed], sign)
    return at


def _newton(xp: Any, curve: Curve, anchor: Array, left: Array, right: Array, sign: float) -> Array:
    """Newton's iteration for `touching_point`, falling back to bisection where it leaves the bracket."""
    target = curve(xp, anchor)[0]
    at = 0.5 * (left + right)
    for _ in range(NEWTON_STEPS):
        value, derivative, second = curve(xp, at)
        gap = sign * (value + derivative * (anchor - at) - target)
        left, right = xp.where(gap < 0, at, left), xp.where(gap < 0, right, at)
        newton = at - gap / (sign * second * (anchor - at))
        # An iteration that has converged may leave the bracket by rounding; bisecting then would throw the point away.
        slack = 1e-3 * (right - left)
        inside = (newton >= left - slack) & (newton <= right + slack)
        at = xp.where(inside, xp.minimum(xp.maximum(newton, left), right), 0.5 * (left + right))
    return at


def _line_above(xp: Any, curve: Curve, lower: Array, upper: Array, slope: Array | None) -> Line:
    """Above a function that is convex up to 0 and concave from there: chord, tangent, or the tangent through the
    lower end.
    """
    at_lower = curve(xp, lower)[0]
    at_upper, end_slope, _ = curve(xp, upper)
    chord = chord_slope(xp, lower, upper, at_lower, at_upper)
    concave_from = lower.clip(0)
    across = (lower < 0) & (upper > 0)
    # By symmetry the chord from the lower end to its mirror image is steeper than the tangent there.
    reach = xp.minimum(upper.clip(0), -lower.clip(None, 0))
    use_chord = (upper <= 0) | (across & (chord <= end_slope))
    touch = touching_point(xp, curve, lower, xp.zeros_like(lower), reach, 1.0, across & ~use_chord)
    first = xp.where(across, touch, concave_from)
    if slope is None:
        # The concave envelope at the centre: the tangent there, unless it would cut off the lower end.
        touch = xp.maximum(first, 0.5 * (lower + upper))
    else:
        touch = first + slope * (upper - first)
    touch = xp.minimum(xp.maximum(touch, concave_from), upper)
    at_touch, tangent, _ = curve(xp, touch)
    # The chord's intercept must not be taken from a touching point: there it is the curve that is above.
    touch, at_touch = xp.where(use_chord, upper, touch), xp.where(use_chord, at_upper, at_touch)
    return line_above(xp, xp.where(use_chord, chord, tangent), lower, upper, (lower, at_lower), (touch, at_touch))


def bent_lines(
    xp: Any, curve: Curve, centre_value: float, lower: Array, upper: Array, slope: Array | None
) -> tuple[Line, Line]:
    """Lines of a function that is convex left of 0, concave right of it, and symmetric about ``(0, centre_value)``."""
    above = _line_above(xp, curve, lower, upper, slope)
    mirror = _line_above(xp, curve, -upper, -lower, slope)
    turned = 2.0 * centre_value * (1.0 - 2.0 * unit_roundoff(lower))
    return (mirror[0], turned - mirror[1]), above


# --- the functions ---------------------------------------------------------------------------------------------------


def _sigmoid_curve(xp: Any, x: Array) -> tuple[Array, Array, Array]:
    y = sigmoid(xp, x)
    derivative = y * (1.0 - y)
    return y, derivative, derivative * (1.0 - 2.0 * y)


def _tanh_curve(xp: Any, x: Array) -> tuple[Array, Array, Array]:
    y = xp.tanh(x)
    derivative = 1.0 - y * y
    return y, derivative, -2.0 * y * derivative


def _arctan_curve(xp: Any, x: Array) -> tuple[Array, Array, Array]:
    derivative = 1.0 / (1.0 + x * x)
    return xp.atan(x), derivative, -2.0 * x * derivative * derivative


def _erf_curve(xp: Any, x: Array) -> tuple[Array, Array, Array]:
    derivative = (2.0 / math.sqrt(math.pi)) * xp.exp(-x * x)
    return erf(xp, x), derivative, -2.0 * x * derivative


def _row(curve: Curve, function: Callable[[Any, Array], Array], centre_value: float, summary: str) -> OpRule:
    @quiet
    def evaluate(node: Node, xs: Sequence[Array]) -> Array:
        return function(array_namespace(xs[0]), xs[0])

    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        return evaluate(node, [lower]), evaluate(node, [upper])

    def lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
        return bent_lines(xp, curve, centre_value, lower, upper, slope)

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
        "Arctan": _row(_arctan_curve, lambda xp, x: xp.atan(x), 0.0, "Inverse tangent."),
        "Erf": _row(_erf_curve, erf, 0.0, "Error function."),
    }
)
