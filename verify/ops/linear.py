"""Affine operators: sources, dense maps, sums and everything that only moves entries around.

Interval bounds of a linear operator ``y = M x + b`` are, with centre ``c`` and radius ``r`` of the inputs, ``M c + b
-+ |M| r`` (exact range). Where ``M`` has one entry a row, the ends are mapped directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ..arrays import array_namespace
from ..graph import Array, Node
from ..rounding import worst_case
from .arrays import as_like, defined, parameter, quiet, same_batch, whole_error, wider, zeros_like_shape
from .rule import Interval, LinearRule, OpRule

Map = Callable[[Node, Sequence[Array]], Array]
Adjoint = Callable[[Node, Array], tuple[Array, ...]]


def centre_radius_interval(linear: LinearRule) -> Callable[[Node, Sequence[Interval]], Interval]:
    """The interval function of any linear operator: ``M c + b -+ |M| r``."""

    @quiet
    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        centre = linear.apply(node, [0.5 * lower + 0.5 * upper for lower, upper in intervals])
        radius = linear.magnitude(node, [0.5 * upper - 0.5 * lower for lower, upper in intervals])
        return defined(centre - radius, centre + radius)

    return interval


def no_bias(node: Node) -> Array | None:
    """The constant term of an operator that has none."""
    return None


def summed(node: Node, terms: int) -> int:
    """A number of products with the node's weights as `LinearRule.sums` counts them."""
    return worst_case(terms) if node.irregular else terms


def one_each(node: Node) -> tuple[int, int]:
    """The sums of an operator that takes entry to entry."""
    return 1, 1


def entrywise_row(
    apply: Map, adjoint: Adjoint, summary: str, sums: Callable[[Node], tuple[int, int]] = one_each
) -> OpRule:
    """The row of an operator that only moves or adds entries (coefficients 0 and 1, no constant)."""

    @quiet
    def interval(node: Node, intervals: Sequence[Interval]) -> Interval:
        return apply(node, [lower for lower, _ in intervals]), apply(node, [upper for _, upper in intervals])

    rule = LinearRule(apply=apply, apply_linear=apply, magnitude=apply, adjoint=adjoint, bias=no_bias, sums=sums)
    return OpRule(evaluate=apply, interval=interval, linear=rule, summary=summary)


# --- sources ---------------------------------------------------------------------------------------------------------


def _input_value(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0]


def _input_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    return intervals[0]


def _constant_value(node: Node, xs: Sequence[Array] = ()) -> Array:
    return node.params["value"][None]


def _constant_zero(node: Node, xs: Sequence[Array] = ()) -> Array:
    return zeros_like_shape((1, *node.shape), node.params["value"])


def _constant_errors(node: Node, xs: Sequence[Array] = ()) -> Array | None:
    """Of the value as it was loaded, and of rounding it to the type of the graph."""
    value = node.params["value"]
    terms = [abs(node.params[key]) for key in ("value_error", "value_rest") if key in node.params]
    return as_like(sum(terms[1:], terms[0]), value)[None] if terms else None


def _constant_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    value = _constant_value(node)
    error = CONSTANT.parameter_error(node, ())
    return (value, value) if error is None else wider(value, value, error)


CONSTANT = LinearRule(
    apply=_constant_value,
    apply_linear=_constant_zero,
    magnitude=_constant_zero,
    adjoint=lambda node, a: (),
    bias=lambda node: node.params["value"],
    sums=one_each,
    entry_errors=_constant_errors,
)


# --- dense -----------------------------------------------------------------------------------------------------------


