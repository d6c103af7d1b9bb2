"""Powers with a constant exponent, and the reciprocal: convex or concave on either side of 0."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from .arrays import exact_where_whole, outwards, quiet, with_sign_of
from .convex import Function, Lines2, concave_lines, convex_lines, curved_row, require
from .functions import constant, power
from .lines import mirrored, point_in
from .smooth import bent_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node
    from .rule import Interval, OpRule


def _exponent(node: Node) -> float:
    return -1.0 if node.op == "Reciprocal" else float(node.attributes["exponent"])


@quiet
def _pow(node: Node, xs: Sequence[Array]) -> Array:
    return power(xs[0], _exponent(node))


def _pow_defined(node: Node, lower: Array, upper: Array) -> None:
    exponent = _exponent(node)
    if exponent < 0:
        require(node, (lower > 0) | (upper < 0), "its input may be zero")
    if not exponent.is_integer():
        require(node, lower >= 0, "its input may be negative")


@quiet
def _pow_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    _pow_defined(node, lower, upper)
    xp = array_namespace(lower)
    exponent = _exponent(node)
    at_lower, at_upper = power(lower, exponent), power(upper, exponent)
    low, high = outwards(xp.minimum(at_lower, at_upper), xp.maximum(at_lower, at_upper))
    if exponent % 2 == 1:
        low, high = with_sign_of((lower, upper), (low, high))
    else:
        low = low.clip(0, None)
        if exponent > 0 and exponent % 2 == 0:
            low = xp.where((lower < 0) & (upper > 0), 0.0, low)
    if exponent > 0 and exponent.is_integer():
        return exact_where_whole((low, high), intervals[0])
    return low, high


def _pow_lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    _pow_defined(node, lower, upper)
    exponent = _exponent(node)

    def f(xp: Any, x: Array) -> Array:
        return power(x, exponent)

    def derivative(xp: Any, x: Array) -> Array:
        return exponent * power(x, exponent - 1.0)

    def curve(xp: Any, x: Array) -> tuple[Array, Array]:
        return -power(x, exponent), -derivative(xp, x)

    def touching(xp: Any, anchor: Array, largest: Array, needed: Array) -> Array:
        return xp.minimum(-_touching_ratio(exponent) * constant(anchor), constant(largest))

    touch = point_in(lower, upper, slope)
    if exponent in (0.0, 1.0):
        line = (xp.full_like(lower, exponent), xp.full_like(lower, 1.0 - exponent))
        return line, line
    if exponent < 0:
        return _negative_power_lines(xp, exponent, f, derivative, lower, upper, touch)
    if exponent < 1:
        return concave_lines(xp, f, derivative, lower, upper, xp.maximum(touch, 1e-3 * upper))
    if exponent.is_integer() and exponent % 2 == 1:
        below, above = bent_lines(xp, curve, touching, 0.0, lower, upper, slope)
        return mirrored(above), mirrored(below)
    return convex_lines(xp, f, derivative, lower, upper, touch)


@lru_cache(maxsize=32)
def _touching_ratio(exponent: float) -> float:
    """The t > 0 at which the tangent of ``x^n``, n odd, passes through ``(-1, -1)``: the root of ``(n - 1) t^n + n
    t^(n - 1) - 1``, by bisection; by similarity the tangent through ``(-a, -a^n)`` touches at ``a t``."""
    low, high = 0.0, 1.0
    for _ in range(48):
        t = 0.5 * (low + high)
        beyond = (exponent - 1.0) * t**exponent + exponent * t ** (exponent - 1.0) > 1.0
        low, high = (low, t) if beyond else (t, high)
    return 0.5 * (low + high)


def _negative_power_lines(
    xp: Any, exponent: float, f: Function, derivative: Function, lower: Array, upper: Array, touch: Array
) -> Lines2:
    """Convex for positive x; for negative x the mirror image of that, with the sign of an odd power."""
    negative = upper < 0
    left, right = xp.where(negative, -upper, lower), xp.where(negative, -lower, upper)
    below, above = convex_lines(xp, f, derivative, left, right, abs(touch))
    below, above = ((xp.where(negative, -slope, slope), intercept) for slope, intercept in (below, above))
    if exponent % 2 == 0:
        return below, above
    # An odd power of a negative number is negative: the lines change places.
    return (
        (xp.where(negative, -above[0], below[0]), xp.where(negative, -above[1], below[1])),
        (xp.where(negative, -below[0], above[0]), xp.where(negative, -below[1], above[1])),
    )


def reciprocal_lines(xp: Any, lower: Array, upper: Array, slope: Array | None) -> Lines2:
    """Lines of ``1 / x`` on finite intervals without 0."""
    return _negative_power_lines(
        xp,
        -1.0,
        lambda xp, x: 1.0 / x,
        lambda xp, x: (-1.0 / x) / x,
        lower,
        upper,
        point_in(lower, upper, slope),
    )


@quiet
def _pow_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    exponent = _exponent(node)
    if exponent == 0.0:
        return (array_namespace(gradient).zeros_like(gradient),)
    return (gradient * (exponent * power(xs[0], exponent - 1.0)),)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Reciprocal": curved_row(_pow, _pow_lines, _pow_vjp, "1 / x.", _pow_interval),
        "Pow": curved_row(_pow, _pow_lines, _pow_vjp, "x to a constant exponent.", _pow_interval),
    }
)
