"""Falsification by sampling and projected gradient descent, batched over restarts, clauses and groups.

The loss of a clause is its violation margin ``max_s (C_s y - d_s)``: unsafe iff <= 0. Its gradient is that of the row
that attains the maximum, computed by a vector-Jacobian product through the operator table, so that attacks run on
numpy and on torch alike. Through steps it is the gradient of something smooth beside them (`ops.steps`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from ..loading.evaluate import evaluate
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..budget import Deadline
    from ..graph import Array, Graph
    from ..rows import Rows


@dataclass(frozen=True)
class AttackOptions:
    """restarts: points per clause; steps: gradient steps of each; step: first step as a share of the box's width,
    which decays to `last` times itself; momentum: weight of the former direction; nearest: restarts are points per
    group, and each goes for the clause of its group that is nearest to being met where it is."""

    restarts: int = 16
    steps: int = 30
    step: float = 0.25
    last: float = 0.1
    momentum: float = 0.75
    nearest: bool = False


@np.errstate(all="ignore")
def output_and_gradient(graph: Graph, points: Array, pick: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Outputs ``[P, m]`` at points ``[P, n]`` and the gradient ``[P, n]`` of ``<pick(outputs), outputs>`` by the
    points."""
    nodes = graph.nodes
    values = evaluate(graph, [points.reshape(-1, *nodes[graph.inputs[0]].shape)], range(len(nodes)))
    output = graph.outputs[0]
    count = points.shape[0]
    outputs = values[output].reshape(count, -1)
    pending: dict[int, Array] = {output: pick(outputs).reshape(count, *nodes[output].shape)}
    gradient = array_namespace(points).zeros_like(points)
    for index in range(output, -1, -1):
        signal = pending.pop(index, None)
        if signal is None:
            continue
        node = nodes[index]
        if node.op == "Input":
            gradient = signal.reshape(count, -1)
            continue
        operator = rule(node.op)
        if operator.linear is not None:
            pieces = operator.linear.adjoint(node, signal) if node.inputs else ()
        elif operator.vjp is not None:
            pieces = operator.vjp(node, [values[source] for source in node.inputs], values[index], signal)
        else:
            continue
        for source, piece in zip(node.inputs, pieces, strict=True):
            known = pending.get(source)
            pending[source] = piece if known is None else known + piece
    return outputs, gradient


def attack(
    graph: Graph,
    rows: Rows,
    lower: Array,
    upper: Array,
    options: AttackOptions,
    seed: int,
    deadline: Deadline,
    check: Callable[[Array, Array], Any],
    chunk: int = 4096,
    starts: tuple[Array, Array, Array] | None = None,
    whole: Array | None = None,
) -> Any:
    """Look for a witness in boxes ``[G, n]``; `check` replays candidates (points ``[P, n]``, groups ``[P]``).

    Every group's every clause (with `nearest`, every group) gets `restarts` starting points: the centre first, then
    corners and uniform samples in turn; or `starts` are given as points ``[P, n]`` with their groups and clauses
    ``[P]``. Inputs with `whole` (bool ``[n]``) take whole numbers alone. Returns what `check` returned, or None. Stops
    quietly at the deadline.
    """
    if starts is not None:
        points, group, clause = starts
        box = (lower[group], upper[group])
        return _descend(graph, rows, group, clause, points, box, options, deadline, check, whole)
    xp = array_namespace(lower)
    rng = np.random.default_rng(seed)
    wanted = to_numpy(rows.clauses)
    groups, clauses = np.nonzero(wanted.any(axis=1, keepdims=True) if options.nearest else wanted)
    group = np.repeat(groups, options.restarts)
    clause = np.repeat(clauses, options.restarts)
    position = np.tile(np.arange(options.restarts), groups.size)
    # All clauses get their first point before any gets its second, and where time is short each may be the lucky one.
    order = rng.permutation(group.size)
    order = order[np.argsort(position[order], kind="stable")]
    group, clause, position = group[order], clause[order], position[order]
    for start in range(0, group.size, chunk):
        part = slice(start, start + chunk)
        own = _to_like(group[part], lower)
        low, high = lower[own], upper[own]
        points = low + (high - low) * xp.asarray(
            _starts(rng, position[part], lower.shape[1]), dtype=lower.dtype, **options_like(lower)
        )
        target = None if options.nearest else _to_like(clause[part], lower)
        found = _descend(graph, rows, own, target, points, (low, high), options, deadline, check, whole)
        if found is not None or deadline.passed:
            return found
    return None


