"""The boxes of clauses: one object for each region, every side finite."""

from __future__ import annotations

from math import inf, isfinite, isinf, nextafter
from typing import TYPE_CHECKING

import numpy as np

from .errors import SpecError
from .property import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from fractions import Fraction

    from .formula import Key
    from .interval import Interval


class Boxes:
    """Makes the boxes of a property's clauses; equal boxes are one object.

    Args:
        lower, upper: float64 ``[n]``, the bounds that hold in all clauses; infinite where there are none.
        describe: how to name a free input in a message.
        source_name: for messages.
    """

    def __init__(self, lower: np.ndarray, upper: np.ndarray, describe: Callable[[int], str], source_name: str) -> None:
        self.base = Box(lower, upper)
        self.describe = describe
        self.source_name = source_name
        self.base_is_finite = bool(np.isfinite(lower).all() and np.isfinite(upper).all())
        self.made: dict[tuple[bytes, bytes, bytes], Box] = {}

    def box(
        self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray, forms: Mapping[Key, Interval]
    ) -> Box | None:
        """The base with the sides of some inputs replaced.

        Args:
            columns: int64 ``[k]``, the inputs; `lower`, `upper`: float64 ``[k]``, their sides.
            forms: all bounds of the clause; from linear ones over inputs, missing sides are derived.

        Returns:
            The box, or None if the derived sides show it to be empty.

        Raises:
            SpecError: if a side stays infinite.
        """
        if not len(columns) and self.base_is_finite:
            return self.base
        key = (columns.tobytes(), lower.tobytes(), upper.tobytes())
        known = self.made.get(key)
        if known is not None:
            return known
        box = Box(self.base.lower.copy(), self.base.upper.copy())
        box.lower[columns] = lower
        box.upper[columns] = upper
        if self.base_is_finite or (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
            self.made[key] = box
            return box
        derive_missing_sides(box.lower, box.upper, forms)
        self._require_finite(box)
        return None if (box.lower > box.upper).any() else box

    def _require_finite(self, box: Box) -> None:
        for side, values in (("lower", box.lower), ("upper", box.upper)):
            missing = np.flatnonzero(~np.isfinite(values))
            if len(missing):
                more = f" (nor have {len(missing) - 1} more inputs)" if len(missing) > 1 else ""
                raise SpecError(
                    f"{self.source_name}: input {self.describe(int(missing[0]))} has no {side} bound{more}; "
                    "every input must be bounded on both sides in every disjunct"
                )


def derive_missing_sides(lower: np.ndarray, upper: np.ndarray, forms: Mapping[Key, Interval]) -> None:
    """Fill infinite sides in place, as far as linear forms over inputs imply finite ones (rounded outwards).

    For ``sum_i c_i x_i <= u``: ``c_j x_j <= u - sum_{i != j} min(c_i x_i)``; repeated until nothing changes.
    """
    if np.isfinite(lower).all() and np.isfinite(upper).all():
        return
    count = len(lower)
    rows = [
        row
        for key, interval in forms.items()
        if not isinstance(key, int) and all(len(monomial) == 1 and monomial[0] < count for monomial, _ in key)
        for row in _upper_bounds([(monomial[0], value) for monomial, value in key], interval)
    ]
    changed = True
    while changed:
        rows = [row for row in rows if any(isinf(lower[v]) or isinf(upper[v]) for v, _ in row[0])]
        changed = sum(_derive(lower, upper, terms, bound) for terms, bound in rows) > 0


def _upper_bounds(
    terms: list[tuple[int, float]], interval: Interval
) -> Iterable[tuple[list[tuple[int, float]], float]]:
    """The interval as rows ``terms <= bound``."""
    if isfinite(interval.upper):
        yield terms, interval.upper
    if isfinite(interval.lower):
        yield [(variable, -value) for variable, value in terms], -interval.lower


def _derive(lower: np.ndarray, upper: np.ndarray, terms: list[tuple[int, float]], bound: float) -> bool:
    """Fill at most one side of one input from one row; whether one was filled."""
    from fractions import Fraction

    smallest = [float(lower[variable] if value > 0 else upper[variable]) for variable, value in terms]
    unknown = [index for index, side in enumerate(smallest) if not isfinite(side)]
    if len(unknown) > 1:
        return False
    total = sum(
        (Fraction(value) * Fraction(side) for (_, value), side in zip(terms, smallest, strict=True) if isfinite(side)),
        Fraction(bound) * 0,
    )
    for index in unknown or range(len(terms)):
        variable, value = terms[index]
        own = 0 if unknown else Fraction(value) * Fraction(smallest[index])
        side = (Fraction(bound) - total + own) / Fraction(value)
        if value > 0 and upper[variable] == inf:
            upper[variable] = _outwards(side, inf)
            return bool(isfinite(upper[variable]))
        if value < 0 and lower[variable] == -inf:
            lower[variable] = _outwards(side, -inf)
            return bool(isfinite(lower[variable]))
    return False


def _outwards(value: Fraction, direction: float) -> float:
    """The nearest float64 on the side of `direction`, infinite if there is none."""
    try:
        nearest = float(value)
    except OverflowError:
        return direction
    inside = nearest < value if direction > 0 else nearest > value
    return nextafter(nearest, direction) if inside else nearest
