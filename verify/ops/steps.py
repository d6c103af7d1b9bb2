"""Step functions: signs, comparisons with zero, and rounding to whole numbers.

Their gradients are zero, which leads an attack nowhere. So `vjp` answers the gradient of a smooth function beside the
step (a surrogate gradient: Bengio, Leonard and Courville 2013, "Estimating or Propagating Gradients Through Stochastic
Neurons"; a bell in place of their cut-off identity): attacks follow it, and nothing else does.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from .arrays import quiet, smallest, unit_roundoff
from .lines import Line, better_above, better_below, mixed, padding, unary_relaxation
from .rule import Interval, OpRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Array, Node

Lines2 = tuple[Line, Line]


@quiet
def _bell(x: Array) -> tuple[Array, Array]:
    """``exp(-(x/s)^2 / 2)`` and ``1/s``, where s is half the average size of the entries of `x` that a point ``[B]``
    has: a step matters to an entry the more, the nearer it is for this layer. (On random networks with two layers of
    steps, a third and the whole of the size lead less far, twice the size much less.)"""
    xp = array_namespace(x)
    size = xp.mean(abs(x).reshape(x.shape[0], -1), axis=1).reshape(-1, *(1,) * (len(x.shape) - 1))
    inverse = 2.0 / xp.where((size > smallest(x)) & xp.isfinite(size), size, 1.0)
    return xp.exp(-0.5 * (x * inverse) ** 2), inverse


@quiet
def _step_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    """Beside a step at zero: an integral of the bell."""
    bell, inverse = _bell(xs[0])
    return (gradient * bell * inverse,)


@quiet
def _is_zero_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    """Beside a peak at zero: the bell itself."""
    bell, inverse = _bell(xs[0])
    return (-gradient * bell * inverse * (xs[0] * inverse),)


def _stairs_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    """Beside stairs: the diagonal."""
    return (gradient,)


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
    vjp: Callable[[Node, Sequence[Array], Array, Array], tuple[Array, ...]],
    summary: str,
    interval: Callable[[Node, Sequence[Interval]], Interval] | None = None,
) -> OpRule:
    interval = interval or _increasing_interval(evaluate)
    return OpRule(
        evaluate=evaluate,
        interval=interval,
        relax=unary_relaxation(lines, interval),
        vjp=vjp,
        summary=summary,
    )


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Sign": _row(_sign, _sign_lines, _step_vjp, "-1, 0 or 1."),
        "IsPositive": _row(_is_positive, _is_positive_lines, _step_vjp, "1 where x > 0, else 0."),
        "IsNonNegative": _row(_is_non_negative, _is_non_negative_lines, _step_vjp, "1 where x >= 0, else 0."),
        "IsZero": _row(_is_zero, _is_zero_lines, _is_zero_vjp, "1 where x = 0, else 0.", _is_zero_interval),
        "Floor": _row(_floor, _floor_lines, _stairs_vjp, "The largest whole number up to x."),
        "Ceil": _row(_ceil, _ceil_lines, _stairs_vjp, "The smallest whole number from x."),
        "Round": _row(_round, _round_lines, _stairs_vjp, "The nearest whole number, ties to even."),
    }
)
