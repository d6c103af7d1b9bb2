"""Gated units ``x * gate(x)``: Gelu, Silu and HardSwish.

Each is ``x / 2`` plus an even function, concave on its left tail ``x < -bend``, convex between ``-bend`` and
``bend``, concave on the right tail, where its derivative is at least 1; it has one minimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from .arrays import outwards, quiet, unit_roundoff
from .functions import erf, normal_density, sigmoid
from .lines import Line, better_above, chord_slope, line_above, line_below, unary_relaxation
from .rule import Interval, OpRule
from .touching import Curve, Touching

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node


FARTHEST_TOUCH = 40.0
"""How far left of the bend a touching point is looked for; the tails are flat to within roundoff there."""


@dataclass(frozen=True)
class _Gated:
    """A gated unit: value and derivative, its inflection point on the right, its minimum ``(x, f(x))``, and where
    tangents through a point right of the left bend touch the left tail, and through a point of that tail the rest."""

    curve: Curve
    bend: float
    minimum: tuple[float, float]
    on_tail: Touching
    off_tail: Touching


def _gated_unit(curve: Curve, bend: float, minimum: tuple[float, float]) -> _Gated:
    def tail(anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full_like(anchor, -bend - FARTHEST_TOUCH), np.full_like(anchor, -bend)

    def middle(anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full_like(anchor, -bend), np.full_like(anchor, bend)

    on_tail = Touching(curve, -1.0, tail, -bend, 0.0, 12.0)
    return _Gated(curve, bend, minimum, on_tail, Touching(curve, -1.0, middle, -bend, -1.0, 1e4))


def _gelu_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    gate = 0.5 * (1.0 + erf(xp, x * math.sqrt(0.5)))
    return x * gate, gate + x * normal_density(xp, x)


def _gelu_tanh_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715
    bent = xp.tanh(scale * (x + cubic * x * x * x))
    inner = scale * (1.0 + 3.0 * cubic * x * x)
    return 0.5 * x * (1.0 + bent), 0.5 * (1.0 + bent) + 0.5 * x * (1.0 - bent * bent) * inner


def _silu_curve(xp: Any, x: Array) -> tuple[Array, Array]:
    gate = sigmoid(xp, x)
    return x * gate, gate + x * gate * (1.0 - gate)


GELU = _gated_unit(_gelu_curve, math.sqrt(2.0), (-0.7517915246935646, -0.16997120747990366))
GELU_TANH = _gated_unit(_gelu_tanh_curve, 1.4185040087908285, (-0.7524614220710163, -0.17004075057125403))
SILU = _gated_unit(_silu_curve, 2.399357280515468, (-1.2784645427610737, -0.2784645427610738))


def _unit(node: Node) -> _Gated:
    if node.op == "Silu":
        return SILU
    return GELU_TANH if node.attributes.get("approximate", "none") == "tanh" else GELU


@quiet
def _gated(node: Node, xs: Sequence[Array]) -> Array:
    return _unit(node).curve(array_namespace(xs[0]), xs[0])[0]


def _one_minimum(xp: Any, lower: Array, upper: Array, values: Interval, minimum: tuple[float, float]) -> Interval:
    """Range of a function that falls to one minimum and rises from it; it tends to 0 at minus infinity."""
    at_lower, at_upper = (xp.where(x == -math.inf, 0.0, y) for x, y in zip((lower, upper), values, strict=True))
    inside = (lower <= minimum[0]) & (upper >= minimum[0])
    return xp.where(inside, minimum[1], xp.minimum(at_lower, at_upper)), xp.maximum(at_lower, at_upper)


def _gated_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The range, moved by the roundoff of gates: these lose all digits on the left tail, where 1 is nearly taken from
    1, so that later allowances, relative to the value, would not cover it."""
    lower, upper = intervals[0]
    xp, minimum = array_namespace(lower), _unit(node).minimum
    values = _gated(node, [lower]), _gated(node, [upper])
    unit = 4.0 * unit_roundoff(lower)
    slack = [unit * xp.where(abs(end) < math.inf, abs(end), 0.0) for end in (lower, upper)]
    low, _ = _one_minimum(
        xp, lower, upper, (values[0] - slack[0], values[1] - slack[1]), (minimum[0], minimum[1] - unit)
    )
    _, high = _one_minimum(xp, lower, upper, (values[0] + slack[0], values[1] + slack[1]), minimum)
    return outwards(low, high)


