"""What backward bounds need to know about a graph before they start: computed once a graph, reused for every batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from ..ops import rule
from .compact import Compact, compact
from .relevance import relevant_entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from ..graph import Array, Graph, Node

_KINKED = frozenset({"Relu", "LeakyRelu", "Abs", "Sign", "IsPositive", "IsNonNegative", "IsZero"})
MOVES = frozenset({"Reshape", "Transpose", "Take"})
"""Operators through which a nonlinear node is taken to read an earlier one."""

_INDIFFERENT = frozenset({"Same", "LogSoftmax"})
"""Operators that no better bounds of their inputs serve: another form of their value, read by `Same`, has the lines."""

_OPEN = MappingProxyType(
    {
        "Sign": (True, True),
        "IsZero": (True, True),
        "IsPositive": (False, True),
        "IsNonNegative": (True, False),
        "Floor": (True, False),
        "Ceil": (False, True),
        "Round": (True, True),
    }
)
"""Whether a step's value just below (above) a kink differs from the one at the kink."""

_STAIRS = MappingProxyType({"Floor": 0.0, "Ceil": 0.0, "Round": 0.5})
"""Where the kinks of operators with one at every whole number lie, modulo 1."""


@dataclass(frozen=True, eq=False)
class Target:
    """A node whose interval is worth a backward pass of its own.

    kinked   every reader is exact unless its input interval contains 0 inside, so only those entries matter.
    kinks    where its readers' pieces meet, if all of them are piecewise linear; None: they are not.
    opened   whether some reader jumps just below, just above its kinks, so that a split needs ``z < kink`` (``z >
             kink``) to leave one piece. False where a bound of that kind would reach anything but steps.
    stairs   all readers are steps at every whole number plus this; None: they are not.
    """

    index: int
    kinked: bool
    kinks: tuple[float, ...] | None = None
    opened: tuple[bool, bool] = (False, False)
    stairs: float | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of work on a graph with one input and one output node.

    sources      nodes that nonlinear nodes read (through moves), by index: what branch-and-bound can split.
    targets      those of them that are worth refining.
    nonlinear    indices of the nonlinear nodes; elementwise  those of them that have an elementwise relaxation.
    largest      size of the largest node: one row of coefficients takes about that many numbers.
    wanted       the entries of the output (bool ``[m]``) that rows are about; None for all.
    relevant     for nodes of which not all entries count towards those: which do (bool ``[size]``).
    """

    graph: Graph
    input: int
    output: int
    sources: dict[int, Target]
    targets: dict[int, Target]
    nonlinear: tuple[int, ...]
    elementwise: frozenset[int]
    largest: int
    wanted: np.ndarray | None = None
    relevant: Mapping[int, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))

    def among_relevant(self, index: int, mask: Array) -> Array:
        """The mask ``[B, size]`` over a node's entries without those that do not count."""
        known = self.relevant.get(index)
        if known is None:
            return mask
        return mask & array_namespace(mask).asarray(known, **options_like(mask))

    @property
    def target_size(self) -> int:
        """Number of scalars in all targets."""
        return sum(self.graph.nodes[index].size for index in self.targets)

    @cached_property
    def longest(self) -> int:
        """Size of the largest node with an elementwise relaxation: how many terms its constants sum up."""
        return max((self.graph.nodes[index].size for index in self.elementwise), default=1)

    @cached_property
    def compact(self) -> Compact | None:
        """The graph with what is affine multiplied out, where it is small enough."""
        return compact(self)


