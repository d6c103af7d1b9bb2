"""What floating-point arithmetic may have taken from a sum: the one place that knows.

A sum of n products, added up in any order, is off by at most about ``n u`` times the sum of the products' magnitudes,
where u is the unit roundoff of the element type (Higham 2002, "Accuracy and Stability of Numerical Algorithms",
section 3.1). Every bound gives that away, with the magnitude of *every* term: a sum may cancel, its rounding does not.

Libraries add long sums in blocks and in several lanes, and the roundings of long sums do not all point the same way,
so that from `LONG` terms on the allowance grows with the square root of their number (Higham & Mary 2019, "A New
Approach to Probabilistic Rounding Error Analysis": a factor of ``lambda sqrt(n)``, here with lambda above 11, holds but
for a probability below 1e-20).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .graph import Array

LONG = 128
"""Terms from which on the allowance grows with the square root of their number."""

FEW = 8
"""Roundings around a sum (scaling a coefficient, taking it through a relaxation, adding the sum to others) that are
counted with it."""

WHOLE_BELOW = 2.0**22
"""Whole numbers of this size add up exactly in every element type of the table."""


class ElementType:
    """What bounds need to know of a floating-point type.

    unit       the largest relative error of one rounding (half the distance from 1 to the next larger number).
    smallest   the smallest positive normal number.
    """

    __slots__ = ("smallest", "unit")

    def __init__(self, bits: int, exponent: int) -> None:
        self.unit = 2.0**-bits
        self.smallest = 2.0**exponent


ELEMENT_TYPES = {"float32": ElementType(24, -126), "float64": ElementType(53, -1022)}
"""The types that bounds are computed in, by name."""


@lru_cache(maxsize=64)
def element_type(dtype: Any) -> ElementType:
    """The row of a numpy or torch dtype. Raises `UnsupportedError` for a type that bounds are not computed in."""
    name = str(dtype).removeprefix("torch.")
    known = ELEMENT_TYPES.get(name)
    if known is None:
        allowed = " or ".join(ELEMENT_TYPES)
        raise UnsupportedError(f"bounds are computed in {allowed}, not in {name}; convert the tensors")
    return known


def roundings(terms: int) -> float:
    """How many unit roundoffs a sum of so many terms may be off, relative to the sum of their magnitudes."""
    return FEW + (terms if terms <= LONG else math.sqrt(LONG * terms))


def rounding(x: Array, terms: int) -> float:
    """The relative allowance for a sum of so many terms in the dtype of `x`. Raises `UnsupportedError`."""
    return element_type(x.dtype).unit * roundings(terms)


def unit_roundoff(x: Array) -> float:
    """The distance from 1 to the next larger number of the dtype of `x`: twice the largest error of one rounding.
    Raises `UnsupportedError`."""
    return 2.0 * element_type(x.dtype).unit


def smallest(x: Array) -> float:
    """The smallest positive normal number of the dtype of `x`. Raises `UnsupportedError`."""
    return element_type(x.dtype).smallest