def _gated_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """The interval is turned so that it leans to the left, by ``f(x) = x + f(-x)``."""
    turned = lower + upper > 0
    left, right = xp.where(turned, -upper, lower), xp.where(turned, -lower, upper)
    unit = _unit(node)
    below, above = _below_leaning(xp, unit, left, right, slope), _above_leaning(xp, unit, left, right, slope)
    moved = 4.0 * unit_roundoff(lower) * xp.maximum(abs(lower), abs(upper))
    return (
        (xp.where(turned, 1.0 - below[0], below[0]), below[1] - moved),
        (xp.where(turned, 1.0 - above[0], above[0]), above[1] + moved),
    )


def _above_leaning(xp: Any, unit: _Gated, lower: Array, upper: Array, slope: Array | None) -> Line:
    """Above, where ``lower + upper <= 0``: the chord, unless the left tail bulges over it; then a tangent to the
    tail.
    """
    bend = unit.bend
    at_lower, slope_lower = unit.curve(xp, lower)
    at_upper = unit.curve(xp, upper)[0]
    chord = chord_slope(xp, lower, upper, at_lower, at_upper)
    bulges = (lower < -bend) & (slope_lower > chord)
    tail_end = xp.minimum(upper, xp.maximum(lower, xp.full_like(lower, -bend)))
    all_tail = upper <= -bend
    last = xp.where(all_tail, upper, unit.on_tail.at(xp, upper, lower, tail_end, bulges))
    if slope is None:
        touch = xp.minimum(last, 0.5 * (lower + upper))
    else:
        touch = lower + slope * (last - lower)
    touch = xp.minimum(xp.maximum(touch, lower), tail_end)
    at_touch, tangent = unit.curve(xp, touch)
    touch, at_touch = xp.where(bulges, touch, lower), xp.where(bulges, at_touch, at_lower)
    k = xp.where(bulges, tangent, chord)
    return line_above(xp, k, lower, upper, (lower, at_lower), (upper, at_upper), (touch, at_touch))


def _below_leaning(xp: Any, unit: _Gated, lower: Array, upper: Array, slope: Array | None) -> Line:
    """Below, where ``lower + upper <= 0``: a tangent to the convex part that passes under the ends, or the chord
    if none does.
    """
    bend = unit.bend
    at_lower = unit.curve(xp, lower)[0]
    at_upper, slope_upper = unit.curve(xp, upper)
    chord = chord_slope(xp, lower, upper, at_lower, at_upper)
    tail = lower < -bend
    use_chord = (upper <= -bend) | (tail & (upper <= bend) & (slope_upper <= chord))
    first = xp.maximum(lower, xp.full_like(lower, -bend))
    last = xp.maximum(first, xp.minimum(upper, xp.full_like(upper, bend)))
    first_touch = xp.where(tail, unit.off_tail.at(xp, lower, first, last, tail & ~use_chord), lower)
    last_touch = xp.where(upper > bend, xp.maximum(first_touch, xp.zeros_like(upper)), upper)
    if slope is None:
        touch = xp.minimum(xp.maximum(0.5 * (lower + upper), first_touch), last_touch)
    else:
        touch = first_touch + slope * (last_touch - first_touch)
    touch = xp.minimum(xp.maximum(touch, first), last)
    at_touch, tangent = unit.curve(xp, touch)
    touch, at_touch = xp.where(use_chord, upper, touch), xp.where(use_chord, at_upper, at_touch)
    k = xp.where(use_chord, chord, tangent)
    return line_below(xp, k, lower, upper, (lower, at_lower), (upper, at_upper), (touch, at_touch))


@quiet
def _gated_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * _unit(node).curve(array_namespace(xs[0]), xs[0])[1],)


# --- HardSwish -------------------------------------------------------------------------------------------------------