def _descend(
    graph: Graph,
    rows: Rows,
    group: Array,
    clause: Array | None,
    points: Array,
    box: tuple[Array, Array],
    options: AttackOptions,
    deadline: Deadline,
    check: Callable[[Array, Array], Any],
    whole: Array | None,
) -> Any:
    """Gradient descent with momentum of one batch of points, replaying whatever looks unsafe on the way; clause None:
    each goes for the nearest.

    Every other point moves by the sign of its direction (all inputs alike: many inputs), the others in proportion to
    it (few inputs).
    """
    xp = array_namespace(points)
    low, high = box
    width = high - low
    single = rows.rows.shape[0] == 1
    own_rows = rows.rows[0] if single else rows.rows[group]
    offsets = rows.offsets[group]
    slots = rows.slots[group] if clause is None else rows.slots[group, clause]
    none = xp.full_like(offsets[:, :1], -xp.inf)

    def margins(outputs: Array) -> tuple[Array, Array]:
        product = outputs @ own_rows.T if single else (own_rows @ outputs[:, :, None])[:, :, 0]
        padded = xp.concat([product - offsets, none], axis=1)
        own = slots if clause is not None else _nearest(padded, slots, rows.clauses[group])
        return xp.take_along_axis(padded, own, axis=1), own

    def steepest(outputs: Array) -> Array:
        margin, own = margins(outputs)
        place = xp.argmax(margin, axis=1)
        worst = xp.clip(xp.take_along_axis(own, place[:, None], axis=1)[:, 0], None, own_rows.shape[-2] - 1)
        return own_rows[worst] if single else own_rows[xp.arange(worst.shape[0], **options_like(worst)), worst]

    direction = xp.zeros_like(points)
    signed = (xp.arange(points.shape[0], **options_like(points)) % 2 == 0)[:, None]
    for step in range(options.steps + 1):
        if deadline.passed:
            return None
        at = points if whole is None else xp.where(whole, xp.round(points), points)
        outputs, gradient = output_and_gradient(graph, at, steepest)
        unsafe = xp.nonzero(xp.max(margins(outputs)[0], axis=1) <= 0)[0]
        if unsafe.shape[0]:
            found = check(at[unsafe], group[unsafe])
            if found is not None:
                return found
        share = options.step * (options.last ** (step / max(1, options.steps)))
        gradient = xp.where(xp.isfinite(gradient), gradient, 0.0) * width
        direction = options.momentum * direction + _unit(gradient)
        move = xp.where(signed, xp.sign(direction), _unit(direction))
        points = xp.minimum(xp.maximum(points - share * width * move, low), high)
    return None


def _nearest(margins: Array, slots: Array, clauses: Array) -> Array:
    """The slots ``[P, S]``, of those of all clauses ``[P, K, S]``, of the clause whose largest margin is smallest;
    margins ``[P, R + 1]``, clauses ``[P, K]``."""
    xp = array_namespace(margins)
    points, count, depth = slots.shape
    every = xp.take_along_axis(margins, slots.reshape(points, count * depth), axis=1).reshape(points, count, depth)
    place = xp.argmin(xp.where(clauses, xp.max(every, axis=2), xp.inf), axis=1)
    return slots[xp.arange(points, **options_like(place)), place]


def _starts(rng: np.random.Generator, position: np.ndarray, size: int) -> np.ndarray:
    """Starting points in the unit box ``[P, size]``: the centre for position 0, then random corners (odd) and uniform
    samples (even)."""
    points = rng.random((position.size, size))
    corners = position % 2 == 1
    points[corners] = np.rint(points[corners])
    points[position == 0] = 0.5
    return points


def _unit(direction: Array) -> Array:
    """Every row scaled to largest entry 1."""
    xp = array_namespace(direction)
    largest = xp.max(abs(direction), axis=1, keepdims=True)
    return direction / xp.where(largest > 0, largest, 1.0)


def _to_like(index: np.ndarray, like: Array) -> Array:
    return array_namespace(like).asarray(index, **options_like(like))
