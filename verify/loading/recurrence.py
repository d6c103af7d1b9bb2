"""Recurrent layers unrolled: the cells that ONNX's operators and torch's modules share, step by step.

A sequence ``[T, B, I]`` is multiplied by the input weights at once, one dense layer for all its steps; only what
depends on the state before is computed step by step. Weights stack their gates along the first axis in whatever order
the source has them, and are never rearranged, so that live parameters stay views of the module's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known

if TYPE_CHECKING:
    from ..graph import Array

MOST_STEPS = 4096
"""Steps of the longest sequence that is unrolled."""

State = Variable | None
"""A state ``[B, H]``; None stands for zeros."""

Function = Callable[[GraphBuilder, Variable], Variable]
"""An activation function, elementwise."""


@dataclass(frozen=True, eq=False)
class Weights:
    """One direction of a layer with H hidden values and G gates.

    weight            ``[G * H, I]``, of the inputs.
    recurrence        ``[G * H, H]``, of the hidden state (``[G * H, P]`` where it is projected to P values).
    bias              ``[G * H]`` or None, added to the inputs' part.
    recurrent_bias    ``[G * H]`` or None, added to the hidden state's part.
    """

    weight: Array
    recurrence: Array
    bias: Array | None = None
    recurrent_bias: Array | None = None

    def size(self, gates: int) -> int:
        """H, after checking that everything fits together."""
        rows = int(self.weight.shape[0])
        vectors = [vector for vector in (self.bias, self.recurrent_bias) if vector is not None]
        if rows % gates or rows < 1 or any(int(part.shape[0]) != rows for part in (self.recurrence, *vectors)):
            raise LoweringError(
                f"weights {list(self.weight.shape)} and {list(self.recurrence.shape)} do not fit {gates} gates"
            )
        return rows // gates


class Cell(Protocol):
    """One direction's step: from its part of the inputs ``[B, G * H]`` and the states before to those after."""

    @property
    def weights(self) -> Weights:
        """The weights of its direction."""
        ...

    def step(self, x: Variable, hidden: State, memory: State) -> tuple[Variable, State]:
        """The hidden state and the memory (None if the cell has none) after a step."""
        ...


def initial_state(builder: GraphBuilder, value: Value | None) -> State:
    """A given initial state ``[B, H]``; None if it is absent or constantly zero."""
    if value is None:
        return None
    trained = getattr(value, "requires_grad", False)
    return None if is_known(value) and not trained and not bool((value != 0).any()) else builder.variable(value)


def unroll(
    builder: GraphBuilder, cell: Cell, x: Variable, hidden: State, memory: State, reverse: bool = False
) -> tuple[list[Variable], Variable, State]:
    """Run a cell over ``[T, B, I]``, from the last step to the first with `reverse`.

    Answers the hidden states in the sequence's order, and the last states computed.
    """
    if len(x.shape) != 3 or not 1 <= x.shape[0] <= MOST_STEPS:
        raise LoweringError(f"its input of shape {list(x.shape)} is not a sequence of 1 to {MOST_STEPS} steps")
    states: list[Variable] = []
    parts = _inputs_part(builder, cell.weights, x)
    for part in reversed(parts) if reverse else parts:
        hidden, memory = cell.step(part, hidden, memory)
        states.append(hidden)
    last = states[-1]
    return (states[::-1] if reverse else states), last, memory


def _inputs_part(builder: GraphBuilder, weights: Weights, x: Variable) -> list[Variable]:
    """``x_t @ weight.T + bias`` for every step.

    Steps that are separate tensors, the states of a layer before, are multiplied one by one: a dense layer over all of
    them would make every step depend on the last.
    """
    rows = np.arange(x.size, dtype=np.int64).reshape(x.shape)
    if builder.is_joined(x):
        return [builder.linear(builder.take(x, row), weights.weight, weights.bias) for row in rows]
    whole = builder.linear(x, weights.weight, weights.bias)
    places = np.arange(whole.size, dtype=np.int64).reshape(whole.shape)
    return [builder.take(whole, place) for place in places]


def columns(builder: GraphBuilder, x: Variable, size: int, *gates: int) -> Variable:
    """The entries of some gates of ``[B, G * size]``, side by side as ``[B, len(gates) * size]``."""
    rows = np.arange(x.size, dtype=np.int64).reshape(x.shape[0], -1, size)
    return builder.take(x, rows[:, list(gates)].reshape(x.shape[0], -1))


def _state_part(builder: GraphBuilder, hidden: State, recurrence: Array, bias: Array | None) -> Variable | Array | None:
    """``hidden @ recurrence.T + bias``; only the bias, or nothing, while the state is zero."""
    return bias if hidden is None else builder.linear(hidden, recurrence, bias)


def _plus(builder: GraphBuilder, a: Variable, b: Value | None) -> Variable:
    if b is None:
        return a
    return builder.sum_of((a, b), (1, 1)) if isinstance(b, Variable) else builder.scale(a, shift=b)


def _rows(array: Array | None, first: int, last: int) -> Array | None:
    return None if array is None else array[first:last]


