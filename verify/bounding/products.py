"""Products of values that move together, written as squares where that gives tighter bounds.

McCormick's planes see two factors as independent. Two other forms of the same function do not: with
``p = s u + v / s`` and ``q = s u - v / s``,

    u v = (p^2 - q^2) / 4,

whose gap at the centre is a quarter of the squared radius of q (below) or p (above), and backward bounds of p and q see
what u and v have in common; balanced, and for independent factors, it equals McCormick's. And a quadratic form is a sum
of squares, ``x^T Q x = sum_k lambda_k (e_k^T x)^2`` by its eigenvectors, exact at the centre of a box on the convex
side.

Neither form is always better, so each is measured: the rows of the query are bounded on small boxes of its region with
and without it. Both are identities in the reals: the scales s are powers of two, and what rounding leaves out of the
eigenvectors stays as a product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Backend
from ..errors import UndefinedOnRegion
from ..graph import Graph, Node
from ..loading.precise import Precise, parameters, settled
from ..loading.rewrite import Rewriter, with_params
from ..rows import prepare_rows
from .crown import relax, row_bounds
from .plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..problem import Group

LARGEST_PRODUCT = 64
"""Entries of a product up to which other forms of it are tried."""

MOST_PRODUCTS = 12
"""Products up to which other forms are tried: each trial bounds the rows once."""

LARGEST_NODE = 4096
"""Entries of the largest node of graphs in which other forms are tried: the trials have no deadline (more than 30 s in
cctsdb_yolo, with 24,576)."""

MOST_ROWS = 64
"""Rows of a query up to which other forms are tried."""

LARGEST_GRAPH = 1 << 12
"""Entries of all nodes up to which other forms are tried: a trial must cost less than a step of the search."""

SAMPLES = 12
"""Boxes on which a form is measured."""

SHARE = 0.1
"""Width of these boxes in widths of the region: a search closes boxes of about this size."""

LEAST_GAIN = 0.01
"""By how much of its width the bound of a row (or of all together) must move for a form to be taken."""

Key = tuple[str, tuple[int, ...]]
"""A node's operator and inputs: nodes that agree in both have the same value (for the operators treated here)."""


