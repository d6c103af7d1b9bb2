"""Small helpers shared by all operator families: dtypes, infinities, batch axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from ..rounding import element_type
from ..rounding import smallest as smallest
from ..rounding import unit_roundoff as unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Node

quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Decorator: infinities are legitimate here, so numpy must not warn about the intermediate NaN that are replaced."""


def as_like(value: Array, x: Array) -> Array:
    """`value` in the library, dtype and device of `x` (no copy where it already is; gradients flow through)."""
    if isinstance(x, np.ndarray):
        return np.asarray(value, dtype=x.dtype)
    if isinstance(value, np.ndarray | float | int):
        value = array_namespace(x).asarray(value)
    return value.to(dtype=x.dtype, device=x.device)


def parameter(node: Node, key: str, like: Array) -> Array:
    """`node.params[key]` in the library, dtype and device of `like` (no copy where it already is)."""
    return as_like(node.params[key], like)


def index_parameter(node: Node, key: str, like: Array) -> Array:
    """`node.params[key]` as integers in the library and on the device of `like`."""
    value = node.params[key]
    if type(value) is type(like):
        return value
    return array_namespace(like).asarray(value, device=like.device)


LIBRARY_UNITS = 4.0
"""Units of roundoff of its value by which an elementary function of numpy, scipy or torch may be off. (The worst that
they state is 3.83 for numpy's float32 logarithm, and 4 for CUDA's power and tangent.)"""


WHOLE_BELOW = 2.0**19
"""Whole numbers of this size are the nearest ones to what is computed for them, in float32, too."""


def smallest_subnormal(x: Array) -> float:
    """The smallest positive number of the dtype of `x`."""
    return smallest(x) * unit_roundoff(x)


def largest(x: Array) -> float:
    """The largest finite number of the dtype of `x`."""
    return element_type(x.dtype).largest


@quiet
def outwards(lower: Array, upper: Array, units: float = LIBRARY_UNITS) -> tuple[Array, Array]:
    """Bounds of what was rounded to `lower` and `upper`: moved by some units of roundoff, and by the smallest normal
    number for what underflowed. What overflowed is at least (at most) the largest finite number.

    A value rounded to nearest is off by at most one unit; so are functions that are correctly rounded.
    """
    relative, absolute = units * unit_roundoff(lower), smallest(lower)
    low, high = lower - (relative * abs(lower) + absolute), upper + (relative * abs(upper) + absolute)
    if surely_finite(lower, upper):
        return low, high
    xp, finite = array_namespace(lower), largest(lower)
    return xp.where(lower > finite, finite, low), xp.where(upper < -finite, -finite, high)


def with_sign_of(argument: tuple[Array, Array], bounds: tuple[Array, Array]) -> tuple[Array, Array]:
    """Bounds of a function that has the sign of its argument: rounding outwards must not lose it, since roots and
    logarithms ask for it."""
    xp = array_namespace(bounds[0])
    return (
        xp.where(argument[0] >= 0, bounds[0].clip(0, None), bounds[0]),
        xp.where(argument[1] <= 0, bounds[1].clip(None, 0), bounds[1]),
    )


def exact_where_whole(bounds: tuple[Array, Array], *intervals: tuple[Array, Array]) -> tuple[Array, Array]:
    """Bounds of a product or power of whole numbers, not too large, without what rounding outwards added: steps and
    comparisons of such values must be decided."""
    xp = array_namespace(*(end for pair in intervals for end in pair))
    whole = None
    for end in (end for pair in intervals for end in pair):
        here = end == xp.floor(end)
        whole = here if whole is None else whole & here
    if isinstance(whole, np.ndarray) and not whole.any():
        return bounds
    low, high = (xp.where(whole & (abs(end) < WHOLE_BELOW), xp.round(end), end) for end in bounds)
    return low, high


