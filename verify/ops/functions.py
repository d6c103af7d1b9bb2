"""Scalar functions that the array standard lacks, for numpy and torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace

if TYPE_CHECKING:
    from ..graph import Array

_MOST_WHOLE = 2.0**31
"""Whole exponents of this size fit every library's integers; larger ones are left floating-point numbers."""


def sigmoid(xp: Any, x: Array) -> Array:
    """``1 / (1 + exp(-x))``, with relative accuracy in the left tail."""
    return 1.0 / (1.0 + np.exp(-x)) if isinstance(x, np.ndarray) else xp.sigmoid(x)


def erf(xp: Any, x: Array) -> Array:
    """The error function."""
    if not isinstance(x, np.ndarray):
        return xp.erf(x)
    from scipy.special import erf as scipy_erf

    return scipy_erf(x)


def softplus(xp: Any, x: Array) -> Array:
    """``log(1 + exp(x))`` without overflow."""
    return xp.logaddexp(x, xp.zeros_like(x))


def power(x: Array, exponent: float) -> Array:
    """``x ** exponent``; a whole exponent stays one, so that negative bases are welcome.

    An exponent that is no number of the dtype of `x` is not rounded to one: that would change the result by many units.
    """
    if float(exponent).is_integer() and abs(exponent) < _MOST_WHOLE:
        return x ** int(exponent)
    xp = array_namespace(x)
    if x.dtype == xp.float32 and float(np.float32(exponent)) != exponent:
        return xp.astype(xp.astype(x, xp.float64) ** float(exponent), xp.float32)
    return x ** float(exponent)


def normal_density(xp: Any, x: Array) -> Array:
    """The density of the standard normal distribution."""
    return xp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def constant(x: Array) -> Array:
    """The values of ``x``, cut off from gradients: for searches whose result is a free choice."""
    return x if isinstance(x, np.ndarray) else x.detach()
