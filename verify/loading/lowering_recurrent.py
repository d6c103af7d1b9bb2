"""Lowering of ONNX's recurrent operators: unrolled into core operators, step by step."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .builder import GraphBuilder, LoweringError, Variable
from .lowering import Call, Lowering, Outputs
from .lowering_activation import ROWS as ACTIVATIONS
from .lowering_arithmetic import clip
from .recurrence import Cell, Function, Gru, Lstm, Plain, State, Weights, initial_state, sequence_of, unroll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_SETTINGS: Mapping[str, Mapping[str, float | None]] = MappingProxyType(
    {
        "Relu": {},
        "Tanh": {},
        "Sigmoid": {},
        "Softsign": {},
        "Softplus": {},
        "LeakyRelu": {"alpha": 0.01},
        "ThresholdedRelu": {"alpha": None},
        "Elu": {"alpha": 1.0},
        "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
        "Affine": {"alpha": None, "beta": 0.0},
        "ScaledTanh": {"alpha": None, "beta": None},
    }
)
"""Activation functions that recurrent operators may name, with the settings that each takes from the two lists and
their defaults; None where runtimes disagree about it."""

_BY_NAME: Mapping[str, str] = MappingProxyType({name.lower(): name for name in _SETTINGS})

_DEFAULTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
)
_GATES: Mapping[str, int] = MappingProxyType({"RNN": 1, "GRU": 3, "LSTM": 4})
_DIRECTIONS: Mapping[str, tuple[bool, ...]] = MappingProxyType(
    {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
)
"""For each direction that an operator runs in, whether it starts at the end."""


def _applied(builder: GraphBuilder, x: Variable, name: str, settings: Mapping[str, float], limit: float) -> Variable:
    """An activation function of a value that is limited to ``[-limit, limit]`` before."""
    x = clip(builder, x, -limit, limit)
    if name == "Affine":
        return builder.affine(x, settings["alpha"], settings["beta"])
    if name == "ScaledTanh":
        return builder.affine(builder.unary("Tanh", builder.affine(x, settings["beta"])), settings["alpha"])
    row = next(row for row in ACTIVATIONS if row.op_type == name)
    return builder.variable(row.lower(Call(builder, name, (x,), settings, 24)))


def _activations(call: Call, count: int) -> list[list[Function]]:
    """The activation functions of every direction, their settings consumed from the operator's lists in order."""
    defaults = _DEFAULTS[call.op_type]
    width = len(defaults)
    names = tuple(call.attributes.get("activations") or defaults * count)
    if len(names) != count * width:
        raise LoweringError(f"its activations {list(names)} are not {width} a direction")
    given = {key: iter(call.attributes.get(f"activation_{key}") or ()) for key in ("alpha", "beta")}
    limit = call.number("clip", np.inf)
    made: list[Function] = []
    for position, name in enumerate(names):
        known = _BY_NAME.get(str(name).lower())
        if known is None:
            raise LoweringError(f"its activation function {name} is not covered")
        found = {key: next(given[key], default) for key, default in _SETTINGS[known].items()}
        # The standard's defaults are float32 numbers, as the attributes are.
        settings = {key: float(np.float32(value)) for key, value in found.items() if value is not None}
        if len(settings) < len(found):
            raise LoweringError(f"its activation function {name} comes without its alpha and beta")
        # onnxruntime limits what enters the gates and the candidate, not the memory that an LSTM shows.
        here = np.inf if position % width == 2 else limit
        made.append(partial(_applied, name=known, settings=settings, limit=here))
    return [made[k * width : (k + 1) * width] for k in range(count)]


def _weights(call: Call, direction: int, gates: int, hidden: int) -> Weights:
    """The weights of a direction, after checking their sizes."""
    weight, recurrence = call.known(1, "weight"), call.known(2, "recurrence weight")
    bias = call.known(3, "bias") if call.has(3) else None
    rows = gates * hidden
    shapes = [tuple(part.shape[1:]) for part in (weight, recurrence)]
    if len(shapes[0]) != 2 or shapes[0][0] != rows or shapes[1] != (rows, hidden):
        raise LoweringError(
            f"weights {list(weight.shape)} and {list(recurrence.shape)} do not fit a hidden size of {hidden}"
        )
    if bias is None:
        return Weights(weight[direction], recurrence[direction])
    if tuple(bias.shape[1:]) != (2 * rows,):
        raise LoweringError(f"its bias of shape {list(bias.shape)} does not fit a hidden size of {hidden}")
    return Weights(weight[direction], recurrence[direction], bias[direction, :rows], bias[direction, rows:])


