"""Backward bounds of graphs of few entries about thousands of boxes, with the arithmetic laid out for a CPU (numpy
only).

The same mathematics as `crown`, arranged for many boxes with layers of a few entries each:

- What is affine between nonlinear nodes is multiplied out once (`compact`).
- Boxes come last: values are ``[entries, boxes]``, coefficients ``[entries, rows, boxes]``, so that every step is a few
  long loops, and products share one small matrix.
- Coefficients have one box while they are the same on all: up to the first relaxation.
- A target's entries are bounded as rows of one pass over all boxes that need any of them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..budget import NEVER, Deadline, MemoryBudget
from ..errors import UndefinedOnRegion
from ..ops import rule
from ..ops.arrays import defined, product
from ..rounding import FEW, element_type, rounding, smallest, unit_roundoff, worst_case
from . import crown
from .backward import LinearBound, Relaxed, constants_rounding
from .charges import lines_vector, pays_itself, underflow
from .compact import CLEARLY
from .interval import intersect, ordered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array, Node
    from ..ops.rule import Interval, Lines
    from .compact import Affine, Compact
    from .plan import Plan

PASS_BYTES = 1 << 19
"""Bytes of one array of coefficients in a pass."""

MOST = 0.7
"""Share of the boxes from which a target is bounded on all of them: choosing the others costs more than they do."""

Piece = tuple[slice, np.ndarray]
"""Coefficients ``[entries, S, B or 1]`` of a range of a node's entries."""

