"""A problem: one graph from the free inputs to one output vector, and the unsafe set as groups of rows over that
vector.

Joining makes every query look alike to the methods. Several networks become one graph over the shared free inputs;
where rows mention inputs or products of variables, these are appended to the output vector, so that every row is
linear in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from .errors import UnsupportedError
from .graph import Graph, Node
from .rows import scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..specs.property import Clause, Property


@dataclass(frozen=True, eq=False)
class Group:
    """Clauses over one box.

    lower, upper   the box, float64 ``[n]``.
    rows, offsets  all clauses' rows over the output vector, float64 ``[R, m]`` and ``[R]``: a point is unsafe iff for
                   some clause
                   all of its rows have ``rows y <= offsets``.
    clause         ``[R]``: the clause (0 .. count-1) that each row belongs to.
    count          number of clauses.
    """

    lower: np.ndarray
    upper: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    strict: np.ndarray
    clause: np.ndarray
    count: int


@dataclass(frozen=True, eq=False)
class Problem:
    """One graph (flat input ``[n]``, flat output ``[m]``) and the unsafe set's groups.

    original_outputs   how many leading entries of the output vector are the networks' own outputs.
    whole              bool ``[n]``: the inputs that take whole numbers alone; their boxes end at whole numbers.
    """

    graph: Graph
    groups: tuple[Group, ...]
    original_outputs: int
    property: Property
    whole: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if not self.whole.size:
            object.__setattr__(self, "whole", np.zeros(self.graph.nodes[self.graph.inputs[0]].size, dtype=bool))

    @cached_property
    def mentions_inputs(self) -> bool:
        """Whether rows have columns for the free inputs."""
        return any(clause.input_rows is not None for clause in self.property.clauses)

    @cached_property
    def couples_inputs(self) -> bool:
        """Whether some row is about two or more inputs and nothing else."""
        for clause in self.property.clauses:
            if clause.input_rows is None:
                continue
            others = (clause.output_rows != 0).any(axis=1)
            if clause.monomial_rows is not None:
                others |= (clause.monomial_rows != 0).any(axis=1)
            if (((clause.input_rows != 0).sum(axis=1) > 1) & ~others).any():
                return True
        return False

    def extend(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The output vector ``[m]`` that rows speak about, from free inputs ``[n]`` and network outputs, in float64."""
        parts = [y]
        if self.mentions_inputs:
            parts.append(x)
        if self.property.monomials:
            values = {"x": x, "y": y}
            parts.append(
                np.array([np.prod([values[kind][index] for kind, index in m]) for m in self.property.monomials])
            )
        return np.concatenate(parts)


class _Builder:
    """Collects nodes of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(
        self,
        name: str,
        op: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        params: Mapping[str, np.ndarray] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> int:
        self.nodes.append(
            Node(
                name,
                op,
                tuple(inputs),
                shape,
                MappingProxyType(dict(params or {})),
                MappingProxyType(dict(attributes or {})),
            )
        )
        return len(self.nodes) - 1

    def take(self, name: str, source: int, indices: np.ndarray) -> int:
        """The entries `indices` of a flat node; the node itself where that is all of it in order."""
        size = self.nodes[source].size
        if indices.size == size and np.array_equal(indices, np.arange(size)):
            return source
        return self.add(name, "Take", (source,), (indices.size,), {"indices": indices.astype(np.int64)})

    def reshape(self, source: int, shape: tuple[int, ...]) -> int:
        if self.nodes[source].shape == shape:
            return source
        return self.add(f"{self.nodes[source].name}:shape", "Reshape", (source,), shape)


def join(property: Property, graphs: Mapping[str, Graph]) -> Problem:
    """Join a property with its networks, given by their declared names.

    Raises `UnsupportedError` naming the mismatch when variable counts of query and network differ.
    """
    build = _Builder()
    free = build.add("free inputs", "Input", (), (property.free_count,))
    starts = np.concatenate([[0], np.cumsum([declared.size for declared in property.inputs], dtype=int)])
    outputs: list[int] = []
    for network in property.networks:
        graph = graphs[network.name]
        declared = [tensor for tensor in property.inputs if tensor.network == network.name]
        wanted = [tensor for tensor in property.outputs if tensor.network == network.name]
        _check_sizes(property, network.name, graph, [d.size for d in declared], [d.size for d in wanted])
        first = int(starts[property.inputs.index(declared[0])]) if declared else 0
        ends = first + np.cumsum([graph.nodes[index].size for index in graph.inputs], dtype=int)
        sources = [
            build.take(
                f"{network.name} input {k}", free, property.input_map[end - graph.nodes[graph.inputs[k]].size : end]
            )
            for k, end in enumerate(ends)
        ]
        outputs += _append(build, graph, sources, f"{network.name}:" if len(property.networks) > 1 else "")
    extras = _extra_columns(build, property, free, outputs)
    whole = [*outputs, *extras]
    size = sum(build.nodes[index].size for index in whole)
    result = whole[0] if len(whole) == 1 else build.add("all outputs", "Concat", whole, (size,), attributes={"axis": 0})
    graph = Graph(tuple(build.nodes), (free,), (result,))
    return Problem(graph, _groups(property), property.output_count, property)


def flatten(graph: Graph) -> Graph:
    """The same network with one flat input (all inputs in order) and one flat output (all outputs in order)."""
    build = _Builder()
    sizes = [graph.nodes[index].size for index in graph.inputs]
    whole = build.add("input", "Input", (), (sum(sizes),))
    ends = np.cumsum(sizes)
    sources = [
        build.take(f"input {k}", whole, np.arange(end - size, end))
        for k, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    outputs = _append(build, graph, sources, "")
    size = sum(build.nodes[index].size for index in outputs)
    result = (
        outputs[0] if len(outputs) == 1 else build.add("output", "Concat", outputs, (size,), attributes={"axis": 0})
    )
    return Graph(tuple(build.nodes), (whole,), (result,))


def _check_sizes(property: Property, name: str, graph: Graph, inputs: list[int], outputs: list[int]) -> None:
    for kind, declared, nodes in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        actual = [graph.nodes[index].size for index in nodes]
        # VNN-LIB 1.0 has one vector X and one Y, whatever the number of tensors.
        flat = property.version == "1.0" and len(declared) == 1 and declared[0] == sum(actual)
        if declared != actual and not flat:
            raise UnsupportedError(
                f"{property.source or 'the query'} declares {_total(declared)} {kind} variables, but network {name} "
                f"has {_total(actual)}; check that query and network belong together"
            )


def _total(sizes: list[int]) -> str:
    """Sizes of several tensors as a sum to read."""
    return " + ".join(map(str, sizes)) or "no"


def _append(build: _Builder, graph: Graph, sources: Sequence[int], prefix: str) -> list[int]:
    """Copy a network's nodes behind its flat inputs; returns its flat outputs."""
    renumbered: dict[int, int] = {}
    for position, source in zip(graph.inputs, sources, strict=True):
        renumbered[position] = build.reshape(source, graph.nodes[position].shape)
    for index, node in enumerate(graph.nodes):
        if index not in renumbered:
            renumbered[index] = build.add(
                prefix + node.name,
                node.op,
                [renumbered[source] for source in node.inputs],
                node.shape,
                node.params,
                node.attributes,
            )
    return [build.reshape(renumbered[index], (graph.nodes[index].size,)) for index in graph.outputs]


