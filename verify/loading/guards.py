"""What is seen to before an operator is lowered: entries that are minus infinity, and whole numbers that overflow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .builder import LoweringError, Masked, Variable, is_known
from .folding import fold

if TYPE_CHECKING:
    from .lowering import Call, Lowering

MOVING = frozenset({"Cast", "CastLike", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Slice"})
"""Operators through which entries that are minus infinity go as they are."""

_CONVERTING = frozenset({"Cast", "CastLike"})

_OVERFLOWING = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sum", "Mean", "Pow", "MatMul", "Gemm", "Einsum", "CumSum", "Mod"),
        *("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ScatterND"),
        *("ScatterElements", "Relu", "LeakyRelu", "PRelu"),
    }
)
_WRAPPING = frozenset({"int8", "uint8", "int16", "uint16", "uint32", "uint64"})
"""Types in which calculating is refused: 0 - 1 is a large number in those without sign."""


def moved_mask(call: Call, row: Lowering, x: Masked) -> Masked:
    """An operator that moves the entries of a tensor some of which are minus infinity: these move with the others."""
    plain = Variable(x.index, x.shape, x.dtype, x.integral)
    made = row.lower(replace(call, inputs=(plain, *call.inputs[1:])))
    further = [] if call.op_type in _CONVERTING else [value for value in call.inputs[1:] if value is not None]
    if not isinstance(made, Variable) or made.dtype.kind != "f" or not all(is_known(value) for value in further):
        raise LoweringError("it makes something else than numbers of entries that are minus infinity")
    hidden = x.hidden
    if call.op_type not in _CONVERTING:
        (moved,) = fold(replace(call, inputs=(hidden, *call.inputs[1:])), row)
        hidden = np.asarray(moved, dtype=bool)
    return Masked(made.index, made.shape, made.dtype, made.integral, hidden=hidden)


def check_range(call: Call) -> None:
    """Raise `LoweringError` for arithmetic of whole numbers whose type is so narrow that results wrap around."""
    for value in call.inputs if call.op_type in _OVERFLOWING else ():
        if isinstance(value, Variable) and value.dtype.name in _WRAPPING:
            raise LoweringError(f"it calculates with {value.dtype.name}, which wraps around; use int64 or float32")
