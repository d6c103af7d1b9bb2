"""Bounds of a network's outputs over boxes: the call that the command line, the Python API and certified training
share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import region_of, require_choice
from ..arrays import Backend, array_namespace, full_precision, options_like, to_numpy
from ..budget import NEVER, Deadline, MemoryBudget
from ..errors import ArgumentError
from ..graph import Array, Graph
from ..problem import flatten
from ..rounding import ELEMENT_TYPES
from .crown import Relaxed, relax, row_bounds
from .forward import forward_bounds
from .interval import interval_bounds, ordered
from .plan import Plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..loading.network import Network
    from ..ops.rule import Interval

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", "forward", "auto-lirpa")


@dataclass(frozen=True, eq=False)
class OutputBounds:
    """Bounds of the flat output vector, ``[B, m]`` each, and what relaxing the graph met on the way.

    unstable   per nonlinear operator: (node name, entries whose relaxation is not exact, entries), counted over the
               batch; empty for
               `auto-lirpa`.
    """

    lower: Array
    upper: Array
    unstable: tuple[tuple[str, int, int], ...]


def bounds(network: Network | Graph, center: Any, radius: Any, method: str = "crown") -> tuple[Array, Array]:
    """Lower and upper bounds of the outputs on ``|x - center| <= radius``.

    center   ``[B, *input shape]`` or any shape that flattens to ``[B, n]``, numpy array, torch tensor or list; a single
             point may leave out B. Float32 or float64, whole numbers and lists are taken in the network's type.
    radius   a number, or an array: one radius a point ``[B]`` or ``[B, 1, ..., 1]``, or one an input with the axes of
             `center` (B or 1 first, or left out), each of its extent or 1. Where ``[B]`` could be either, say which by
             axes of extent 1. If one of both is a torch tensor, so are the bounds.
    method   ibp, crown-ibp, crown, alpha-crown (tightest, slowest; not differentiable) or forward.

    Returns two arrays ``[B, m]`` over the flat outputs. On torch tensors the bounds are differentiable by center,
    radius and, for a module loaded with ``live=True``, by its parameters. Raises `BoundsmithError` for sizes that do
    not fit, for numbers that are not finite, and for negative radii.

    Example:
        >>> lower, upper = bounds(load("net.onnx"), np.zeros((1, 784), np.float32), 0.02)  # doctest: +SKIP
    """
    if not isinstance(network, Graph) and not hasattr(network, "graph"):
        raise ArgumentError(
            f"bounds takes a loaded network, not a {type(network).__name__}; load it first: load(path), or "
            "load(module, example_input)"
        )
    graph = network if isinstance(network, Graph) else network.graph
    size = sum(graph.nodes[index].size for index in graph.inputs)
    double = not isinstance(network, Graph) and any(np.dtype(info.dtype) == np.float64 for info in network.inputs)
    middle, reach = region_of(center, radius, size, "float64" if double else "float32")
    # (A live network's graph is made anew each time that it is read.)
    result = bounds_of(network if method == "auto-lirpa" else graph, *_box(middle, reach), method)
    return result.lower, result.upper


def _box(middle: Array, reach: Array) -> Interval:
    """``middle -+ reach``, rounded outwards; the rounding is found exactly (Knuth's two-sum)."""
    xp = array_namespace(middle)
    ends = []
    for radius, outwards in ((-reach, -xp.inf), (reach, xp.inf)):
        end = middle + radius
        virtual = end - middle
        error = (middle - (end - virtual)) + (radius - virtual)
        beyond = error < 0 if outwards < 0 else error > 0
        stay = end if isinstance(end, np.ndarray) else end.detach()
        step = xp.where(beyond, xp.nextafter(stay, xp.full_like(stay, outwards)) - stay, 0.0)
        ends.append(end + step)
    return ends[0], ends[1]


def bounds_of(
    network: Network | Graph,
    lower: Array,
    upper: Array,
    method: str = "crown",
    *,
    deadline: Deadline = NEVER,
    memory: MemoryBudget | None = None,
) -> OutputBounds:
    """Bounds of the flat outputs for boxes ``[B, n]``, by one of `METHODS`.

    Raises `ArgumentError` for an unknown method, `UnsupportedError` for an engine that is not installed,
    `UndefinedOnRegion` where an operator has no finite value, and `TimeUp` when the deadline passes.
    """
    require_choice("method", method, METHODS)
    if method == "auto-lirpa":
        from .auto_lirpa import auto_lirpa_bounds

        low, high = auto_lirpa_bounds(network, to_numpy(lower), to_numpy(upper))
        return OutputBounds(low, high, ())
    with full_precision(lower):
        return _bounds_of(_plan(network, lower), lower, upper, method, deadline, memory)


def _bounds_of(
    plan: Plan, lower: Array, upper: Array, method: str, deadline: Deadline, memory: MemoryBudget | None
) -> OutputBounds:
    if method == "ibp":
        shape = plan.graph.nodes[plan.input].shape
        every = interval_bounds(plan.graph, lower.reshape(-1, *shape), upper.reshape(-1, *shape))
    elif method == "forward":
        every = forward_bounds(plan, lower, upper)
    else:
        state = relax(plan, lower, upper, refine=method != "crown-ibp", deadline=deadline, memory=memory)
        low, high = _output_rows(state, memory, deadline)
        if method == "alpha-crown":
            from .alpha_crown import improved

            count = low.shape[1]
            first = array_namespace(low).concat([low, -high], axis=1)
            best = improved(state, _both_sides(count, lower), first, deadline=deadline, memory=memory)
            low, high = best[:, :count], -best[:, count:]
        output = plan.graph.nodes[plan.output]
        return OutputBounds(*ordered(output, (low, high)), _unstable(plan, state.intervals))
    xp = array_namespace(lower)
    # An output that depends on no input has the same bounds in all boxes.
    low, high = (
        xp.broadcast_to(xp.reshape(end, (end.shape[0], -1)), (len(lower), plan.graph.nodes[plan.output].size))
        for end in every[plan.output]
    )
    return OutputBounds(*ordered(plan.graph.nodes[plan.output], (low, high)), _unstable(plan, every))


def _plan(network: Network | Graph, like: Array) -> Plan:
    """The plan of a network's graph with flat input and output, and with stored parameters in the library, dtype and
    device of `like`."""
    graph = flatten(network if isinstance(network, Graph) else network.graph)
    dtype = str(like.dtype).removeprefix("torch.")
    if dtype not in ELEMENT_TYPES:
        return make_plan(graph)
    return make_plan(Backend(dtype, None if isinstance(like, np.ndarray) else str(like.device)).graph(graph))


def _elements(x: Array) -> int:
    size = 1
    for extent in x.shape:
        size *= int(extent)
    return size


def _both_sides(count: int, like: Array) -> Array:
    """Rows ``[2 m, m]`` that pick every output, then minus every output."""
    unit = np.eye(count)
    return array_namespace(like).asarray(np.concatenate([unit, -unit]), dtype=like.dtype, **options_like(like))


def _output_rows(state: Relaxed, memory: MemoryBudget | None, deadline: Deadline) -> Interval:
    """Backward bounds of every output from both sides, intersected with the intervals."""
    xp = array_namespace(state.lower)
    count = state.plan.graph.nodes[state.plan.output].size
    rows = _both_sides(count, state.lower)
    bound = row_bounds(state, rows[None], xp.zeros_like(rows[None, :, 0]), memory=memory, deadline=deadline).lower
    low, high = (end.reshape(end.shape[0], -1) for end in state.intervals[state.plan.output])
    return xp.maximum(bound[:, :count], low), xp.minimum(-bound[:, count:], high)


def _unstable(plan: Plan, intervals: Sequence[Interval]) -> tuple[tuple[str, int, int], ...]:
    """Entries of every nonlinear operator whose input is not known well enough for an exact line."""
    counts = []
    for index in plan.nonlinear:
        node = plan.graph.nodes[index]
        low, high = intervals[node.inputs[0]]
        undecided = (low < 0) & (high > 0) if node.op in ("Relu", "LeakyRelu", "Abs", "Sign") else high > low
        counts.append((node.name, int(undecided.sum()), _elements(low)))
    return tuple(counts)
