"""Optimised bounds of intermediate values: alpha-CROWN for every undecided entry, layer after layer.

Every entry's own lower and upper bound is a row with its own parameters, so that a few gradient steps bring each of
them near its optimum; the layers above then start from tighter relaxations. (alpha-CROWN proper tunes all of them for
the final rows, through the chain rule; the bounds here do not depend on the final rows, so all rows, clauses and
domains share them.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import NEVER, Deadline
from ..ops import rule
from ..ops.arrays import as_like, zeros_like_shape
from .alpha import Ascent, Base, ancestors
from .interval import intersect, node_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..graph import Array
    from .parameters import Parameters
    from .plan import Plan

ITERATIONS = 4
"""Gradient steps for each entry (more gain less than 1 % of the width on the MNIST networks)."""


@dataclass(frozen=True, eq=False)
class EntryBounds:
    """What optimised the bounds of entries ``[P]`` of a node in boxes ``[P]``: the weights of the lines of ``2 P``
    backward passes, first of all lower bounds, then of all (negated) upper ones."""

    node: int
    box: Array
    entry: Array
    parameters: Parameters

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Names and arrays."""
        yield from (("node", np.array(self.node)), ("box", self.box), ("entry", self.entry))
        for node, pair in self.parameters.lines.items():
            for side, weights in enumerate(pair):
                if weights is not None:
                    yield f"lines/{node}/{side}", weights


@np.errstate(all="ignore")
def tighten(
    base: Base,
    rows: int,
    deadline: Deadline = NEVER,
    iterations: int = ITERATIONS,
    note: Callable[[EntryBounds], None] | None = None,
    only: frozenset[int] | None = None,
) -> Base:
    """The base with optimised bounds of its undecided entries (of `only` these nodes), `iterations` gradient steps
    each; at most `rows` rows are bounded at once. `note` is told what gave every bound.

    Stops quietly when the deadline passes: what is done so far is kept.
    """
    plan = base.plan
    nodes = plan.graph.nodes
    intervals = dict(base.intervals)
    for index, node in enumerate(nodes):
        if node.inputs and index not in plan.sources and all(source in intervals for source in node.inputs):
            # Whatever follows from renewed bounds by interval arithmetic alone.
            if rule(node.op).linear is None or node.op in _CHEAP:
                intervals[index] = intersect(
                    intervals[index], node_interval(node, rule(node.op), [intervals[source] for source in node.inputs])
                )
            continue
        if index not in plan.targets or deadline.passed or (only is not None and index not in only):
            continue
        low, high = (end.reshape(end.shape[0], -1) + 0 for end in intervals[index])
        xp = array_namespace(low)
        box, entry = xp.nonzero(Base(plan, base.lower, base.upper, intervals).undecided(index))
        start = plan.graph.nodes[index].inputs[0] if node.op == "Linear" else index
        if not any(position in plan.elementwise for position in ancestors(plan, start)):
            continue
        step = max(1, rows // 2)
        for first in range(0, box.shape[0], step):
            if deadline.passed:
                break
            b, e = box[first : first + step], entry[first : first + step]
            below, above, weights = _optimised(Base(plan, base.lower, base.upper, intervals), index, (b, e), iterations)
            if note is not None:
                note(EntryBounds(index, b, e, weights))
            low[b, e] = xp.maximum(low[b, e], below)
            high[b, e] = xp.minimum(high[b, e], above)
        shape = (low.shape[0], *node.shape)
        intervals[index] = (xp.minimum(low, high).reshape(shape), xp.maximum(low, high).reshape(shape))
    return Base(plan, base.lower, base.upper, intervals)


_CHEAP = frozenset({"Reshape", "Transpose", "Take", "Scale", "Concat"})


def _optimised(base: Base, target: int, pairs: tuple[Array, Array], iterations: int) -> tuple[Array, Array, Parameters]:
    """Lower and upper bounds ``[P]`` of (box, entry) pairs of a node, and the parameters that give them."""
    xp = array_namespace(base.lower)
    box, entry = pairs
    node, seeds, constants = entry_rows(base.plan, base.lower, target, entry)
    both = xp.concat([box, box])
    low, high = (end.reshape(end.shape[0], -1)[box, entry] for end in base.intervals[target])
    width = xp.concat([high - low, high - low])
    ascent = Ascent(base.rows(both), node, xp.concat([seeds, -seeds]), xp.concat([constants, -constants]))
    ascent.evaluate()
    for step in range(iterations):
        ascent.improve(0.2 * 0.7**step * width, 0.3)
        ascent.evaluate()
    return ascent.best[: box.shape[0]], -ascent.best[box.shape[0] :], ascent.best_parameters


def entry_rows(plan: Plan, like: Array, target: int, entries: Array) -> tuple[int, Array, Array]:
    """Rows ``[R, *shape]`` with constants ``[R]`` that pick entries of a node, and the node whose value they multiply:
    the node itself, or its input where one step back is a gather of weights."""
    nodes = plan.graph.nodes
    node = nodes[target]
    count = entries.shape[0]
    if node.op == "Linear" and node.size == node.shape[-1]:
        weight = as_like(node.params["weight"], like)
        constant = zeros_like_shape((count,), like)
        if "bias" in node.params:
            constant = as_like(node.params["bias"], like)[entries]
        return node.inputs[0], weight[entries].reshape(count, *nodes[node.inputs[0]].shape), constant
    rows = zeros_like_shape((count, node.size), like)
    rows[array_namespace(like).arange(count, **options_like(like)), entries] = 1
    return target, rows.reshape(count, *node.shape), zeros_like_shape((count,), like)
