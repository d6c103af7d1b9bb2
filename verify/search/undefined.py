"""Boxes on which an operator may have no value: which of a batch they are, whether splitting can help, and along which
input.

Such a box has no bound. It stays open until it is split into parts on which bounds show that the operator is defined;
so `unsat` says that every operator is defined on the whole region. Where a point is found at which the operator has no
value, no split can help.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from ..bounding.backward import backward
from ..errors import UndefinedOnRegion
from ..loading.evaluate import evaluate
from ..ops import rule
from ..ops.arrays import zeros_like_shape

if TYPE_CHECKING:
    from ..bounding.backward import Relaxed
    from ..graph import Array
    from ..ops.rule import Interval

STEPS = frozenset(
    {"Floor", "Ceil", "Round", "Sign", "IsPositive", "IsNonNegative", "IsZero", "ArgMax", "Where"}
    | {"ScatterND", "GatherND", "DynamicSlice"}
)
"""Operators whose value may jump."""

HIDDEN_SHARE = 0.05
"""Share of the largest coefficient that every input is credited with: one that matters may have none (a square around
0). Much more, and inputs that do not matter are split, too, all along the edge of where the operator is defined."""

EVERY_CORNER = 4
"""Inputs up to which every corner of a box is looked at, beside those to which the linear bounds point."""


def undefined_boxes(error: UndefinedOnRegion, group: Array) -> Array:
    """Which of the boxes with these groups ``[N]`` the error is about, bool ``[N]``: all where it does not say."""
    count = group.shape[0]
    if error.valid is None or error.valid.shape[0] != count:
        return group >= 0
    return array_namespace(error.valid).any(~error.valid.reshape(count, -1), axis=1)


def split_advice(error: UndefinedOnRegion, boxes: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """For the boxes with these indices ``[N]`` and ends ``[N, n]``: how much each input matters ``[N, n]``, and
    whether no split can help, bool ``[N]``.

    None can where a point without a value is known, where every input that matters is at the dtype's resolution, or
    where the error does not say what it is about.
    """
    xp = array_namespace(lower)
    width = upper - lower
    state = error.partial
    if state is None or error.valid is None or error.valid.shape[0] != state.lower.shape[0]:
        return width, boxes >= 0
    directions = _directions(error.valid, error.about, state, boxes)
    weight = xp.sum(abs(directions), axis=1)
    largest = xp.max(weight, axis=1, keepdims=True)
    weight = xp.where(largest > 0, weight, 1.0)
    middle = 0.5 * lower + 0.5 * upper
    splittable = (middle > lower) & (middle < upper)
    resolved = ~xp.any(splittable & (weight > 0), axis=1)
    corners = [xp.where(directions[:, side] > 0, lower, upper) for side in (0, 1)]
    if width.shape[1] <= EVERY_CORNER:
        for chosen in product((0.0, 1.0), repeat=width.shape[1]):
            at_upper = xp.asarray(chosen, dtype=lower.dtype, **options_like(lower)) > 0
            corners.append(xp.where(at_upper, upper, lower))
    known = _valueless(state, xp.stack([middle, *corners]))
    return (weight + HIDDEN_SHARE * largest) * width, resolved | known


def _directions(valid: Array, about: int, state: Relaxed, boxes: Array) -> Array:
    """Coefficients ``[N, 2, n]`` of linear lower bounds of the operator's input `about` and of its negative, at the
    first entry for which there is no value."""
    xp = array_namespace(state.lower)
    source = state.plan.graph.nodes[len(state.intervals)].inputs[about]
    invalid = ~valid.reshape(valid.shape[0], -1)[boxes]
    entry = xp.argmax(xp.astype(invalid, xp.int64), axis=1)
    every = xp.arange(boxes.shape[0], **options_like(state.lower))
    rows = zeros_like_shape((boxes.shape[0], 2, invalid.shape[1]), state.lower)
    rows[every, 0, entry], rows[every, 1, entry] = 1.0, -1.0
    shape = state.plan.graph.nodes[source].shape
    bound = backward(state, source, rows.reshape(*rows.shape[:2], *shape), None, boxes)
    return xp.where(xp.isfinite(bound.coefficients), bound.coefficients, 0.0)


def _valueless(state: Relaxed, points: Array) -> Array:
    """Whether the operator has no value somewhere between the points ``[P, N, n]`` of each box, bool ``[N]``.

    Where no operator before it jumps, an input that crosses what is forbidden takes it in between.
    """
    xp = array_namespace(points)
    graph, position = state.plan.graph, len(state.intervals)
    flat = points.reshape(-1, *graph.nodes[state.plan.input].shape)
    values = []
    for x in evaluate(graph, [flat], graph.nodes[position].inputs):
        whole = xp.broadcast_to(x, (flat.shape[0], *x.shape[1:]))
        values.append(whole.reshape(*points.shape[:2], *x.shape[1:]))
    found = xp.zeros_like(points[0, :, 0]) > 0
    for point in range(points.shape[0]):
        found = found | _undefined_at(state, position, [(x[point], x[point]) for x in values])
    if not any(node.op in STEPS for node in graph.nodes[:position]):
        found = found | _undefined_at(state, position, [(xp.min(x, axis=0), xp.max(x, axis=0)) for x in values])
    return found


def _undefined_at(state: Relaxed, position: int, intervals: list[Interval]) -> Array:
    """Which boxes ``[N]`` have an entry without a value, if the inputs take all of the (finite) intervals."""
    node = state.plan.graph.nodes[position]
    xp = array_namespace(state.lower)
    none = xp.zeros_like(intervals[0][0].reshape(intervals[0][0].shape[0], -1)[:, 0]) > 0
    try:
        rule(node.op).interval(node, intervals)
    except UndefinedOnRegion as error:
        if error.valid is not None:
            low, high = intervals[error.about]
            invalid = xp.isfinite(low) & xp.isfinite(high) & ~error.valid
            return xp.any(invalid.reshape(invalid.shape[0], -1), axis=1)
    return none
