"""One relaxed node in both directions: coefficients carried back through its lines, values forward along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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


class Chosen(NamedTuple):
    """A relaxed node in one evaluation: the coefficients ``[R, n]`` that met it and its lines at the weights."""

    coefficients: Array
    lower: Side
    upper: Side

    def rows(self, index: Array) -> Chosen:
        """The rows at `index`."""
        return Chosen(self.coefficients[index], self.lower.rows(index), self.upper.rows(index))


class Observed(NamedTuple):
    """A relaxed node with what the minimisers met take, on average, at its inputs and as its value along its lines
    (``[R, n]`` each)."""

    chosen: Chosen
    inputs: list[Array]
    output: Array


def carry(family: Family, chosen: Chosen) -> tuple[tuple[Array, ...], Array | None, Array | None]:
    """Coefficients ``[R, n]`` of a node carried to its inputs through the chosen lines, the constant ``[R]`` that
    this adds to the bound (None for zero), and the sum ``[R]`` of its terms' magnitudes."""
    a = chosen.coefficients
    if family.through_origin:
        return _carry_relu(family, chosen.lower.slopes[0], a)
    xp = array_namespace(a)
    if chosen.lower is chosen.upper:
        slopes, intercept = chosen.lower.slopes, chosen.lower.intercept
        return tuple(a * slope for slope in slopes), *((None, None) if intercept is None else _total(a * intercept))
    negative = xp.clip(a, None, 0)
    positive = a - negative
    total: Array | None = None
    size: Array | None = None
    for part, side in ((positive, chosen.lower), (negative, chosen.upper)):
        if side.intercept is not None:
            term, own = _total(part * side.intercept)
            total = term if total is None else total + term
            size = own if size is None else size + own
    pieces = tuple(
        positive * slope_below + negative * slope_above
        for slope_below, slope_above in zip(chosen.lower.slopes, chosen.upper.slopes, strict=True)
    )
    return pieces, total, size


def _total(terms: Array) -> tuple[Array, Array]:
    """The sum of terms ``[R, n]`` and that of their magnitudes."""
    xp = array_namespace(terms)
    return xp.sum(terms, axis=1), xp.sum(abs(terms), axis=1)


def _carry_relu(family: Family, slope: Array, a: Array) -> tuple[tuple[Array, ...], Array, Array]:
    """(The intercept above a ReLU is not negative, so that all terms have one sign.)"""
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
        return (carried,), constant, abs(constant)
    negative = xp.clip(a, None, 0)
    constant = xp.sum(negative * intercept, axis=1)
    return ((a - negative) * slope + negative * above,), constant, abs(constant)


def follow(family: Family, chosen: Chosen, inputs: list[Array]) -> Array:
    """The node's value ``[R, n]`` at the inputs on the lines that the signs of the coefficients chose."""
    if family.through_origin:
        below_it = chosen.coefficients > 0
        xp = array_namespace(below_it)
        value = xp.where(below_it, chosen.lower.slopes[0], family.upper.slopes[0])
        value *= inputs[0]
        value += xp.where(below_it, 0.0, family.upper.intercept)
        return value
    low = _value(chosen.lower, inputs)
    if chosen.lower is chosen.upper:
        return low
    return array_namespace(low).where(chosen.coefficients > 0, low, _value(chosen.upper, inputs))


def _value(side: Side, inputs: list[Array]) -> Array:
    terms = [slope * x for slope, x in zip(side.slopes, inputs, strict=True)]
    return sum(terms[1:], terms[0]) if side.intercept is None else sum(terms, side.intercept)


def gradients_of(
    family: Family, chosen: Chosen, inputs: list[Array], free: tuple[bool, bool]
) -> tuple[Array | None, Array | None]:
    """Derivatives of the bounds by the weights ``[R, n]`` of the lines below and above; None for those not `free`."""
    a = chosen.coefficients
    xp = array_namespace(a)
    if chosen.lower is chosen.upper and all(free):
        change = a * change_of(chosen.lower, inputs, family)
        above = xp.where(a < 0, change, 0.0)
        return change - above, above
    below = xp.clip(a, 0, None) * change_of(chosen.lower, inputs, family) if free[0] else None
    above = xp.clip(a, None, 0) * change_of(chosen.upper, inputs, family) if free[1] else None
    return below, above


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