def _rows_times(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` over the last axis as one two-dimensional product, whatever the number of axes."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[1])


def _dense(node: Node, xs: Sequence[Array]) -> Array:
    y = _rows_times(xs[0], parameter(node, "weight", xs[0]).T)
    return y + parameter(node, "bias", y) if "bias" in node.params else y


def _dense_linear(node: Node, xs: Sequence[Array]) -> Array:
    return _rows_times(xs[0], parameter(node, "weight", xs[0]).T)


def _dense_magnitude(node: Node, xs: Sequence[Array]) -> Array:
    return _rows_times(xs[0], abs(parameter(node, "weight", xs[0])).T)


def _dense_errors(node: Node, xs: Sequence[Array]) -> Array | None:
    terms = []
    if "weight_error" in node.params:
        terms.append(_rows_times(xs[0], parameter(node, "weight_error", xs[0]).T))
    if "bias_error" in node.params:
        terms.append(parameter(node, "bias_error", xs[0]))
    return whole_error(node, terms, xs[0])


def _dense_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    return (_rows_times(a, parameter(node, "weight", a)),)


def _dense_bias(node: Node) -> Array | None:
    if "bias" not in node.params:
        return None
    bias = node.params["bias"]
    return array_namespace(bias).broadcast_to(bias, node.shape)


def _dense_sums(node: Node) -> tuple[int, int]:
    outputs, inputs = node.params["weight"].shape
    return summed(node, int(inputs)), summed(node, int(outputs))


DENSE = LinearRule(
    apply=_dense,
    apply_linear=_dense_linear,
    magnitude=_dense_magnitude,
    adjoint=_dense_adjoint,
    bias=_dense_bias,
    sums=_dense_sums,
    entry_errors=_dense_errors,
)


# --- scale and add ---------------------------------------------------------------------------------------------------


def _scale_linear(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0] * parameter(node, "scale", xs[0]) if "scale" in node.params else xs[0]


def _scale(node: Node, xs: Sequence[Array]) -> Array:
    y = _scale_linear(node, xs)
    return y + parameter(node, "shift", y) if "shift" in node.params else y


def _scale_magnitude(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0] * abs(parameter(node, "scale", xs[0])) if "scale" in node.params else xs[0]


def _scale_errors(node: Node, xs: Sequence[Array]) -> Array | None:
    terms = []
    if "scale_error" in node.params:
        terms.append(xs[0] * parameter(node, "scale_error", xs[0]))
    if "shift_error" in node.params:
        terms.append(parameter(node, "shift_error", xs[0]))
    return whole_error(node, terms, xs[0])


def _scale_bias(node: Node) -> Array | None:
    if "shift" not in node.params:
        return None
    shift = node.params["shift"]
    return array_namespace(shift).broadcast_to(shift, node.shape)


@quiet
def _scale_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    low, high = (_scale(node, [end]) for end in intervals[0])
    if "scale" not in node.params:
        return low, high
    xp = array_namespace(low)
    negative = parameter(node, "scale", low) < 0
    return defined(xp.where(negative, high, low), xp.where(negative, low, high))


SCALE = LinearRule(
    apply=_scale,
    apply_linear=_scale_linear,
    magnitude=_scale_magnitude,
    adjoint=lambda node, a: (_scale_linear(node, [a]),),
    bias=_scale_bias,
    sums=one_each,
    entry_errors=_scale_errors,
)


def _signed_sum(signs: Sequence[int], xs: Sequence[Array]) -> Array:
    total = xs[0] if signs[0] > 0 else -xs[0]
    for sign, x in zip(signs[1:], xs[1:], strict=True):
        total = total + x if sign > 0 else total - x
    return total


def _add(node: Node, xs: Sequence[Array]) -> Array:
    return _signed_sum(node.attributes["signs"], xs)


def _add_magnitude(node: Node, xs: Sequence[Array]) -> Array:
    return _signed_sum((1,) * len(xs), xs)


def _add_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    return tuple(a if sign > 0 else -a for sign in node.attributes["signs"])


@quiet
def _add_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    signs = node.attributes["signs"]
    low_ends = [pair[0] if sign > 0 else pair[1] for sign, pair in zip(signs, intervals, strict=True)]
    high_ends = [pair[1] if sign > 0 else pair[0] for sign, pair in zip(signs, intervals, strict=True)]
    return defined(_signed_sum(signs, low_ends), _signed_sum(signs, high_ends))


def _add_sums(node: Node) -> tuple[int, int]:
    return worst_case(len(node.inputs)), 1


ADD = LinearRule(
    apply=_add,
    apply_linear=_add,
    magnitude=_add_magnitude,
    adjoint=_add_adjoint,
    bias=no_bias,
    sums=_add_sums,
)


# --- shape -----------------------------------------------------------------------------------------------------------


def _reshape(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0].reshape(xs[0].shape[0], *node.shape)


def _reshape_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    return (a.reshape(a.shape[0], *node.input_shapes[0]),)


def _permute(x: Array, perm: Sequence[int]) -> Array:
    return array_namespace(x).permute_dims(x, (0, *(axis + 1 for axis in perm)))


def _transpose(node: Node, xs: Sequence[Array]) -> Array:
    return _permute(xs[0], node.attributes["perm"])


def _transpose_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    perm = node.attributes["perm"]
    return (_permute(a, sorted(range(len(perm)), key=lambda axis: perm[axis])),)


def _axis(node: Node) -> int:
    """The node's axis as an axis of arrays, which have the batch in front."""
    axis = node.attributes["axis"]
    return axis + 1 if axis >= 0 else axis


def _concat(node: Node, xs: Sequence[Array]) -> Array:
    return array_namespace(*xs).concat(same_batch(xs), axis=_axis(node))


def _concat_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    axis = _axis(node) % a.ndim
    pieces, start = [], 0
    for shape in node.input_shapes:
        stop = start + shape[axis - 1]
        pieces.append(a[(slice(None),) * axis + (slice(start, stop),)])
        start = stop
    return tuple(pieces)


def _reduced_axes(node: Node) -> tuple[int, ...]:
    rank = len(node.input_shapes[0])
    return tuple(axis % rank + 1 for axis in node.attributes["axes"])


@quiet
def _sum(node: Node, xs: Sequence[Array]) -> Array:
    axes = tuple(axis + 1 if axis >= 0 else axis for axis in node.attributes["axes"])
    keepdims = bool(node.attributes.get("keepdims", False))
    return array_namespace(xs[0]).sum(xs[0], axis=axes, keepdims=keepdims) if axes else xs[0]


def _sum_adjoint(node: Node, a: Array) -> tuple[Array, ...]:
    axes, shape = _reduced_axes(node), node.input_shapes[0]
    kept = tuple(1 if axis + 1 in axes else size for axis, size in enumerate(shape))
    return (array_namespace(a).broadcast_to(a.reshape(a.shape[0], *kept), (a.shape[0], *shape)),)


def _sum_sums(node: Node) -> tuple[int, int]:
    return worst_case(math.prod(node.input_shapes[0]) // max(1, node.size)), 1


# --- rows ------------------------------------------------------------------------------------------------------------


def _row(linear: LinearRule, interval: Callable[[Node, Sequence[Interval]], Interval], summary: str) -> OpRule:
    return OpRule(evaluate=linear.apply, interval=interval, linear=linear, summary=summary)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Input": OpRule(
            evaluate=_input_value,
            interval=_input_interval,
            summary="A network input; its value and interval are given.",
        ),
        "Constant": _row(CONSTANT, _constant_interval, "A constant array."),
        "Linear": _row(DENSE, centre_radius_interval(DENSE), "Dense layer over the last axis."),
        "Scale": _row(SCALE, _scale_interval, "Elementwise constant factor and shift."),
        "Add": _row(ADD, _add_interval, "Sum and difference of arrays of one shape."),
        "Reshape": entrywise_row(_reshape, _reshape_adjoint, "The same entries in another shape."),
        "Transpose": entrywise_row(_transpose, _transpose_adjoint, "Permutation of axes."),
        "Concat": entrywise_row(_concat, _concat_adjoint, "Arrays joined along an axis."),
        "Sum": entrywise_row(_sum, _sum_adjoint, "Sum over axes.", _sum_sums),
    }
)
