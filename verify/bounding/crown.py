"""Backward linear bounds (CROWN) over batches of boxes and specification rows.

Intermediate bounds come from backward passes (`refine`), only for entries that interval bounds leave undecided. They
are intersected with interval bounds and with what a parent domain knew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..budget import NEVER, Deadline, MemoryBudget
from ..errors import UndefinedOnRegion
from ..kernels.relaxation import Step
from ..ops import rule
from ..rounding import rounding, smallest
from .backward import LinearBound, Relaxed, backward
from .forward import ForwardLines
from .interval import intersect, node_interval, ordered
from .refine import box_passes
from .refine import refine as refine_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..graph import Array
    from ..ops.rule import Interval, Lines
    from .narrow import Narrowed
    from .plan import Plan
    from .workers import Workers

__all__ = ["LinearBound", "Relaxed", "allowance", "output_rows", "relax", "row_bounds"]


def relax(
    plan: Plan,
    lower: Array,
    upper: Array,
    *,
    refine: bool = True,
    inherited: Mapping[int, Interval] | None = None,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
    workers: Workers | None = None,
    started: Relaxed | None = None,
    light: bool = False,
    constrained: bool = False,
) -> Relaxed:
    """Relax the graph on boxes ``[B, n]``.

    With `refine`, targets get backward bounds (CROWN), or, if `light` and very few inputs vary, perhaps forward ones;
    without, interval bounds only (CROWN-IBP). `inherited` are bounds ``[B, size]`` of targets known from before, by
    node index. Raises `TimeUp` when the deadline passes and `UndefinedOnRegion` with its `partial` relaxation. Rows are
    shared among the threads of `workers`, if given. `started` (of the same plan and boxes, perhaps empty) is continued
    in place, so that work which a deadline cut short is not lost. `constrained` says that `inherited` hold for a part
    of the boxes alone, perhaps for none of their points; otherwise bounds that cross raise `CrossedBounds`.
    """
    nodes = plan.graph.nodes
    shape = nodes[plan.input].shape
    state = started or Relaxed(plan, lower, upper, [], {})
    if state.intervals:
        # What is known of the last node may be its interval alone.
        state.intervals.pop()
    budget = memory or MemoryBudget.default()
    passes = box_passes(state) if refine else None
    ahead = ForwardLines(state)
    for index in range(len(state.intervals), len(nodes)):
        node = nodes[index]
        if node.op == "Input":
            state.intervals.append((lower.reshape(-1, *shape), upper.reshape(-1, *shape)))
            continue
        operator = rule(node.op)
        inputs = [state.intervals[source] for source in node.inputs]
        try:
            state.intervals.append(node_interval(node, operator, inputs))
        except UndefinedOnRegion as error:
            error.partial = state
            raise
        if operator.relax is not None:
            # Before a target's own backward pass, which begins with the lines of the target itself where it has some.
            state.steps[index] = _prepare(operator.relax(node, inputs), node.size)
        if index in plan.targets:
            if inherited is not None and index in inherited:
                known = tuple(end.reshape(-1, *node.shape) for end in inherited[index])
                whole = None if constrained else node
                state.intervals[index] = intersect(state.intervals[index], (known[0], known[1]), whole)
            if refine:
                deadline.check()
                refine_target(state, plan.targets[index], passes, ahead, deadline, budget, workers, light, constrained)
        if not constrained and isinstance(lower, np.ndarray) and (index in plan.targets or index == plan.output):
            ordered(node, state.intervals[index])
    return state


def _prepare(lines: Lines, size: int) -> Step:
    """The relaxation in the form the backward step uses."""

    def flat(x: Array) -> Array:
        return x.reshape(-1, size)

    def intercept(x: Array) -> Array | None:
        return None if isinstance(x, np.ndarray) and not x.any() else flat(x)

    lower = tuple(flat(slope) for slope in lines.lower_slopes)
    return Step(
        lower,
        tuple(flat(above) - below for above, below in zip(lines.upper_slopes, lower, strict=True)),
        intercept(lines.lower_intercept),
        intercept(lines.upper_intercept),
    )


def row_bounds(
    state: Relaxed, rows: Array, offsets: Array, *, memory: MemoryBudget | None = None, deadline: Deadline = NEVER
) -> LinearBound:
    """Lower bounds of ``rows y - offsets`` for the graph's output y.

    rows ``[B or 1, S, m]``, offsets ``[B or 1, S]``; returns coefficients ``[B, S, n]``, constants and minima ``[B,
    S]``; a minimum is that of the output's interval where it is better. Rows are chunked against the memory budget.
    """
    shape = state.plan.graph.nodes[state.plan.output].shape

    def bound(some: Array, less: Array) -> LinearBound:
        xp, batch = array_namespace(some), state.lower.shape[0]
        every = xp.broadcast_to(some, (batch, *some.shape[1:]))
        # (Where nothing is added to the offsets on the way, they are the constants.)
        constants = xp.broadcast_to(-less, (batch, less.shape[1]))
        return backward(state, state.plan.output, every.reshape(*every.shape[:2], *shape), constants)

    return in_chunks(bound, state, rows, offsets, memory, deadline)


def in_chunks(
    bound: Callable[[Array, Array], LinearBound],
    state: Relaxed | Narrowed,
    rows: Array,
    offsets: Array,
    memory: MemoryBudget | None,
    deadline: Deadline,
) -> LinearBound:
    """The bounds that `bound` gives of rows ``[B or 1, S, m]`` and offsets ``[B or 1, S]``, asked for as many rows as
    memory allows, with the minima of the output's interval where they are better."""
    xp = array_namespace(rows)
    count = rows.shape[1]
    budget = memory or MemoryBudget.default()
    chunk = budget.rows(state.lower.shape[0] * state.plan.largest * rows.dtype.itemsize * 6, count)
    parts = []
    for start in range(0, count, chunk):
        deadline.check()
        parts.append(bound(rows[:, start : start + chunk], offsets[:, start : start + chunk]))
    whole = parts[0]
    if len(parts) > 1:
        whole = LinearBound(
            *(
                xp.concat([getattr(part, name) for part in parts], axis=1)
                for name in ("coefficients", "constant", "lower", "lost")
            )
        )
    better = xp.maximum(whole.lower, output_rows(*state.intervals[state.plan.output], rows, offsets))
    # Where the lines' arithmetic failed, nothing is claimed.
    return replace(whole, lower=xp.where(abs(whole.lower) < xp.inf, better, whole.lower))


