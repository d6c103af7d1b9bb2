"""The rows that tie an undecided entry's output y to its inputs z.

*Facets* (linear programme) are the operator table's own relaxations at both ends of their free slope, so they are as
safe against rounding as our bounds, and the hull of the function for the unary operators: the triangle of Ehlers 2017
("Formal Verification of Piece-Wise Linear Feed-Forward Neural Networks") for ReLU. *Choices* (mixed-integer programme)
are the rows of each piece, relaxed by a constant where another piece holds: Tjeng, Xiao & Tedrake 2019 ("Evaluating
Robustness of Neural Networks with Mixed Integer Programming").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ops import rule
from .roles import EXTREMA, PIECES, Pieces, Role

if TYPE_CHECKING:
    from ..graph import Node
    from ..ops.rule import Lines


@dataclass(frozen=True, eq=False)
class Facet:
    """``y >= <slopes, z> + intercept`` (a lower one) or ``<=`` (an upper one) for the entries of `mask`.

    slopes ``[K, E]``, intercept ``[E]``, mask ``[E]``; zero outside of the mask.
    """

    slopes: np.ndarray
    intercept: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """One way for undecided entries of `mask` ``[E]``: ``y = slope z[slot] + intercept`` on ``start <= z <= stop``.

    above, below   ``[E]``: how far y may be over, and under, that line where another choice holds.
    """

    slot: int
    mask: np.ndarray
    slope: np.ndarray
    intercept: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    above: np.ndarray
    below: np.ndarray


def facets(node: Node, role: Role) -> tuple[tuple[Facet, ...], tuple[Facet, ...]]:
    """The lower and the upper facets of a node's undecided entries."""
    low, high, absent = _bounded(node, role)
    shaped = [(a.reshape(1, *node.shape), b.reshape(1, *node.shape)) for a, b in zip(low, high, strict=True)]
    relax = rule(node.op).relax
    assert relax is not None
    ends = [relax(node, shaped, np.full((1, *node.shape), end)) for end in (0.0, 1.0)]
    lower = [_facet(role, low, absent, lines, below=True) for lines in ends]
    upper = [_facet(role, low, absent, lines, below=False) for lines in ends]
    if node.op == "Max":
        lower = _inputs(role)
    elif node.op == "Min":
        upper = _inputs(role)
    return _distinct(lower), _distinct(upper)


def _bounded(node: Node, role: Role) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input bounds for `relax`: inputs that cannot win (``absent`` ``[K, E]``) at a point where they do not, and
    decided entries at the point 0, where lines are finite."""
    keep, absent = role.used & role.undecided, ~role.used & role.undecided
    if node.op == "Min":
        losing = np.where(keep, role.high, -np.inf).max(axis=0)
    else:
        losing = np.where(keep, role.low, np.inf).min(axis=0)
    point = np.where(role.undecided, losing, 0.0)
    return np.where(keep, role.low, point), np.where(keep, role.high, point), absent


def _facet(role: Role, low: np.ndarray, absent: np.ndarray, lines: Lines, *, below: bool) -> Facet:
    slopes, intercept = (
        (lines.lower_slopes, lines.lower_intercept) if below else (lines.upper_slopes, lines.upper_intercept)
    )
    stacked = np.stack([slope.reshape(-1) for slope in slopes])
    constant = np.where(absent, stacked * np.where(absent, low, 0.0), 0.0)
    moved = constant.sum(axis=0) + (-1.0 if below else 1.0) * 1e-15 * abs(constant).sum(axis=0)
    return Facet(
        np.where(role.undecided & ~absent, stacked, 0.0),
        np.where(role.undecided, intercept.reshape(-1) + moved, 0.0),
        role.undecided,
    )


def _inputs(role: Role) -> list[Facet]:
    """A maximum is at least (a minimum at most) each of its inputs."""
    found = []
    for slot in range(len(role.low)):
        mask = role.touching[slot]
        slopes = np.zeros_like(role.low)
        slopes[slot] = mask
        found.append(Facet(slopes, np.zeros(len(mask)), mask))
    return found


def _distinct(found: list[Facet]) -> tuple[Facet, ...]:
    """The facets without entries that repeat the first one."""
    first, *others = found
    kept = [first]
    for facet in others:
        same = (facet.slopes == first.slopes).all(axis=0) & (facet.intercept == first.intercept) & first.mask
        mask = facet.mask & ~same
        kept.append(Facet(np.where(mask, facet.slopes, 0.0), np.where(mask, facet.intercept, 0.0), mask))
    return tuple(facet for facet in kept if facet.mask.any())


def choices(node: Node, role: Role) -> tuple[Choice, ...]:
    """The choices of a node's undecided entries."""
    return _winners(node, role) if node.op in EXTREMA else _pieces(PIECES[node.op](node), role)


def is_step(node: Node) -> bool:
    """Whether all pieces of the operator are constant and meet at jumps."""
    return node.op not in EXTREMA and not PIECES[node.op](node).continuous


@np.errstate(invalid="ignore")
def _winners(node: Node, role: Role) -> tuple[Choice, ...]:
    """One choice an input: it is the largest (or smallest)."""
    minimum = node.op == "Min"
    zeros = np.zeros(len(role.least))
    found = []
    for slot, mask in enumerate(role.touching):
        others = role.touching.copy()
        others[slot] = False
        if minimum:
            most = role.high[slot] - np.where(others, role.low, np.inf).min(axis=0)
        else:
            most = np.where(others, role.high, -np.inf).max(axis=0) - role.low[slot]
        gap = np.where(mask, np.maximum(most, 0.0), 0.0)
        above, below = (zeros, gap) if minimum else (gap, zeros)
        found.append(Choice(slot, mask, zeros + 1.0, zeros, role.low[slot], role.high[slot], above, below))
    return tuple(found)


def _pieces(pieces: Pieces, role: Role) -> tuple[Choice, ...]:
    """One choice a piece; the allowances are the largest distances between pieces on the interval."""
    low, high = (np.where(role.undecided, end[0], 0.0) for end in (role.low, role.high))
    start, stop = np.maximum(pieces.start, low), np.minimum(pieces.stop, high)
    start, stop = (np.where(role.touching, end, 0.0) for end in (start, stop))
    found = []
    for own, mask in enumerate(role.touching):
        above, below = np.zeros(len(mask)), np.zeros(len(mask))
        for other in range(len(role.touching)):
            both = mask & role.touching[other]
            for ends in (start[other], stop[other]):
                gap = (pieces.slope[other] - pieces.slope[own]) * ends + pieces.intercept[other] - pieces.intercept[own]
                gap = np.where(both, gap, 0.0)
                above, below = np.maximum(above, gap), np.maximum(below, -gap)
        found.append(Choice(0, mask, pieces.slope[own], pieces.intercept[own], start[own], stop[own], above, below))
    return tuple(found)