@quiet
def surely_finite(*arrays: Array) -> bool:
    """Whether all entries are known to be finite.

    Asked of numpy arrays only, where a sum is cheap; a torch tensor might be on a device, which the answer would stall.
    """
    return all(isinstance(x, np.ndarray) and math.isfinite(x.sum()) for x in arrays)


@quiet
def defined(lower: Array, upper: Array) -> tuple[Array, Array]:
    """The interval with NaN ends (``inf - inf``, ``0 * inf``) replaced by infinite ones, which are always sound, and
    an end that overflowed past the values by the largest number."""
    if surely_finite(lower, upper):
        return lower, upper
    xp, finite = array_namespace(lower), largest(lower)
    return (
        xp.where(xp.isnan(lower), -math.inf, xp.where(lower > finite, finite, lower)),
        xp.where(xp.isnan(upper), math.inf, xp.where(upper < -finite, -finite, upper)),
    )


@quiet
def product(a: Array, b: Array) -> Array:
    """``a * b`` with ``0 * inf = 0``, as bounds of finite factors need it."""
    result = a * b
    if surely_finite(result):
        return result
    return array_namespace(result).where((a == 0) | (b == 0), 0.0, result)


def four_corners(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Exact range of the product of two intervals."""
    xp = array_namespace(a[0])
    p, q, r, s = product(a[0], b[0]), product(a[0], b[1]), product(a[1], b[0]), product(a[1], b[1])
    return (
        xp.minimum(xp.minimum(p, q), xp.minimum(r, s)),
        xp.maximum(xp.maximum(p, q), xp.maximum(r, s)),
    )


def same_batch(xs: Sequence[Array]) -> tuple[Array, ...]:
    """The arrays ``[B_k, ...]`` repeated (as views) to their common batch size; ``B_k`` is 1 or common."""
    batch = max(x.shape[0] for x in xs)
    return tuple(x if x.shape[0] == batch else array_namespace(x).broadcast_to(x, (batch, *x.shape[1:])) for x in xs)


def whole_error(node: Node, terms: Sequence[Array], x: Array) -> Array | None:
    """The sum of bounds on errors as ``[B, *node.shape]``, B that of `x`; None where there are none."""
    if not terms:
        return None
    shape = (x.shape[0], *node.shape)
    return array_namespace(x).broadcast_to(sum(terms[1:], terms[0]), shape)


def wider(lower: Array, upper: Array, error: Array) -> tuple[Array, Array]:
    """The interval enlarged by an error on both sides, without losing any of that to rounding."""
    unit = unit_roundoff(lower)
    return lower - error - unit * (abs(lower) + error), upper + error + unit * (abs(upper) + error)


def inner(a: Array, b: Array) -> Array:
    """``<a, b>`` of ``[B, S, *shape]`` and ``[B, 1, *shape]`` over the last axes: ``[B, S]``, with ``0 * inf = 0``."""
    xp = array_namespace(a)
    return xp.sum(product(a, b), axis=tuple(range(2, a.ndim)))


@quiet
def bound_by_constants(a: Array, interval: tuple[Array, Array]) -> Array:
    """A lower bound ``[B, S]`` of ``<a, y>`` from the interval of ``y`` alone; ``a`` is ``[B, S, *shape]``. Its terms
    may cancel, so that what their sum rounds is given away here, where their sizes are known."""
    lower, upper = interval
    least = product(a.clip(0), lower[:, None]) + product(a.clip(None, 0), upper[:, None])
    axes = tuple(range(2, a.ndim))
    xp = array_namespace(a)
    count = math.prod(a.shape[2:])
    return xp.sum(least, axis=axes) - (count + 4) * unit_roundoff(a) * xp.sum(abs(least), axis=axes)


def zeros_like_shape(shape: Sequence[int], like: Array) -> Array:
    """Zeros of the given shape in the library, dtype and device of `like`."""
    options: dict[str, Any] = {} if isinstance(like, np.ndarray) else {"device": like.device}
    return array_namespace(like).zeros(tuple(shape), dtype=like.dtype, **options)
