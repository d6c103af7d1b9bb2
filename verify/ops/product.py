"""Products and quotients of two variables, and the choice between two.

Reference for the planes: McCormick, "Computability of global solutions to factorable nonconvex programs: Part I", 1976.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from ..graph import Array, Node
from .arrays import (
    defined,
    exact_where_whole,
    four_corners,
    outwards,
    quiet,
    same_batch,
    smallest,
    surely_finite,
    unit_roundoff,
)
from .convex import require
from .power import reciprocal_lines
from .rule import Interval, Lines, OpRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .lines import Line

Plane = tuple[tuple[Array, ...], Array]
"""Slopes, one an input, and intercept."""


def _mixed_planes(first: Plane, second: Plane, weight: Array | None) -> Plane:
    """``(1 - weight) * first + weight * second``; the first for None."""
    if weight is None:
        return first
    return (
        tuple(p + weight * (q - p) for p, q in zip(first[0], second[0], strict=True)),
        first[1] + weight * (second[1] - first[1]),
    )


def _settled_lines(xp: Any, below: Plane, above: Plane, bounds: Callable[[], Interval]) -> Lines:
    """The planes where all their coefficients are finite, elsewhere the constant bounds, worked out where that happens;
    one batch size throughout."""
    settled = []
    for side, plane in enumerate((below, above)):
        *slopes, intercept = same_batch((*plane[0], plane[1]))
        if not surely_finite(*slopes, intercept):
            bound = defined(*bounds())[side]
            finite = xp.isfinite(intercept)
            for slope in slopes:
                finite = finite & xp.isfinite(slope)
            slopes = [xp.where(finite, slope, 0.0) for slope in slopes]
            intercept = xp.where(finite, intercept, bound)
        settled.append((tuple(slopes), intercept))
    return Lines(settled[0][0], settled[0][1], settled[1][0], settled[1][1])


def _finite_ends(xp: Any, interval: Interval) -> tuple[Interval, Array | None]:
    """The interval with infinite ends replaced by 0, and where both were finite (None: everywhere)."""
    lower, upper = interval
    if surely_finite(lower, upper):
        return interval, None
    finite = xp.isfinite(lower) & xp.isfinite(upper)
    return (xp.where(finite, lower, 0.0), xp.where(finite, upper, 0.0)), finite


def _extent(xp: Any, interval: Interval) -> Array:
    return xp.maximum(abs(interval[0]), abs(interval[1]))


def _where_finite(xp: Any, finite: Array | None, plane: Plane) -> Plane:
    """NaN as the intercept where the plane must not be used."""
    return plane if finite is None else (plane[0], xp.where(finite, plane[1], float("nan")))


# --- Mul -------------------------------------------------------------------------------------------------------------


@quiet
def _mul(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0] * xs[1]


def _with_sign_of_product(xp: Any, a: Interval, b: Interval, bounds: Interval) -> Interval:
    """Bounds of a product or quotient, which is not negative where its factors' signs agree, nor positive where they
    differ."""
    zero = ((a[0] == 0) & (a[1] == 0)) | ((b[0] == 0) & (b[1] == 0))
    agree = ((a[0] >= 0) & (b[0] >= 0)) | ((a[1] <= 0) & (b[1] <= 0)) | zero
    differ = ((a[0] >= 0) & (b[1] <= 0)) | ((a[1] <= 0) & (b[0] >= 0)) | zero
    low, high = bounds
    return xp.where(agree, low.clip(0, None), low), xp.where(differ, high.clip(None, 0), high)


def product_bounds(a: Interval, b: Interval) -> Interval:
    """The range of the product of two intervals, rounded outwards; exact for whole numbers, not too large."""
    xp = array_namespace(*a, *b)
    bounds = _with_sign_of_product(xp, a, b, outwards(*four_corners(a, b), 1.0))
    return exact_where_whole(bounds, a, b)


@quiet
def _mul_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    return product_bounds(intervals[0], intervals[1])


def product_planes(xp: Any, a: Interval, b: Interval, weight: Array | None) -> tuple[Plane, Plane]:
    """McCormick's planes below and above ``a b`` on finite intervals.

    Below: ``bl a + al b - al bl`` and ``bu a + au b - au bu``; above: ``bu a + al b - al bu`` and ``bl a + au b - au
    bl``.
    """
    (al, au), (bl, bu) = a, b
    first, second, tiny = _extent(xp, a), _extent(xp, b), smallest(al)
    # Slopes of tiny factors may underflow.
    outwards = 4.0 * unit_roundoff(al) * first * second + tiny * (1.0 + first + second)
    below = _mixed_planes(((bl, al), -al * bl), ((bu, au), -au * bu), weight)
    above = _mixed_planes(((bu, al), -al * bu), ((bl, au), -au * bl), weight)
    return (below[0], below[1] - outwards), (above[0], above[1] + outwards)


@quiet
def _mul_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    xp = array_namespace(*(end for pair in intervals for end in pair))
    a, a_finite = _finite_ends(xp, intervals[0])
    b, b_finite = _finite_ends(xp, intervals[1])
    below, above = product_planes(xp, a, b, 0.5 if slope is None else slope)
    for finite in (a_finite, b_finite):
        below, above = _where_finite(xp, finite, below), _where_finite(xp, finite, above)
    return _settled_lines(xp, below, above, lambda: _mul_interval(node, intervals))


@quiet
def _mul_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return gradient * xs[1], gradient * xs[0]


# --- Div -------------------------------------------------------------------------------------------------------------


@quiet
def _div(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0] / xs[1]


@quiet
def _div_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The four corner quotients; where an end of the divisor is infinite the quotient tends to 0."""
    a, b = intervals
    require(node, (b[0] > 0) | (b[1] < 0), "its divisor may be zero")
    xp = array_namespace(*a, *b)
    corners = []
    for numerator in a:
        for divisor in b:
            quotient = numerator / divisor
            corners.append(quotient if surely_finite(quotient) else xp.where(xp.isfinite(divisor), quotient, 0.0))
    p, q, r, s = corners
    bounds = xp.minimum(xp.minimum(p, q), xp.minimum(r, s)), xp.maximum(xp.maximum(p, q), xp.maximum(r, s))
    return _with_sign_of_product(xp, a, b, outwards(*bounds, 1.0))


