"""Domain clipping: cutting a box with linear lower bounds of the rows of a clause.

A point is unsafe for a clause only if every row has ``C f(x) - d <= 0``, so only if ``a . x + c <= 0`` for each
linear lower bound ``a . x + c <= C f(x) - d``. On the box this bounds every coordinate: ``a_i x_i <= -c - min over
the others``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arrays import array_namespace
from ..rounding import rounding

if TYPE_CHECKING:
    from ..graph import Array


def clip(lower: Array, upper: Array, coefficients: Array, constant: Array) -> tuple[Array, Array]:
    """The parts of boxes ``[B, n]`` where each row of ``coefficients . x + constant`` (``[B, S, n]``, ``[B, S]``) can
    be <= 0.

    Returns ``[B, S, n]`` ends for each row on its own, widened by the rounding of their computation, never beyond the
    box. An empty part shows as lower > upper.
    """
    xp = array_namespace(coefficients)
    low, high = lower[:, None, :], upper[:, None, :]
    at_low, at_high = coefficients * low, coefficients * high
    least = xp.minimum(at_low, at_high)
    terms = xp.sum(xp.maximum(abs(at_low), abs(at_high)), axis=-1) + abs(constant)
    share = 2.0 * rounding(coefficients, coefficients.shape[2])
    rest = (xp.sum(least, axis=-1) + constant)[:, :, None] - least - share * terms[:, :, None]
    # Coefficients too small against the row's terms say nothing about their coordinate.
    weight = abs(coefficients)
    usable = weight * (high - low) > share * terms[:, :, None]
    edge = xp.where(usable, -rest / xp.where(usable, coefficients, 1.0), 0.0)
    slack = share * abs(edge)
    new_high = xp.where(usable & (coefficients > 0), xp.minimum(high, edge + slack), high)
    new_low = xp.where(usable & (coefficients < 0), xp.maximum(low, edge - slack), low)
    return new_low, new_high
