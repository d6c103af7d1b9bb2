"""Weighted sums of a clause's rows: their coefficients, their rounding, and steps on the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arrays import array_namespace
from ..ops.arrays import surely_finite
from ..rounding import rounding

if TYPE_CHECKING:
    from ..graph import Array
    from .parameters import Mixture


def mixed_rows(mixture: Mixture, weights: Array, reach: Array) -> tuple[Array, Array, Array]:
    """The weighted sums ``[R, m]`` of the rows, their constants ``[R]``, and what rounding may have taken ``[R]`` where
    the value that they multiply is no larger than its reach ``[m]``."""
    xp = array_namespace(weights)
    rows = (weights[:, None, :] @ mixture.rows)[:, 0]
    offsets = xp.where(weights > 0, mixture.offsets, 0.0)
    constants = -xp.sum(weights * offsets, axis=1)
    # Rows may cancel in a mixture, their rounding does not.
    largest = xp.where(xp.isfinite(reach), reach, 0.0)
    size = xp.sum(weights * (abs(offsets) + abs(mixture.rows) @ largest), axis=1)
    if not surely_finite(reach):
        # A value without bounds can be multiplied by 0 alone.
        unbounded = abs(mixture.rows) @ xp.astype(~xp.isfinite(reach), size.dtype)
        size = xp.where(xp.sum(weights * unbounded, axis=1) > 0, xp.inf, size)
    return rows, constants, rounding(rows, weights.shape[1]) * size


def mixed_margin(mixture: Mixture, weights: Array, values: Array) -> Array:
    """The mixed rows' margins ``[R]`` at values ``[R, m]``."""
    xp = array_namespace(weights)
    margins = (mixture.rows @ values[:, :, None])[:, :, 0] - xp.where(weights > 0, mixture.offsets, 0.0)
    return xp.sum(weights * margins, axis=1)


def reweighted(mixture: Mixture, weights: Array, values: Array, steps: int) -> Array:
    """The weights after an exponentiated-gradient step from values ``[R, m]``; shorter the more steps there were."""
    xp = array_namespace(weights)
    margins = (mixture.rows @ values[:, :, None])[:, :, 0] - mixture.offsets
    finite = xp.where(xp.isfinite(margins), margins, 0.0)
    largest = xp.max(abs(finite), axis=1, keepdims=True)
    exponent = 0.9**steps * margins / xp.where(largest > 0, largest, 1.0)
    moved = weights * xp.exp(exponent)
    return moved / xp.sum(moved, axis=1, keepdims=True)


def spread(mixture: Mixture, weights: Array, share: float) -> Array:
    """The weights ``[R, S]`` with that share of their sum distributed evenly among the rows that are there."""
    xp = array_namespace(weights)
    present = xp.astype(xp.isfinite(mixture.offsets), weights.dtype)
    return (1.0 - share) * weights + share * present / xp.sum(present, axis=1, keepdims=True)
