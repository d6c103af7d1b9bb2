"""One relaxed node in both directions: coefficients carried back through its lines, values forward along them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..ops import rule
from .parameters import required

if TYPE_CHECKING:
    from ..graph import Array, Node
    from .families import Family, Side

WORST_SHARE = 10.0
"""Weight of an undecided ReLU's largest cost beside its cost at the average of the minimisers (CIFAR base_kw, image
876: 17,000 domains with 10, 46,000 with 0.3 and more with 0)."""


def carry(family: Family, below: Array | None, above: Array | None, a: Array) -> tuple[tuple[Array, ...], Array | None]:
    """Coefficients ``[R, n]`` of a node carried to its inputs through the lines at the given weights, and the constant
    ``[R]`` that this adds to the bound (None for zero)."""
    if family.through_origin:
        return _carry_relu(family, required(below, "slopes of every ReLU"), a)
    xp = array_namespace(a)
    negative = xp.clip(a, None, 0)
    positive = a - negative
    total: Array | None = None
    for part, side, weight in ((positive, family.lower, below), (negative, family.upper, above)):
        intercept = intercept_of(side, weight)
        if intercept is not None:
            term = xp.sum(part * intercept, axis=1)
            total = term if total is None else total + term
    pieces = tuple(
        positive * slope_below + negative * slope_above
        for slope_below, slope_above in zip(slopes_of(family.lower, below), slopes_of(family.upper, above), strict=True)
    )
    return pieces, total


def _carry_relu(family: Family, slope: Array, a: Array) -> tuple[tuple[Array, ...], Array]:
    above, intercept = family.upper.slopes[0], required(family.upper.intercept, "an intercept above every ReLU")
    xp = array_namespace(a)
    if isinstance(a, np.ndarray):
        negative = np.minimum(a, 0)
        constant = negative @ intercept[0] if intercept.shape[0] == 1 else np.einsum("rn,rn->r", negative, intercept)
        # In place: this is the innermost step.
        carried = a - negative
        carried *= slope
        negative *= above
        carried += negative
        return (carried,), constant
    negative = xp.clip(a, None, 0)
    return ((a - negative) * slope + negative * above,), xp.sum(negative * intercept, axis=1)


def follow(family: Family, below: Array | None, above: Array | None, a: Array, inputs: list[Array]) -> Array:
    """The node's value ``[R, n]`` at the inputs on the lines that the signs of the coefficients ``a`` chose."""
    low = high = 0.0
    sides = zip(inputs, slopes_of(family.lower, below), slopes_of(family.upper, above), strict=True)
    for x, slope_below, slope_above in sides:
        low = low + slope_below * x
        high = high + slope_above * x
    for_low, for_high = intercept_of(family.lower, below), intercept_of(family.upper, above)
    low = low if for_low is None else low + for_low
    high = high if for_high is None else high + for_high
    return array_namespace(a).where(a > 0, low, high)


def change_of(side: Side, inputs: list[Array], family: Family) -> Array:
    """How the line's value at the inputs changes with its weight. Raises ValueError for a line that is not free."""
    if family.through_origin:
        return inputs[0] * family.free
    if side.changes is None:
        raise ValueError("the line is not free")
    total = side.intercept_change
    for change, x in zip(side.changes, inputs, strict=True):
        total = change * x if total is None else total + change * x
    return total


def slopes_of(side: Side, weight: Array | None) -> tuple[Array, ...]:
    """The line's slopes ``[R, n]`` at a weight; None where it is not free."""
    if weight is None:
        return side.slopes
    if side.changes is None:
        return (weight,)
    return tuple(slope + weight * change for slope, change in zip(side.slopes, side.changes, strict=True))


def intercept_of(side: Side, weight: Array | None) -> Array | None:
    """The line's intercept ``[R, n]`` at a weight; None where it is zero."""
    start, change = side.intercept, side.intercept_change
    if weight is None or change is None:
        return start
    return weight * change if start is None else start + weight * change


def cost_of(node: Node, family: Family, a: Array, inputs: list[Array], output: Array) -> Array:
    """What a relaxation costs the bound ``[R, n]`` where it takes the output at the inputs, see `Ascent.costs`."""
    count = a.shape[0]
    shaped = [x.reshape(count, *node.shape) for x in inputs]
    true = rule(node.op).evaluate(node, shaped).reshape(count, -1)
    cost = abs(a * (output - true))
    if family.through_origin:
        worst = array_namespace(a).clip(-a, 0, None) * family.upper.intercept
        cost = (cost + WORST_SHARE * worst) * family.free
    return cost
