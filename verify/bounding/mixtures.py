"""Weighted sums of a clause's rows: their coefficients, their rounding, and steps on the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arrays import array_namespace

if TYPE_CHECKING:
    from ..graph import Array
    from ..ops.rule import Interval
    from .parameters import Mixture

CANCELLING = 0.25
"""The share of the rounding allowance (`interval.ROUNDING_STEPS`) for rows of a mixture that cancel."""


def mixed_rows(mixture: Mixture, weights: Array, interval: Interval | None) -> tuple[Array, Array, Array]:
    """The weighted sums ``[R, m]`` of the rows, their constants ``[R]``, and how large what they sum up can be ``[R]``
    where the value that they multiply lies in the interval (None: unknown)."""
    xp = array_namespace(weights)
    rows = (weights[:, None, :] @ mixture.rows)[:, 0]
    offsets = xp.where(weights > 0, mixture.offsets, 0.0)
    constants = -xp.sum(weights * offsets, axis=1)
    size = abs(constants)
    if weights.shape[1] > 1:
        # Rows may cancel in a mixture, their rounding does not.
        sizes = abs(offsets) + _row_sizes(mixture, interval)
        size = xp.maximum(size, CANCELLING * xp.sum(weights * sizes, axis=1))
    return rows, constants, size


def _row_sizes(mixture: Mixture, interval: Interval | None) -> Array:
    """How large the rows ``[R, S]`` can be on the boxes, summed term by term; 0 where that is unknown."""
    xp = array_namespace(mixture.rows)
    if interval is None:
        return xp.zeros_like(mixture.offsets)
    largest = xp.maximum(*(abs(end.reshape(end.shape[0], -1, 1)) for end in interval))
    return (abs(mixture.rows) @ xp.where(xp.isfinite(largest), largest, 0.0))[:, :, 0]


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
