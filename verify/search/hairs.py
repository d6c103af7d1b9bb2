"""Clauses that only rounding keeps open: float32's bounds fall short of zero by no more than their allowance for it.

Splitting does not help there, for all parts may be as close: properties of ML4ACOPF ask for the range of a bounded
output to 1e-6, and the balance of a power grid is the small difference of large flows. float64 gives away a billionth
as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arrays import array_namespace
from ..bounding.crown import allowance

if TYPE_CHECKING:
    from ..bounding.backward import LinearBound, Relaxed
    from ..bounding.narrow import Narrowed
    from ..graph import Array
    from ..rows import Rows

HAIR = 2.0
"""Bounds that are short by up to so many times their own allowance are left to another dtype: bounds of intermediate
values gave away theirs before."""


def nearly_refuted(state: Relaxed | Narrowed, bound: LinearBound, own: Rows) -> Array:
    """The clauses ``[B, K]`` with a row that is short of refuting them by no more than rounding may have taken; `own`
    are the rows of the batch's boxes."""
    return own.strongest(_at_most(state, bound, own)) > 0


def nearly_tied(state: Relaxed | Narrowed, bound: LinearBound, own: Rows) -> Array:
    """The clauses ``[B, K]`` with a strict row that 0 would refute, and whose bound is 0 but for rounding."""
    xp = array_namespace(state.lower)
    return own.strongest(xp.where(own.strict, _at_most(state, bound, own), -xp.inf)) >= 0


def _at_most(state: Relaxed | Narrowed, bound: LinearBound, own: Rows) -> Array:
    """What the bounds ``[B, S]`` would be at most without rounding; minus infinity for padding and what overflowed,
    which are not near to anything."""
    xp = array_namespace(state.lower)
    hair = HAIR * allowance(state, bound, own.rows, own.offsets)
    return xp.where(xp.isfinite(hair), bound.lower + hair, -xp.inf)
