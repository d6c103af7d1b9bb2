"""Backward linear bounds (CROWN) over batches of boxes and specification rows.

Only lower bounds of rows are carried; an upper bound of ``a`` is minus the lower bound of ``-a``. Intermediate bounds
come from the same backward pass, only for entries that interval bounds leave undecided, as flat (box, entry) pairs: a
batch never pays for entries that are stable in a box. They are intersected with interval bounds and with what a
parent domain knew.

Rounding: every backward pass sums the magnitudes of its terms and gives away a few unit roundoffs of that sum, so
that float32 bounds stay below what float64 would give (checked by a property test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import NEVER, Deadline, MemoryBudget
from ..kernels.relaxation import Step, backward_step
from ..ops import rule
from ..ops.arrays import as_like, zeros_like_shape
from .interval import intersect, node_interval, rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array
    from ..ops.rule import Interval, Lines
    from .plan import Plan, Target

PASS_BYTES = 16 << 20
"""Temporaries of one backward pass on a CPU. Less pays with more Python calls (4 MiB: a fifth slower on ACAS Xu),
more gains nothing and holds memory in every worker."""


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A graph relaxed on a batch of boxes: bounds of every node and the relaxation of every nonlinear one.

    lower, upper   the boxes, ``[B, n]`` flat.
    intervals      bounds of node values ``[B or 1, *shape]``, by node index.
    steps          relaxations of elementwise nonlinear nodes, by node index.
    """

    plan: Plan
    lower: Array
    upper: Array
    intervals: list[Interval]
    steps: dict[int, Step]


@dataclass(frozen=True, eq=False)
class LinearBound:
    """``coefficients . x + constant <= row value`` on the box, ``[B, S, n]`` and ``[B, S]``; `lower` ``[B, S]`` is
    its minimum there."""

    coefficients: Array
    constant: Array
    lower: Array


def relax(
    plan: Plan,
    lower: Array,
    upper: Array,
    *,
    refine: bool = True,
    inherited: Mapping[int, Interval] | None = None,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
) -> Relaxed:
    """Relax the graph on boxes ``[B, n]``.

    With `refine`, targets get backward bounds (CROWN); without, interval bounds only (CROWN-IBP). `inherited` are
    bounds ``[B, size]`` of targets known from before, by node index. Raises `TimeUp` when the deadline passes and
    `UndefinedOnRegion`.
    """
    nodes = plan.graph.nodes
    shape = nodes[plan.input].shape
    state = Relaxed(plan, lower, upper, [], {})
    budget = memory or MemoryBudget.default()
    for index, node in enumerate(nodes):
        if node.op == "Input":
            state.intervals.append((lower.reshape(-1, *shape), upper.reshape(-1, *shape)))
            continue
        operator = rule(node.op)
        inputs = [state.intervals[source] for source in node.inputs]
        state.intervals.append(node_interval(node, operator, inputs))
        if index in plan.targets:
            if inherited is not None and index in inherited:
                known = tuple(end.reshape(-1, *node.shape) for end in inherited[index])
                state.intervals[index] = intersect(state.intervals[index], (known[0], known[1]))
            if refine:
                deadline.check()
                _refine(state, plan.targets[index], deadline, budget)
        elif operator.relax is not None:
            state.steps[index] = _prepare(operator.relax(node, inputs), node.size)
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


def backward(
    state: Relaxed, start: int, coefficients: Array, constant: Array | None = None, index: Array | None = None
) -> LinearBound:
    """Lower linear bounds of the rows ``<coefficients, value of node start> + constant``.

    coefficients   ``[B, S, *shape of start]``; constant ``[B, S]`` or None.
    index          integers ``[B]``: the box each batch entry is about; None when entry b is about box b.
    """
    nodes = state.plan.graph.nodes
    batch, rows = coefficients.shape[:2]
    total = zeros_like_shape((batch, rows), coefficients) if constant is None else constant
    magnitude = abs(total)
    pending: dict[int, Array] = {start: coefficients}
    result: Array | None = None
    for position in range(start, -1, -1):
        a = pending.pop(position, None)
        if a is None:
            continue
        node = nodes[position]
        if node.op == "Input":
            result = a.reshape(batch, rows, -1)
            continue
        carried, part = _through(state, position, a.reshape(batch, rows, *node.shape), index)
        if part is not None:
            total = total + part
            magnitude = magnitude + abs(part)
        for source, piece in zip(node.inputs, carried, strict=True):
            known = pending.get(source)
            pending[source] = piece if known is None else known + piece
    if result is None:
        result = zeros_like_shape((batch, rows, state.lower.shape[1]), coefficients)
    return _concretize(state, result, total, magnitude, index)


