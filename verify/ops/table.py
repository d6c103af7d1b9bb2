"""The operator table: one row for every operator of a `Graph`.

How to add an operator
----------------------
1. Choose the family file by the shape of the function (``linear``, ``take``, ``conv``, ``relu_like``,
   ``piecewise``, ``steps``, ``convex``, ``power``, ``smooth``, ``wave``, ``gelu``, ``product``, ``extremum``,
   ``same``, ``softmax``, ``dynamic``) or begin a new one, with ``ROWS`` that are added below.
2. Write ``evaluate`` and ``interval``. The interval must be exact or close to it, must accept infinite ends (answer
   infinite ends, never NaN) and raises `UndefinedOnRegion` where the operator has no value.
3. A linear operator states a `LinearRule`: ``apply``, ``apply_linear``, ``magnitude``, ``adjoint``, ``bias``;
   ``linear.centre_radius_interval`` then gives the interval. An elementwise nonlinear one states ``relax`` and ``vjp``:
   build its lines with the helpers of ``lines.py`` (choose any slope, let the intercept be the extremum of
   ``f(x) - slope * x``), wrapped in ``unary_relaxation``, which takes care of infinite ends; ``curved`` says that its
   free lines are tangents. Any other nonlinear one states ``backward`` and ``vjp``. What the operator cannot do stays
   ``None``.
4. Add a case to ``tests/ops/operator_cases.py``. The property tests run over the whole table and fail for a row without
   a case.
5. Let an importer produce it (``verify/loading``).

An operator that need not be part of Boundsmith is handed to `load` instead (`Operator`, `unary_operator`,
`check_operator`); the README has an example.

Functions are generic over numpy and torch, float32 and float64, pure, and differentiable for torch.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from . import (
    conv,
    convex,
    dynamic,
    extremum,
    gelu,
    linear,
    matmul,
    piecewise,
    power,
    product,
    relu_like,
    same,
    smooth,
    softmax,
    steps,
    take,
    wave,
)
from .added import OperatorName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .rule import OpRule

OPERATORS: Mapping[str, OpRule] = MappingProxyType(
    {
        **linear.ROWS,
        **take.ROWS,
        **conv.ROWS,
        **matmul.ROWS,
        **relu_like.ROWS,
        **piecewise.ROWS,
        **steps.ROWS,
        **convex.ROWS,
        **power.ROWS,
        **smooth.ROWS,
        **wave.ROWS,
        **gelu.ROWS,
        **product.ROWS,
        **extremum.ROWS,
        **same.ROWS,
        **softmax.ROWS,
        **dynamic.ROWS,
    }
)
"""Operator name (`Node.op`) to its row."""


def rule(op: str) -> OpRule:
    """The row of an operator, or the one that it brings (`OperatorName`).

    Raises `UnsupportedError` for a name that has none.
    """
    row = op.row if isinstance(op, OperatorName) else OPERATORS.get(op)
    if row is None:
        raise UnsupportedError(f"operator {op!r} has no row in the operator table; see `boundsmith supports`")
    return row
