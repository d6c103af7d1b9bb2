"""Matrix products: by a constant (linear) and of two variables (McCormick)."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..arrays import array_namespace
from .arrays import (
    WHOLE_BELOW,
    bound_by_constants,
    defined,
    four_corners,
    inner,
    parameter,
    quiet,
    smallest,
    surely_finite,
    unit_roundoff,
)
from .linear import centre_radius_interval, no_bias, summed
from .rule import Interval, LinearRule, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node

BLOCK_ENTRIES = 1 << 22
"""The interval product forms this many single products at a time."""


def _as_left(x: Array, lead: int) -> Array:
    """The left factor as matrices: `lead` axes belong to the batch; a vector becomes a row."""
    return x if x.ndim - lead >= 2 else x[..., None, :]


def _as_right(x: Array, lead: int) -> Array:
    """The right factor as matrices; a vector becomes a column."""
    return x if x.ndim - lead >= 2 else x[..., :, None]


def _lifted(x: Array, lead: int, rank: int) -> Array:
    """Ones put between the `lead` batch axes and the rest until the rest has `rank` axes."""
    missing = rank - (x.ndim - lead)
    return x.reshape(*x.shape[:lead], *(1,) * missing, *x.shape[lead:]) if missing > 0 else x


def _factors(left: Array, right: Array, left_lead: int, right_lead: int) -> tuple[Array, Array]:
    """Both factors as stacks of matrices of equal rank behind their batch axes (0 for a constant)."""
    left, right = _as_left(left, left_lead), _as_right(right, right_lead)
    rank = max(left.ndim - left_lead, right.ndim - right_lead)
    return (
        _lifted(left, left_lead, rank) if left_lead else left,
        _lifted(right, right_lead, rank) if right_lead else right,
    )


def _summed_to(x: Array, lead: int, shape: Sequence[int]) -> Array:
    """Sum out the axes that were broadcast, so that what follows the `lead` axes has `shape`."""
    xp = array_namespace(x)
    surplus = x.ndim - lead - len(shape)
    if surplus > 0:
        x = xp.sum(x, axis=tuple(range(lead, lead + surplus)))
    repeated = tuple(lead + k for k, n in enumerate(shape) if n == 1 and x.shape[lead + k] != 1)
    return xp.sum(x, axis=repeated, keepdims=True) if repeated else x


def _matrix_shape(shape: Sequence[int], left: bool) -> tuple[int, ...]:
    """The shape a factor has as a matrix."""
    if len(shape) >= 2:
        return tuple(shape)
    return (1, *shape) if left else (*shape, 1)


def _transposed(x: Array) -> Array:
    return array_namespace(x).matrix_transpose(x)


# --- constant factor -------------------------------------------------------------------------------------------------


def _is_left(node: Node) -> bool:
    return node.attributes["side"] == "left"


def _times(node: Node, x: Array, matrix: Array) -> Array:
    """The product with the constant matrix on its side, ``[B, *shape]``."""
    if _is_left(node):
        left, right = _factors(matrix, x, 0, 1)
    else:
        left, right = _factors(x, matrix, 1, 0)
    return (left @ right).reshape(x.shape[0], *node.shape)


def _const_linear(node: Node, xs: Sequence[Array]) -> Array:
    return _times(node, xs[0], parameter(node, "matrix", xs[0]))


def _const_magnitude(node: Node, xs: Sequence[Array]) -> Array:
    return _times(node, xs[0], abs(parameter(node, "matrix", xs[0])))


def _const_errors(node: Node, xs: Sequence[Array]) -> Array | None:
    return _times(node, xs[0], parameter(node, "matrix_error", xs[0])) if "matrix_error" in node.params else None


def _const_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    matrix = parameter(node, "matrix", a)
    shape = node.input_shapes[0]
    if _is_left(node):
        full = _result_matrix(node, a, 1, matrix.shape, shape)
        back = _transposed(_as_left(matrix, 0)) @ full
    else:
        full = _result_matrix(node, a, 1, shape, matrix.shape)
        back = full @ _transposed(_as_right(matrix, 0))
    return (_summed_to(back, 1, _matrix_shape(shape, not _is_left(node))).reshape(a.shape[0], *shape),)


def _result_matrix(node: Node, a: Array, lead: int, left: Sequence[int], right: Sequence[int]) -> Array:
    """Coefficients on the product as matrices: the axes that vector factors dropped come back."""
    core = list(node.shape)
    if len(right) == 1:
        core.append(1)
    if len(left) == 1:
        core.insert(len(core) - 1, 1)
    return a.reshape(*a.shape[:lead], *core)


def _const_sums(node: Node) -> tuple[int, int]:
    """Products of all the constant's matrices that one input may be broadcast to are added up backwards."""
    *stack, rows, columns = _as_left(node.params["matrix"], 0).shape
    depth = max(int(rows), int(columns))
    return summed(node, depth), summed(node, depth * max(1, math.prod(int(size) for size in stack)))


