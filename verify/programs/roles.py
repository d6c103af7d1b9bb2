"""Piecewise-linear operators: their pieces, and what each entry of a node is on given bounds.

An entry whose bounds decide it is an affine function of one input; an undecided one has several *choices* (pieces of a
unary operator, winning inputs of a maximum), of which one holds at every point. Steps are closed at their jumps: both
values are allowed there where the bounds of the output leave both open, so that the programme holds every behaviour of
the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from ..bounding.interval import intersect
from ..ops import rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..graph import Graph, Node

Bounds = tuple[np.ndarray, np.ndarray]
"""Lower and upper bounds of a node's entries, float64 ``[E]``."""


HELD = 2
"""The phase of an entry whose given bounds are all that its splits say."""


class NotEncodable(Exception):
    """The graph on this region has no programme: an operator is not piecewise linear, or a bound is infinite."""


class EmptyDomain(Exception):
    """The phases contradict the bounds: no point of the box satisfies them."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """A function of one variable, ``slope z + intercept`` on ``start <= z <= stop``; each array ``[P, E]``.

    continuous   pieces that meet agree there, so that one of them is enough at a point they share.
    """

    start: np.ndarray
    stop: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    continuous: bool


@dataclass(frozen=True, eq=False)
class Role:
    """What the ``E`` entries of a nonlinear node with ``K`` inputs are on given bounds.

    low, high             ``[K, E]`` bounds of the inputs z;  least, most  ``[E]`` bounds of the output y.
    slopes, shift         ``[K, E]``, ``[E]``: decided entries are ``y = <slopes, z> + shift``; zero for others.
    undecided             ``[E]``: entries with more than one choice.
    used                  ``[K, E]``: inputs that need a column: of undecided entries, of decided ones that depend on
                          them, and those with a phase.
    touching              ``[P, E]``: the choices that are possible for undecided entries (pieces, or inputs of a Max).
    """

    index: int
    low: np.ndarray
    high: np.ndarray
    least: np.ndarray
    most: np.ndarray
    slopes: np.ndarray
    shift: np.ndarray
    undecided: np.ndarray
    used: np.ndarray
    touching: np.ndarray


def _two(node: Node, slopes: tuple[np.ndarray | float, float], values: tuple[float, float], continuous: bool) -> Pieces:
    """Two pieces that meet at 0."""
    full = np.zeros((2, node.size))
    start, stop = full + np.array([[-np.inf], [0.0]]), full + np.array([[0.0], [np.inf]])
    slope = np.stack([np.broadcast_to(np.asarray(s, dtype=float), node.shape).reshape(-1) for s in slopes])
    return Pieces(start, stop, slope, full + np.array(values)[:, None], continuous)


def _at_zero(node: Node, values: tuple[float, float, float]) -> Pieces:
    """A step function with a value of its own at 0."""
    full = np.zeros((3, node.size))
    start, stop = full + np.array([[-np.inf], [0.0], [0.0]]), full + np.array([[0.0], [0.0], [np.inf]])
    return Pieces(start, stop, full, full + np.array(values)[:, None], False)


def _clip(node: Node) -> Pieces:
    least, most = float(node.attributes.get("min", -np.inf)), float(node.attributes.get("max", np.inf))
    full = np.zeros((3, node.size))
    # A missing limit's piece lies at infinity, where no bounds reach it; its value must not poison sums.
    values = [least if np.isfinite(least) else 0.0, 0.0, most if np.isfinite(most) else 0.0]
    return Pieces(
        full + np.array([[-np.inf], [least], [most]]),
        full + np.array([[least], [most], [np.inf]]),
        full + np.array([[0.0], [1.0], [0.0]]),
        full + np.array(values)[:, None],
        True,
    )


PIECES: Mapping[str, Callable[[Node], Pieces]] = MappingProxyType(
    {
        "Relu": lambda node: _two(node, (0.0, 1.0), (0.0, 0.0), True),
        "LeakyRelu": lambda node: _two(node, (np.asarray(node.params["slope"]), 1.0), (0.0, 0.0), True),
        "Abs": lambda node: _two(node, (-1.0, 1.0), (0.0, 0.0), True),
        "Clip": _clip,
        "IsPositive": lambda node: _two(node, (0.0, 0.0), (0.0, 1.0), False),
        "IsNonNegative": lambda node: _two(node, (0.0, 0.0), (0.0, 1.0), False),
        "Sign": lambda node: _at_zero(node, (-1.0, 0.0, 1.0)),
        "IsZero": lambda node: _at_zero(node, (0.0, 1.0, 0.0)),
    }
)
"""The pieces of every unary operator that has a programme."""

EXTREMA = frozenset({"Max", "Min"})


def narrow(graph: Graph, intervals: Sequence[Bounds], phases: Mapping[int, np.ndarray] | None) -> list[Bounds]:
    """The bounds ``[E]`` of every node with the phases of nonlinear nodes applied to what these read.

    phases   by node index, ``[E]`` of -1 (pre-activation <= 0), 0 (free), +1 (pre-activation >= 0), `HELD`.
    Raises `EmptyDomain` where a phase contradicts its bounds.
    """
    narrowed = [(low.reshape(-1), high.reshape(-1)) for low, high in intervals]
    for index, phase in (phases or {}).items():
        if graph.nodes[index].op not in PIECES:
            raise ValueError(f"node {graph.nodes[index].name} ({graph.nodes[index].op}) has no phases")
        source = graph.nodes[index].inputs[0]
        low, high = narrowed[source]
        low, high = np.where(phase == 1, np.maximum(low, 0.0), low), np.where(phase == -1, np.minimum(high, 0.0), high)
        if (low > high).any():
            raise EmptyDomain
        narrowed[source] = low, high
    return narrowed


def role_of(graph: Graph, index: int, bounds: Sequence[Bounds], phase: np.ndarray | None) -> Role:
    """The role of nonlinear node `index` on (narrowed) bounds of all nodes.

    Raises `NotEncodable` where a bound is not a number, or one that the programme needs is infinite.
    """
    node = graph.nodes[index]
    low = np.stack([bounds[source][0] for source in node.inputs])
    high = np.stack([bounds[source][1] for source in node.inputs])
    shaped = [(a.reshape(1, *node.shape), b.reshape(1, *node.shape)) for a, b in zip(low, high, strict=True)]
    own = tuple(end.reshape(-1) for end in rule(node.op).interval(node, shaped))
    least, most = intersect((own[0], own[1]), bounds[index])
    if np.isnan(low).any() or np.isnan(high).any() or np.isnan(least).any() or np.isnan(most).any():
        raise NotEncodable(f"node {node.name} ({node.op}) has bounds that are not numbers")
    extremum = node.op in EXTREMA
    touching = _candidates(low, high, node.op == "Min") if extremum else _touching(PIECES[node.op](node), low, high)
    constant = least == most
    undecided = (touching.sum(axis=0) > 1) & ~constant
    decided = ~undecided & ~constant
    if extremum:
        slopes, shift = np.where(decided, touching, 0.0), np.where(constant, least, 0.0)
        used = np.where(undecided, touching, slopes != 0.0)
    else:
        pieces = PIECES[node.op](node)
        slopes = np.where(decided, (touching * pieces.slope).sum(axis=0), 0.0)[None]
        shift = np.where(constant, least, np.where(decided, (touching * pieces.intercept).sum(axis=0), 0.0))
        used = undecided | (slopes != 0.0) | (False if phase is None else phase != 0)
    if not (np.isfinite(low[used]).all() and np.isfinite(high[used]).all()):
        raise NotEncodable(f"node {node.name} ({node.op}) reads values without finite bounds")
    return Role(index, low, high, least, most, slopes, shift, undecided, used, touching & undecided)


def _touching(pieces: Pieces, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """``[P, E]``: the pieces that the interval meets; for continuous functions in more than a point, where it can."""
    first, last = np.maximum(pieces.start, low), np.minimum(pieces.stop, high)
    meets = first <= last
    if not pieces.continuous:
        return meets
    overlaps = first < last
    alone = ~overlaps.any(axis=0)
    chosen = np.arange(len(meets))[:, None] == meets.argmax(axis=0)
    return np.where(alone, chosen & meets, overlaps)


def _candidates(low: np.ndarray, high: np.ndarray, minimum: bool) -> np.ndarray:
    """``[K, E]``: the inputs that can be the only largest (smallest) one; of inputs that always tie, the first."""
    if minimum:
        low, high = -high, -low
    winner = low.argmax(axis=0)
    first = np.arange(len(low))[:, None] == winner
    return first | (high > low.max(axis=0))
