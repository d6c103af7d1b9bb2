"""What of ONNX is supported, for `boundsmith supports --onnx-operators`."""

from __future__ import annotations

from dataclasses import dataclass

from .folding import FOLDED_ONLY
from .lowering_table import LOWERINGS, NEWEST_OPSET
from .onnx_import import IMPORTED, OLDEST_OPSET


@dataclass(frozen=True)
class OperatorSupport:
    """One supported ONNX operator.

    `opsets` is the first and last version of the operator set whose form of it is known (later ones are read as the
    last), `core` the graph operators it becomes (none: it is evaluated while loading), `note` what is not covered.
    """

    op_type: str
    domain: str
    opsets: tuple[int, int]
    core: tuple[str, ...]
    note: str


def supported_onnx_operators() -> tuple[OperatorSupport, ...]:
    """Every supported ONNX operator, by name."""
    rows = [
        OperatorSupport(row.op_type, "ai.onnx", (max(row.since, OLDEST_OPSET), NEWEST_OPSET), row.core, row.note)
        for row in LOWERINGS.values()
    ]
    rows.extend(
        OperatorSupport(op_type, "ai.onnx", (OLDEST_OPSET, NEWEST_OPSET), (), "of constants only")
        for op_type in FOLDED_ONLY
    )
    rows.extend(
        OperatorSupport(op_type, "ai.onnx", (OLDEST_OPSET, NEWEST_OPSET), (), note)
        for op_type, note in IMPORTED.items()
    )
    return tuple(sorted(rows, key=lambda row: row.op_type))
