"""Bounds on one form, and their intersection."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class Interval(NamedTuple):
    """``lower <= form <= upper``, ``<`` where strict."""

    lower: float
    lower_strict: bool
    upper: float
    upper_strict: bool

    @property
    def is_empty(self) -> bool:
        """No number satisfies both bounds."""
        return self.lower > self.upper or (self.lower == self.upper and (self.lower_strict or self.upper_strict))

    def meet(self, relation: str, bound: float) -> Interval:
        """The interval of the numbers in this one for which ``number relation bound``."""
        lower, lower_strict, upper, upper_strict = self
        if relation in ("<=", "<", "=="):
            strict = relation == "<"
            if bound < upper or (bound == upper and strict):
                upper, upper_strict = bound, strict
        if relation in (">=", ">", "=="):
            strict = relation == ">"
            if bound > lower or (bound == lower and strict):
                lower, lower_strict = bound, strict
        return Interval(lower, lower_strict, upper, upper_strict)


EVERYTHING = Interval(-inf, False, inf, False)
