"""What floating-point arithmetic may have taken from a sum: the one place that knows.

A sum of n products, added up in any order, is off by at most about ``n u`` times the sum of the products' magnitudes,
where u is the unit roundoff of the element type (Higham 2002, "Accuracy and Stability of Numerical Algorithms",
section 3.1). Every bound gives that away, with the magnitude of *every* term: a sum may cancel, its rounding does not.

Up to `SHORT` terms the allowance covers that worst case, in which every rounding is as large as it can be and all point
the same way. The roundings of a longer sum of different numbers do not: there the allowance grows with the square root
of the number of terms (Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"; the deviation of
one rounding is ``u / sqrt(3)`` at most), and the errors of `MANY` sums that a bound adds up grow with the root of the
sum of their squares. (With n u for all sums, added up, a CIFAR residual network would lose 0.8 of margins of 1 to 2.)

Sums of equal numbers, and of many that are tiny beside one of them, do round the same way (784 equal terms: 98 u in a
matrix product). Layers whose weights are of that kind are `irregular`, and get the worst case at any length.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UnsupportedError

if TYPE_CHECKING:
    from .graph import Array

SHORT = 16
"""Terms up to which the allowance covers the worst case, in which every rounding is as large as it can be and all point
the same way."""

MANY = 128
"""Sums from which on, added to one bound, their errors are taken to be independent."""

DEVIATIONS = 4.0
"""What the errors of many sums add up to, in the root of the sum of their squared allowances."""

SAMPLE = 4096
"""Weights of a layer that are looked at to tell whether they are different from each other."""

LARGEST = 1 << 20
"""Weights in the rows of a layer that are looked at to tell whether many are tiny."""

TINY = 2.0**-20
"""Weights below this share of the largest in their row or column are tiny beside it, and many if they add up to more
than this share of all."""

FEW = 12
"""Roundings around a sum (scaling a coefficient, taking it through a relaxation, adding the sum to others) that are
counted with it."""

WHOLE_BELOW = 2.0**22
"""Whole numbers of this size add up exactly in every element type of the table."""


class ElementType:
    """What bounds need to know of a floating-point type.

    unit       the largest relative error of one rounding (half the distance from 1 to the next larger number).
    smallest   the smallest positive normal number.
    largest    the largest finite number.
    """

    __slots__ = ("largest", "smallest", "unit")

    def __init__(self, bits: int, exponent: int) -> None:
        self.unit = 2.0**-bits
        self.smallest = 2.0 ** (1 - exponent)
        self.largest = (2.0 - 2.0 * self.unit) * 2.0**exponent


ELEMENT_TYPES = {"float32": ElementType(24, 127), "float64": ElementType(53, 1023)}
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


def irregular(weight: np.ndarray) -> bool:
    """Whether sums of products with these weights may round the same way many times: the weights repeat, or many are
    tiny beside the largest."""
    if weight.size <= SHORT:
        return False
    flat = weight.reshape(-1)
    sample = flat[:: max(1, flat.size // SAMPLE)]
    sample = sample[sample != 0]
    # Numbers that differ by powers of two round alike.
    if sample.size > SHORT and np.unique(abs(np.frexp(sample)[0])).size < 0.5 * sample.size:
        return True
    matrix = weight.reshape(weight.shape[0], -1)
    matrix = abs(matrix[:: max(1, matrix.size // LARGEST)])
    for axis in (0, 1):
        tiny = np.where(matrix < TINY * matrix.max(axis=axis, keepdims=True), matrix, 0)
        if bool((tiny.sum(axis=axis) > TINY * matrix.sum(axis=axis)).any()):
            return True
    return False


def worst_case(terms: int) -> int:
    """So many terms that a sum of this many gets the allowance of the worst case."""
    return max(terms, terms * terms)


def roundings(terms: int) -> float:
    """How many unit roundoffs a sum of so many terms may be off, relative to the sum of their magnitudes."""
    return FEW + (terms if terms <= SHORT else max(SHORT, math.sqrt(terms)))


def together(squares: Array) -> Array:
    """What the errors of many independent sums of a regular layer add up to, in units of the allowance for one:
    `squares` is the sum of the squares of the sums' sizes."""
    return DEVIATIONS * squares**0.5


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
