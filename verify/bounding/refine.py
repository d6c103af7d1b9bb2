"""Backward bounds of intermediate values: which entries get them, in which order, and by which kind of pass.

Only entries that interval bounds leave undecided are bounded, as (box, side, entry) triples; side 0 is the entry, side
1 its negative, so that a batch never pays for entries that are stable in a box.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..budget import Deadline, MemoryBudget
from ..ops.arrays import as_like, zeros_like_shape
from .backward import Carried, Relaxed, backward, single, step_of, through
from .charges import Charges
from .columns import BoxPass
from .interval import intersect
from .live import neighbours
from .structure import Structure
from .workers import Workers, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Graph
    from .forward import ForwardLines
    from .plan import Target

PASS_BYTES = 16 << 20
"""Temporaries of one backward pass about many boxes on a CPU. Less pays with more Python calls (4 MiB: a fifth slower
on ACAS Xu), more gains nothing and holds memory in every worker."""

COLUMN_BYTES = 4 << 20
"""The largest array of coefficients of a pass about one box: less pays with more Python calls, more leaves the
cache."""

PILOT_ROWS = 16
"""Rows of a first pass, which shows how many numbers a row of a target takes: few while rows stay on windows, in
networks where a whole layer would leave room for a few rows only."""

LARGEST_CHUNK = 512
"""Rows of a pass at most."""

COLUMNS_FROM = 256
"""Networks without a layer of this size are bounded by triples, with fewer Python calls."""

ROWS_A_BOX = 12
"""With fewer undecided entries a box, boxes are bounded together."""

TWO_STEPS_FROM = 48
"""With fewer undecided entries, a second pass costs more than its rows (one ACAS Xu box: 1.7 for 1.3 ms)."""


FORWARD_FROM = 16
"""Undecided entries a box and varying input from which forward lines come first: they cost about four rows an input,
and leave a tenth of the entries undecided where inputs are few (cgan: 53,632 neurons behind 5 inputs, a box in 4
seconds instead of 24)."""

FORWARD_WHILE = 0.1
"""Share of the undecided entries that forward lines must decide to be asked again: they only get looser."""

LINES_ALONE = 4
"""Varying inputs of a box up to which a search that splits inputs does with forward lines: halving the box costs less
than backward bounds of what they leave undecided (nn4sys, 500 cardinalities: 852 splits in 2 CPU seconds, with backward
bounds 796 in 6)."""

FORWARD_MEMORY = 0.25
"""Share of the memory budget that forward lines, which are kept for every node, may take."""


def box_passes(state: Relaxed) -> list[BoxPass] | None:
    """A pass for each box, where rows may be bounded best that way; None where not."""
    if not isinstance(state.lower, np.ndarray) or state.plan.largest < COLUMNS_FROM:
        return None
    structure = Structure(state.plan)
    return [
        BoxPass(
            structure,
            (state.lower[box], state.upper[box]),
            partial(step_of, state, box),
            partial(_through_one, state, box),
            state.charges.box(box) if isinstance(state.charges, Charges) else state.charges,
        )
        for box in range(state.lower.shape[0])
    ]


def _through_one(state: Relaxed, box: int, position: int, a: np.ndarray) -> Carried:
    # (Cutting the whole state for each node would take longer than the step itself where rows are few.)
    return through(state, position, a, np.array([box]))


def refine(
    state: Relaxed,
    target: Target,
    passes: Sequence[BoxPass] | None,
    ahead: ForwardLines,
    deadline: Deadline,
    memory: MemoryBudget,
    workers: Workers | None,
    light: bool = False,
    constrained: bool = False,
) -> None:
    """Bound a target's undecided entries and intersect `state.intervals` with the result.

    Where few inputs vary and many entries are undecided, forward lines decide most of them first; `light`: where very
    few vary in a wide network, forward lines are all there is.

    Where nothing but ReLUs reads the target, entries that are likely inactive get their upper bound first and a lower
    one only if they may be active after all: an inactive neuron's lower bound changes nothing. (Not for torch tensors:
    there a second pass costs more than its rows.) In large networks, likely active ones get their lower bound first in
    the same way: an active neuron's upper bound changes no relaxation, only the interval bounds of what follows, which
    still tighten those of small networks (ACAS Xu: mean bound of a row -0.59 with them, -0.61 without).
    """
    node = state.plan.graph.nodes[target.index]
    low, high, mask, count = _undecided(state, target)
    alone = light and passes is not None and 0 < ahead.inputs <= LINES_ALONE
    if count and (alone or (target.kinked and _pays(ahead, state, count, memory))):
        whole = None if constrained else node
        state.intervals[target.index] = intersect(state.intervals[target.index], ahead.range(target.index), whole)
        before = count
        low, high, mask, count = _undecided(state, target)
        ahead.useful = before - count >= FORWARD_WHILE * before
    xp, batch = array_namespace(low), low.shape[0]
    if count == 0 or alone:
        return
    best = xp.full((batch, 2, low.shape[1]), -xp.inf, dtype=low.dtype, **options_like(low))
    if passes is not None and count >= ROWS_A_BOX * batch:
        bound = partial(_by_columns, state, target.index, passes, deadline, workers)
    else:
        bound = partial(_by_triples, state, target.index, deadline, memory)
    worth = target.kinked and isinstance(low, np.ndarray) and count >= TWO_STEPS_FROM
    if worth and _only_relus_read(state.plan.graph, target.index):
        inactive = high < -low
        first = mask if passes is None else mask & inactive
        bound(best, np.stack([mask & ~inactive, first], axis=1))
        active = mask & inactive & (best[:, 1] < 0)
        undecided = mask & ~first & (best[:, 0] < 0)
        if active.any() or undecided.any():
            bound(best, np.stack([active, undecided], axis=1))
    else:
        bound(best, xp.stack([mask, mask], axis=1))
    # A sum that overflowed says nothing, even where it came out as plus infinity.
    best = xp.where(abs(best) < xp.inf, best, -xp.inf)
    low, high = intersect((low, high), (best[:, 0], -best[:, 1]), None if constrained else node)
    state.intervals[target.index] = (low.reshape(batch, *node.shape), high.reshape(batch, *node.shape))


def _pays(ahead: ForwardLines, state: Relaxed, count: int, memory: MemoryBudget) -> bool:
    """Whether forward lines may decide many of `count` entries for little."""
    batch = state.lower.shape[0]
    if not ahead.useful or not ahead.inputs or count < FORWARD_FROM * batch * ahead.inputs:
        return False
    entries = batch * sum(node.size for node in state.plan.graph.nodes)
    return 2 * ahead.inputs * entries * state.lower.dtype.itemsize <= FORWARD_MEMORY * memory.bytes


def _undecided(state: Relaxed, target: Target) -> tuple[Array, Array, Array, int]:
    """A target's bounds ``[B, size]``, which of its entries need better ones, and how many these are."""
    low, high = (end.reshape(end.shape[0], -1) for end in state.intervals[target.index])
    xp = array_namespace(low)
    mask = state.plan.among_relevant(target.index, (low < 0) & (high > 0) if target.kinked else high > low)
    return low, high, mask, int(xp.sum(xp.astype(mask, xp.int64)))