@dataclass(frozen=True, eq=False)
class Plain:
    """``h' = f(x W' + h R' + b)``: Elman's network."""

    builder: GraphBuilder
    weights: Weights
    activation: Function

    def step(self, x: Variable, hidden: State, memory: State) -> tuple[Variable, State]:
        """See `Cell`."""
        weights = self.weights
        state = _state_part(self.builder, hidden, weights.recurrence, weights.recurrent_bias)
        return self.activation(self.builder, _plus(self.builder, x, state)), None


@dataclass(frozen=True, eq=False)
class Gru:
    """A gated recurrent unit: ``h' = (1 - z) n + z h`` with the candidate n.

    `order` holds the positions of the gates z, r and n among the weights' rows; n must be the last. With `reset_after`
    the reset gate multiplies the product ``h R'`` (torch; ONNX's linear_before_reset), otherwise h itself.
    """

    builder: GraphBuilder
    weights: Weights
    order: tuple[int, int, int]
    gate: Function
    candidate: Function
    reset_after: bool

    def step(self, x: Variable, hidden: State, memory: State) -> tuple[Variable, State]:
        """See `Cell`."""
        builder, weights = self.builder, self.weights
        size = weights.size(3)
        edge = 2 * size
        state = _state_part(builder, hidden, weights.recurrence[:edge], _rows(weights.recurrent_bias, 0, edge))
        gates = self.gate(builder, _plus(builder, columns(builder, x, size, 0, 1), state))
        update, reset = (columns(builder, gates, size, position) for position in self.order[:2])
        inner, bias = weights.recurrence[edge:], _rows(weights.recurrent_bias, edge, 3 * size)
        product: Value | None
        if self.reset_after:
            product = _state_part(builder, hidden, inner, bias)
            if isinstance(product, Variable):
                product = builder.product(reset, product)
            elif product is not None:
                product = builder.scale(reset, scale=product)
        else:
            product = _state_part(builder, None if hidden is None else builder.product(reset, hidden), inner, bias)
        new = self.candidate(builder, _plus(builder, columns(builder, x, size, 2), product))
        fresh = builder.product(builder.affine(update, -1.0, 1.0), new)
        return (fresh if hidden is None else builder.sum_of((fresh, builder.product(update, hidden)), (1, 1))), None


@dataclass(frozen=True, eq=False)
class Lstm:
    """Long short-term memory: ``c' = f c + i g(.)``, ``h' = o h(c')``.

    `order` holds the positions of the gates i, o, f and of the candidate among the weights' rows. `peepholes` are
    factors ``[H]`` of the memory in the gates i, o, f (o sees the memory after the step); with `coupled` the forget
    gate is ``1 - i``; `projection` ``[P, H]`` multiplies the hidden state.
    """

    builder: GraphBuilder
    weights: Weights
    order: tuple[int, int, int, int]
    gate: Function
    candidate: Function
    output: Function
    peepholes: tuple[Array, Array, Array] | None = None
    coupled: bool = False
    projection: Array | None = None

    def step(self, x: Variable, hidden: State, memory: State) -> tuple[Variable, State]:
        """See `Cell`."""
        builder, weights = self.builder, self.weights
        size = weights.size(4)
        state = _state_part(builder, hidden, weights.recurrence, weights.recurrent_bias)
        total = _plus(builder, x, state)
        new = self.candidate(builder, columns(builder, total, size, self.order[3]))
        enter, leave, forget = self._gates(total, memory, size)
        kept = builder.product(enter, new)
        if memory is not None:
            factor = builder.affine(enter, -1.0, 1.0) if self.coupled else forget
            kept = builder.sum_of((kept, builder.product(factor, memory)), (1, 1))
        if self.peepholes is not None:
            leave = self._peeping(total, kept, 1, self.peepholes[1])
        shown = builder.product(leave, self.output(builder, kept))
        return (shown if self.projection is None else builder.linear(shown, self.projection)), kept

    def _gates(self, total: Variable, memory: State, size: int) -> list[Variable]:
        """The gates i, o, f as the memory before the step decides them; in one where there are no peepholes."""
        if self.peepholes is not None:
            return [self._peeping(total, memory, position, factor) for position, factor in enumerate(self.peepholes)]
        gates = self.gate(self.builder, columns(self.builder, total, size, *self.order[:3]))
        return [columns(self.builder, gates, size, position) for position in range(3)]

    def _peeping(self, total: Variable, memory: State, position: int, factor: Array) -> Variable:
        """One of the gates i, o, f with its peephole into the memory."""
        plain = columns(self.builder, total, self.weights.size(4), self.order[position])
        look = None if memory is None else self.builder.scale(memory, scale=factor)
        return self.gate(self.builder, _plus(self.builder, plain, look))


def sequence_of(builder: GraphBuilder, directions: Sequence[Sequence[Variable]]) -> Variable:
    """``[T, D, B, H]`` from the hidden states of every direction, each in the sequence's order."""
    shape = (1, *directions[0][0].shape)
    ordered = [builder.reshape(state, shape) for step in zip(*directions, strict=True) for state in step]
    joined = ordered[0]
    if len(ordered) > 1:
        joined = builder.add("Concat", ordered, (len(ordered), *shape[1:]), attributes={"axis": 0})
    return builder.reshape(joined, (len(directions[0]), len(directions), *shape[1:]))
