"""What it takes to lower one source operator: the call as the importer sees it, and a row of the table of lowerings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .builder import GraphBuilder, LoweringError, Value, Variable, is_known, shape_of
from .marks import NONE, Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..graph import Array


FLOAT, DOUBLE = 1, 11
"""The codes of element types in which an operator may be told to calculate."""


@dataclass(frozen=True, eq=False)
class Call:
    """One operator application of the source network.

    `inputs` holds None where an optional input is absent; `opset` is the version of the operator's domain;
    `outputs` how many outputs the source names; `marks` tell of inputs whose actual shape depends on the network's.
    """

    builder: GraphBuilder
    op_type: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1
    marks: tuple[Marks, ...] = ()

    def mark(self, position: int) -> Marks:
        """How the input at `position` differs from the value that stands for it."""
        return self.marks[position] if position < len(self.marks) else NONE

    def has(self, position: int) -> bool:
        """Whether the optional input at `position` is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def value(self, position: int) -> Value:
        """The input at `position`, which must be given."""
        if not self.has(position):
            raise LoweringError(f"its input {position} is missing")
        return self.inputs[position]

    def x(self, position: int = 0) -> Variable:
        """The input at `position` as a variable."""
        return self.builder.variable(self.value(position))

    def known(self, position: int, what: str) -> Array:
        """The input at `position`, which must not depend on the network's inputs; `what` names its role."""
        value = self.value(position)
        if not is_known(value):
            raise LoweringError(f"its {what} depends on the network's inputs")
        return value

    def known_ints(self, position: int, what: str) -> tuple[int, ...]:
        """The input at `position` as whole numbers."""
        return tuple(int(value) for value in np.asarray(self.known(position, what)).reshape(-1).tolist())

    def known_number(self, position: int, what: str) -> float:
        """The input at `position` as one number."""
        value = np.asarray(self.known(position, what))
        if value.size != 1:
            raise LoweringError(f"its {what} is not a single number")
        return float(value.reshape(()))

    def number(self, name: str, default: float) -> float:
        """A numeric attribute; the defaults of the standard are float32 numbers."""
        return float(self.attributes.get(name, np.float32(default)))

    def choice(self, name: str, default: float | str, *covered: float | str) -> None:
        """Check an attribute that has to have its default value, or one of those `covered`."""
        value = self.attributes.get(name, default)
        if value != default and value not in covered:
            raise LoweringError(f"its {name} is {value}, which is not covered")

    def integer(self, name: str, default: int) -> int:
        """A whole-number attribute."""
        return int(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        return str(self.attributes.get(name, default))

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of whole numbers, or None if the attribute is absent."""
        value = self.attributes.get(name)
        return None if value is None else tuple(int(item) for item in value)

    def axis(self, name: str, default: int, rank: int) -> int:
        """An axis attribute, counted from the front."""
        return normal_axis(self.integer(name, default), rank)


def normal_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front; raises `LoweringError` where it is outside ``[-rank, rank)``."""
    if not -rank <= axis < max(rank, 1):
        raise LoweringError(f"axis {axis} is outside a tensor of {rank} axes")
    return axis % rank if rank else 0


Outputs = Value | tuple[Value, ...]


@dataclass(frozen=True)
class Lowering:
    """One row: how an operator of the source becomes core operators.

    `lower` turns a `Call` into the operator's output value(s) and raises `LoweringError` for forms it does not cover;
    `core` names the core operators it may emit; `since` is the first opset version covered; `note` states limits.
    """

    op_type: str
    lower: Callable[[Call], Outputs]
    core: tuple[str, ...] = ()
    since: int = 1
    note: str = ""


__all__ = ["DOUBLE", "FLOAT", "Call", "Lowering", "LoweringError", "Outputs", "normal_axis", "shape_of"]
