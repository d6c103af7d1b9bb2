"""Small helpers shared by all operator families: dtypes, infinities, batch axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace
from ..rounding import smallest, unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Node

__all__ = [
    "as_like",
    "bound_by_constants",
    "defined",
    "four_corners",
    "index_parameter",
    "inner",
    "parameter",
    "product",
    "quiet",
    "same_batch",
    "smallest",
    "surely_finite",
    "unit_roundoff",
    "zeros_like_shape",
]

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
    xp = array_namespace(lower)
    largest = float(xp.finfo(lower.dtype).max)
    return (
        xp.where(xp.isnan(lower), -math.inf, xp.where(lower > largest, largest, lower)),
        xp.where(xp.isnan(upper), math.inf, xp.where(upper < -largest, -largest, upper)),
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


def bound_by_constants(a: Array, interval: tuple[Array, Array]) -> Array:
    """A lower bound ``[B, S]`` of ``<a, y>`` from the interval of ``y`` alone; ``a`` is ``[B, S, *shape]``."""
    lower, upper = interval
    return inner(a.clip(0), lower[:, None]) + inner(a.clip(None, 0), upper[:, None])


def zeros_like_shape(shape: Sequence[int], like: Array) -> Array:
    """Zeros of the given shape in the library, dtype and device of `like`."""
    options: dict[str, Any] = {} if isinstance(like, np.ndarray) else {"device": like.device}
    return array_namespace(like).zeros(tuple(shape), dtype=like.dtype, **options)
