"""Where tangents through a given point of a curve touch it, from tables.

The touching point of the tangent through ``(a, f(a))`` depends on `a` alone, so a thousand values, interpolated,
replace an iteration for every entry. Soundness does not hang on their accuracy: whoever draws the line computes its
intercept for whichever slope comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..graph import Array
from .arrays import as_like
from .functions import constant

Curve = Callable[[Any, Array], tuple[Array, Array]]
"""Takes the namespace and x, answers f(x) and f'(x)."""

INTERVALS = 1024
"""Intervals of a table; interpolation is within 1e-4 of the touching point."""

STEPS = 48
"""Bisections when a table is built."""


@dataclass(frozen=True)
class Touching:
    """Touching points of a curve's tangents through anchors a in one direction from `origin`.

    curve      takes the namespace and x, answers f(x) and f'(x).
    sign       makes ``sign * (tangent at t evaluated at a - f(a))`` increase with t.
    bracket    for anchors (numpy, float64) the two ends between which the points lie.
    scale      +-1 for the tables over ``log(1 + d)`` of the distance ``d = scale * (a - origin)`` up to `reach`;
               anchors beyond have the last point. 0 for tables over ``-log(d)`` of ``d = a / origin`` in (0, 1],
               `reach` its largest value; anchors beyond have the point ``-inf``.
    """

    curve: Curve
    sign: float
    bracket: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    origin: float
    scale: float
    reach: float

    def at(self, xp: Any, anchor: Array, low: Array, high: Array, needed: Array) -> Array:
        """The points ``[B, *shape]``, limited to ``[low, high]``; no gradient flows through. Where one is not `needed`
        the answer is any point of the interval."""
        anchor, low, high = constant(anchor), constant(low), constant(high)
        if not isinstance(anchor, np.ndarray):
            return xp.minimum(xp.maximum(self._looked_up(xp, anchor), low), high)
        at = low.copy()
        if needed.any():
            found = self._looked_up(xp, anchor[needed])
            at[needed] = np.minimum(np.maximum(found, low[needed]), high[needed])
        return at

    def _looked_up(self, xp: Any, anchor: Array) -> Array:
        points = _table(self)
        starts, changes = as_like(points[:-1], anchor), as_like(points[1:] - points[:-1], anchor)
        if self.scale:
            place = xp.log1p((self.scale * (anchor - self.origin)).clip(0.0, self.reach))
            last = math.log1p(self.reach)
        else:
            place = -xp.log((anchor / self.origin).clip(math.exp(-self.reach), 1.0))
            last = self.reach
        place = place * (INTERVALS / last)
        # A number that is none has no place; the line drawn from it is replaced by a constant later.
        first = xp.where(place > 0, xp.floor(place), 0.0).clip(0, INTERVALS - 1)
        index = xp.astype(first, xp.int64)
        found = starts[index] + (place - first) * changes[index]
        return found if self.scale else xp.where(place < INTERVALS, found, -math.inf)


@lru_cache(maxsize=32)
def _table(touching: Touching) -> np.ndarray:
    """The touching points ``[INTERVALS + 1]`` in float64, by bisection."""
    share = np.arange(INTERVALS + 1) / INTERVALS
    if touching.scale:
        anchor = touching.origin + touching.scale * np.expm1(share * math.log1p(touching.reach))
    else:
        anchor = touching.origin * np.exp(-share * touching.reach)
    low, high = touching.bracket(anchor)
    with np.errstate(all="ignore"):
        target = touching.curve(np, anchor)[0]
        for _ in range(STEPS):
            at = 0.5 * (low + high)
            value, slope = touching.curve(np, at)
            beyond = touching.sign * (value + slope * (anchor - at) - target) > 0
            low, high = np.where(beyond, low, at), np.where(beyond, at, high)
    return 0.5 * (low + high)