@quiet
def _div_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    """``a b`` with ``b = 1 / divisor``: a plane in a and b, then a line of the reciprocal on the side its slope
    asks for.
    """
    bounds = _div_interval(node, intervals)
    xp = array_namespace(*bounds)
    a, a_finite = _finite_ends(xp, intervals[0])
    low, high = intervals[1]
    divisor_finite = None if surely_finite(low, high) else xp.isfinite(low) & xp.isfinite(high)
    if divisor_finite is not None:
        low, high = xp.where(divisor_finite, low, 1.0), xp.where(divisor_finite, high, 1.0)
    reciprocal_below, reciprocal_above = reciprocal_lines(xp, low, high, slope)
    roundoff = unit_roundoff(low)
    inverse = (1.0 / high) - roundoff * abs(1.0 / high), (1.0 / low) + roundoff * abs(1.0 / low)
    below, above = product_planes(xp, a, inverse, 0.5 if slope is None else slope)
    below = _through_line(xp, below, reciprocal_below, reciprocal_above, (low, high))
    above = _through_line(xp, above, reciprocal_above, reciprocal_below, (low, high))
    for finite in (a_finite, divisor_finite):
        below, above = _where_finite(xp, finite, below), _where_finite(xp, finite, above)
    return _settled_lines(xp, below, above, lambda: bounds)


def _through_line(xp: Any, plane: Plane, same: Line, opposite: Line, divisor: Interval) -> Plane:
    """The plane's second slope carried through a line: the one on the same side where that slope is positive."""
    (on_a, on_inverse), intercept = plane
    positive = on_inverse >= 0
    k, c = xp.where(positive, same[0], opposite[0]), xp.where(positive, same[1], opposite[1])
    return (on_a, on_inverse * k), intercept + on_inverse * c


@quiet
def _div_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    on_a = gradient / xs[1]
    return on_a, -on_a * y


# --- Where -----------------------------------------------------------------------------------------------------------


def _where(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(*xs).where(xs[0] != 0, xs[1], xs[2])


def _decided(condition: Interval) -> tuple[Array, Array]:
    """Where the condition (0 or 1) is known to hold, and known not to."""
    return condition[0] > 0, condition[1] <= 0


def _where_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    condition, a, b = intervals
    xp = array_namespace(*a, *b)
    holds, fails = _decided(condition)
    return (
        xp.where(holds, a[0], xp.where(fails, b[0], xp.minimum(a[0], b[0]))),
        xp.where(holds, a[1], xp.where(fails, b[1], xp.maximum(a[1], b[1]))),
    )


@quiet
def _where_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    """``b + c (a - b)`` with ``d = a - b`` in ``[dl, du]`` and c in [0, 1].

    Below: ``b + dl c`` and ``a - du (1 - c)``; above: ``b + du c`` and ``a - dl (1 - c)``. Without a `slope` they are
    mixed half and half.
    """
    condition, a, b = intervals
    bounds = _where_interval(node, intervals)
    xp = array_namespace(*bounds)
    holds, fails = _decided(condition)
    a, a_finite = _finite_ends(xp, a)
    b, b_finite = _finite_ends(xp, b)
    least, most = a[0] - b[1], a[1] - b[0]
    outwards = 4.0 * unit_roundoff(least) * (_extent(xp, a) + _extent(xp, b))
    zero, one = xp.zeros_like(least), xp.ones_like(least)
    planes = []
    for first_change, second_change, sign in ((least, most, -1.0), (most, least, 1.0)):
        plane = _mixed_planes(
            ((first_change, zero, one), zero),
            ((second_change, one, zero), -second_change),
            0.5 if slope is None else slope,
        )
        plane = (plane[0], plane[1] + sign * outwards)
        for finite in (a_finite, b_finite):
            plane = _where_finite(xp, finite, plane)
        chosen = tuple(
            xp.where(holds, exact_holds, xp.where(fails, exact_fails, k))
            for k, exact_holds, exact_fails in zip(plane[0], (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), strict=True)
        )
        planes.append((chosen, xp.where(holds | fails, 0.0, plane[1])))
    return _settled_lines(xp, planes[0], planes[1], lambda: bounds)


def _where_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    xp = array_namespace(gradient)
    holds = xs[0] != 0
    return xp.zeros_like(gradient), xp.where(holds, gradient, 0.0), xp.where(holds, 0.0, gradient)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Mul": OpRule(_mul, _mul_interval, relax=_mul_relax, vjp=_mul_vjp, summary="Product of two variables."),
        "Div": OpRule(_div, _div_interval, relax=_div_relax, vjp=_div_vjp, summary="Quotient of two variables."),
        "Where": OpRule(
            _where,
            _where_interval,
            relax=_where_relax,
            vjp=_where_vjp,
            summary="The second or third input by the first.",
        ),
    }
)