Minima = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""What `LinearBound` holds, boxes last: coefficients ``[n, S, B]``, constants, minima and losses ``[S, B]``."""


class _Charge(NamedTuple):
    """What rounding may take: for each coefficient ``[size, B]``, and from any ``[B]``."""

    vector: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True, eq=False)
class _Step:
    """A relaxation: slopes below and their distance to those above, one array ``[size, B]`` an input, and intercepts
    ``[size, B]`` (None where all zero).

    charge    what rounding may take for a coefficient of its value (as `charges.lines_charge`), None for nothing.
    charges   the same for coefficients that go on to the affine functions that it reads.
    """

    slopes: tuple[np.ndarray, ...]
    spread: tuple[np.ndarray, ...]
    below: np.ndarray | None
    above: np.ndarray | None
    charge: np.ndarray | None
    charges: tuple[_Charge | None, ...]

    def at(self, boxes: np.ndarray | slice) -> _Step:
        """The relaxation on some of the boxes."""
        below, above, charge = (None if x is None else x[:, boxes] for x in (self.below, self.above, self.charge))
        charges = tuple(None if x is None else _Charge(x.vector[:, boxes], x.constant[boxes]) for x in self.charges)
        slopes, spread = (tuple(x[:, boxes] for x in side) for side in (self.slopes, self.spread))
        return _Step(slopes, spread, below, above, charge, charges)


@dataclass(frozen=True, eq=False)
class Narrowed:
    """What `Relaxed` is, of a compact graph.

    lower, upper   the boxes, ``[B, n]``.
    intervals      bounds ``[B, *shape]`` of targets and the output, by node index.
    steps          relaxations of the nonlinear nodes, by node index, ascending.
    reaches        largest magnitudes ``[size, B]`` of the input and the nonlinear nodes, by node index.
    """

    plan: Plan
    form: Compact
    lower: np.ndarray
    upper: np.ndarray
    intervals: dict[int, Interval]
    steps: dict[int, _Step]
    reaches: dict[int, np.ndarray]

    def at(self, boxes: np.ndarray | slice) -> Narrowed:
        """The relaxations so far on some of the boxes, without intervals."""
        steps = {index: step.at(boxes) for index, step in self.steps.items()}
        reaches = {index: reach[:, boxes] for index, reach in self.reaches.items()}
        return Narrowed(self.plan, self.form, self.lower[boxes], self.upper[boxes], {}, steps, reaches)


def relax(
    plan: Plan,
    lower: Array,
    upper: Array,
    *,
    refine: bool = True,
    inherited: Mapping[int, Interval] | None = None,
    light: bool = False,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
) -> Relaxed | Narrowed:
    """`crown.relax`, for many boxes of a small graph in this module's way (only with `refine`, on a CPU).

    Raises `TimeUp` when the deadline passes and `UndefinedOnRegion` with its `partial` relaxation.
    """
    form = plan.compact if refine and isinstance(lower, np.ndarray) else None
    if form is not None and form.dtype == lower.dtype:
        try:
            return _narrowed(plan, form, (lower, upper), inherited or {}, deadline)
        except UndefinedOnRegion:
            # The general relaxation tells on which boxes, and what a search needs to split them.
            pass
    return crown.relax(
        plan, lower, upper, refine=refine, inherited=inherited, light=light, deadline=deadline, memory=memory
    )


def row_bounds(
    state: Relaxed | Narrowed,
    rows: Array,
    offsets: Array,
    *,
    memory: MemoryBudget | None = None,
    deadline: Deadline = NEVER,
) -> LinearBound:
    """`crown.row_bounds` of either kind of relaxation."""
    if isinstance(state, Relaxed):
        return crown.row_bounds(state, rows, offsets, memory=memory, deadline=deadline)
    return crown.in_chunks(partial(_rows_of_output, state), state, rows, offsets, memory, deadline)


# --- forwards --------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def _narrowed(
    plan: Plan,
    form: Compact,
    box: tuple[np.ndarray, np.ndarray],
    inherited: Mapping[int, Interval],
    deadline: Deadline,
) -> Narrowed:
    nodes = plan.graph.nodes
    batch = box[0].shape[0]
    values: dict[int, Interval] = {plan.input: (_boxes_last(box[0]), _boxes_last(box[1]))}
    state = Narrowed(plan, form, box[0], box[1], {}, {}, {plan.input: _reach(values[plan.input])})
    for index in form.order:
        node = nodes[index]
        if index in form.inputs:
            shape = (batch, *node.shape)
            ranges = [_range(affine, values) for affine in form.known[index]]
            inputs = [(low.T.reshape(shape), high.T.reshape(shape)) for low, high in ranges]
            operator = rule(node.op)
            low, high = defined(*operator.interval(node, inputs))
            values[index] = _boxes_last(low, batch), _boxes_last(high, batch)
            if operator.relax is not None:
                charges = tuple(_charge(affine, state) for affine in form.inputs[index])
                reaches = [_reach(pair) for pair in ranges]
                state.steps[index] = _prepared(operator.relax(node, inputs), batch, charges, reaches)
            state.reaches[index] = _reach(values[index])
        if index not in plan.targets:
            continue
        exact, known = form.targets[index]
        on_input = all(part.node == plan.input for part in exact.parts)
        if index not in form.inputs:
            values[index] = _range(exact if on_input else known, values)
        if index in inherited:
            low, high = inherited[index]
            values[index] = intersect(values[index], (_boxes_last(low), _boxes_last(high)), node)
        if not on_input:
            deadline.check()
            values[index] = _refined(state, node, exact, values[index], plan.targets[index].kinked)
        if index in form.inputs:
            state.reaches[index] = _reach(values[index])
    if plan.output not in values:
        values[plan.output] = _range(form.targets[plan.output][1], values)
    for index in {*plan.targets, plan.output}:
        low, high = values[index]
        shape = (batch, *nodes[index].shape)
        state.intervals[index] = low.T.reshape(shape), high.T.reshape(shape)
    return state


def _boxes_last(x: np.ndarray, batch: int | None = None) -> np.ndarray:
    """``[B or 1, *shape]`` as ``[size, B]``."""
    flat = x.reshape(x.shape[0], -1).T
    return np.ascontiguousarray(flat if batch is None else np.broadcast_to(flat, (flat.shape[0], batch)))


def _range(affine: Affine, values: Mapping[int, Interval]) -> Interval:
    """Bounds ``[size, B]`` of an affine function of bounded values, as `interval.node_interval` has them."""
    if affine.picked is not None:
        node, places = affine.picked
        low, high = values[node]
        return low[places], high[places]
    some = next(iter(values.values()))[0]
    terms = 1 + sum(part.matrix.shape[1] for part in affine.parts)
    slack = rounding(some, worst_case(terms))
    centre = np.zeros((affine.size, some.shape[1]), some.dtype)
    radius = np.zeros_like(centre)
    for source, entries, matrix, sizes, cancels in affine.parts:
        low, high = (end[entries] for end in values[source])
        middle = 0.5 * (low + high)
        rounded = CLEARLY * slack * ((high - low) + abs(middle))
        if cancels:
            radius += _times(abs(matrix), 0.5 * (high - low)) + _times(sizes, rounded)
        else:
            radius += _times(abs(matrix), 0.5 * (high - low) + rounded)
        centre += _times(matrix, middle)
    if affine.bias is not None and affine.bias_sizes is not None:
        radius += slack * affine.bias_sizes[:, None]
        centre += affine.bias[:, None]
    radius += slack * abs(centre)
    radius += _underflow(affine, values, (radius == 0) & (centre == 0), terms * smallest(some))
    return defined(centre - radius, centre + radius)


def _underflow(affine: Affine, values: Mapping[int, Interval], nothing: np.ndarray, lost: float) -> np.ndarray | float:
    """What products may have lost, also where all of them seem to be 0 (`nothing`), unless they are of a zero."""
    if not nothing.any():
        return lost
    at_work = nothing == 0
    for source, entries, _, sizes, _ in affine.parts:
        low, high = (end[entries] for end in values[source])
        at_work |= _times(sizes > 0, (low != 0) | (high != 0)) > 0
    return np.where(at_work, lost, 0).astype(values[affine.parts[0].node][0].dtype) if affine.parts else 0.0


def _reach(values: Interval) -> np.ndarray:
    """The largest magnitudes ``[size, B]``."""
    return np.maximum(abs(values[0]), abs(values[1]))


def _charge(affine: Affine, state: Narrowed) -> _Charge | None:
    """What rounding may take from coefficients that go back through an affine function, as `charges.linear_charge`;
    None where it only picks entries that nothing else reads."""
    merged = sum(state.form.readers.get(part.node, 1) for part in affine.parts)
    if affine.picked is not None:
        if merged <= 1:
            return None
        source, places = affine.picked
        reach = state.reaches[source][places]
        return _Charge(element_type(reach.dtype).unit * (FEW + merged) * reach, np.zeros_like(reach[0]))
    like = state.lower
    total = np.zeros((affine.size, like.shape[0]), dtype=like.dtype)
    # (Underflow: of coefficients, which multiply values, and of constants.)
    tiny = smallest(like) * (affine.size + merged)
    constant = np.full(like.shape[0], tiny, dtype=like.dtype)
    for source, entries, _, sizes, _ in affine.parts:
        used = np.asarray(sizes.any(axis=0))
        reach = np.where(used[:, None], state.reaches[source][entries], 0)
        # (Where a value is unbounded, so is what reads it: no coefficient underflows on the way there alone.)
        bounded = np.where(np.isfinite(reach), reach, 0)
        total += _times(sizes, reach)
        constant += tiny * bounded.sum(axis=0)
    total *= rounding(like, worst_case(affine.size + merged))
    if affine.bias_sizes is not None:
        total += rounding(like, affine.size) * affine.bias_sizes[:, None]
    return _Charge(total, constant)


def _prepared(lines: Lines, batch: int, charges: tuple[_Charge | None, ...], reaches: list[np.ndarray]) -> _Step:
    """A relaxation with boxes last."""

    def intercept(x: np.ndarray) -> np.ndarray | None:
        return _boxes_last(x, batch) if x.any() else None

    slopes = tuple(_boxes_last(slope, batch) for slope in lines.lower_slopes)
    spread = tuple(_boxes_last(above, batch) - below for above, below in zip(lines.upper_slopes, slopes, strict=True))
    below, above = intercept(lines.lower_intercept), intercept(lines.upper_intercept)
    charge = None
    if not pays_itself(slopes, spread, (below, above)):
        charge = lines_vector(slopes, spread, (below, above), reaches, len(slopes[0]))
    return _Step(slopes, spread, below, above, charge, charges)


def _refined(state: Narrowed, node: Node, affine: Affine, known: Interval, kinked: bool) -> Interval:
    """The bounds ``[size, B]`` of a target with those of backward passes for entries that need them."""
    low, high = known
    wanted = (low < 0) & (high > 0) if kinked else high > low
    boxes = np.flatnonzero(wanted.any(axis=0))
    if not boxes.size:
        return known
    entries = np.flatnonzero(wanted.any(axis=1))
    count = entries.size
    signs = np.zeros((low.shape[0], 2 * count, 1), low.dtype)
    signs[entries, np.arange(count)], signs[entries, count + np.arange(count)] = 1, -1
    zeros = np.zeros((2 * count, 1), low.dtype)
    low, high = low.copy(), high.copy()
    at_once = max(16, PASS_BYTES // (2 * count * state.plan.largest * low.itemsize))
    for part in _parts(boxes, low.shape[1], at_once):
        bound = _backward(state.at(part), affine, signs, zeros)[2]
        where: tuple[Any, ...] = (entries, part) if isinstance(part, slice) else np.ix_(entries, part)
        # What the other entries might gain would depend on the boxes that are bounded together.
        needed = wanted[where]
        below = np.where(needed, np.maximum(low[where], bound[:count]), low[where])
        above = np.where(needed, np.minimum(high[where], -bound[count:]), high[where])
        low[where], high[where] = ordered(node, (below, above))
    return low, high


def _parts(boxes: np.ndarray, count: int, at_once: int) -> list[np.ndarray] | list[slice]:
    """The boxes in parts; slices of all `count` where most are meant, which need no copies."""
    if boxes.size <= MOST * count:
        return np.array_split(boxes, -(-boxes.size // at_once))
    ends = np.linspace(0, count, -(-count // at_once) + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


# --- backwards -------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def _rows_of_output(state: Narrowed, rows: np.ndarray, offsets: np.ndarray) -> LinearBound:
    """Bounds of rows ``[B or 1, S, m]`` less offsets ``[B or 1, S]`` of the output."""
    affine = state.form.targets[state.plan.output][0]
    bound = _backward(state, affine, np.ascontiguousarray(rows.transpose(2, 1, 0)), -offsets.T)
    return LinearBound(*(x.T for x in bound))


def _backward(state: Narrowed, affine: Affine, rows: np.ndarray, constant: np.ndarray) -> Minima:
    """Linear lower bounds of ``rows . value + constant`` for an affine function's value: rows ``[size, S, B or 1]``,
    constant ``[S, B or 1]``.

    As `backward.backward`, with the boxes last.
    """
    total, sizes, lost = constant, abs(constant), 0.0 * constant
    pending: dict[int, list[Piece]] = {}

    def add(part: np.ndarray) -> None:
        nonlocal total, sizes
        total, sizes = total + part, sizes + abs(part)

    def arrive(through: Affine, a: np.ndarray, charge: _Charge | None) -> None:
        nonlocal lost
        size, count, boxes = a.shape
        flat = a.reshape(size, -1)
        if charge is not None:
            lost = lost + _charged(a, charge.vector) + charge.constant
        if through.bias is not None:
            add(_times(through.bias[None], flat).reshape(count, boxes))
        for source, entries, matrix, *_ in through.parts:
            pending.setdefault(source, []).append((entries, _times(matrix.T, flat).reshape(-1, count, boxes)))

    arrive(affine, rows, _charge(affine, state))
    for index in reversed(state.steps):
        if index not in pending:
            continue
        step = state.steps[index]
        a = _together(pending.pop(index), step.slopes[0].shape[0])
        negative = np.minimum(a, 0)
        if step.charge is not None:
            lost = lost + _charged(a, step.charge)
        if step.above is not None:
            add(np.einsum("nsb,nb->sb", negative, step.above))
        if step.below is not None:
            add(np.einsum("nsb,nb->sb", a - negative, step.below))
        last = len(step.slopes) - 1
        everywhere = a.shape[2] == step.slopes[0].shape[1]
        for number, (slope, spread) in enumerate(zip(step.slopes, step.spread, strict=True)):
            # In place where the arrays are not needed any more: this is the innermost step.
            own = (a, negative) if number == last and everywhere else (None, None)
            carried = np.multiply(a, slope[:, None], out=own[0])
            carried += np.multiply(negative, spread[:, None], out=own[1])
            arrive(state.form.inputs[index][number], carried, step.charges[number])
    lost = lost + constants_rounding(state.plan, rows) * sizes
    return _least(state, pending.get(state.plan.input, []), total, lost)


def _charged(a: np.ndarray, charge: np.ndarray) -> np.ndarray:
    """What rounding may take ``[S, B]`` from coefficients ``[size, S, B or 1]``; coefficients of 0 take nothing."""
    total = np.einsum("nsb,nb->sb", abs(a), charge)
    if np.isnan(total).any():
        total = product(abs(a), charge[:, None]).sum(axis=0)
    return total


def _times(matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``matrix @ values``; numpy's own product is ten times slower where there is one column."""
    return matrix * values if matrix.shape[1] == 1 else matrix @ values


