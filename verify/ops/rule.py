"""What an operator means: the record that a row of the operator table holds.

Two kinds of operators exist. *Linear* ones (affine in their variable inputs) state themselves by `LinearRule`; their
interval bounds, adjoint and forward bounds all follow from it. *Nonlinear* ones state a range (`interval`) and, where
they have one, a linear relaxation (`relax`) valid on given input ranges. An absent capability is ``None``, never a
silent default.

Array conventions. Values are ``[B, *shape]``. Backward coefficients are ``[R, *shape]`` where ``R`` enumerates
(domain, row) pairs; linear rules never need to know how ``R`` is made up. All functions are generic over numpy arrays
and torch tensors (`arrays.array_namespace`), pure, and must not change their arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..graph import Array, Node
from .arrays import smallest, unit_roundoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _no_errors(node: Node, xs: Sequence[Array]) -> Array | None:
    """Of an operator without parameters."""
    return None


Interval = tuple[Array, Array]
"""Lower and upper bounds of a node's value, each ``[B, *shape]`` (``B`` may be 1 for constants)."""


@dataclass(frozen=True)
class LinearRule:
    """An operator ``y = M x + b`` with ``x`` its variable inputs.

    apply(node, xs)      ``M x + b``; xs one array ``[B, *shape_k]`` an input.
    apply_linear(node, xs)   ``M x`` without the constant.
    magnitude(node, xs)  ``|M| x`` (absolute coefficients, no constant).
    adjoint(node, a)     ``M^T a``: coefficients ``[R, *shape]`` on the output to a tuple of ``[R, *shape_k]`` on the
                         inputs.
    bias(node)           ``b`` as an array ``[*shape]`` (or broadcastable to it), or None when it is zero.
    sums(node)           how many products at most an entry of ``M x`` sums up, and how many an entry of ``M^T a``, as
                         `rounding` counts them (`rounding.worst_case` where they may all round the same way).
    entry_errors(node, xs)   ``|dM| x + |db|`` for xs that are not negative, where ``dM`` and ``db`` are what the node
                         says its parameters are off by (``<key>_error``, computed while loading); None where it says
                         nothing. `parameter_error` is what to call.
    """

    apply: Callable[[Node, Sequence[Array]], Array]
    apply_linear: Callable[[Node, Sequence[Array]], Array]
    magnitude: Callable[[Node, Sequence[Array]], Array]
    adjoint: Callable[[Node, Array], tuple[Array, ...]]
    bias: Callable[[Node], Array | None]
    sums: Callable[[Node], tuple[int, int]]
    entry_errors: Callable[[Node, Sequence[Array]], Array | None] = _no_errors

    def parameter_error(self, node: Node, reach: Sequence[Array]) -> Array | None:
        """A bound ``[B, *node.shape]`` on how far the value is from what the network's stored numbers make of the same
        input, because of what merging parameters has left out; None where they are exact or within a few unit
        roundoffs of float64 of themselves (`loading.precise.ROUNDOFFS`).

        reach are the largest magnitudes ``[B, *shape]`` of each input's entries.
        """
        error = self.entry_errors(node, reach)
        if error is None:
            if any(key.endswith("_error") for key in node.params):
                raise ValueError(f"node {node.name}: operator {node.op} has no room for errors of its parameters")
            return None
        # All terms are positive: a thousand roundoffs and the smallest numbers cover their sum and its rounding.
        return error * (1.0 + 1000 * unit_roundoff(error)) + 1000 * smallest(error)


@dataclass(frozen=True)
class Lines:
    """An elementwise linear relaxation: for every x in the input intervals

    ``sum_k lower_slopes[k] * x_k + lower_intercept <= y <= sum_k upper_slopes[k] * x_k + upper_intercept``.

    Every array is ``[B, *shape]`` of the operator's output (all inputs have that shape, too).
    """

    lower_slopes: tuple[Array, ...]
    lower_intercept: Array
    upper_slopes: tuple[Array, ...]
    upper_intercept: Array


class Relax(Protocol):
    """Relax an elementwise operator on input intervals.

    `slope` (``[B, *shape]`` with values in [0, 1], or None for the operator's own choice) moves the free line: for
    ReLU-like operators it is the lower line's slope between its two extremes, for others where the tangent is taken.
    Every value in [0, 1] gives a sound relaxation. Operators of one input take several values at once: with a leading
    axis more, ``[K, B, *shape]`` or broadcastable to it, lines that depend on the slope have that axis, too.
    """

    def __call__(self, node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines: ...


@dataclass(frozen=True)
class OpRule:
    """One row of the operator table.

    evaluate(node, xs)             the value ``[B, *shape]``.
    interval(node, intervals)      bounds of the value, valid whenever every input lies in its interval. Must hold for
    infinite
                                   interval ends too (answer infinite, never NaN); raises `UndefinedOnRegion` where the
                                   operator has no finite meaning (log of a negative ...) on the whole region.
    linear                         set for linear operators only.
    relax(node, intervals, slope)  linear relaxation of an elementwise nonlinear operator; None: use the interval as
    two constant lines.
    curved                         whether lines at other slopes than 0 and 1 are no mixtures of those two (tangents of
                                   a curve).
    backward(node, intervals, a)   for nonlinear operators that are not elementwise: ``a`` is ``[B, S, *shape]``,
    returns
                                   (one ``[B, S, *shape_k]`` an input, constants ``[B, S]``) such that
                                   ``sum_k <a_k, x_k> + constant <= <a, y>`` on the intervals.
    terms(node, reaches)           for operators with `backward`: the sum ``[B, *shape]`` of the magnitudes of all terms
                                   in the relaxation of each entry, where inputs are no larger than ``[B, *shape_k]``;
                                   None: the entry's own magnitude.
    vjp(node, xs, y, gradient)     gradient of ``<gradient, y>`` by each input (a subgradient at kinks; through
    step functions, of a smooth function beside them);
                                   None for linear operators, whose adjoint serves.
    summary                        one sentence for `boundsmith supports`.
    """

    evaluate: Callable[[Node, Sequence[Array]], Array]
    interval: Callable[[Node, Sequence[Interval]], Interval]
    linear: LinearRule | None = None
    relax: Relax | None = None
    curved: bool = False
    backward: Callable[[Node, Sequence[Interval], Array], tuple[tuple[Array, ...], Array]] | None = None
    terms: Callable[[Node, Sequence[Array]], Array] | None = None
    vjp: Callable[[Node, Sequence[Array], Array, Array], tuple[Array, ...]] | None = None
    summary: str = ""
