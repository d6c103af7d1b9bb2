"""How aten's recurrent layers and cells are lowered: unrolled, step by step."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known, shape_of
from .recurrence import Cell, Gru, Lstm, Plain, State, Weights, initial_state, sequence_of, unroll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Array
    from .torch_call import AtenCall, Handler

_KINDS: Mapping[str, str] = MappingProxyType({"lstm": "lstm", "gru": "gru", "rnn_tanh": "Tanh", "rnn_relu": "Relu"})


def _elementwise(builder: GraphBuilder, x: Variable, op: str) -> Variable:
    return builder.unary(op, x)


def _cell(builder: GraphBuilder, kind: str, weights: Weights, projection: Array | None) -> Cell:
    """A cell with torch's functions and its order of gates (i, f, g, o and r, z, n)."""
    gate, curve = (partial(_elementwise, op=op) for op in ("Sigmoid", "Tanh"))
    if kind == "lstm":
        return Lstm(builder, weights, (0, 3, 1, 2), gate, curve, curve, projection=projection)
    if kind == "gru":
        return Gru(builder, weights, (1, 0, 2), gate, curve, reset_after=True)
    return Plain(builder, weights, partial(_elementwise, op=kind))


def _weights(parts: Sequence[Any], biased: bool) -> Weights:
    if not all(is_known(part) for part in parts):
        raise LoweringError("its weights depend on the network's inputs")
    return Weights(parts[0], parts[1], *(parts[2:4] if biased else ()))


def _layer_state(builder: GraphBuilder, states: Value | None, position: int) -> State:
    """One layer and direction of initial states ``[D * layers, B, H]``."""
    if states is None:
        return None
    if isinstance(states, Variable):
        return builder.take(states, np.arange(states.size, dtype=np.int64).reshape(states.shape)[position])
    return initial_state(builder, states[position])


def _layers(call: AtenCall, kind: str) -> tuple[Value, ...]:
    """A module of several layers, one or both ways: its states for every step, and the last of each layer."""
    if "batch_first" not in call.arguments:
        raise LoweringError("packed sequences are not covered; give sequences of one length as a plain tensor")
    dropped, training = call["dropout"], call["train"]
    if dropped and training:
        raise LoweringError("it is in training mode")
    builder = call.builder
    x = call.x
    first, count = bool(call["batch_first"]), 2 if call["bidirectional"] else 1
    given = call["hx"]
    hidden, memory = given if kind == "lstm" else (given, None)
    biased = bool(call["has_biases"])
    per_direction = len(call["params"]) // (count * call["num_layers"])
    x = builder.transpose(x, (1, 0, 2)) if first else x
    hiddens, memories = [], []
    for layer in range(call["num_layers"]):
        sequences = []
        for direction in range(count):
            position = layer * count + direction
            parts = call["params"][position * per_direction : (position + 1) * per_direction]
            projection = parts[-1] if per_direction % 2 else None
            cell = _cell(builder, kind, _weights(parts, biased), projection)
            states, last, kept = unroll(
                builder,
                cell,
                x,
                _layer_state(builder, hidden, position),
                _layer_state(builder, memory, position),
                reverse=bool(direction),
            )
            sequences.append(states)
            hiddens.append(last)
            memories.append(kept)
        steps, batch = x.shape[:2]
        moved = builder.transpose(sequence_of(builder, sequences), (0, 2, 1, 3))
        x = builder.reshape(moved, (steps, batch, count * shape_of(sequences[0][0])[-1]))
    ends = [_stacked(builder, hiddens)]
    if kind == "lstm":
        ends.append(_stacked(builder, [state for state in memories if state is not None]))
    return (builder.transpose(x, (1, 0, 2)) if first else x, *ends)


def _stacked(builder: GraphBuilder, states: Sequence[Variable]) -> Variable:
    """``[N, B, H]`` from N states."""
    return builder.reshape(sequence_of(builder, [states]), (len(states), *states[0].shape))


def _single(call: AtenCall, kind: str) -> Value | tuple[Value, ...]:
    """One step of one layer: `nn.LSTMCell` and its like."""
    builder = call.builder
    given = call["hx"]
    hidden, memory = given if kind == "lstm" else (given, None)
    biases = (call.get("b_ih"), call.get("b_hh"))
    biased = biases[0] is not None
    weights = _weights([call["w_ih"], call["w_hh"], *(biases if biased else ())], biased)
    x = call.x
    _, last, kept = unroll(
        builder,
        _cell(builder, kind, weights, None),
        builder.reshape(x, (1, *x.shape)),
        initial_state(builder, hidden),
        initial_state(builder, memory),
    )
    return last if kept is None else (last, kept)


ROWS: Mapping[str, Handler] = MappingProxyType(
    {
        **{name: partial(_layers, kind=kind) for name, kind in _KINDS.items()},
        **{f"{name}_cell": partial(_single, kind=kind) for name, kind in _KINDS.items()},
    }
)