CONST_MATMUL = LinearRule(
    apply=_const_linear,
    apply_linear=_const_linear,
    magnitude=_const_magnitude,
    adjoint=_const_adjoint,
    bias=no_bias,
    sums=_const_sums,
    entry_errors=_const_errors,
)


# --- two variables ---------------------------------------------------------------------------------------------------


@quiet
def _matmul(node: Node, xs: Sequence[Array]) -> Array:
    left, right = _factors(xs[0], xs[1], 1, 1)
    return (left @ right).reshape(-1, *node.shape)


@quiet
def _matmul_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """The sum over the inner index of the ranges of the single products, rounded outwards."""
    ends = [_factors(p, q, 1, 1) for p in intervals[0] for q in intervals[1]]
    lefts, rights = (ends[0][0], ends[2][0]), (ends[0][1], ends[1][1])
    xp = array_namespace(lefts[0])
    entries = max(lefts[0].shape[0], rights[0].shape[0]) * max(1, node.size)
    depth = lefts[0].shape[-1]
    step = max(1, min(depth, BLOCK_ENTRIES // entries))
    lower = upper = None
    for start in range(0, depth, step):
        part = slice(start, start + step)
        low, high = four_corners(
            (lefts[0][..., :, part, None], lefts[1][..., :, part, None]),
            (rights[0][..., None, part, :], rights[1][..., None, part, :]),
        )
        low, high = xp.sum(low, axis=-2), xp.sum(high, axis=-2)
        lower, upper = (low, high) if lower is None else (lower + low, upper + high)
    bounds = _summed_bounds(xp, defined(lower, upper), lefts, rights)
    low, high = (end.reshape(-1, *node.shape) for end in bounds)
    return low, high


def _extent(ends: Interval) -> Array:
    """The largest size of the values of an interval."""
    return array_namespace(ends[0]).maximum(abs(ends[0]), abs(ends[1]))


def _sum_rounding(x: Array, depth: int) -> float:
    """How much, relative to the sum of their sizes, a sum of so many products may be off, in any order."""
    return (depth + 4) * unit_roundoff(x)


def _summed_bounds(xp: Any, bounds: Interval, lefts: Interval, rights: Interval) -> Interval:
    """Sums of products rounded outwards, unless the factors are small whole numbers; not below 0 where no factor is
    negative."""
    left, right = _extent(lefts), _extent(rights)
    depth = left.shape[-1]
    size = left @ right
    blur = _sum_rounding(size, depth) * size + depth * smallest(size)
    if bool((left == xp.floor(left)).all() & (right == xp.floor(right)).all()):
        blur = xp.where(size < WHOLE_BELOW, 0.0, blur)
    low, high = defined(bounds[0] - blur, bounds[1] + blur)
    return (low.clip(0, None) if bool((lefts[0] >= 0).all() & (rights[0] >= 0).all()) else low), high


def _to_inputs(node: Node, lead: int, on_left: Array, on_right: Array) -> tuple[Array, Array]:
    """Coefficients on matrices brought back to the inputs' own shapes, behind `lead` batch axes."""
    shapes = node.input_shapes
    on_left = _summed_to(on_left, lead, _matrix_shape(shapes[0], True))
    on_right = _summed_to(on_right, lead, _matrix_shape(shapes[1], False))
    return (
        on_left.reshape(*on_left.shape[:lead], *shapes[0]),
        on_right.reshape(*on_right.shape[:lead], *shapes[1]),
    )


def _centred_planes(node: Node, intervals: Sequence[Interval], a: Array) -> tuple[tuple[Array, Array], Array]:
    """The plane below ``<a, u v>`` on finite intervals.

    McCormick's two planes on a side, mixed half and half, are the linearisation at the centres: ``|u v - (u_c v + v_c
    u - u_c v_c)| <= u_r v_r``, so that all sums are matrix products.
    """
    (left_low, left_high), (right_low, right_high) = intervals
    left, right = _factors(0.5 * (left_low + left_high), 0.5 * (right_low + right_high), 1, 1)
    left_radius, right_radius = _factors(0.5 * (left_high - left_low), 0.5 * (right_high - right_low), 1, 1)
    full = _result_matrix(node, a, 2, *node.input_shapes)
    coefficients = _to_inputs(node, 2, full @ _transposed(right)[:, None], _transposed(left)[:, None] @ full)
    centre = (left @ right).reshape(-1, 1, *node.shape)
    radius = (left_radius @ right_radius).reshape(-1, 1, *node.shape)
    # All that is rounded here, the coefficients on their inputs, too, adds up products of these sizes.
    size = _extent((left - left_radius, left + left_radius)) @ _extent((right - right_radius, right + right_radius))
    depth = left.shape[-1] + max(node.shape[-2:], default=1) + node.size
    blur = 4.0 * _sum_rounding(size, depth) * size.reshape(-1, 1, *node.shape) + smallest(size)
    return coefficients, -inner(a, centre) - inner(abs(a), radius + blur)


@quiet
def _matmul_backward(node: Node, intervals: Sequence[Interval], a: Array) -> tuple[tuple[Array, Array], Array]:
    """`_centred_planes`; a batch element with an infinite end gets a constant instead."""
    ends = [end for pair in intervals for end in pair]
    if surely_finite(*ends):
        return _centred_planes(node, intervals, a)
    xp = array_namespace(a)
    bounded = xp.ones(a.shape[0], dtype=xp.bool, device=a.device)
    for end in ends:
        bounded = bounded & xp.all(xp.isfinite(end.reshape(end.shape[0], -1)), axis=1)
    finite = [tuple(xp.where(xp.isfinite(end), end, 0.0) for end in pair) for pair in intervals]
    coefficients, constant = _centred_planes(node, finite, a)
    constant = xp.where(bounded[:, None], constant, bound_by_constants(a, _matmul_interval(node, intervals)))
    on_left, on_right = (xp.where(bounded.reshape(-1, *(1,) * (c.ndim - 1)), c, 0.0) for c in coefficients)
    return (on_left, on_right), constant


@quiet
def _matmul_terms(node: Node, reaches: Sequence[Array]) -> Array:
    """Two planes' coefficients, the products of the centres and those of the radii."""
    return 4.0 * _matmul(node, reaches)


@quiet
def _matmul_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    left, right = _factors(xs[0], xs[1], 1, 1)
    full = _result_matrix(node, gradient, 1, *node.input_shapes)
    return _to_inputs(node, 1, full @ _transposed(right), _transposed(left) @ full)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "ConstMatMul": OpRule(
            evaluate=_const_linear,
            interval=centre_radius_interval(CONST_MATMUL),
            linear=CONST_MATMUL,
            summary="Matrix product with a constant on either side.",
        ),
        "MatMul": OpRule(
            evaluate=_matmul,
            interval=_matmul_interval,
            backward=_matmul_backward,
            terms=_matmul_terms,
            vjp=_matmul_vjp,
            summary="Matrix product of two variables.",
        ),
    }
)