@np.errstate(all="ignore")
def sharpened(graph: Graph, lower: np.ndarray, upper: np.ndarray, groups: Sequence[Group]) -> Graph:
    """The graph with products written as squares where that tightens the rows' bounds; else the graph itself.

    lower, upper are the groups' boxes ``[G, n]``; they and the graph's parameters are numpy arrays of one dtype, and
    the graph has one flat input and one flat output.
    """
    if max(node.size for node in graph.nodes) > LARGEST_NODE:
        return graph
    found = _candidates(graph)
    if not found or len(found) > MOST_PRODUCTS or sum(node.size for node in graph.nodes) > LARGEST_GRAPH:
        return graph
    if max(len(group.offsets) for group in groups) > MOST_ROWS:
        return graph
    rows = prepare_rows(groups, lower).rows
    random = np.random.default_rng(0)
    group = random.integers(0, lower.shape[0], SAMPLES)
    width = (upper - lower)[group]
    low = (lower[group] + (1.0 - SHARE) * width * random.random(width.shape)).astype(lower.dtype)
    high = np.minimum(low + (SHARE * width).astype(lower.dtype), upper[group])
    both = np.concatenate([rows[group], -rows[group]], axis=1)
    try:
        best, scales = _measured(graph, low, high, both, found)
    except UndefinedOnRegion:
        return graph
    spread = -best[:, best.shape[1] // 2 :] - best[:, : best.shape[1] // 2]
    chosen: dict[Key, np.ndarray | None] = {}
    for key in found:
        trial = {**chosen, key: scales[key]}
        bound, _ = _measured(_rewritten(graph, trial, lower.dtype), low, high, both, {})
        gain = (bound - best)[:, : spread.shape[1]] / np.where(spread > 0, spread, 1.0)
        if float(np.where(np.isfinite(gain), gain, 0.0).mean(axis=0).sum()) > LEAST_GAIN:
            chosen, best = trial, bound
    return _rewritten(graph, chosen, lower.dtype) if chosen else graph


def _candidates(graph: Graph) -> dict[Key, int]:
    """Nodes that have another form, by key: sums of quadratic forms first, then products."""
    forms, products = {}, {}
    covered = set()
    for node in graph.nodes:
        if node.op == "Sum" and _form(graph.nodes, node) is not None:
            forms[node.op, node.inputs] = node.inputs[0]
            covered.add(node.inputs[0])
    for index, node in enumerate(graph.nodes):
        if node.op == "Mul" and node.size <= LARGEST_PRODUCT and index not in covered:
            products[node.op, node.inputs] = index
    return forms | products


def _form(nodes: tuple[Node, ...] | list[Node], node: Node) -> tuple[int, Precise] | None:
    """The variable x and the symmetric matrix Q of a Sum node that is ``x^T Q x`` over the last axis, if it is one."""
    product = nodes[node.inputs[0]]
    rank = len(product.shape)
    over_last = {axis % rank for axis in node.attributes["axes"]} == {rank - 1} if rank else False
    if product.op != "Mul" or product.size > LARGEST_PRODUCT or not over_last:
        return None
    for x, image in (product.inputs, product.inputs[::-1]):
        linear = nodes[image]
        if linear.op == "Linear" and not {"bias", "weight_error"} & linear.params.keys() and linear.inputs == (x,):
            weight = Precise.of(linear.params["weight"]) + Precise.of(linear.params.get("weight_rest", 0.0))
            return x, (weight + weight.T) * Precise.of(0.5)
    return None


def _measured(
    graph: Graph, low: np.ndarray, high: np.ndarray, rows: np.ndarray, found: Mapping[Key, int]
) -> tuple[np.ndarray, dict[Key, np.ndarray | None]]:
    """Lower bounds ``[B, R]`` of the rows, and for every product that was found the scales s of its factors."""
    state = relax(make_plan(graph), low, high)
    bound = row_bounds(state, rows, np.zeros_like(rows[:, :, 0])).lower
    scales: dict[Key, np.ndarray | None] = {}
    for (op, inputs), index in found.items():
        if op == "Sum":
            scales[op, inputs] = None
            continue
        first, second = (
            np.broadcast_to((upper - lower).mean(axis=0, dtype=np.float64), graph.nodes[index].shape)
            for lower, upper in (state.intervals[source] for source in inputs)
        )
        usable = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
        ratio = np.where(usable, second, 1.0) / np.where(usable, first, 1.0)
        scales[op, inputs] = np.exp2(np.clip(np.round(0.5 * np.log2(ratio)), -20, 20))
    return bound, scales


# --- rewriting -------------------------------------------------------------------------------------------------------


def _rewritten(graph: Graph, chosen: Mapping[Key, np.ndarray | None], dtype: np.dtype) -> Graph:
    """The graph with the chosen nodes in their other form."""

    def rule(work: Rewriter, node: Node) -> Node | int | None:
        key = (node.op, node.inputs)
        if key not in chosen:
            return None
        scale = chosen[key]
        return _as_form(work, node, dtype) if scale is None else _as_squares(work, node, scale.astype(dtype))

    return Backend(dtype.name).graph(Rewriter(graph, (rule,)).result())


def _adder(work: Rewriter, node: Node) -> Callable[..., int]:
    """A function that appends nodes named after `node`."""

    def add(op: str, inputs: tuple[int, ...], shape: tuple[int, ...], **settings: object) -> int:
        params = {key: value for key, value in settings.items() if isinstance(value, np.ndarray)}
        attributes = {key: value for key, value in settings.items() if key not in params}
        return work.append(Node(node.name, op, inputs, shape, params, attributes))

    return add


def _as_squares(work: Rewriter, node: Node, scale: np.ndarray) -> Node:
    """``((s u + v / s)^2 - (s u - v / s)^2) / 4``; exact, as s is a power of two."""
    add = _adder(work, node)
    u = add("Scale", node.inputs[:1], node.shape, scale=scale)
    v = add("Scale", node.inputs[1:], node.shape, scale=1.0 / scale)
    squares = tuple(
        add("Pow", (add("Add", (u, v), node.shape, signs=(1, sign)),), node.shape, exponent=2.0) for sign in (1, -1)
    )
    difference = add("Add", squares, node.shape, signs=(1, -1))
    quarter = {"scale": np.asarray(0.25, dtype=scale.dtype)}
    return Node(node.name, "Scale", (difference,), node.shape, quarter)


def _as_form(work: Rewriter, node: Node, dtype: np.dtype) -> Node | None:
    """``sum_k lambda_k (e_k^T x)^2 + x^T R x``, R what rounding left out."""
    found = _form(work.nodes, node)
    if found is None:
        return None
    x, matrix = found
    add = _adder(work, node)
    product = work.nodes[node.inputs[0]]
    values, vectors = np.linalg.eigh(matrix.high)
    rounded, basis = values.astype(dtype), np.ascontiguousarray(vectors.T).astype(dtype)
    wide = Precise.of(basis)
    # In float64 the rest is as small as the rounding of this difference would be.
    rest = matrix - wide.T @ (Precise.of(rounded[:, None]) * wide)
    left = settled(Node(node.name, "Linear", (x,), product.shape, parameters(weight=rest))).params
    square = add("Pow", (add("Linear", (x,), product.shape, weight=basis),), product.shape, exponent=2.0)
    weighted = add("Scale", (square,), product.shape, scale=rounded)
    left_out = add("Mul", (x, add("Linear", (x,), product.shape, **left)), product.shape)
    total = add("Add", (weighted, left_out), product.shape, signs=(1, 1))
    return with_params(node, (total,), {})
