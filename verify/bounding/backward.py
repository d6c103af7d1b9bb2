"""The backward pass of linear bounds over a batch of boxes and rows, for any operator and array library.

Only lower bounds of rows are carried; an upper bound of ``a`` is minus the lower bound of ``-a``.

Rounding: every pass sums what the rounding of its terms may have taken (`charges`) and gives it away, so that float32
bounds stay below the exact ones (checked by property tests).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..kernels.relaxation import Step, backward_step
from ..ops import rule
from ..ops.arrays import as_like, quiet, zeros_like_shape
from ..rounding import rounding, unit_roundoff
from .charges import BoxCharges, Charges, underflow

if TYPE_CHECKING:
    from ..graph import Array
    from ..ops.rule import Interval
    from .plan import Plan


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A graph relaxed on a batch of boxes: bounds of every node and the relaxation of every nonlinear one.

    lower, upper   the boxes, ``[B, n]`` flat.
    intervals      bounds of node values ``[B or 1, *shape]``, by node index.
    steps          relaxations of elementwise nonlinear nodes, by node index.
    charges        what rounding may take from coefficients at each node.
    """

    plan: Plan
    lower: Array
    upper: Array
    intervals: list[Interval]
    steps: dict[int, Step]
    charges: Charges | BoxCharges = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Charges that are not given follow from the rest, node by node as it becomes known."""
        if self.charges is None:
            charges = Charges(self.plan.graph, self.intervals, self.lower, steps=self.steps)
            object.__setattr__(self, "charges", charges)


@dataclass(frozen=True, eq=False)
class LinearBound:
    """``coefficients . x + constant <= row value`` on the box, ``[B, S, n]`` and ``[B, S]``; `lower` ``[B, S]`` is
    its minimum there, or a better lower bound of the value. `lost` ``[B, S]`` is what the constant has given away for
    rounding."""

    coefficients: Array
    constant: Array
    lower: Array
    lost: Array

    def boxes(self, index: Array) -> LinearBound:
        """The bound on the boxes at `index` (integers)."""
        return LinearBound(*(x[index] for x in (self.coefficients, self.constant, self.lower, self.lost)))

    def allowance(self, lower: Array, upper: Array) -> Array:
        """What the minima on these boxes ``[B, n]`` gave away for rounding, ``[B, S]``."""
        reach = array_namespace(lower).maximum(abs(lower), abs(upper))
        return self.lost + rounding(lower, lower.shape[1]) * (abs(self.coefficients) @ reach[:, :, None])[:, :, 0]


Carried = tuple[tuple["Array", ...], "Array | None"]
"""What carrying coefficients through a node gives: one ``[B, S, *shape_k]`` an input, and the constants ``[B, S]`` to
add (None for zero)."""


@quiet
def backward(
    state: Relaxed, start: int, coefficients: Array, constant: Array | None = None, index: Array | None = None
) -> LinearBound:
    """Lower linear bounds of the rows ``<coefficients, value of node start> + constant``.

    coefficients   ``[B, S, *shape of start]``; constant ``[B, S]`` or None.
    index          integers ``[B]``: the box each batch entry is about; None when entry b is about box b.
    """
    nodes = state.plan.graph.nodes
    batch, rows = coefficients.shape[:2]
    total = zeros_like_shape((batch, rows), coefficients) if constant is None else constant
    # What is added up one by one, and what rounding may have taken from it.
    sizes, lost = abs(total), 0.0 * total
    pending: dict[int, Array] = {start: coefficients}
    result: Array | None = None
    for position in range(start, -1, -1):
        a = pending.pop(position, None)
        if a is None:
            continue
        node = nodes[position]
        if node.op == "Input":
            result = a.reshape(batch, rows, -1)
            continue
        charge = state.charges.at(position, start=position == start)
        if charge is not None:
            lost = lost + charge.of(a, index)
        carried, part = through(state, position, a.reshape(batch, rows, *node.shape), index)
        if part is not None:
            total, sizes = total + part, sizes + abs(part)
        leaving = state.charges.leaving(position) if position in state.plan.elementwise else None
        if leaving is not None:
            for leave, piece in zip(leaving, carried, strict=True):
                lost = lost + leave.of(piece, index)
        for source, piece in zip(node.inputs, carried, strict=True):
            known = pending.get(source)
            pending[source] = piece if known is None else known + piece
    if result is None:
        result = zeros_like_shape((batch, rows, state.lower.shape[1]), coefficients)
    lost = lost + constants_rounding(state.plan, coefficients) * sizes
    return _concretize(state, result, total, lost, index)


def constants_rounding(plan: Plan, like: Array) -> float:
    """The share of constants, added up one by one, that rounding may take; also of those that are sums themselves whose
    terms all have one sign, so that nothing is charged for them (`charges.lines_charge`)."""
    return rounding(like, plan.longest) + rounding(like, len(plan.graph.nodes))


def _broadcast(x: Array, batch: int, index: Array | None) -> Array:
    if index is not None:
        return x[index]
    return x if x.shape[0] == batch else array_namespace(x).broadcast_to(x, (batch, *x.shape[1:]))


def through(state: Relaxed, position: int, a: Array, index: Array | None) -> Carried:
    """Carry coefficients ``[B, S, *shape]`` through one node; `index` as for `backward`."""
    node = state.plan.graph.nodes[position]
    operator = rule(node.op)
    batch, rows = a.shape[:2]
    if operator.linear is not None:
        bias = operator.linear.bias(node)
        part = None
        if bias is not None:
            vector = as_like(bias, a).reshape(-1)
            part = (a.reshape(batch * rows, -1) @ vector).reshape(batch, rows)
        pieces = operator.linear.adjoint(node, a.reshape(batch * rows, *node.shape)) if node.inputs else ()
        return tuple(piece.reshape(batch, rows, *piece.shape[1:]) for piece in pieces), part
    step = state.steps.get(position)
    if step is not None:
        if index is not None and step.spread[0].shape[0] > 1:
            step = step.rows(index)
        pieces, part = backward_step(a.reshape(batch, rows, -1), step)
        return tuple(piece.reshape(batch, rows, *node.shape) for piece in pieces), part
    intervals = [state.intervals[source] for source in node.inputs]
    if operator.backward is not None:
        chosen = [
            (
                low if low.shape[0] == 1 or index is None else low[index],
                high if high.shape[0] == 1 or index is None else high[index],
            )
            for low, high in intervals
        ]
        return operator.backward(node, chosen, a)
    return _constant_lines(state, position, a, index)


def _constant_lines(state: Relaxed, position: int, a: Array, index: Array | None) -> tuple[tuple[Array, ...], Array]:
    """An operator without a relaxation: its interval as two constant lines."""
    xp = array_namespace(a)
    node = state.plan.graph.nodes[position]
    low, high = state.intervals[position]
    if index is not None and low.shape[0] > 1:
        low, high = low[index], high[index]
    flat = a.reshape(*a.shape[:2], -1)
    low, high = low.reshape(low.shape[0], 1, -1), high.reshape(high.shape[0], 1, -1)
    terms = xp.where(flat > 0, flat * low, xp.where(flat < 0, flat * high, 0.0))
    zeros = tuple(zeros_like_shape((*a.shape[:2], *shape), a) for shape in node.input_shapes)
    return zeros, xp.sum(terms, axis=-1)


def _concretize(state: Relaxed, a: Array, constant: Array, lost: Array, index: Array | None) -> LinearBound:
    """Minimise over the box: ``a . centre - |a| . radius``, less the rounding allowance."""
    lower, upper = (_broadcast(end, a.shape[0], index) for end in (state.lower, state.upper))
    centre, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
    slack = rounding(a, a.shape[2])
    # The allowance covers |a| |x| for every x of the box: |x| <= |centre| + radius.
    extent = abs(centre) + radius
    reach = radius + slack * extent
    if isinstance(a, np.ndarray):
        value = np.einsum("bsn,bn->bs", a, centre) - np.einsum("bsn,bn->bs", abs(a), reach)
    else:
        value = (a @ centre[:, :, None])[:, :, 0] - (abs(a) @ reach[:, :, None])[:, :, 0]
    # (The last additions are rounded, too; what was lost is off by little of itself.)
    lost = 1.01 * lost + unit_roundoff(a) * (abs(value) + 2.0 * abs(constant)) + underflow(extent)[:, None]
    constant = constant - lost
    minimum = value + constant
    # A sum that overflowed says nothing, even where it came out as plus infinity.
    lowest = array_namespace(a).where(abs(minimum) < float("inf"), minimum, -float("inf"))
    return LinearBound(a, constant, lowest, lost)


def single(state: Relaxed, box: int) -> Relaxed:
    """The state of one box of the batch (views)."""
    if state.lower.shape[0] == 1:
        return state
    here = slice(box, box + 1)

    def cut(x: Array) -> Array:
        return x if x.shape[0] == 1 else x[here]

    steps = {key: step if step.spread[0].shape[0] == 1 else step.rows(here) for key, step in state.steps.items()}
    intervals = [(cut(low), cut(high)) for low, high in state.intervals]
    charges = state.charges.box(box) if isinstance(state.charges, Charges) else state.charges
    return Relaxed(state.plan, state.lower[here], state.upper[here], intervals, steps, charges)


def step_of(state: Relaxed, box: int, position: int) -> Step | None:
    """The relaxation of one node on one box (views)."""
    step = state.steps.get(position)
    return step if step is None or step.spread[0].shape[0] == 1 else step.rows(slice(box, box + 1))
