"""Continuous piecewise-linear functions of one variable with many pieces, the same for all entries of a node.

The table is in the attributes, so that it stays in float64 whatever dtype the graph's parameters are converted to:
``knots`` (ascending) and ``values`` at them, and ``slopes``, one more, of the pieces between and beyond.

The best line below such a function on an interval that touches the lower envelope at a given point runs through two
points of the graph, one on each side; they are found by turning a chord about the point that lies farthest below it.
Whatever slope comes out, the intercept is the minimum of ``f(x) - slope x`` over the kinks and ends.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from .arrays import as_like, defined, product, quiet, smallest, unit_roundoff
from .lines import Line, chord_slope, mirrored, point_in, unary_relaxation
from .rule import Interval, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node

TURNS = 6
"""How often a chord is turned: later turns hardly move it (tables of 54 pieces)."""

ROUNDINGS = 32.0
"""Roundoffs, of the largest terms, by which values and knots in the dtype of the computation may be off."""


def _table(node: Node, like: Array) -> tuple[Array, Array, Array]:
    """Knots ``[K]``, values ``[K]`` and slopes ``[K + 1]`` in the library and dtype of `like`."""
    knots, values, slopes = (as_like(np.asarray(node.attributes[key]), like) for key in ("knots", "values", "slopes"))
    return knots, values, slopes


def _piece(node: Node, x: Array) -> Array:
    """The index of the piece that each entry lies on."""
    xp = array_namespace(x)
    return xp.searchsorted(_table(node, x)[0], x.reshape(-1)).reshape(x.shape)


@quiet
def _evaluate(node: Node, xs: Sequence[Array]) -> Array:
    (x,) = xs
    knots, values, slopes = _table(node, x)
    piece = _piece(node, x)
    start = (piece - 1).clip(0)
    return values[start] + product(slopes[piece], x - knots[start])


def _vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * _table(node, xs[0])[2][_piece(node, xs[0])],)


def _graph(node: Node, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """The points ``[K + 2, B, *shape]`` of the ends and of the kinks between them (kinks beyond stand for the next
    end), the values there, and what these may be off by ``[B, *shape]``."""
    xp = array_namespace(lower)
    knots, values, slopes = _table(node, lower)
    at_lower, at_upper = _evaluate(node, [lower]), _evaluate(node, [upper])
    rank = (-1,) + (1,) * lower.ndim
    kinks = knots.reshape(rank)
    before, after = kinks <= lower, kinks >= upper
    points = xp.where(before, lower, xp.where(after, upper, kinks))
    heights = xp.where(before, at_lower, xp.where(after, at_upper, values.reshape(rank)))
    largest = float(abs(values).max()) + float(abs(slopes).max()) * float(abs(knots).max())
    off = ROUNDINGS * unit_roundoff(lower) * (largest + abs(at_lower) + abs(at_upper)) + smallest(lower)
    return (
        xp.concat([lower[None], points, upper[None]], axis=0),
        xp.concat([at_lower[None], heights, at_upper[None]], axis=0),
        off,
    )


@quiet
def _interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    xp = array_namespace(intervals[0][0])
    _, heights, off = _graph(node, *intervals[0])
    return defined(xp.min(heights, axis=0) - off, xp.max(heights, axis=0) + off)


def _lines(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
    """The envelope's lines at the point of the interval that `slope` names, the middle for None."""
    points, heights, off = _graph(node, lower, upper)
    touch = point_in(lower, upper, slope)
    if touch.ndim > lower.ndim:
        points, heights = points[:, None], heights[:, None]
    shape = (points.shape[0], *touch.shape)
    points, heights = xp.broadcast_to(points, shape), xp.broadcast_to(heights, shape)
    reach = xp.maximum(abs(lower), abs(upper))
    below = _supporting(xp, points, heights, touch, off, reach)
    return below, mirrored(_supporting(xp, points, -heights, touch, off, reach))


def _supporting(xp: Any, points: Array, heights: Array, touch: Array, off: Array, reach: Array) -> Line:
    """The line under all points ``[P, ...]`` that is highest at `touch`, or nearly so."""
    left, right = (points[0], heights[0]), (points[-1], heights[-1])
    for _ in range(TURNS):
        turned = chord_slope(xp, left[0], right[0], left[1], right[1])
        lowest = xp.argmin(heights - turned * points, axis=0)[None]
        found = tuple(xp.take_along_axis(x, lowest, axis=0)[0] for x in (points, heights))
        # The end itself stays on its side, where a chord of no width would have no slope.
        to_left = (found[0] <= touch) & (found[0] < points[-1])
        left = tuple(xp.where(to_left, new, old) for new, old in zip(found, left, strict=True))
        right = tuple(xp.where(to_left, old, new) for new, old in zip(found, right, strict=True))
    steep = chord_slope(xp, left[0], right[0], left[1], right[1])
    intercept = xp.min(heights - steep * points, axis=0)
    return steep, intercept - off - ROUNDINGS * unit_roundoff(reach) * abs(steep) * reach


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Piecewise": OpRule(
            evaluate=_evaluate,
            interval=_interval,
            relax=unary_relaxation(_lines, _interval),
            curved=True,
            vjp=_vjp,
            summary="A continuous function of straight pieces, from sums of ReLUs of one variable.",
        )
    }
)
