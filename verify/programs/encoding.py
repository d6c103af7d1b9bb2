"""Linear and mixed-integer programmes of a piecewise-linear graph over a box.

Columns are the inputs x, for every nonlinear node the inputs z that it reads (tied to earlier columns by one *link* row
each, the only dense rows), the outputs y of its undecided entries, and for a mixed-integer programme their choices.
Entries that their bounds decide are affine in one z and get no column of their own. The objective is the least ``t``
with ``t >= rows y - offsets`` for all rows of one clause: the clause is unsafe iff ``t <= 0`` somewhere.

Sources: Tjeng, Xiao & Tedrake 2019 (mixed-integer), Ehlers 2017 (the triangle linear programme).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import ERROR, to_numpy
from ..ops import rule
from .choice_rows import add_choices
from .facets import Facet, facets
from .program import Program, ProgramBuilder
from .roles import EXTREMA, PIECES, NotEncodable, Role, narrow, role_of
from .wiring import Wiring, is_variable, reached, substitute, wire

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Graph, Node
    from .roles import Bounds


LOOSE = 1e-15
"""Relative errors of parameters that solvers' tolerances hide."""


@dataclass(frozen=True, eq=False)
class NodeRows:
    """Where a nonlinear node's rows are in the programme.

    links          integers ``[K, E]``: the row ``z - (earlier columns) = constant``; -1 for none.
    lower, upper   the facets with their rows ``[E]`` (-1 for none); empty in a mixed-integer programme.
    """

    links: np.ndarray
    lower: tuple[tuple[Facet, np.ndarray], ...]
    upper: tuple[tuple[Facet, np.ndarray], ...]


@dataclass(frozen=True, eq=False)
class Model:
    """A programme and what its columns and rows mean.

    inputs    number of leading columns that are the inputs.
    bounds    bounds of every node's entries that the programme used;  roles, nodes  by nonlinear node index.
    clause    the rows ``t - rows y >= -offsets``, integers ``[S]``.
    """

    program: Program
    inputs: int
    wiring: Wiring
    bounds: Sequence[Bounds]
    roles: Mapping[int, Role]
    nodes: Mapping[int, NodeRows]
    clause: np.ndarray


@dataclass(frozen=True)
class Size:
    """About how large a programme would be: numbers of columns, of nonzero coefficients, of undecided entries."""

    columns: int
    nonzeros: int
    undecided: int