def _extra_columns(build: _Builder, property: Property, free: int, outputs: list[int]) -> list[int]:
    """Nodes appended to the output vector: the free inputs, where rows mention them, and the monomials."""
    extras: list[int] = []
    if any(clause.input_rows is not None for clause in property.clauses):
        extras.append(free)
    if property.monomials:
        extras.append(_monomials(build, property, free, outputs))
    return extras


def _monomials(build: _Builder, property: Property, free: int, outputs: list[int]) -> int:
    """A flat node of all monomials in order, as products and powers of inputs and outputs."""
    whole = [*outputs, free]
    size = sum(build.nodes[index].size for index in whole)
    variables = build.add("all variables", "Concat", whole, (size,), attributes={"axis": 0})
    columns = [
        [property.output_count + index if kind == "x" else index for kind, index in monomial]
        for monomial in property.monomials
    ]
    pieces = []
    for factors in columns:
        factor = build.take("factor", variables, np.array(factors[:1]))
        if len(set(factors)) == 1:
            piece = build.add("power", "Pow", (factor,), (1,), attributes={"exponent": float(len(factors))})
        else:
            piece = factor
            for other in factors[1:]:
                piece = build.add("product", "Mul", (piece, build.take("factor", variables, np.array([other]))), (1,))
        pieces.append(piece)
    return build.add("monomials", "Concat", pieces, (len(pieces),), attributes={"axis": 0})


def _groups(property: Property) -> tuple[Group, ...]:
    """Clauses that share a box, together."""
    inputs = property.free_count if any(clause.input_rows is not None for clause in property.clauses) else 0
    by_box: dict[int, list[Clause]] = {}
    for clause in property.clauses:
        by_box.setdefault(id(clause.box), []).append(clause)
    return tuple(_group(clauses, inputs, len(property.monomials)) for clauses in by_box.values())


def _group(clauses: Sequence[Clause], input_columns: int, monomial_columns: int) -> Group:
    rows = []
    for clause in clauses:
        blocks = [clause.output_rows]
        for columns, block in ((input_columns, clause.input_rows), (monomial_columns, clause.monomial_rows)):
            if columns:
                blocks.append(np.zeros((len(clause.offset), columns)) if block is None else block)
        rows.append(blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1))
    box = clauses[0].box
    every, offsets = scaled(
        rows[0] if len(rows) == 1 else np.concatenate(rows), np.concatenate([clause.offset for clause in clauses])
    )
    return Group(
        box.lower,
        box.upper,
        every,
        offsets,
        np.concatenate([clause.strict for clause in clauses]),
        np.repeat(np.arange(len(clauses)), [len(clause.offset) for clause in clauses]),
        len(clauses),
    )
