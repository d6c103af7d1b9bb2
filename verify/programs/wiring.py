"""How nonlinear nodes hang together: the linear nodes between them, substituted away.

The *variables* of a graph are the entries of its input and of its nonlinear nodes, in the order of the nodes. What a
nonlinear node reads is an affine function of earlier variables; its rows are formed by the operators' adjoints, a chunk
of entries at a time, and kept sparse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..budget import NEVER, Deadline
from ..ops import rule
from ..ops.arrays import as_like

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Graph, Node
    from .roles import Role

Sparse = Any
"""A `scipy.sparse.csr_matrix` (scipy is imported only when a programme is built)."""

CHUNK_BYTES = 64 << 20
"""Size of one dense chunk of rows while they are formed."""


@dataclass(frozen=True, eq=False)
class Links:
    """Affine rows over the variables: value of entry ``e`` is ``matrix[position[e]] . v + constant[position[e]]``.

    position   integers ``[E]``, -1 for entries without a row; matrix ``[R, V]``; constant ``[R]``.
    """

    position: np.ndarray
    matrix: Sparse
    constant: np.ndarray


@dataclass(frozen=True, eq=False)
class Wiring:
    """A graph's variables and the rows between them.

    variables   nodes whose entries are variables: the input, then the nonlinear ones that the output depends on.
    starts      first variable of each, by node index;  size  the number of variables ``V``.
    links       rows of what nonlinear nodes read, by (node index, position among its inputs).
    """

    graph: Graph
    variables: tuple[int, ...]
    starts: Mapping[int, int]
    size: int
    links: Mapping[tuple[int, int], Links]

    @property
    def nonlinear(self) -> tuple[int, ...]:
        """The variables' nodes without the input."""
        return self.variables[1:]


def is_variable(node: Node) -> bool:
    """Whether the node's entries are variables (it is the input or nonlinear)."""
    return node.op == "Input" or rule(node.op).linear is None


def reached(graph: Graph) -> tuple[int, ...]:
    """Indices of the nodes that the output depends on, and of the input."""
    needed = {graph.outputs[0], graph.inputs[0]}
    for index in range(graph.outputs[0], -1, -1):
        if index in needed:
            needed.update(graph.nodes[index].inputs)
    return tuple(sorted(needed))


def wire(graph: Graph, roles: Mapping[int, Role], deadline: Deadline = NEVER) -> Wiring:
    """The rows of every entry that some nonlinear node's role uses. Raises `TimeUp`.

    The wiring serves every domain on which no further entries are used: sub-domains with the same phases or tighter
    bounds; entries that only a phase uses must have it here, too.
    """
    variables = tuple(index for index in reached(graph) if is_variable(graph.nodes[index]))
    sizes = [graph.nodes[index].size for index in variables]
    ends = np.cumsum(sizes)
    starts = {index: int(end) - size for index, end, size in zip(variables, ends, sizes, strict=True)}
    bare = Wiring(graph, variables, starts, int(ends[-1]), {})
    links = {
        (index, slot): _links(bare, source, roles[index].used[slot], deadline)
        for index in variables[1:]
        for slot, source in enumerate(graph.nodes[index].inputs)
    }
    return Wiring(graph, variables, starts, bare.size, links)


def _links(wiring: Wiring, source: int, used: np.ndarray, deadline: Deadline) -> Links:
    from scipy import sparse

    node = wiring.graph.nodes[source]
    entries = np.flatnonzero(used)
    position = np.full(node.size, -1)
    position[entries] = np.arange(len(entries))
    largest = max(inner.size for inner in wiring.graph.nodes)
    chunk = max(1, CHUNK_BYTES // (8 * largest))
    blocks, constants = [], []
    for start in range(0, len(entries), chunk):
        deadline.check()
        picked = entries[start : start + chunk]
        seed = np.zeros((len(picked), node.size))
        seed[np.arange(len(picked)), picked] = 1.0
        matrix, constant = substitute(wiring, source, seed)
        blocks.append(matrix)
        constants.append(constant)
    if not blocks:
        return Links(position, sparse.csr_matrix((0, wiring.size)), np.zeros(0))
    return Links(position, sparse.vstack(blocks, format="csr"), np.concatenate(constants))


def substitute(wiring: Wiring, start: int, coefficients: np.ndarray) -> tuple[Sparse, np.ndarray]:
    """Rows ``[R, size of start]`` on a node's value as sparse rows ``[R, V]`` over the variables, and constants
    ``[R]``."""
    from scipy import sparse

    nodes = wiring.graph.nodes
    count = len(coefficients)
    constant = np.zeros(count)
    pending = {start: coefficients}
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for position in range(start, -1, -1):
        a = pending.pop(position, None)
        if a is None:
            continue
        node = nodes[position]
        if is_variable(node):
            row, column = np.nonzero(a)
            rows.append(row)
            columns.append(column + wiring.starts[position])
            values.append(a[row, column])
            continue
        constant = constant + step_back(node, a, pending)
    triplets = (np.concatenate([[], *values]), (np.concatenate([[], *rows]), np.concatenate([[], *columns])))
    return sparse.csr_matrix(triplets, shape=(count, wiring.size)), constant


def step_back(node: Node, a: np.ndarray, pending: dict[int, np.ndarray]) -> np.ndarray:
    """Carry coefficients ``[R, size]`` through a linear node into `pending`; returns the constants ``[R]`` it adds."""
    linear = rule(node.op).linear
    assert linear is not None
    if node.inputs:
        pieces: Sequence[np.ndarray] = linear.adjoint(node, a.reshape(len(a), *node.shape))
        for source, piece in zip(node.inputs, pieces, strict=True):
            flat = piece.reshape(len(a), -1)
            pending[source] = pending[source] + flat if source in pending else flat
    bias = linear.bias(node)
    return np.zeros(len(a)) if bias is None else a @ np.broadcast_to(as_like(bias, a), node.shape).reshape(-1)
