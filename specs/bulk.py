"""Bulk reading of the shapes that fill large queries, some twenty times faster than form by form.

Two shapes are recognised by one regular expression each, then split and converted as arrays:

- runs of ``(assert (<= V c))`` and ``(assert (and (<= V c) (>= V c)))``;
- one ``(assert (or (and (>= V c) (<= V c) ...) ...))``.

What does not match exactly is left to the general reader, which gives the same result (a property test says so).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import SpecError
from .formula import And, Atom, Or, vanishes
from .sexpr import NUMBER_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable

_ATOM = rf"\([<>]=\s++[A-Za-z_][A-Za-z0-9_]*+(?:\[[0-9,]*+\])?+\s++{NUMBER_PATTERN}\s*+\)"
_BOUNDS = re.compile(rf"(?:\(assert\s++(?:{_ATOM}|\(and\s++(?:{_ATOM}\s*+)++\))\s*+\)\s*+)++", re.ASCII)
_CASES = re.compile(rf"\(assert\s++\(or\s++(?:\(and\s++(?:{_ATOM}\s*+)++\)\s*+)++\)\s*+\)", re.ASCII)


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds on single variables: ``variable <= value`` where `upper`, else ``variable >= value``; arrays ``[T]``."""

    variable: np.ndarray
    upper: np.ndarray
    value: np.ndarray

    def atoms(self) -> list[Atom]:
        """The same as atoms."""
        columns = zip(self.variable.tolist(), self.upper.tolist(), self.value.tolist(), strict=True)
        return [Atom(variable, "<=" if upper else ">=", value) for variable, upper, value in columns]


@dataclass(frozen=True, eq=False)
class Cases:
    """A disjunction of conjunctions of `bounds`; `case` ``[T]`` numbers the conjunction of each bound, ascending."""

    bounds: Bounds
    case: np.ndarray

    @property
    def count(self) -> int:
        """Number of cases."""
        return int(self.case[-1]) + 1

    def formula(self) -> Or:
        """The same as a formula."""
        atoms = self.bounds.atoms()
        ends = np.searchsorted(self.case, np.arange(self.count + 1)).tolist()
        return Or(tuple(And(tuple(atoms[ends[k] : ends[k + 1]])) for k in range(self.count)))


def read_bulk(text: str, position: int, number_of: Callable[[str], int]) -> tuple[Bounds | Cases | None, int]:
    """Read the bulk shape at `position`, if one is there.

    Returns:
        What was read and the offset after it. Where a shape matches that holds an error (an unknown variable, a number
        too large) the first part is None and the offset says how far the general reader must go to report it; where no
        shape matches it is `position`.
    """
    match = _BOUNDS.match(text, position)
    if match:
        return _bounds(match[0], number_of), match.end()
    match = _CASES.match(text, position)
    if not match:
        return None, position
    bounds = _bounds(match[0], number_of)
    if bounds is None:
        return None, match.end()
    sizes = [case.count("=") for case in match[0].split("(and")[1:]]
    return Cases(bounds, np.repeat(np.arange(len(sizes)), sizes)), match.end()


def _bounds(block: str, number_of: Callable[[str], int]) -> Bounds | None:
    """The bounds of a block that consists of atoms and keywords only."""
    for keyword in ("(assert", "(or", "(and", "(", ")"):
        block = block.replace(keyword, " ")
    tokens = block.split()
    count = len(tokens) // 3
    value = np.fromiter(map(float, tokens[2::3]), np.float64, count) + 0.0  # -0.0 becomes 0.0
    if any(vanishes(tokens[3 * position + 2], 0.0) for position in np.flatnonzero(value == 0).tolist()):
        return None
    try:
        variable = np.fromiter(map(number_of, tokens[1::3]), np.int64, count)
    except SpecError:
        return None
    if not np.isfinite(value).all():
        return None
    return Bounds(variable, np.fromiter(map("<=".__eq__, tokens[0::3]), np.bool_, count), value)