def _cell(call: Call, weights: Weights, direction: int, functions: Sequence[Function], hidden: int) -> Cell:
    builder = call.builder
    if call.op_type == "RNN":
        return Plain(builder, weights, functions[0])
    if call.op_type == "GRU":
        after = bool(call.integer("linear_before_reset", 0))
        return Gru(builder, weights, (0, 1, 2), functions[0], functions[1], after)
    peepholes = None
    if call.has(7):
        given = call.known(7, "peephole weights")
        if tuple(given.shape[1:]) != (3 * hidden,):
            raise LoweringError(f"its peephole weights {list(given.shape)} do not fit a hidden size of {hidden}")
        parts = given[direction].reshape(3, hidden)
        peepholes = (parts[0], parts[1], parts[2])
    gate, candidate, output = functions
    coupled = bool(call.integer("input_forget", 0))
    return Lstm(builder, weights, (0, 1, 2, 3), gate, candidate, output, peepholes, coupled)


def _given_state(call: Call, position: int, direction: int, first: bool, shape: tuple[int, ...]) -> State:
    """The initial state of a direction; `first` says that the batch axis comes before that of directions."""
    if not call.has(position):
        return None
    value = call.value(position)
    wanted = (shape[1], shape[0], shape[2]) if first else shape
    if tuple(value.shape) != wanted:
        raise LoweringError(f"its initial state of shape {list(value.shape)} is not {list(wanted)}")
    if not isinstance(value, Variable):
        return initial_state(call.builder, value[:, direction] if first else value[direction])
    rows = np.arange(value.size, dtype=np.int64).reshape(value.shape)
    return call.builder.take(value, rows[:, direction] if first else rows[direction])


def _check_lengths(call: Call, steps: int) -> None:
    if call.has(4) and any(length != steps for length in call.known_ints(4, "sequence_lens")):
        raise LoweringError(
            f"its sequence_lens differ from the length of the sequence ({steps}); give sequences their full length"
        )


def _recurrent(call: Call) -> Outputs:
    builder = call.builder
    x = call.x()
    way = call.text("direction", "forward")
    if way not in _DIRECTIONS:
        raise LoweringError(f"its direction {way} is unknown")
    reverses = _DIRECTIONS[way]
    count = len(reverses)
    if len(x.shape) != 3 or call.known(1, "weight").shape[0] != count:
        raise LoweringError(f"an input of shape {list(x.shape)} does not fit weights {list(call.value(1).shape)}")
    first = bool(call.integer("layout", 0))
    x = builder.transpose(x, (1, 0, 2)) if first else x
    steps, batch, _ = x.shape
    _check_lengths(call, steps)
    hidden = call.integer("hidden_size", int(call.known(2, "recurrence weight").shape[-1]))
    functions = _activations(call, count)
    sequences, hiddens, memories = [], [], []
    for direction, reverse in enumerate(reverses):
        cell = _cell(
            call, _weights(call, direction, _GATES[call.op_type], hidden), direction, functions[direction], hidden
        )
        shape = (count, batch, hidden)
        start = _given_state(call, 5, direction, first, shape)
        memory = _given_state(call, 6, direction, first, shape) if call.op_type == "LSTM" else None
        states, last, memory = unroll(builder, cell, x, start, memory, reverse)
        sequences.append(states)
        hiddens.append(last)
        if memory is not None:
            memories.append(memory)
    # From [T, D, B, H] and [1, D, B, H]: with `layout` the batch comes first.
    everything = sequence_of(builder, sequences)
    ends = [sequence_of(builder, [[state] for state in states]) for states in (hiddens, memories) if states]
    if first:
        return (
            builder.transpose(everything, (2, 0, 1, 3)),
            *(builder.reshape(builder.transpose(end, (2, 0, 1, 3)), (batch, count, hidden)) for end in ends),
        )
    return (everything, *(builder.reshape(end, (count, batch, hidden)) for end in ends))


_CORE = ("Linear", "Take", "Add", "Concat", "Scale", "Mul", "Sigmoid", "Tanh")
_NOTE = "unrolled; constant weights; sequence_lens only of the full length"

ROWS: tuple[Lowering, ...] = (
    Lowering("RNN", _recurrent, ("Linear", "Take", "Add", "Concat", "Tanh"), since=7, note=_NOTE),
    Lowering("GRU", _recurrent, _CORE, since=7, note=_NOTE),
    Lowering("LSTM", _recurrent, _CORE, since=7, note=_NOTE),
)
