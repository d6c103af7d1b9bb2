"""How far a programme's optimum may be off, because its solver may miss every row by a tolerance.

What a row is missed by grows on its way to the output by the sizes of the weights that follow. With weights of 1e3 that
nearly cancel, a solver that misses rows by 1e-9 calls programmes infeasible whose points violate the query by 1e-3; so
the reach of a row is worked out from the weights, and not guessed from the size of the outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..ops.arrays import product
from ..rounding import ELEMENT_TYPES, roundings
from .facets import choices
from .wiring import substitute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .roles import Role
    from .wiring import Wiring

SMALL = 1e-9
"""Coefficients up to this size are left out by HiGHS."""


def reach_of_tolerances(
    wiring: Wiring,
    roles: Mapping[int, Role],
    lower: np.ndarray,
    upper: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
    tolerance: float,
) -> float:
    """How much, at most, the largest of ``rows y - offsets`` may be off on the box, where the programme's rows and
    bounds are missed by `tolerance` and its coefficients are rounded to float64 (first order); infinite where rounding
    may miss a row by more than that."""
    size = _sizes(wiring, roles, lower, upper)
    matrix, constant = substitute(wiring, wiring.graph.outputs[0], rows)
    magnitude = abs(matrix)
    own = _missed(matrix, abs(constant) + abs(offsets), size, tolerance)
    gain = np.asarray(magnitude.max(axis=0).todense()).reshape(-1)
    total = float(own.max())
    for index in reversed(wiring.nonlinear):
        role = roles[index]
        here = gain[wiring.starts[index] :][: len(role.least)]
        # (The rows of both pieces, and the binary in them.)
        width = np.where(role.undecided, role.most - role.least, 0.0)
        total += float((here * np.where(role.undecided, tolerance * (2.0 + width), 0.0)).sum())
        for slot, slope in enumerate(_slopes(wiring, role)):
            links = wiring.links[index, slot]
            used = role.used[slot]
            position = links.position[used]
            back = (here * slope)[used]
            missed = _missed(links.matrix[position], abs(links.constant[position]), size, tolerance)
            total += float(product(back, missed).sum())
            gain = gain + back @ abs(links.matrix[position])
    return total + tolerance * float(gain[: len(lower)].sum())


def _sizes(wiring: Wiring, roles: Mapping[int, Role], lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The largest magnitude of every variable ``[V]``."""
    size = np.zeros(wiring.size)
    size[: len(lower)] = np.maximum(abs(lower), abs(upper))
    for index in wiring.nonlinear:
        role = roles[index]
        start = wiring.starts[index]
        size[start : start + len(role.least)] = np.maximum(abs(role.least), abs(role.most))
    return size


def _missed(matrix: Any, constant: np.ndarray, size: np.ndarray, tolerance: float) -> np.ndarray:
    """By how much rows ``[R]`` may be missed: the tolerance, rounding of their terms (if that is not less, there is no
    telling), and what is left out of them."""
    terms = int(np.diff(matrix.indptr).max(initial=0)) + 1
    magnitude = abs(matrix)
    small = magnitude.copy()
    small.data = np.where(small.data <= SMALL, small.data, 0.0)
    rounded = ELEMENT_TYPES["float64"].unit * roundings(terms) * (magnitude @ size + constant)
    return np.where(rounded <= tolerance, tolerance + rounded + small @ size, np.inf)


def _slopes(wiring: Wiring, role: Role) -> np.ndarray:
    """How much a change of each input changes the value, at most, ``[K, E]``: of steps on average over the interval."""
    node = wiring.graph.nodes[role.index]
    found = abs(role.slopes)
    if role.undecided.any():
        for choice in choices(node, role):
            slope = np.where(choice.mask & role.undecided, abs(choice.slope), 0.0)
            found[choice.slot] = np.maximum(found[choice.slot], slope)
        width = (role.high - role.low).clip(np.finfo(float).tiny)
        steep = np.where(role.undecided & role.used, (role.most - role.least) / width, 0.0)
        found = np.maximum(found, steep)
    return found
