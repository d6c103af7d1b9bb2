"""Convolution and transposed convolution (the kernels are in `kernels/convolution.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ..arrays import array_namespace
from ..graph import Array, Node
from ..kernels.convolution import Window, convolve, convolve_adjoint
from .arrays import parameter, whole_error
from .linear import centre_radius_interval, summed
from .rule import LinearRule, OpRule

Kernel = Callable[[Node, Array, Array], Array]
"""Takes the node, ``[M, C, *spatial]`` and the weight."""


def window_of(node: Node) -> Window:
    """How the kernel of a `Conv` or `ConvTranspose` node moves."""
    attributes = node.attributes
    return Window(
        strides=tuple(attributes["strides"]),
        pads=tuple(attributes["pads"]),
        dilations=tuple(attributes["dilations"]),
        groups=int(attributes["groups"]),
    )


def _folded(node: Node, kernel: Kernel, x: Array, weight: Array) -> Array:
    """Apply a kernel to ``[B, N, C, *spatial]`` with the two leading axes taken as one."""
    y = kernel(node, x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), weight)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _forwards(node: Node, x: Array, weight: Array) -> Array:
    """The convolution whose input is this node's input (`Conv`) or output (adjoint of `ConvTranspose`)."""
    return convolve(x, weight, window_of(node))


def _conv_backwards(node: Node, a: Array, weight: Array) -> Array:
    return convolve_adjoint(a, weight, node.input_shapes[0][2:], window_of(node))


def _transpose_backwards(node: Node, x: Array, weight: Array) -> Array:
    return convolve_adjoint(x, weight, node.shape[2:], window_of(node))


def _bias(node: Node) -> Array | None:
    if "bias" not in node.params:
        return None
    bias = node.params["bias"]
    column = bias.reshape(1, -1, *(1,) * (len(node.shape) - 2))
    return array_namespace(bias).broadcast_to(column, node.shape)


def _sums(node: Node) -> tuple[int, int]:
    """A weight ``[A, B / groups, *window]`` is of A channels on one side and B on the other: at most the larger sum."""
    first, second, *window = (int(size) for size in node.params["weight"].shape)
    own = first // int(node.attributes["groups"])
    area = math.prod(window)
    terms = summed(node, max(second, own) * area)
    return terms, terms


def _rule(kernel: Kernel, adjoint_kernel: Kernel) -> LinearRule:
    """The linear rule of a kernel and its transpose, both with the same weight."""

    def apply_linear(node: Node, xs: Sequence[Array]) -> Array:
        return _folded(node, kernel, xs[0], parameter(node, "weight", xs[0]))

    def apply(node: Node, xs: Sequence[Array]) -> Array:
        y = apply_linear(node, xs)
        if "bias" not in node.params:
            return y
        return y + parameter(node, "bias", y).reshape(-1, *(1,) * (len(node.shape) - 2))

    def magnitude(node: Node, xs: Sequence[Array]) -> Array:
        return _folded(node, kernel, xs[0], abs(parameter(node, "weight", xs[0])))

    def entry_errors(node: Node, xs: Sequence[Array]) -> Array | None:
        terms = []
        if "weight_error" in node.params:
            terms.append(_folded(node, kernel, xs[0], parameter(node, "weight_error", xs[0])))
        if "bias_error" in node.params:
            column = parameter(node, "bias_error", xs[0]).reshape(-1, *(1,) * (len(node.shape) - 2))
            terms.append(column)
        return whole_error(node, terms, xs[0])

    def adjoint(node: Node, a: Array) -> tuple[Array, ...]:
        return (_folded(node, adjoint_kernel, a, parameter(node, "weight", a)),)

    return LinearRule(
        apply=apply,
        apply_linear=apply_linear,
        magnitude=magnitude,
        adjoint=adjoint,
        bias=_bias,
        sums=_sums,
        entry_errors=entry_errors,
    )


CONV = _rule(_forwards, _conv_backwards)
CONV_TRANSPOSE = _rule(_transpose_backwards, _forwards)

ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Conv": OpRule(
            evaluate=CONV.apply,
            interval=centre_radius_interval(CONV),
            linear=CONV,
            summary="Convolution over one, two or three axes.",
        ),
        "ConvTranspose": OpRule(
            evaluate=CONV_TRANSPOSE.apply,
            interval=centre_radius_interval(CONV_TRANSPOSE),
            linear=CONV_TRANSPOSE,
            summary="Transposed convolution over one, two or three axes.",
        ),
    }
)
