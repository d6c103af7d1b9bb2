"""Step functions: signs, comparisons with zero, and rounding to whole numbers. Their gradients are zero."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from .arrays import smallest, unit_roundoff
from .lines import Line, better_above, better_below, mixed, padding, unary_relaxation
from .rule import Interval, OpRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Array, Node

Lines2 = tuple[Line, Line]


def _zero_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (array_namespace(gradient).zeros_like(gradient),)


def _increasing_interval(
    evaluate: Callable[[Node, Sequence[Array]], Array],
) -> Callable[[Node, Sequence[Interval]], Interval]:
    """The interval of a non-decreasing function: its values at the ends."""

    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        return evaluate(node, [lower]), evaluate(node, [upper])

    return interval


def _reciprocal_below(x: Array) -> Array:
    """At most ``1 / x`` for positive ``x``, 0 elsewhere; never infinite."""
    positive = x > smallest(x)
    return positive / array_namespace(x).where(positive, x, 1.0) * (1.0 - 2.0 * unit_roundoff(x))


# --- comparisons with zero -------------------------------------------------------------------------------------------


def _is_positive(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).astype(xs[0] > 0, xs[0].dtype)


def _is_non_negative(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).astype(xs[0] >= 0, xs[0].dtype)


def _step_lines(xp: Any, lower: Array, upper: Array, slope: Array | None, always: Array, never: Array) -> Lines2:
    """Lines of a step from 0 to 1 at 0 that is 1 on all of the interval where `always`, 0 where `never`.

    Between, a line below runs through (0, 0) and reaches at most (upper, 1); one above through (0, 1), at most
    (lower, 0).
    """
    if slope is None:
        rise_below, rise_above = upper > -lower, upper < -lower
    else:
        rise_below = rise_above = slope
    undecided = ~(always | never)
    below = xp.where(undecided, _reciprocal_below(upper) * rise_below, 0.0)
    above = xp.where(undecided, _reciprocal_below(-lower) * rise_above, 0.0)
    return (below, xp.astype(always, lower.dtype)), (above, xp.astype(~never, lower.dtype))


def _is_positive_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    return _step_lines(xp, lower, upper, slope, lower > 0, upper <= 0)


def _is_non_negative_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    return _step_lines(xp, lower, upper, slope, lower >= 0, upper < 0)


def _sign(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).sign(xs[0])


def _sign_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """``sign x = [x > 0] + [x >= 0] - 1``."""
    first = _is_positive_lines(xp, node, lower, upper, slope)
    second = _is_non_negative_lines(xp, node, lower, upper, slope)
    below, above = ((p[0] + q[0], p[1] + q[1] - 1.0) for p, q in zip(first, second, strict=True))
    return below, above


def _is_zero(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).astype(xs[0] == 0, xs[0].dtype)


def _is_zero_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    return (
        xp.astype((lower == 0) & (upper == 0), lower.dtype),
        xp.astype((lower <= 0) & (upper >= 0), lower.dtype),
    )


def _is_zero_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """Above: a line through (0, 1) that is nowhere negative; below: the constant."""
    low, high = _is_zero_interval(node, [(lower, upper)])
    weight = 1.0 if slope is None else slope
    falls = xp.where(upper > -lower, -_reciprocal_below(upper), _reciprocal_below(-lower))
    return (xp.zeros_like(lower), low), (xp.where((high > 0) & (low < 1), falls * weight, 0.0), high)


# --- whole numbers ---------------------------------------------------------------------------------------------------


def _floor(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).floor(xs[0])


def _ceil(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).ceil(xs[0])


def _round(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(xs[0]).round(xs[0])


def _staircase_lines(
    xp: Any, lower: Array, upper: Array, slope: Array | None, bounds: Interval, offsets: tuple[float, float]
) -> Lines2:
    """Of ``x + offsets[0] <= f(x) <= x + offsets[1]`` and the constant bounds: the better at the centre, or their
    mixture.
    """
    one, zero = xp.ones_like(lower), xp.zeros_like(lower)
    diagonals = tuple((one, xp.full_like(lower, offset)) for offset in offsets)
    constants = tuple((zero, bound) for bound in bounds)
    if slope is None:
        centre = 0.5 * (lower + upper)
        return (
            better_below(xp, constants[0], diagonals[0], centre),
            better_above(xp, constants[1], diagonals[1], centre),
        )
    below, above = mixed(constants[0], diagonals[0], slope), mixed(constants[1], diagonals[1], slope)
    outwards = padding(xp, lower, upper, below[0], *bounds)
    return (below[0], below[1] - outwards), (above[0], above[1] + outwards)


def _floor_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    return _staircase_lines(xp, lower, upper, slope, (xp.floor(lower), xp.floor(upper)), (-1.0, 0.0))


def _ceil_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    below, above = _floor_lines(xp, node, -upper, -lower, slope)
    return (above[0], -above[1]), (below[0], -below[1])


def _round_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    return _staircase_lines(xp, lower, upper, slope, (xp.round(lower), xp.round(upper)), (-0.5, 0.5))


def _row(
    evaluate: Callable[[Node, Sequence[Array]], Array],
    lines: Callable[..., Lines2],
    summary: str,
    interval: Callable[[Node, Sequence[Interval]], Interval] | None = None,
) -> OpRule:
    interval = interval or _increasing_interval(evaluate)
    return OpRule(
        evaluate=evaluate,
        interval=interval,
        relax=unary_relaxation(lines, interval),
        vjp=_zero_vjp,
        summary=summary,
    )


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Sign": _row(_sign, _sign_lines, "-1, 0 or 1."),
        "IsPositive": _row(_is_positive, _is_positive_lines, "1 where x > 0, else 0."),
        "IsNonNegative": _row(_is_non_negative, _is_non_negative_lines, "1 where x >= 0, else 0."),
        "IsZero": _row(_is_zero, _is_zero_lines, "1 where x = 0, else 0.", _is_zero_interval),
        "Floor": _row(_floor, _floor_lines, "The largest whole number up to x."),
        "Ceil": _row(_ceil, _ceil_lines, "The smallest whole number from x."),
        "Round": _row(_round, _round_lines, "The nearest whole number, ties to even."),
    }
)