def _only_relus_read(graph: Graph, index: int) -> bool:
    """Whether every reader of a node's value, through reshapes, is a ReLU."""
    if index in graph.outputs:
        return False
    readers = [(position, node.op) for position, node in enumerate(graph.nodes) if index in node.inputs]
    return all(op == "Relu" or (op == "Reshape" and _only_relus_read(graph, position)) for position, op in readers)


# --- many boxes together ---------------------------------------------------------------------------------------------


def _by_triples(
    state: Relaxed, target: int, deadline: Deadline, memory: MemoryBudget, best: Array, wanted: Array
) -> None:
    """Write lower bounds of the wanted sides ``[B, 2, size]`` into `best`, a chunk of triples at a time."""
    xp = array_namespace(best)
    boxes, sides, entries = xp.nonzero(wanted)
    count, batch = boxes.shape[0], wanted.shape[0]
    # Few boxes with many entries each: rows of one box share its relaxation instead of each gathering a copy.
    shared = batch == 1 or (count // batch >= 64 and state.plan.largest >= 1024)
    resident = memory.bytes if shared or not isinstance(best, np.ndarray) else PASS_BYTES
    per_row = state.plan.largest * best.dtype.itemsize * 6
    chunk = MemoryBudget(min(memory.bytes, resident)).rows(per_row, count)
    starts = _runs(boxes, batch, chunk) if shared else [(s, min(s + chunk, count)) for s in range(0, count, chunk)]
    for start, stop in starts:
        deadline.check()
        box, side, entry = boxes[start:stop], sides[start:stop], entries[start:stop]
        first, rows, constant = _seed(state, target, entry, xp.astype(1 - 2 * side, best.dtype))
        if shared:
            bound = backward(single(state, int(box[0])), first, rows[None], constant[None]).lower[0]
        else:
            bound = backward(state, first, rows[:, None], constant[:, None], box).lower[:, 0]
        best[box, side, entry] = bound


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


def _seed(state: Relaxed, target: int, entries: Array, signs: Array) -> tuple[int, Array, Array]:
    """Rows ``[R, *shape]`` that pick entries of a node times signs, taken one step back at once where that is a gather
    of weights; the node that they are about, and constants ``[R]``."""
    nodes = state.plan.graph.nodes
    node = nodes[target]
    xp = array_namespace(state.lower)
    count = entries.shape[0]
    constant = zeros_like_shape((count,), state.lower)
    if node.op == "Linear" and node.size == node.shape[-1] and "weight_error" not in node.params:
        weight = as_like(node.params["weight"], state.lower)
        if "bias" in node.params:
            constant = as_like(node.params["bias"], state.lower)[entries] * signs
        if "bias_error" in node.params:
            constant = constant - as_like(node.params["bias_error"], state.lower)[entries]
        rows = weight[entries] * signs[:, None]
        return node.inputs[0], rows.reshape(count, *nodes[node.inputs[0]].shape), constant
    rows = zeros_like_shape((count, node.size), state.lower)
    rows[xp.arange(count, **options_like(state.lower)), entries] = signs
    return target, rows.reshape(count, *node.shape), constant


# --- one box at a time -----------------------------------------------------------------------------------------------


def _by_columns(
    state: Relaxed,
    target: int,
    passes: Sequence[BoxPass],
    deadline: Deadline,
    workers: Workers | None,
    best: np.ndarray,
    wanted: np.ndarray,
) -> None:
    """The same with `columns`, a chunk of one box's sides and entries at a time."""
    node = state.plan.graph.nodes[target]
    sharers = workers.count if workers else 1

    def bound(job: tuple[int, np.ndarray, np.ndarray]) -> None:
        deadline.check()
        box, sides, entries = job
        best[box, sides, entries] = passes[box].entry_bounds(target, entries, (1 - 2 * sides).astype(best.dtype))

    def jobs(at_once: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
        made = []
        for box, sides_wanted in enumerate(wanted):
            sides, entries = np.nonzero(sides_wanted)
            parts = neighbours(node, entries, at_once, sharers)
            made += [(box, sides[part], entries[part]) for part in parts]
        return made

    whole = max(PILOT_ROWS, COLUMN_BYTES // (state.plan.largest * best.dtype.itemsize))
    todo = jobs(whole)
    if whole == PILOT_ROWS and len(todo) > sharers:
        bound(todo[0])
        row = passes[todo[0][0]].numbers_a_row(target) or state.plan.largest
        at_once = min(LARGEST_CHUNK, COLUMN_BYTES // (row * best.dtype.itemsize))
        todo = jobs(at_once) if at_once > whole else todo[1:]
    run(bound, todo, workers)