def _together(pieces: list[Piece], size: int) -> np.ndarray:
    """The sum of coefficients of some entries each, ``[size, S, B or 1]``; changes one of them."""
    boxes = max(piece.shape[2] for _, piece in pieces)
    whole = next((piece for _, piece in pieces if piece.shape[0] == size and piece.shape[2] == boxes), None)
    total = whole
    if total is None:
        total = np.zeros((size, pieces[0][1].shape[1], boxes), pieces[0][1].dtype)
    for entries, piece in pieces:
        if piece is not whole:
            total[entries] += piece
    return total


def _least(state: Narrowed, pieces: list[Piece], constant: np.ndarray, lost: np.ndarray) -> Minima:
    """Minimise over the boxes, less the rounding allowance, as `backward` does."""
    lower, upper = _boxes_last(state.lower), _boxes_last(state.upper)
    size, boxes = lower.shape
    a = _together(pieces, size) if pieces else np.zeros((size, constant.shape[0], 1), constant.dtype)
    centre, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
    slack = rounding(a, size)
    extent = abs(centre) + radius
    reach = radius + slack * extent
    value = np.einsum("nsb,nb->sb", a, centre) - np.einsum("nsb,nb->sb", abs(a), reach)
    lost = 1.01 * lost + unit_roundoff(a) * (abs(value) + 2.0 * abs(constant)) + underflow(extent.T)
    constant = constant - lost
    minimum = value + constant
    # A sum that overflowed says nothing, even where it came out as plus infinity.
    minimum = np.where(abs(minimum) < np.inf, minimum, -np.inf)
    shape = (constant.shape[0], boxes)
    constant, lost = (np.broadcast_to(x, shape) for x in (constant, lost))
    return np.broadcast_to(a, (size, *shape)), constant, minimum, lost
