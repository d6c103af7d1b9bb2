"""Arithmetic on parameters at load: every number as a float64, what that leaves over, and a bound on what is lost.

A network is a statement about the numbers it stores, over the reals. Merging them (a batch normalisation into a
convolution, two dense layers into one) must not say something else, so merged parameters are computed here to twice
float64's precision, with a rigorous bound on the rest: zero wherever the result is exact. Sums of two and products
follow Dekker 1971 and Knuth ("two-sum", "two-product"); matrix products are split into slices whose products float64
adds up without rounding (Ozaki et al. 2012, "Error-free transformations of matrix multiplication by using fast
routines of matrix multiplication and its applications").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Node

UNIT = 2.0**-53
"""The relative rounding error of one float64 operation."""

_SAFE = 1.0 + 2.0**-40
"""Bounds on errors are themselves computed in float64: this covers the rounding of a few operations on them."""

_TINY = 2.0**-900
"""Products smaller than this may lose bits to underflow."""

_LOST = 2.0**-1060
"""More than what a few products lose to underflow."""

_LEAST_EXPONENT = -480
"""Slices stop there, so that their products do not underflow."""

_MOST_SLICES = 5
"""Slices of a matrix; what is beyond them counts as lost."""


def one_over(number: float | np.ndarray) -> Precise:
    """The reciprocal of numbers that float64 holds."""
    return Precise.of(np.ones(())) / Precise.of(np.asarray(number))


@dataclass(frozen=True, eq=False)
class Precise:
    """An array of reals: within `error` of ``high + low``, ``|low|`` at most half a unit in the last place of `high`.

    All three are float64 arrays that broadcast to the shape of `high`.
    """

    high: np.ndarray
    low: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, array: Any, low: Any = 0.0, error: Any = 0.0) -> Precise:
        """An array of floating-point numbers or integers, exactly; or one with a remainder and an error."""
        given = np.asarray(array)
        if given.dtype.kind in "iu" and given.dtype.itemsize > 4:
            # Whole numbers beyond 2**53: each half of the bits is exact.
            halves = (given >> 32).astype(np.float64) * 2.0**32, (given & 0xFFFFFFFF).astype(np.float64)
            return cls(*_two_sum(*halves), np.zeros(()))
        return cls(given.astype(np.float64), np.asarray(low, dtype=np.float64), np.asarray(error, dtype=np.float64))

    @classmethod
    def of_fractions(cls, rows: Sequence[Sequence[Fraction]]) -> Precise:
        """A matrix of rational numbers."""
        exact = np.array([list(row) for row in rows], dtype=object)
        high = exact.astype(np.float64)
        low = (exact - _rational(high)).astype(np.float64)
        rest = abs(exact - _rational(high) - _rational(low)).astype(np.float64)
        return cls(high, low, rest * _SAFE)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    @property
    def distance(self) -> np.ndarray:
        """A bound on how far `high` alone is from the exact numbers."""
        return np.broadcast_to((abs(self.low) + self.error) * _SAFE, self.shape)

    @property
    def is_finite(self) -> bool:
        """Whether nothing has overflown."""
        return bool(np.isfinite(self.high).all() and np.isfinite(self.distance).all())

    def reshape(self, *shape: Any) -> Precise:
        """The same entries in another shape, given as numpy takes it."""
        return Precise(*(np.broadcast_to(part, self.shape).reshape(*shape) for part in self._parts()))

    def broadcast_to(self, shape: tuple[int, ...]) -> Precise:
        """The entries repeated by numpy's rules."""
        return Precise(*(np.broadcast_to(np.broadcast_to(part, self.shape), shape) for part in self._parts()))

    def repeat(self, count: int, axis: int) -> Precise:
        """Every entry along an axis several times."""
        return Precise(*(np.repeat(np.broadcast_to(part, self.shape), count, axis) for part in self._parts()))

    def transpose(self, order: Sequence[int]) -> Precise:
        """The same entries with axes permuted."""
        return Precise(*(np.broadcast_to(part, self.shape).transpose(order) for part in self._parts()))

    @property
    def T(self) -> Precise:
        """The transposed matrix."""
        return Precise(*(np.broadcast_to(part, self.shape).T for part in self._parts()))

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.high, self.low, self.error

    def __neg__(self) -> Precise:
        return Precise(-self.high, -self.low, self.error)

    def __add__(self, other: Precise) -> Precise:
        total, rest = _two_sum(self.high, other.high)
        lows, lost = _two_sum(self.low, other.low)
        low, more = _two_sum(rest, lows)
        return _normal(total, low, (self.error + other.error + abs(lost) + abs(more)) * _SAFE)

    def __sub__(self, other: Precise) -> Precise:
        return self + -other

    def __mul__(self, other: Precise) -> Precise:
        total, rest = _two_product(self.high, other.high)
        first, second = self.high * other.low, self.low * other.high
        cross = first + second
        low, more = _two_sum(rest, cross)
        lost = abs(more) + 4 * UNIT * (abs(first) + abs(second)) + 2 * abs(self.low * other.low)
        spread = _spread(self, other)
        under = np.where((abs(total) < _TINY) & (self.high != 0) & (other.high != 0), _LOST, 0.0)
        return _normal(total, low, (lost + spread) * _SAFE + under)

    def __truediv__(self, other: Precise) -> Precise:
        first = Precise.of(self.high / other.high)
        left = self - first * other
        found = first + Precise.of(left.high / other.high)
        remains = self - found * other
        least = abs(other.high) - other.distance
        lost = (abs(remains.high) + remains.distance) / np.where(least > 0, least, np.nan)
        return Precise(found.high, found.low, (found.error + lost) * _SAFE + _under(lost))

    def sqrt(self) -> Precise:
        """The square root of positive numbers."""
        first = Precise.of(np.sqrt(self.high))
        left = self - first * first
        found = first + Precise.of(left.high / (2.0 * first.high))
        remains = self - found * found
        lost = (abs(remains.high) + remains.distance) / (first.high * (1.0 - 2.0**-50))
        return Precise(found.high, found.low, (found.error + lost) * _SAFE + _under(lost))

    def sum(self, axis: int) -> Precise:
        """The sum over an axis, by halves."""
        parts = [np.moveaxis(np.broadcast_to(part, self.shape), axis, 0) for part in self._parts()]
        terms = Precise(*parts)
        if not terms.shape[0]:
            return Precise.of(np.zeros(terms.shape[1:]))
        while (count := terms.shape[0]) > 1:
            half = count // 2
            paired = terms[:half] + terms[half : 2 * half]
            terms = paired if count % 2 == 0 else _joined(paired, terms[2 * half :])
        return terms[0]

    def __getitem__(self, index: Any) -> Precise:
        return Precise(*(np.broadcast_to(part, self.shape)[index] for part in self._parts()))

    def __matmul__(self, other: Precise) -> Precise:
        """The product of two matrices."""
        inner = self.shape[1]
        bits = (53 - max(1, math.ceil(math.log2(max(inner, 1))))) // 2
        left, missed = self._sliced(bits)
        right, absent = other.T._sliced(bits)
        total = Precise.of(np.zeros((self.shape[0], other.shape[1])))
        for a in left[::-1]:
            for b in right[::-1]:
                total = total + Precise.of(a @ b.T)
        lost = total.error
        if np.any(missed):
            lost = lost + np.broadcast_to(missed, self.shape) @ (abs(other.high) + abs(other.low) + absent.T)
        if np.any(absent):
            lost = lost + (abs(self.high) + abs(self.low)) @ np.broadcast_to(absent.T, other.shape)
        return Precise(total.high, total.low, lost * (1.0 + inner * UNIT) * _SAFE)

    def _sliced(self, bits: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Matrices of few bits that add up to this one, and a bound on what they and the error leave out."""
        high, rest = _slices(self.high, bits)
        low, more = _slices(np.broadcast_to(self.low, self.shape), bits)
        return high + low, self.error + abs(rest) + abs(more)


def _spread(a: Precise, b: Precise) -> np.ndarray:
    """How far the errors of two factors carry into their product."""
    first, second = abs(a.high) + abs(a.low), abs(b.high) + abs(b.low)
    return first * b.error + second * a.error + a.error * b.error


def _under(lost: np.ndarray) -> np.ndarray:
    return np.where(lost > 0, _LOST, 0.0)


def _rational(array: np.ndarray) -> np.ndarray:
    flat = [Fraction(value) for value in array.reshape(-1).tolist()]
    made = np.empty(len(flat), dtype=object)
    made[:] = flat
    return made.reshape(array.shape)


def _joined(a: Precise, b: Precise) -> Precise:
    return Precise(
        *(
            np.concatenate((np.broadcast_to(p, a.shape), np.broadcast_to(q, b.shape)))
            for p, q in zip(a._parts(), b._parts(), strict=True)
        )
    )


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a + b`` rounded, and what the rounding left out, exactly."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _halves(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a`` as a sum of two numbers of 26 bits each."""
    big = 134217729.0 * a
    high = big - (big - a)
    return high, a - high


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a * b`` rounded, and what the rounding left out, exactly unless it underflows."""
    product = a * b
    (p, q), (r, s) = _halves(a), _halves(b)
    return product, ((p * r - product) + p * s + q * r) + q * s


def _normal(high: np.ndarray, low: np.ndarray, error: np.ndarray) -> Precise:
    return Precise(*_two_sum(high, low), np.asarray(error))


def _slices(matrix: np.ndarray, bits: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Matrices, each of whose rows holds whole numbers of at most `bits` bits times one power of two, and what they
    leave of `matrix`."""
    made: list[np.ndarray] = []
    rest = matrix
    while rest.any() and len(made) < _MOST_SLICES:
        largest = abs(rest).max(axis=1, keepdims=True)
        exponent = np.frexp(np.where(largest > 0, largest, 1.0))[1] - bits
        unit = np.ldexp(1.0, np.maximum(exponent, _LEAST_EXPONENT))
        part = np.rint(rest / unit) * unit
        made.append(part)
        rest = rest - part
    return made, rest


# --- parameters of nodes ---------------------------------------------------------------------------------------------

WITH_ERRORS = frozenset({"Constant", "Linear", "Conv", "ConvTranspose", "Scale", "ConstMatMul"})
"""Operators whose `LinearRule.parameter_error` knows of errors of their parameters."""

ROUNDOFFS = 4
"""Units of `UNIT` by which a parameter of a graph may be off, relative to itself, without a word: passes in float64
allow for more. A parameter that may be off by more has its bound beside it, as ``<key>_error``."""

_LOW, _ERROR = "_low", "_error"


def parameters(**values: Precise | None) -> dict[str, np.ndarray]:
    """Parameters of a node while it is rewritten: each number with, where it is not exact, what is left over
    (``<key>_low``) and a bound on what is lost (``<key>_error``); in float32 where that says the same."""
    made: dict[str, np.ndarray] = {}
    for key, value in values.items():
        if value is None:
            continue
        # Arithmetic on arrays without axes answers numbers.
        made[key] = np.asarray(value.high)
        if np.any(value.low) or np.any(value.error):
            made[key + _LOW] = np.array(np.broadcast_to(value.low, value.shape))
            made[key + _ERROR] = np.array(np.broadcast_to(value.error, value.shape))
            continue
        with np.errstate(over="ignore"):
            narrow = made[key].astype(np.float32)
        if np.array_equal(narrow, value.high):
            made[key] = narrow
    return made


def parameter_of(params: Mapping[str, Any], key: str) -> Precise | None:
    """A parameter of a node that is being rewritten; None where it has none of that name."""
    if key not in params:
        return None
    return Precise.of(params[key], params.get(key + _LOW, 0.0), params.get(key + _ERROR, 0.0))


def settled(node: Node) -> Node:
    """The node with its parameters as single numbers: `_low` parts go into the error, and errors that are within
    `ROUNDOFFS` of every entry go. Its attribute `rounded` says that a parameter is not the exact number."""
    keys = [key for key in node.params if key + _ERROR in node.params]
    if not keys:
        return node
    params = {key: array for key, array in node.params.items() if not key.endswith((_LOW, _ERROR))}
    for key in keys:
        found = parameter_of(node.params, key)
        assert found is not None
        # Nobody allows for a constant's rounding: its error always stays.
        if node.op == "Constant" or np.any(found.distance > ROUNDOFFS * UNIT * _SAFE**2 * abs(found.high)):
            if node.op not in WITH_ERRORS:
                raise LoadError(
                    f"node {node.name}: a parameter of {node.op} is computed from constants that nearly cancel; "
                    "store its exact value in the network."
                )
            params[key + _ERROR] = np.array(found.distance)
    return replace(
        node, params=MappingProxyType(params), attributes=MappingProxyType({**node.attributes, "rounded": True})
    )


def is_exact(node: Node) -> bool:
    """Whether a node's parameters are the very numbers that the network stores, or exact results of calculating with
    them."""
    return not node.attributes.get("rounded", False) and not any(key.endswith(_ERROR) for key in node.params)
