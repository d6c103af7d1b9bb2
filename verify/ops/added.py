"""Operators that a user adds: a row like those of the table, and what sources call it.

They are handed to `load`, so that two networks may be read with different ones; nothing is registered globally. A
graph refers to such a row by an `OperatorName`, which carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..arrays import array_namespace
from ..errors import UnsupportedError
from .arrays import quiet
from .lines import unary_relaxation
from .rule import OpRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Array, Node
    from .lines import Line
    from .rule import Interval

Shape = tuple[int, ...]


class OperatorName(str):
    """A `Node.op` that is not in the operator table but brings its row."""

    __slots__ = ("row",)

    row: OpRule

    def __new__(cls, text: str, row: OpRule) -> OperatorName:
        made = super().__new__(cls, text)
        made.row = row
        return made


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator that a user adds.

    names   what sources call it: an ONNX operator by its name (``Cosh``) or, of another domain than the standard one,
            ``domain.Name``; a torch operator as ``namespace.name`` (``aten.cosh``). They come before what is built in.
    row     what it does; see `OpRule` and `unary_operator`. Every lower bound, upper bound and line in it must hold for
            the operator's exact value: a row that is wrong makes verdicts wrong. `check_operator` tests it. Or the
            name of a row of the operator table, for an operator that only goes by another name.
    shape   the output's shape from the inputs' shapes and the attributes; None: elementwise, inputs broadcast first.

    Raises `UnsupportedError` for a name that the table does not have, and for a row taken out of it: rows there are
    shared among functions, which they tell apart by the name.
    """

    names: tuple[str, ...]
    row: OpRule | str
    shape: Callable[[Sequence[Shape], Mapping[str, Any]], Shape] | None = None

    def __post_init__(self) -> None:
        from .table import OPERATORS

        if isinstance(self.row, str):
            if self.row not in OPERATORS:
                raise UnsupportedError(f"operator {self.names[0]} is to be {self.row}, which the table does not have")
        elif any(self.row is row for row in OPERATORS.values()):
            raise UnsupportedError(f"operator {self.names[0]} has a row of the table; give that row's name instead")

    @property
    def op(self) -> str:
        """What nodes of it have as `Node.op`: no name in the operator table, unless it is one of those."""
        return self.row if isinstance(self.row, str) else OperatorName(f"added {self.names[0]}", self.row)

    def output_shape(self, shapes: Sequence[Shape], attributes: Mapping[str, Any]) -> Shape:
        """The shape of its output. Raises ValueError where an elementwise operator's inputs do not broadcast."""
        return np.broadcast_shapes(*shapes) if self.shape is None else tuple(self.shape(shapes, attributes))


class Curve(Protocol):
    """A function of one variable, of its array namespace and argument."""

    def __call__(self, xp: Any, x: Array, /) -> Array: ...


class Range(Protocol):
    """The least and the greatest value on intervals whose ends may be infinite."""

    def __call__(self, xp: Any, lower: Array, upper: Array, /) -> Interval: ...


class Enclosure(Protocol):
    """Lines ``(slope, intercept)`` below and above a function on finite intervals.

    `position`, None or an array of values in [0, 1], may choose among lines (a tangent's point, for instance): bounds
    are tuned by it, so every choice must be sound.
    """

    def __call__(self, xp: Any, lower: Array, upper: Array, position: Array | None, /) -> tuple[Line, Line]: ...


def unary_operator(
    *names: str, value: Curve, derivative: Curve, interval: Range, lines: Enclosure, summary: str = ""
) -> Operator:
    """An elementwise operator of one input, from four functions that are generic over numpy and torch.

    value, derivative   of ``(xp, x)``, with xp the array namespace of x (``xp.exp`` and so on).
    interval            of ``(xp, lower, upper)``: bounds of the value; ends may be infinite.
    lines               of ``(xp, lower, upper, position)``: see `Enclosure`. `boundsmith.verify.ops.convex` has
                        `convex_lines` and `concave_lines`; `boundsmith.verify.ops.lines` builds others.
    """

    @quiet
    def evaluate(node: Node, xs: Sequence[Array]) -> Array:
        return value(array_namespace(xs[0]), xs[0])

    @quiet
    def bounds(node: Node, intervals: Sequence[Interval]) -> Interval:
        lower, upper = intervals[0]
        return interval(array_namespace(lower), lower, upper)

    def build(xp: Any, node: Node, lower: Array, upper: Array, slope: Array | None) -> tuple[Line, Line]:
        return lines(xp, lower, upper, slope)

    @quiet
    def vjp(node: Node, xs: Sequence[Array], y: Array, gradient: Array) -> tuple[Array, ...]:
        return (gradient * derivative(array_namespace(xs[0]), xs[0]),)

    row = OpRule(evaluate=evaluate, interval=bounds, relax=unary_relaxation(build, bounds), vjp=vjp, summary=summary)
    return Operator(tuple(names), row)