def _broadcast(x: Array, batch: int, index: Array | None) -> Array:
    if index is not None:
        return x[index]
    return x if x.shape[0] == batch else array_namespace(x).broadcast_to(x, (batch, *x.shape[1:]))


def _through(state: Relaxed, position: int, a: Array, index: Array | None) -> tuple[tuple[Array, ...], Array | None]:
    """Carry coefficients ``[B, S, *shape]`` through one node; also the constants ``[B, S]`` it adds."""
    node = state.plan.graph.nodes[position]
    operator = rule(node.op)
    batch, rows = a.shape[:2]
    if operator.linear is not None:
        bias = operator.linear.bias(node)
        part = None
        if bias is not None:
            vector = as_like(bias, a).reshape(-1)
            part = (a.reshape(batch * rows, -1) @ vector).reshape(batch, rows)
        pieces = operator.linear.adjoint(node, a.reshape(batch * rows, *node.shape)) if node.inputs else ()
        return tuple(piece.reshape(batch, rows, *piece.shape[1:]) for piece in pieces), part
    step = state.steps.get(position)
    if step is not None:
        if index is not None and step.spread[0].shape[0] > 1:
            step = step.rows(index)
        pieces, part = backward_step(a.reshape(batch, rows, -1), step)
        return tuple(piece.reshape(batch, rows, *node.shape) for piece in pieces), part
    intervals = [state.intervals[source] for source in node.inputs]
    if operator.backward is not None:
        chosen = [
            (
                low if low.shape[0] == 1 or index is None else low[index],
                high if high.shape[0] == 1 or index is None else high[index],
            )
            for low, high in intervals
        ]
        return operator.backward(node, chosen, a)
    return _constant_lines(state, position, a, index)


def _constant_lines(state: Relaxed, position: int, a: Array, index: Array | None) -> tuple[tuple[Array, ...], Array]:
    """An operator without a relaxation: its interval as two constant lines."""
    xp = array_namespace(a)
    node = state.plan.graph.nodes[position]
    low, high = state.intervals[position]
    if index is not None and low.shape[0] > 1:
        low, high = low[index], high[index]
    flat = a.reshape(*a.shape[:2], -1)
    low, high = low.reshape(low.shape[0], 1, -1), high.reshape(high.shape[0], 1, -1)
    terms = xp.where(flat > 0, flat * low, xp.where(flat < 0, flat * high, 0.0))
    zeros = tuple(zeros_like_shape((*a.shape[:2], *shape), a) for shape in node.input_shapes)
    return zeros, xp.sum(terms, axis=-1)


def _concretize(state: Relaxed, a: Array, constant: Array, magnitude: Array, index: Array | None) -> LinearBound:
    """Minimise over the box: ``a . centre - |a| . radius``, less the rounding allowance."""
    lower, upper = (_broadcast(end, a.shape[0], index) for end in (state.lower, state.upper))
    centre, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
    slack = rounding(a)
    # The allowance covers |a| |x| for every x of the box: |x| <= |centre| + radius.
    reach = radius + slack * (abs(centre) + radius)
    if isinstance(a, np.ndarray):
        value = np.einsum("bsn,bn->bs", a, centre) - np.einsum("bsn,bn->bs", abs(a), reach)
    else:
        value = (a @ centre[:, :, None])[:, :, 0] - (abs(a) @ reach[:, :, None])[:, :, 0]
    constant = constant - slack * magnitude
    return LinearBound(a, constant, value + constant)


