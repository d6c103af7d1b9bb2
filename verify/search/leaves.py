"""What is left of a search's domain when nothing can be split: the linear programme that decides it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace, to_numpy
from ..bounding.interval import node_interval
from ..bounding.plan import MOVES, is_step
from ..ops import rule
from ..ops.arrays import unit_roundoff
from .activation_split import mixture_of

if TYPE_CHECKING:
    from ..graph import Array, Graph
    from ..rows import Rows
    from .branches import Branches
    from .layout import Layout


def programme(layout: Layout, graph: Graph, rows: Rows, domain: Branches) -> dict[str, Any]:
    """The arguments of `programs.leaf.leaf_bound` for one domain: box, bounds of all nodes, rows, offsets and phases,
    in float64. `graph` is the search's own in float64, on numpy."""

    def flat(x: Array) -> np.ndarray:
        return to_numpy(x).reshape(-1).astype(np.float64)

    plan = layout.base.plan
    base = layout.bounds(domain)
    intervals = {index: (flat(low), flat(high)) for index, (low, high) in _closed(layout, domain).items()}
    mixture = mixture_of(rows, domain.base, domain.clause)
    present = np.isfinite(to_numpy(mixture.offsets)[0])
    matrix, offsets = (to_numpy(x)[0][present].astype(np.float64) for x in (mixture.rows, mixture.offsets))
    # Rows were rounded to the search's dtype: what they may be off by counts as unsafe.
    largest = np.maximum(*(abs(end) for end in intervals[plan.output]))
    offsets = offsets + unit_roundoff(rows.rows) * (abs(matrix) @ largest + abs(offsets))
    return {
        "lower": flat(base.lower),
        "upper": flat(base.upper),
        "intervals": [intervals[index] for index in range(len(plan.graph.nodes))],
        "rows": matrix,
        "offsets": offsets,
        "phases": _held(layout, graph, domain),
    }


def _closed(layout: Layout, domain: Branches) -> dict[int, tuple[Array, Array]]:
    """Bounds of all nodes, in which what steps read is closed at their kinks: there the smallest positive number stands
    for being positive, which is no bound for a programme; the steps keep the value that they have beside the kink."""
    nodes = layout.base.plan.graph.nodes
    intervals = dict(layout.bounds(domain).intervals)
    if not any(side for block in layout.slots for side in block.opened):
        return intervals
    for index in layout.base.plan.nonlinear:
        if is_step(nodes[index]):
            intervals[index] = node_interval(
                nodes[index], rule(nodes[index].op), [intervals[source] for source in nodes[index].inputs]
            )
    low, high = closed_ends(layout, domain.low, domain.high)
    closed = layout.bounds(replace(domain, low=low, high=high)).intervals
    for index in layout.base.plan.nonlinear:
        if is_step(nodes[index]):
            (source,) = nodes[index].inputs
            intervals[source] = closed[source]
    return intervals


def closed_ends(layout: Layout, low: Array, high: Array) -> tuple[Array, Array]:
    """Bounds ``[N, slots]`` with the kink itself in place of the number next to it, where that stands for excluding
    it."""
    xp = array_namespace(low)
    low, high = low + 0, high + 0
    for block in layout.slots:
        if not any(block.opened):
            continue
        here = slice(block.start, block.stop)
        for kink in block.kinks or ():
            point = xp.full_like(low[:, here], kink)
            above, below = (xp.nextafter(point, xp.full_like(point, end)) for end in (xp.inf, -xp.inf))
            low[:, here] = xp.where(low[:, here] == above, point, low[:, here])
            high[:, here] = xp.where(high[:, here] == below, point, high[:, here])
    return low, high


def _held(layout: Layout, graph: Graph, domain: Branches) -> dict[int, np.ndarray]:
    """The phases of all readers of entries that are known better than at the root, by splits or by what it takes to be
    unsafe: those bounds are constraints, even where they decide the reader."""
    from ..programs.roles import HELD, PIECES

    nodes = graph.nodes
    root = layout.root(domain.base, domain.clause, domain.mixture, domain.weights)
    changed = to_numpy((domain.low > root.low) | (domain.high < root.high))[0]
    marks: dict[int, np.ndarray] = {}
    for block in layout.slots:
        mark = np.zeros((1, nodes[block.node].size))
        mark[0, to_numpy(block.entries)] = changed[block.start : block.stop]
        marks[block.node] = mark.reshape(1, *nodes[block.node].shape)
    phases = {}
    for index, node in enumerate(nodes):
        if not node.inputs or node.inputs[0] not in marks:
            continue
        mark = marks[node.inputs[0]]
        if node.op in MOVES and index not in marks:
            marks[index] = rule(node.op).evaluate(node, [mark])
        elif node.op in PIECES:
            phases[index] = np.where(mark.reshape(-1) > 0, HELD, 0)
    return phases
