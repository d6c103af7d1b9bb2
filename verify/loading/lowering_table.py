"""The table of lowerings: every supported ONNX operator, by its name.

To support another operator: write a function from `Call` to its output in the family file it belongs to, built from
the `GraphBuilder`'s methods; raise `LoweringError` with a reason for forms it does not cover; add a row to the file's
``ROWS``, the names of the inputs and attributes that it looks at to `forms.FORMS`, and a case to
``tests/loading/test_lowering.py``, which fails for a row that no case tries.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from . import (
    lowering_activation,
    lowering_arithmetic,
    lowering_attention,
    lowering_einsum,
    lowering_index,
    lowering_linear,
    lowering_pool,
    lowering_recurrent,
    lowering_reduce,
    lowering_shape,
    lowering_softmax,
)
from .lowering import Lowering

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..ops.added import Operator
    from .builder import Value
    from .lowering import Call

DOMAINS = ("", "ai.onnx")
"""The names of ONNX's standard operator domain."""

NEWEST_OPSET = 24
"""The newest version of that domain whose changes the lowerings know."""


def lowering_of(operator: Operator) -> Lowering:
    """How an operator that a user adds is lowered: to one node of it."""

    def lower(call: Call) -> Value:
        builder = call.builder
        inputs = [builder.variable(value) for value in call.inputs if value is not None]
        shape = operator.output_shape([x.shape for x in inputs], call.attributes)
        if operator.shape is None:
            inputs = [builder.broadcast(x, shape) for x in inputs]
        return builder.add(operator.op, inputs, shape, attributes=call.attributes, integral=False)

    return Lowering(operator.names[0], lower)


LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {
        row.op_type: row
        for family in (
            lowering_activation,
            lowering_arithmetic,
            lowering_attention,
            lowering_einsum,
            lowering_index,
            lowering_linear,
            lowering_pool,
            lowering_recurrent,
            lowering_reduce,
            lowering_shape,
            lowering_softmax,
        )
        for row in family.ROWS
    }
)