def _hard_swish(node: Node, xs: Sequence[Array]) -> Array:
    # x + 3 is exact near the kink, where x / 6 + 1/2 would cancel.
    return xs[0] * ((xs[0] + 3.0) / 6.0).clip(0.0, 1.0)


@quiet
def _hard_swish_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    values = _hard_swish(node, [lower]), _hard_swish(node, [upper])
    low, high = outwards(*_one_minimum(xp, lower, upper, values, (-1.5, -0.375)))
    # On the left tail the value is 0 exactly.
    off = upper <= -3.0
    return xp.where(off, 0.0, xp.maximum(low, xp.full_like(low, -0.375))), xp.where(off, 0.0, high)


def _hard_swish_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """A parabola between straight tails that meet it in concave kinks: for any slope the extrema lie at known
    points.
    """
    left_kink = xp.minimum(xp.maximum(xp.full_like(lower, -3.0), lower), upper)
    right_kink = xp.minimum(xp.maximum(xp.full_like(lower, 3.0), lower), upper)
    points = tuple((x, _hard_swish(node, [x])) for x in (lower, left_kink, right_kink, upper))
    chord = chord_slope(xp, lower, upper, points[0][1], points[3][1])
    above = line_above(xp, chord, lower, upper, *points)
    for (start, at_start), (end, at_end) in ((points[0], points[2]), (points[1], points[3])):
        other = chord_slope(xp, start, end, at_start, at_end)
        above = better_above(xp, above, line_above(xp, other, lower, upper, *points), 0.5 * (lower + upper))
    k = _hard_swish_slope_below(xp, lower, upper, chord, slope)
    vertex = xp.minimum(xp.maximum(3.0 * k - 1.5, lower), upper)
    below = line_below(xp, k, lower, upper, *points, (vertex, _hard_swish(node, [vertex])))
    off, on = upper <= -3.0, lower >= 3.0
    exact_slope = xp.astype(on, lower.dtype)
    return (
        (xp.where(off | on, exact_slope, below[0]), xp.where(off | on, 0.0, below[1])),
        (xp.where(off | on, exact_slope, above[0]), xp.where(off | on, 0.0, above[1])),
    )


def _hard_swish_slope_below(xp: Any, lower: Array, upper: Array, chord: Array, slope: Array | None) -> Array:
    """Slope of the tangent to the parabola within what passes under the ends; the chord's if there is none.

    The tangent at t passes through ``(l, 0)`` on the left tail for ``t = l + sqrt(l (l + 3))`` and through ``(u, u)``
    on the right one for ``t = u - sqrt(u (u - 3))``.
    """
    first = xp.where(lower < -3.0, lower + xp.sqrt(xp.where(lower < -3.0, lower * (lower + 3.0), 1.0)), lower)
    last = xp.where(upper > 3.0, upper - xp.sqrt(xp.where(upper > 3.0, upper * (upper - 3.0), 1.0)), upper)
    none = (first > upper) | (last < lower) | (first > last)
    if slope is None:
        touch = xp.minimum(xp.maximum(0.5 * (lower + upper), first), last)
    else:
        touch = first + slope * (last - first)
    return xp.where(none, chord, touch / 3.0 + 0.5)


def _hard_swish_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    x = xs[0]
    parabola = (x > -3.0) & (x < 3.0)
    return (gradient * array_namespace(x).where(parabola, x / 3.0 + 0.5, (x >= 3.0) * 1.0),)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Gelu": OpRule(
            _gated,
            _gated_interval,
            relax=unary_relaxation(_gated_lines, _gated_interval),
            curved=True,
            vjp=_gated_vjp,
            summary="GELU, exact or tanh form.",
        ),
        "Silu": OpRule(
            _gated,
            _gated_interval,
            relax=unary_relaxation(_gated_lines, _gated_interval),
            curved=True,
            vjp=_gated_vjp,
            summary="x * sigmoid(x).",
        ),
        "HardSwish": OpRule(
            _hard_swish,
            _hard_swish_interval,
            relax=unary_relaxation(_hard_swish_lines, _hard_swish_interval),
            curved=True,
            vjp=_hard_swish_vjp,
            summary="x * clip(x / 6 + 1/2, 0, 1).",
        ),
    }
)