@np.errstate(invalid="ignore", over="ignore")
def allowance(state: Relaxed | Narrowed, bound: LinearBound, rows: Array, offsets: Array) -> Array:
    """How much of the minima that `row_bounds` gave of either kind of relaxation went to rounding at most, ``[B, S]``;
    perhaps not finite."""
    own = bound.allowance(state.lower, state.upper)
    size = _output_size(state.intervals[state.plan.output], rows, offsets)
    return array_namespace(rows).maximum(own, rounding(rows, rows.shape[2]) * size)


def _product(matrix: Array, values: Array) -> Array:
    return values @ matrix[0].T if matrix.shape[0] == 1 else (matrix @ values[:, :, None])[:, :, 0]


def _output_size(output: Interval, rows: Array, offsets: Array) -> Array:
    """The magnitude ``[B or 1, S]`` of the terms of the rows, by the output's interval."""
    low, high = (abs(end.reshape(end.shape[0], -1)) for end in output)
    return _product(abs(rows), array_namespace(rows).maximum(low, high)) + abs(offsets)


@np.errstate(invalid="ignore", over="ignore")
def output_rows(low: Array, high: Array, rows: Array, offsets: Array) -> Array:
    """Lower bounds ``[B or 1, S]`` of ``rows y - offsets`` from the output's interval ``[B or 1, *shape]`` alone.

    rows ``[B or 1, S, m]``, offsets ``[B or 1, S]``; a padding row (infinite offset) has the bound minus infinity.

    Linear relaxations lose the range of a bounded function (a sigmoid's line may pass 1), and properties ask for just
    that: ML4ACOPF's clauses are 1e-6 away from it.
    """
    xp = array_namespace(rows)
    size = _output_size((low, high), rows, offsets)
    low, high = (end.reshape(end.shape[0], -1) for end in (low, high))
    least = _product(xp.clip(rows, 0, None), low) + _product(xp.clip(rows, None, 0), high) - offsets
    least = least - rounding(rows, rows.shape[2]) * size - rows.shape[2] * smallest(rows)
    # Unbounded outputs (also times zero) and padding rows say nothing.
    return xp.where(abs(least) < xp.inf, least, -xp.inf)
