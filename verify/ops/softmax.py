"""The logarithm of the softmax as one node, whose interval knows that an entry also appears in its own sum.

It has no lines of its own: those of its parts (``x_i - log(sum_j exp(x_j))`` by softplus functions) are good, only
their intervals are not, so that graphs hold both, joined by `same`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ..arrays import array_namespace
from .arrays import defined, quiet, smallest, unit_roundoff
from .functions import softplus
from .rule import Interval, OpRule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array, Node


def _axis(node: Node) -> int:
    return node.attributes["axis"] % len(node.shape) + 1


@quiet
def _log_softmax(node: Node, xs: Sequence[Array]) -> Array:
    xp, axis = array_namespace(xs[0]), _axis(node)
    below = xs[0] - xp.max(xs[0], axis=axis, keepdims=True)
    return below - xp.log(xp.sum(xp.exp(below), axis=axis, keepdims=True))


@quiet
def _log_softmax_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    """Least where the entry is least and all others greatest, and the other way round: exact but for rounding."""
    (lower, upper), axis = intervals[0], _axis(node)
    ends = []
    for own, others, sign in ((lower, upper, 1.0), (upper, lower, -1.0)):
        rest = _all_but_one(others, axis)
        xp = array_namespace(rest)
        roundoff = (8 + others.shape[axis]) * unit_roundoff(own)
        ahead = rest - own + sign * roundoff * (abs(own) + xp.where(xp.isfinite(rest), abs(rest), 0.0))
        ends.append(-(1.0 + sign * roundoff) * softplus(xp, ahead))
    xp = array_namespace(lower)
    low, high = defined(ends[0], ends[1])
    return low - smallest(low), (high + smallest(high)).clip(None, 0)


def _all_but_one(x: Array, axis: int) -> Array:
    """For every entry the logarithm of the sum of the exponentials of all others along `axis`."""
    xp = array_namespace(x)
    # Minus infinity would do for nothing, but it has no gradient.
    nothing = -float(xp.finfo(x.dtype).max)
    x = x.clip(nothing, None)
    parts = [x[(slice(None),) * axis + (slice(k, k + 1),)] for k in range(x.shape[axis])]
    ahead, behind = [xp.full_like(parts[0], nothing)], [xp.full_like(parts[0], nothing)]
    for part in parts[:-1]:
        ahead.append(xp.logaddexp(ahead[-1], part))
    for part in parts[:0:-1]:
        behind.append(xp.logaddexp(behind[-1], part))
    return xp.concat([xp.logaddexp(p, q) for p, q in zip(ahead, behind[::-1], strict=True)], axis=axis)


@quiet
def _log_softmax_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    xp = array_namespace(y)
    return (gradient - xp.exp(y) * xp.sum(gradient, axis=_axis(node), keepdims=True),)


ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "LogSoftmax": OpRule(
            _log_softmax,
            _log_softmax_interval,
            vjp=_log_softmax_vjp,
            summary="Logarithm of the softmax along an axis, bounded by its interval.",
        )
    }
)
