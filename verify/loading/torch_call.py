"""An aten operator application as the handlers of `torch_operators` and `torch_shapes` see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .lowering import Call
from .lowering_table import LOWERINGS

if TYPE_CHECKING:
    from .builder import GraphBuilder, Value, Variable

_OPSET = 18
"""The form of the ONNX operators that handlers ask for."""


WITHOUT_EFFECT = frozenset(
    {
        *("memory_format", "pin_memory", "device", "layout", "non_blocking", "copy", "cudnn_enable", "cudnn_enabled"),
        "momentum",
    }
)
"""Arguments that change nothing about the values of an operator (in training mode the last does, which is refused)."""


class Watched(Mapping[str, Any]):
    """Arguments by name that remember which of them were read, so that none is passed over in silence."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        value = self._arguments[name]
        self.read.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._arguments

    def __iter__(self) -> Iterator[str]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)


@dataclass(frozen=True, eq=False)
class AtenCall:
    """One aten operator application: its arguments by name, defaults included."""

    builder: GraphBuilder
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or `default` where the operator has none of that name or it is None."""
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def x(self) -> Variable:
        """The first argument, a tensor, as a variable."""
        return self.builder.variable(next(iter(self.arguments.values())))

    def onnx(self, op_type: str, *inputs: Value | None, **attributes: Any) -> Any:
        """The result of the ONNX operator `op_type` on these inputs."""
        call = Call(self.builder, op_type, inputs, attributes, _OPSET)
        return LOWERINGS[op_type].lower(call)

    def number(self, name: str, default: float = 0.0) -> float:
        """A number argument as the module's own arithmetic has it: in the type of its tensors."""
        return float(self.builder.dtype.type(self.get(name, default)))

    def operand(self, name: str) -> Value:
        """A tensor or number argument, numbers as arrays of the graph's type."""
        value = self.arguments[name]
        return np.asarray(value, dtype=self.builder.dtype) if isinstance(value, int | float) else value


Handler = Callable[[AtenCall], Any]
"""Turns an aten operator application into its output or outputs; raises `LoweringError` for forms not covered."""
