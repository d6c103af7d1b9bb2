"""What becomes of boxes that stay open: they are cut by their own bounds, and halved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from .clipping import clip
from .domains import Domains, concatenate
from .stairs import part

if TYPE_CHECKING:
    from ..bounding.backward import LinearBound
    from ..graph import Array
    from ..rows import Rows
    from .input_split import SplitOptions

CLIP_AT_MOST = 64
"""Clauses up to which every open clause cuts the box; with more, the hull of the cuts is hardly smaller than the
box."""

HIDDEN_SHARE = 0.3
"""Share of the largest coefficient that every input is credited with when choosing where to split (0.01 to 1 solve
ACAS Xu alike, 0 loops)."""


def clipped(domains: Domains, bound: LinearBound, own: Rows) -> tuple[Domains, LinearBound, Rows, Array | slice]:
    """Cut every box to the hull of what its open clauses leave; boxes with nothing left are dropped, the index says
    which ones are not."""
    xp = array_namespace(domains.lower)
    if own.slots.shape[1] > CLIP_AT_MOST:
        return domains, bound, own, slice(None)
    row_low, row_high = clip(domains.lower, domains.upper, bound.coefficients, bound.constant)
    low = xp.max(own.by_clause(row_low, -xp.inf), axis=2)
    high = xp.min(own.by_clause(row_high, xp.inf), axis=2)
    low, high = xp.maximum(low, domains.lower[:, None]), xp.minimum(high, domains.upper[:, None])
    active = domains.active & ~xp.any(low > high, axis=2)
    hull_low = xp.min(xp.where(active[:, :, None], low, xp.inf), axis=1)
    hull_high = xp.max(xp.where(active[:, :, None], high, -xp.inf), axis=1)
    index = xp.nonzero(xp.any(active, axis=1))[0]
    cut = replace(domains, lower=hull_low, upper=hull_high, active=active).pick(index)
    return cut, bound.boxes(index), own.of(index), index


def scores(domains: Domains, bound: LinearBound, own: Rows) -> Array:
    """How much each input matters ``[B, n]``: coefficient times width, summed over the best row of each open clause."""
    xp = array_namespace(domains.lower)
    values = own.by_clause(bound.lower, -xp.inf)
    # A clause without rows points past the end; its coefficients do not matter.
    place = xp.argmax(values, axis=2)
    slots = xp.broadcast_to(own.slots, (place.shape[0], *own.slots.shape[1:]))
    chosen_slot = xp.take_along_axis(slots, place[:, :, None], axis=2)[:, :, 0]
    best = xp.clip(chosen_slot, None, bound.lower.shape[1] - 1)
    boxes = xp.arange(best.shape[0], **options_like(best))
    chosen = abs(bound.coefficients[boxes[:, None], best])
    chosen = xp.where(xp.isfinite(chosen), chosen, 0.0)
    # A coefficient near zero may hide a wide relaxation: every input counts for a share of the largest one.
    chosen = chosen + HIDDEN_SHARE * xp.max(chosen, axis=-1, keepdims=True)
    chosen = xp.where(domains.active[:, :, None], chosen, 0.0)
    width = domains.upper - domains.lower
    # The tiny term splits by width alone where no coefficient is left (a flat bound).
    return xp.sum(chosen, axis=1) * width + 1e-12 * width


def split(
    domains: Domains, weights: Array, options: SplitOptions, bounded: Domains | None = None
) -> tuple[Domains, Domains]:
    """Halve every box along its best input; also the boxes that have no representable midpoint left.

    Of the latter, those that were cut since they were `bounded` are children: their own bounds may decide.

    One input at a time, even while there are few boxes: splitting two or three at once fills a batch sooner but ends
    with up to six times as many boxes (linearizenn, ACAS Xu 2_7).
    """
    xp = array_namespace(domains.lower)
    middle = 0.5 * domains.lower + 0.5 * domains.upper
    splittable = (middle > domains.lower) & (middle < domains.upper)
    possible = xp.any(splittable, axis=1)
    cut = xp.zeros_like(possible)
    if bounded is not None:
        cut = ~possible & xp.any((domains.lower != bounded.lower) | (domains.upper != bounded.upper), axis=1)
    stuck = domains.pick(xp.nonzero(~possible & ~cut)[0])
    again = domains.pick(xp.nonzero(cut)[0])
    index = xp.nonzero(possible)[0]
    parents, middle = domains.pick(index), middle[index]
    axis = xp.argmax(xp.where(splittable, weights, -1.0)[index], axis=1)
    boxes = xp.arange(axis.shape[0], **options_like(axis))
    point = middle[boxes, axis]
    left_upper, right_lower = parents.upper + 0, parents.lower + 0
    left_upper[boxes, axis], right_lower[boxes, axis] = part(options.stairs, axis, point, options.whole)
    halves = [replace(parents, upper=left_upper), replace(parents, lower=right_lower)]
    return concatenate([*halves, again] if len(again) else halves), stuck