def encodable(graph: Graph) -> str | None:
    """Why the graph has no programme, naming the node; None if it has one."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return "a programme needs a graph with one input and one output node"
    for index in reached(graph):
        node = graph.nodes[index]
        if node.op != "Input" and rule(node.op).linear is None and node.op not in PIECES and node.op not in EXTREMA:
            return f"node {node.name}: operator {node.op} is not piecewise linear"
    return None


def inexact(graph: Graph) -> str | None:
    """Why an optimum of a programme of the graph says nothing about the network, naming the node; None if it does.

    (Certificates need not ask: they give errors of parameters away.)
    """
    for index in reached(graph):
        node = graph.nodes[index]
        if _is_loose(node):
            return f"node {node.name}: its parameters were merged from numbers that nearly cancel, and are not exact"
    return None


def _is_loose(node: Node) -> bool:
    """Whether a parameter may be off by more than rounding it to float64 would do: rows have no room for that."""
    return any(
        bool((to_numpy(error) > LOOSE * abs(to_numpy(node.params[key.removesuffix(ERROR)]))).any())
        for key, error in node.params.items()
        if key.endswith(ERROR)
    )


def roles_of(
    graph: Graph, intervals: Sequence[Bounds], phases: Mapping[int, np.ndarray] | None = None
) -> tuple[list[Bounds], dict[int, Role]]:
    """The bounds with the phases applied, and the role of every nonlinear node on them.

    Raises `NotEncodable` and `EmptyDomain`.
    """
    reason = encodable(graph)
    if reason is not None:
        raise NotEncodable(reason)
    bounds = narrow(graph, intervals, phases)
    nonlinear = [index for index in reached(graph) if is_variable(graph.nodes[index]) and index not in graph.inputs]
    return bounds, {index: role_of(graph, index, bounds, (phases or {}).get(index)) for index in nonlinear}


def estimate(graph: Graph, intervals: Sequence[Bounds]) -> Size:
    """The programme's size, from one row of each nonlinear node. Raises `NotEncodable`."""
    _, roles = roles_of(graph, intervals)
    columns, nonzeros, undecided = graph.nodes[graph.inputs[0]].size + 1, 0, 0
    middle = {}
    for index, role in roles.items():
        columns += int(role.used.sum() + role.undecided.sum())
        undecided += int(role.undecided.sum())
        typical = np.zeros_like(role.used)
        for slot, used in enumerate(role.used):
            entries = np.flatnonzero(used)
            typical[slot, entries[len(entries) // 2 : len(entries) // 2 + 1]] = True
        middle[index] = replace(role, used=typical)
    wiring = wire(graph, middle)
    for (index, slot), links in wiring.links.items():
        nonzeros += int(links.matrix.nnz) * int(roles[index].used[slot].sum())
    return Size(columns, nonzeros, undecided)


def encode(
    graph: Graph,
    lower: np.ndarray,
    upper: np.ndarray,
    intervals: Sequence[Bounds],
    rows: np.ndarray,
    offsets: np.ndarray,
    *,
    relaxed: bool,
    phases: Mapping[int, np.ndarray] | None = None,
    wiring: Wiring | None = None,
    floor: float = -np.inf,
) -> Model:
    """The programme of one clause over one box.

    lower, upper   the box, float64 ``[n]``;  intervals  finite bounds of every node, float64 ``[E]`` each.
    rows, offsets  the clause, ``[S, m]`` and ``[S]`` with S at least 1.
    relaxed        facets and no integers (a linear programme); otherwise one choice of each undecided entry.
    phases         by nonlinear node: ``[E]`` of -1, 0, +1: its pre-activation is <= 0, free, >= 0; `roles.HELD`: within
                   bounds that the domain demands.
    wiring         `wire` of the graph, where one was made for a box that contains this one.
    floor          a known lower bound of the optimum.
    Raises `NotEncodable` (operator, infinite bound) and `EmptyDomain` (phases against bounds).
    """
    if not len(rows):
        raise ValueError("a clause without rows has no programme")
    bounds, roles = roles_of(graph, intervals, phases)
    if wiring is None:
        wiring = wire(graph, roles)
    build = ProgramBuilder()
    values = _Values(wiring)
    values.put(graph.inputs[0], build.add_columns(lower, upper), 1.0, 0.0)
    nodes = {}
    for index in wiring.nonlinear:
        nodes[index] = _add_node(build, values, roles[index], relaxed)
    t = build.add_columns(np.array([floor]), np.array([np.inf]), cost=1.0)
    matrix, constant = substitute(wiring, graph.outputs[0], rows)
    block, moved = values.rows(matrix)
    clause = build.add_block(-block, moved + constant - offsets, np.full(len(rows), np.inf))
    build.add_terms(clause, t[np.zeros(len(rows), dtype=int)], 1.0)
    return Model(build.finish(), len(lower), wiring, bounds, roles, nodes, clause)


class _Values:
    """Every variable of the wiring as ``scale * column + shift`` (column -1: a constant)."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.column = np.full(wiring.size, -1)
        self.scale = np.zeros(wiring.size)
        self.shift = np.zeros(wiring.size)

    def put(self, index: int, column: np.ndarray, scale: np.ndarray | float, shift: np.ndarray | float) -> None:
        """Set a node's entries."""
        start = self.wiring.starts[index]
        here = slice(start, start + len(column))
        self.column[here], self.scale[here], self.shift[here] = column, scale, shift

    def rows(self, matrix: Any) -> tuple[Any, np.ndarray]:
        """Rows ``[R, V]`` over the variables as rows over the columns so far, and constants ``[R]``."""
        from scipy import sparse

        known = np.flatnonzero((self.column >= 0) & (self.scale != 0.0))
        width = int(self.column.max()) + 1
        change = sparse.csr_matrix((self.scale[known], (known, self.column[known])), shape=(self.wiring.size, width))
        return matrix @ change, matrix @ self.shift


def _add_node(build: ProgramBuilder, values: _Values, role: Role, relaxed: bool) -> NodeRows:
    """Add a nonlinear node's columns and rows; its entries become known to `values`."""
    node = values.wiring.graph.nodes[role.index]
    inputs = np.full(role.used.shape, -1)
    links = np.full(role.used.shape, -1)
    for slot, used in enumerate(role.used):
        wires = values.wiring.links[role.index, slot]
        position = wires.position[used]
        if (position < 0).any():
            raise ValueError(f"node {node.name}: the wiring was made for another region")
        block, moved = values.rows(wires.matrix[position])
        constant = moved + wires.constant[position]
        links[slot, used] = build.add_block(-block, constant, constant)
        inputs[slot, used] = build.add_columns(role.low[slot, used], role.high[slot, used])
        build.add_terms(links[slot, used], inputs[slot, used], 1.0)
    outputs = np.full(node.size, -1)
    outputs[role.undecided] = build.add_columns(role.least[role.undecided], role.most[role.undecided])
    lower: tuple[tuple[Facet, np.ndarray], ...] = ()
    upper: tuple[tuple[Facet, np.ndarray], ...] = ()
    if not role.undecided.any():
        pass
    elif relaxed:
        below, above = facets(node, role)
        lower = tuple((facet, _add_facet(build, facet, inputs, outputs, below=True)) for facet in below)
        upper = tuple((facet, _add_facet(build, facet, inputs, outputs, below=False)) for facet in above)
    else:
        add_choices(build, node, role, inputs, outputs)
    slot = abs(role.slopes).argmax(axis=0)
    entries = np.arange(node.size)
    column = np.where(role.undecided, outputs, inputs[slot, entries])
    scale = np.where(role.undecided, 1.0, role.slopes[slot, entries])
    values.put(role.index, np.where(scale != 0.0, column, -1), scale, role.shift)
    return NodeRows(links, lower, upper)


def _add_facet(
    build: ProgramBuilder, facet: Facet, inputs: np.ndarray, outputs: np.ndarray, *, below: bool
) -> np.ndarray:
    """One row ``y - <slopes, z> >= intercept`` (or ``<=``) an entry; returns their indices ``[E]``, -1 for none."""
    entries = np.flatnonzero(facet.mask)
    rows = np.full(len(facet.mask), -1)
    end = facet.intercept[entries]
    rows[entries] = build.add_rows(end if below else -np.inf, np.inf if below else end, len(entries))
    build.add_terms(rows[entries], outputs[entries], 1.0)
    for slopes, columns in zip(facet.slopes, inputs, strict=True):
        some = entries[slopes[entries] != 0.0]
        build.add_terms(rows[some], columns[some], -slopes[some])
    return rows