def make_plan(graph: Graph, wanted: np.ndarray | None = None) -> Plan:
    """The plan of a graph for rows about the `wanted` entries (bool ``[m]``) of its output; None for all of them.

    Raises ValueError unless the graph has one input and one output node (`problem.join` makes it so).
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError("bounds need a graph with one input and one output node")
    nonlinear = tuple(
        index for index, node in enumerate(graph.nodes) if node.op != "Input" and rule(node.op).linear is None
    )
    exact = _interval_exact(graph)
    readers: dict[int, list[tuple[str, bool]]] = {}
    kinks: dict[int, list[tuple[float, ...] | None]] = {}
    private = _read_by_steps_alone(graph)
    for index in nonlinear:
        node = graph.nodes[index]
        for source in node.inputs if node.op not in _INDIFFERENT else ():
            root = source
            while graph.nodes[root].op in MOVES:
                root = graph.nodes[root].inputs[0]
            if graph.nodes[root].op != "Constant":
                readers.setdefault(root, []).append((node.op, root == source or _only_reshapes(graph, source, root)))
                kinks.setdefault(root, []).append(_kinks(node))
    sources = {
        index: Target(
            index,
            all(op in _KINKED and direct for op, direct in readers[index]),
            _union(kinks[index]),
            *(_jumps([op for op, _ in readers[index]]) if private[index] else ((False, False), None)),
        )
        for index in sorted(readers)
    }
    targets = {index: target for index, target in sources.items() if not exact[index]}
    elementwise = frozenset(index for index in nonlinear if rule(graph.nodes[index].op).relax is not None)
    largest = max(node.size for node in graph.nodes)
    relevant = MappingProxyType({} if wanted is None or wanted.all() else relevant_entries(graph, wanted))
    ends = graph.inputs[0], graph.outputs[0]
    return Plan(graph, *ends, sources, targets, nonlinear, elementwise, largest, wanted, relevant)


def is_step(node: Node) -> bool:
    """Whether the operator's value jumps at its kinks."""
    return node.op in _OPEN


def _jumps(ops: list[str]) -> tuple[tuple[bool, bool], float | None]:
    """`Target.opened` and `Target.stairs` of a node with these readers, all of them steps."""
    opened = any(_OPEN[op][0] for op in ops), any(_OPEN[op][1] for op in ops)
    stairs = {_STAIRS.get(op) for op in ops}
    return opened, stairs.pop() if len(stairs) == 1 else None


def _read_by_steps_alone(graph: Graph) -> list[bool]:
    """For every node whether its bounds are of use to steps alone.

    Others may read its value (bounds go through them backwards), but not so that their own bounds follow from its
    bounds by interval arithmetic. The interval ``[1e-45, 1]`` may then stand for ``0 < z <= 1``.
    """
    private = [True] * len(graph.nodes)
    some = [False] * len(graph.nodes)
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        for source in node.inputs:
            if node.op in MOVES:
                private[source], some[source] = private[source] and private[index], some[source] or some[index]
            elif is_step(node):
                some[source] = True
            elif rule(node.op).linear is None or node.op in ("Scale", "Concat"):
                private[source] = False
    return [alone and step for alone, step in zip(private, some, strict=True)]


def _kinks(node: Node) -> tuple[float, ...] | None:
    """Where the pieces of a piecewise-linear function of one variable meet; None for other functions."""
    if node.op in _KINKED:
        return (0.0,)
    if node.op == "Clip":
        ends = (float(node.attributes.get("min", -math.inf)), float(node.attributes.get("max", math.inf)))
        return tuple(end for end in ends if math.isfinite(end))
    return None


def _union(kinks: list[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    """All readers' kinks, ascending; None if one of them has pieces that are not linear."""
    known = [points for points in kinks if points is not None]
    return tuple(sorted({point for points in known for point in points})) if len(known) == len(kinks) else None


def _only_reshapes(graph: Graph, source: int, root: int) -> bool:
    """Whether every entry of `root` is read by `source` (so a mask on the root is a mask on what is read)."""
    while source != root:
        if graph.nodes[source].op == "Take":
            return False
        source = graph.nodes[source].inputs[0]
    return True


def _interval_exact(graph: Graph) -> list[bool]:
    """For every node whether its interval bounds cannot be improved by a backward pass (or are not worth one).

    True for the input, for constants, for one arithmetic operator on exact ones read once, and for elementwise
    functions of a node that is refined itself.
    """
    mixed: list[int] = []
    for node in graph.nodes:
        if node.op in ("Input", "Constant"):
            mixed.append(0)
        elif rule(node.op).linear is None:
            # The range of an elementwise function of one refined input is exact enough; of several it is not.
            mixed.append(0 if len(node.inputs) == 1 and rule(node.op).backward is None else 2)
        elif node.op in MOVES or node.op in ("Scale", "Concat"):
            mixed.append(max(mixed[source] for source in node.inputs))
        else:
            on_input = len(node.inputs) == 1 and mixed[node.inputs[0]] == 0 and _linear_ancestry(graph, node.inputs[0])
            mixed.append(1 if on_input else 2)
    return [level <= 1 for level in mixed]


def _linear_ancestry(graph: Graph, index: int) -> bool:
    """Whether the node is the input seen through moves and scalings only."""
    while graph.nodes[index].op not in ("Input", "Constant"):
        if graph.nodes[index].op not in MOVES and graph.nodes[index].op != "Scale":
            return False
        index = graph.nodes[index].inputs[0]
    return True
