"""ReLU and its kin: functions of one variable made of two or three straight pieces.

Reference for the triangle relaxation: Zhang et al., "Efficient Neural Network Robustness Certification with General
Activation Functions" (CROWN), 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from array_api_compat import array_namespace

from ..graph import Array, Node
from .arrays import quiet, smallest, surely_finite, unit_roundoff
from .lines import Line
from .rule import Interval, Lines, OpRule

# --- ReLU ------------------------------------------------------------------------------------------------------------


def _relu(node: Node, xs: Sequence[Array]) -> Array:
    return xs[0].clip(0)


def _relu_interval(node: Node, intervals: Sequence[Interval]) -> Interval:
    lower, upper = intervals[0]
    return lower.clip(0), upper.clip(0)


def _triangle(lower: Array, upper: Array) -> tuple[Line, Array]:
    """The line above ReLU through both ends of a finite interval, and the width of the part that was bridged.

    The line is exact where the neuron is stable. Its slope is rounded up (but not over 1) and its intercept, too, so
    that it is below neither end.
    """
    outwards = 1.0 + 2.0 * unit_roundoff(lower)
    positive, negative = upper.clip(0), lower.clip(None, 0)
    width = positive - negative
    slope = (positive * outwards / width.clip(smallest(lower))).clip(None, 1.0)
    return (slope, slope * negative * -outwards), width


@quiet
def _relu_relax(node: Node, intervals: Sequence[Interval], slope: Array | None = None) -> Lines:
    lower, upper = intervals[0]
    xp = array_namespace(lower)
    (above_slope, above_intercept), width = _triangle(lower, upper)
    if slope is None:
        below_slope = xp.astype(upper > -lower, lower.dtype)
    else:
        below_slope = xp.where(lower >= 0, 1.0, xp.where(upper <= 0, 0.0, slope))
    if not surely_finite(width):
        straddling = (lower < 0) & (upper > 0)
        unbounded = straddling & ~xp.isfinite(width)
        above_slope = xp.where(lower >= 0, 1.0, xp.where(unbounded | (upper <= 0), 0.0, above_slope))
        above_intercept = xp.where(unbounded, upper, xp.where(straddling, above_intercept, 0.0))
        below_slope = xp.where(unbounded, 0.0, below_slope)
    return Lines((below_slope,), xp.zeros_like(below_slope), (above_slope,), above_intercept)


def _relu_vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
    return (gradient * (xs[0] > 0),)


# --- rows ------------------------------------------------------------------------------------------------------------

ROWS: Mapping[str, OpRule] = MappingProxyType(
    {
        "Relu": OpRule(evaluate=_relu, interval=_relu_interval, relax=_relu_relax, vjp=_relu_vjp, summary="max(x, 0)."),
    }
)