def _refine(state: Relaxed, target: Target, deadline: Deadline, memory: MemoryBudget) -> None:
    """Backward bounds of a target's undecided entries, written into `state.intervals`."""
    node = state.plan.graph.nodes[target.index]
    low, high = (end.reshape(end.shape[0], -1) for end in state.intervals[target.index])
    xp = array_namespace(low)
    mask = (low < 0) & (high > 0) if target.kinked else high > low
    boxes, entries = xp.nonzero(mask)
    count = boxes.shape[0]
    if count == 0:
        return
    low, high = low + 0, high + 0
    batch = low.shape[0]
    per_row = 2 * state.plan.largest * low.dtype.itemsize * 6
    # Few boxes with many entries each: rows of one box share its relaxation instead of each gathering a copy.
    shared = batch == 1 or (count // batch >= 32 and state.plan.largest >= 1024)
    resident = memory.bytes if shared or not isinstance(low, np.ndarray) else PASS_BYTES
    chunk = MemoryBudget(min(memory.bytes, resident)).rows(per_row, count)
    starts = _runs(boxes, batch, chunk) if shared else [(s, min(s + chunk, count)) for s in range(0, count, chunk)]
    for start, stop in starts:
        deadline.check()
        box, entry = boxes[start:stop], entries[start:stop]
        if shared:
            bound = _pair_bounds(_single(state, int(box[0])), target.index, entry, None)
        else:
            bound = _pair_bounds(state, target.index, entry, box)
        low[box, entry] = xp.maximum(low[box, entry], bound[:, 0])
        high[box, entry] = xp.minimum(high[box, entry], -bound[:, 1])
    low, high = xp.minimum(low, high), xp.maximum(low, high)
    state.intervals[target.index] = (low.reshape(batch, *node.shape), high.reshape(batch, *node.shape))


def _runs(boxes: Array, batch: int, chunk: int) -> list[tuple[int, int]]:
    """Ranges of consecutive pairs of one box each, at most `chunk` long (pairs are sorted by box)."""
    runs = []
    position = 0
    xp = array_namespace(boxes)
    for box in range(batch):
        stop = position + int(xp.sum(xp.astype(boxes == box, xp.int64)))
        runs += [(start, min(start + chunk, stop)) for start in range(position, stop, chunk)]
        position = stop
    return runs


def _single(state: Relaxed, box: int) -> Relaxed:
    """The state of one box of the batch (views)."""
    if state.lower.shape[0] == 1:
        return state
    here = slice(box, box + 1)

    def cut(x: Array) -> Array:
        return x if x.shape[0] == 1 else x[here]

    steps = {
        key: Step(
            tuple(cut(x) for x in step.lower_slopes),
            tuple(cut(x) for x in step.spread),
            None if step.lower_intercept is None else cut(step.lower_intercept),
            None if step.upper_intercept is None else cut(step.upper_intercept),
        )
        for key, step in state.steps.items()
    }
    intervals = [(cut(low), cut(high)) for low, high in state.intervals]
    return Relaxed(state.plan, state.lower[here], state.upper[here], intervals, steps)


def _pair_bounds(state: Relaxed, target: int, entries: Array, boxes: Array | None) -> Array:
    """Lower bounds ``[R, 2]`` of plus and minus the given entries; `boxes` None means all pairs are about the state's
    one box."""
    start, rows, constant = _seed(state, target, entries)
    xp = array_namespace(rows)
    signed = xp.stack([rows, -rows], axis=1)
    offsets = xp.stack([constant, -constant], axis=1)
    if boxes is None:
        count = signed.shape[0]
        bound = backward(state, start, signed.reshape(1, 2 * count, *rows.shape[1:]), offsets.reshape(1, 2 * count))
        return bound.lower.reshape(count, 2)
    return backward(state, start, signed, offsets, boxes).lower


def _seed(state: Relaxed, target: int, entries: Array) -> tuple[int, Array, Array]:
    """Rows ``[R, *shape]`` that pick entries of a node, taken one step back at once where that is a gather of
    weights."""
    nodes = state.plan.graph.nodes
    node = nodes[target]
    xp = array_namespace(state.lower)
    count = entries.shape[0]
    if node.op == "Linear" and node.size == node.shape[-1]:
        weight = as_like(node.params["weight"], state.lower)
        shape = nodes[node.inputs[0]].shape
        constant = zeros_like_shape((count,), state.lower)
        if "bias" in node.params:
            constant = as_like(node.params["bias"], state.lower)[entries]
        return node.inputs[0], weight[entries].reshape(count, *shape), constant
    rows = zeros_like_shape((count, node.size), state.lower)
    rows[xp.arange(count, **options_like(state.lower)), entries] = 1
    return target, rows.reshape(count, *node.shape), zeros_like_shape((count,), state.lower)


def row_bounds(
    state: Relaxed, rows: Array, offsets: Array, *, memory: MemoryBudget | None = None, deadline: Deadline = NEVER
) -> LinearBound:
    """Lower bounds of ``rows y - offsets`` for the graph's output y.

    rows ``[B or 1, S, m]``, offsets ``[B or 1, S]``; returns coefficients ``[B, S, n]``, constants and minima ``[B,
    S]``. Rows are chunked against the memory budget.
    """
    xp = array_namespace(rows)
    batch = state.lower.shape[0]
    count = rows.shape[1]
    shape = state.plan.graph.nodes[state.plan.output].shape
    budget = memory or MemoryBudget.default()
    chunk = budget.rows(batch * state.plan.largest * rows.dtype.itemsize * 6, count)
    parts = []
    for start in range(0, count, chunk):
        deadline.check()
        piece = xp.broadcast_to(rows[:, start : start + chunk], (batch, min(chunk, count - start), rows.shape[2]))
        offset = xp.broadcast_to(offsets[:, start : start + chunk], piece.shape[:2])
        parts.append(backward(state, state.plan.output, piece.reshape(*piece.shape[:2], *shape), -offset))
    if len(parts) == 1:
        return parts[0]
    return LinearBound(
        *(xp.concat([getattr(part, name) for part in parts], axis=1) for name in ("coefficients", "constant", "lower"))
    )
