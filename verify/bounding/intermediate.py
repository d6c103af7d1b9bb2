"""Optimised bounds of intermediate values: alpha-CROWN for every undecided entry, layer after layer.

Every entry's own lower and upper bound is a row with its own parameters, so that a few gradient steps bring each of
them near its optimum; the layers above then start from tighter relaxations. (alpha-CROWN proper tunes all of them for
the final rows, through the chain rule; the bounds here do not depend on the final rows, so all rows, clauses and
domains share them.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import NEVER, Deadline
from ..ops import rule
from ..ops.arrays import as_like, zeros_like_shape
from .alpha import Ascent, Base, ancestors
from .cone import cone
from .interval import intersect, node_interval
from .scaled import ScaledSteps
from .workers import Workers, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..graph import Array
    from ..ops.rule import Interval
    from .parameters import Parameters
    from .plan import Plan

ITERATIONS = 4
"""Gradient steps for each entry (more gain less than 1 % of the width on the MNIST networks)."""

FIRST_STEP, LAST_STEP = 0.7, 0.12
"""Lengths of the first and the last step; those between them shrink evenly."""


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
    workers: Workers | None = None,
    note: Callable[[EntryBounds], None] | None = None,
    only: frozenset[int] | None = None,
) -> Base:
    """The base with optimised bounds of its undecided entries (of `only` these nodes), `iterations` gradient steps
    each; at most `rows` rows are bounded at once, and shared among the threads of `workers`, if given. `note` is told
    what gave every bound.

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
        box, entry = xp.nonzero(Base(plan, base.lower, base.upper, intervals, base.charges).undecided(index))
        start = plan.graph.nodes[index].inputs[0] if node.op == "Linear" else index
        if not any(position in plan.elementwise for position in ancestors(plan, start)):
            continue
        known = Base(plan, base.lower, base.upper, intervals, base.charges)
        bound = partial(_bound_part, known, index, (box, entry), (low, high), iterations, deadline, note)
        run(bound, _parts(known, index, entry, max(1, rows // 2), workers, in_cones=note is None), workers)
        shape = (low.shape[0], *node.shape)
        intervals[index] = (xp.minimum(low, high).reshape(shape), xp.maximum(low, high).reshape(shape))
    return Base(plan, base.lower, base.upper, intervals)


_CHEAP = frozenset({"Reshape", "Transpose", "Take", "Scale", "Concat"})


FEW_PAIRS = 24
"""Below this many pairs, sharing them among threads costs more than it saves."""


NEIGHBOURHOODS = 4
"""Entries are bounded in this many parts where a part of them depends on a part of the network."""


def _parts(
    base: Base, target: int, entry: Array, at_once: int, workers: Workers | None, *, in_cones: bool
) -> list[slice]:
    """All pairs in parts of similar length, at most `at_once`."""
    count = entry.shape[0]
    if count == 0:
        return []
    sharers = min(workers.count, count // FEW_PAIRS) if workers else 1
    quarter = count // NEIGHBOURHOODS
    if in_cones and quarter >= FEW_PAIRS and _on_cone(base, target, entry[:quarter]) is not None:
        sharers = max(sharers, NEIGHBOURHOODS)
    size = -(-count // max(-(-count // at_once), sharers))
    return [slice(first, first + size) for first in range(0, count, size)]


def _on_cone(base: Base, target: int, entry: Array) -> tuple[Base, Array] | None:
    """The base on what the entries of one box depend on and their places in its output; None where it is no less."""
    return cone(base, target, entry) if base.lower.shape[0] == 1 and isinstance(base.lower, np.ndarray) else None


def _bound_part(
    base: Base,
    target: int,
    pairs: tuple[Array, Array],
    ends: Interval,
    iterations: int,
    deadline: Deadline,
    note: Callable[[EntryBounds], None] | None,
    part: slice,
) -> None:
    """Write optimised bounds of some of the (box, entry) pairs into the flat ends ``[B, n]`` of the target's bounds."""
    if deadline.passed:
        return
    xp = array_namespace(base.lower)
    box, entry = pairs[0][part], pairs[1][part]
    # What is noted is about the whole network.
    on_cone = None if note is not None else _on_cone(base, target, entry)
    if on_cone is None:
        ascent = _optimised(base, target, (box, entry), iterations, bounds_only=note is None)
    else:
        ascent = _optimised(on_cone[0], on_cone[0].plan.output, (box, on_cone[1]), iterations, bounds_only=True)
    below, above = ascent.best[: box.shape[0]], -ascent.best[box.shape[0] :]
    if note is not None:
        note(EntryBounds(target, box, entry, ascent.best_parameters))
    low, high = ends
    low[box, entry] = xp.maximum(low[box, entry], below)
    high[box, entry] = xp.minimum(high[box, entry], above)


def _optimised(base: Base, target: int, pairs: tuple[Array, Array], iterations: int, *, bounds_only: bool) -> Ascent:
    """Optimised bounds of (box, entry) pairs of a node: ``2 P`` rows, first all lower bounds, then all (negated) upper
    ones."""
    xp = array_namespace(base.lower)
    box, entry = pairs
    node, seeds, constants = entry_rows(base.plan, base.lower, target, entry)
    both = xp.concat([box, box])
    ascent = Ascent(
        base.rows(both), node, xp.concat([seeds, -seeds]), xp.concat([constants, -constants]), bounds_only=bounds_only
    )
    ascent.evaluate()
    steps = ScaledSteps(ascent)
    for step in range(iterations):
        steps.step(FIRST_STEP * (LAST_STEP / FIRST_STEP) ** (step / max(1, iterations - 1)))
        ascent.evaluate()
    return ascent


def entry_rows(plan: Plan, like: Array, target: int, entries: Array) -> tuple[int, Array, Array]:
    """Rows ``[R, *shape]`` with constants ``[R]`` that pick entries of a node, and the node whose value they multiply:
    the node itself, or its input where one step back is a gather of weights."""
    nodes = plan.graph.nodes
    node = nodes[target]
    count = entries.shape[0]
    if node.op == "Linear" and node.size == node.shape[-1] and not node.has_errors:
        weight = as_like(node.params["weight"], like)
        constant = zeros_like_shape((count,), like)
        if "bias" in node.params:
            constant = as_like(node.params["bias"], like)[entries]
        return node.inputs[0], weight[entries].reshape(count, *nodes[node.inputs[0]].shape), constant
    rows = zeros_like_shape((count, node.size), like)
    rows[array_namespace(like).arange(count, **options_like(like)), entries] = 1
    return target, rows.reshape(count, *node.shape), zeros_like_shape((count,), like)
