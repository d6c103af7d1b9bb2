"""The rows of undecided entries in a mixed-integer programme: exactly one choice holds.

Where choice i holds (its indicator d_i is 1), ``y = s_i z + c_i``; elsewhere that line may be missed by the constants
that the bounds allow (Tjeng et al. 2019, equations 4 to 9). Entries with two choices share one binary column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .facets import Choice, choices, is_step

if TYPE_CHECKING:
    from ..graph import Node
    from .program import ProgramBuilder
    from .roles import Role


@dataclass(frozen=True, eq=False)
class _Indicators:
    """Every choice's indicator as ``factor * column + constant``, each ``[P, E]``."""

    column: np.ndarray
    factor: np.ndarray
    constant: np.ndarray


def add_choices(build: ProgramBuilder, node: Node, role: Role, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Add indicators and rows for a node's undecided entries; inputs ``[K, E]`` and outputs ``[E]`` are columns."""
    found = choices(node, role)
    indicators = _add_indicators(build, role)
    if is_step(node):
        _add_sum(build, role.undecided, found, indicators, outputs, [c.intercept for c in found], (0.0, 0.0))
    for position, choice in enumerate(found):
        if is_step(node):
            continue
        z = inputs[choice.slot]
        _add_line(build, choice, indicators, position, z, outputs, from_above=True)
        _add_line(build, choice, indicators, position, z, outputs, from_above=False)
    several = role.undecided & ((role.touching.sum(axis=0) > 2) | is_step(node))
    if len(inputs) == 1:
        _add_sum(build, several, found, indicators, inputs[0], [c.start for c in found], (0.0, np.inf))
        _add_sum(build, several, found, indicators, inputs[0], [c.stop for c in found], (-np.inf, 0.0))


def _add_indicators(build: ProgramBuilder, role: Role) -> _Indicators:
    """New binary columns, and the rows that make the indicators of an entry with more than two choices sum to 1."""
    touching = role.touching
    count = touching.sum(axis=0)
    column = np.full(touching.shape, -1)
    factor, constant = np.where(touching, 1.0, 0.0), np.zeros(touching.shape)
    pair = count == 2
    binary = np.full(touching.shape[1], -1)
    binary[pair] = build.add_columns(np.zeros(pair.sum()), np.ones(pair.sum()), integer=True)
    first = pair & (np.arange(len(touching))[:, None] == touching.argmax(axis=0))
    column[touching & pair] = np.broadcast_to(binary, touching.shape)[touching & pair]
    factor[first], constant[first] = -1.0, 1.0
    many = touching & (count > 2)
    column[many] = build.add_columns(np.zeros(many.sum()), np.ones(many.sum()), integer=True)
    entries = np.flatnonzero(count > 2)
    rows = np.full(touching.shape[1], -1)
    rows[entries] = build.add_rows(1.0, 1.0, len(entries))
    build.add_terms(np.broadcast_to(rows, touching.shape)[many], column[many], 1.0)
    return _Indicators(column, factor, constant)


def _add_line(
    build: ProgramBuilder,
    choice: Choice,
    indicators: _Indicators,
    position: int,
    z: np.ndarray,
    y: np.ndarray,
    *,
    from_above: bool,
) -> None:
    """``y <= s z + c + M (1 - d)`` from above, ``y >= s z + c - M (1 - d)`` from below."""
    entries = np.flatnonzero(choice.mask)
    gap = choice.above[entries] if from_above else -choice.below[entries]
    factor, constant = indicators.factor[position, entries], indicators.constant[position, entries]
    end = choice.intercept[entries] + gap * (1.0 - constant)
    lower, upper = (-np.inf, end) if from_above else (end, np.inf)
    rows = build.add_rows(lower, upper, len(entries))
    build.add_terms(rows, y[entries], 1.0)
    build.add_terms(rows, z[entries], -choice.slope[entries])
    needed = gap != 0.0
    build.add_terms(rows[needed], indicators.column[position, entries][needed], (gap * factor)[needed])


def _add_sum(
    build: ProgramBuilder,
    mask: np.ndarray,
    found: tuple[Choice, ...],
    indicators: _Indicators,
    column: np.ndarray,
    weights: list[np.ndarray],
    ends: tuple[float, float],
) -> None:
    """``ends[0] <= column - sum_i weight_i d_i <= ends[1]`` for the entries of the mask."""
    entries = np.flatnonzero(mask)
    known = np.zeros(len(entries))
    shared: dict[int, np.ndarray] = {}
    pair = np.stack([choice.mask for choice in found])[:, entries].sum(axis=0) == 2
    both = np.zeros(len(entries))
    binary = np.full(len(entries), -1)
    for position, choice in enumerate(found):
        weight = np.where(choice.mask, weights[position], 0.0)[entries]
        known += weight * indicators.constant[position, entries]
        both += np.where(pair, weight * indicators.factor[position, entries], 0.0)
        binary = np.where(pair & choice.mask[entries], indicators.column[position, entries], binary)
        shared[position] = np.where(pair, 0.0, weight * indicators.factor[position, entries])
    rows = build.add_rows(ends[0] + known, ends[1] + known, len(entries))
    build.add_terms(rows, column[entries], 1.0)
    build.add_terms(rows[pair], binary[pair], -both[pair])
    for position, weight in shared.items():
        some = weight != 0.0
        build.add_terms(rows[some], indicators.column[position, entries][some], -weight[some])
