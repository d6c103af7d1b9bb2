"""A property in normal form: the unsafe set as a union of clauses.

A clause is a box of inputs and a conjunction of inequalities ``C y + E x + Q m(x, y) <= d`` over outputs ``y``, inputs
``x`` and the monomials ``m`` of degree two and more that the property declares. The property is violated (``sat``) iff
some clause has a point; it holds (``unsat``) iff every clause is refuted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Box:
    """The region ``lower <= x <= upper``; two float64 arrays ``[n]`` over the free input variables."""

    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class Clause:
    """One conjunction of the unsafe set: ``x`` in `box` and, for every row s, ``C[s] y + E[s] x + Q[s] m <= d[s]``
    (``<`` where ``strict[s]``).

    Clauses over the same region share one `Box` object (compared by identity), so that work on the region is shared.

    output_rows    C, float64 ``[S, m]`` over all outputs.
    offset         d, float64 ``[S]``.
    input_rows     E, float64 ``[S, n]`` over the free inputs, or None when no row mentions an input.
    monomial_rows  Q, float64 ``[S, q]`` over `Property.monomials`, or None.
    strict         bool ``[S]``.
    ``S = 0`` means that every point of the box is unsafe.
    """

    box: Box
    output_rows: np.ndarray
    offset: np.ndarray
    strict: np.ndarray
    input_rows: np.ndarray | None = None
    monomial_rows: np.ndarray | None = None


@dataclass(frozen=True)
class TensorDeclaration:
    """A declared input or output tensor: its name, owning network, element type and shape.

    shape      None: to be taken from the network.
    onnx_name  the name of the ONNX graph's input or output that it stands for; None: matched by order of declaration.
    """

    name: str
    network: str
    element_type: str
    shape: tuple[int, ...] | None
    size: int
    onnx_name: str | None = None


@dataclass(frozen=True)
class NetworkDeclaration:
    """A declared network: its name, and the network that it must equal or be isomorphic to, if any."""

    name: str
    equal_to: str | None = None
    isomorphic_to: str | None = None


@dataclass(frozen=True, eq=False)
class Property:
    """A query in normal form.

    All declared inputs, flattened and concatenated in order of declaration, form the vector of input *variables*; input
    equalities ``X_g[0] == X_f[0]`` merge variables into shared *free* inputs: variable ``i`` is free input
    ``input_map[i]``. `Clause` speaks about free inputs. Outputs are all declared outputs, flattened and concatenated.

    monomials     tuple of monomials; a monomial is a sorted tuple of variable references ``("x", free input index)`` or
                  ``("y", output index)``, of degree >= 2 (repetition is a power).
    version       "1.0" or "2.0"; source: where it was read, for messages.
    """

    clauses: tuple[Clause, ...]
    input_count: int
    output_count: int
    input_map: np.ndarray
    networks: tuple[NetworkDeclaration, ...] = (NetworkDeclaration("N"),)
    inputs: tuple[TensorDeclaration, ...] = ()
    outputs: tuple[TensorDeclaration, ...] = ()
    monomials: tuple[tuple[tuple[str, int], ...], ...] = ()
    version: str = "1.0"
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def free_count(self) -> int:
        """Number of free inputs ``n``."""
        return int(self.input_map.max()) + 1 if self.input_map.size else 0
