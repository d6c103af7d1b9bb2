"""Inputs that a query declares equal become one free input."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp, fsum, isfinite
from typing import TYPE_CHECKING

import numpy as np

from .errors import SpecError
from .formula import FALSE, FLIPPED, HOLDS, TRUE, Atom, Formula, Monomial, Or

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, eq=False)
class Merging:
    """How variables map to *slots*: free inputs first, then outputs.

    slot        int64, ``[inputs + outputs]``: the slot of each variable.
    free_count  number of free inputs.
    rename      rewrites an atom over variables as one over slots, or as TRUE or FALSE.
    """

    slot: np.ndarray
    free_count: int
    rename: Callable[[Atom], Formula]


def merge_inputs(parts: Iterable[Atom | Or], input_count: int, output_count: int, source_name: str) -> Merging:
    """Merge the inputs a, b for which a top-level part says ``a == b``.

    Free inputs are numbered in order of their first variable. `source_name` is for the SpecError that `rename` raises
    when coefficients that add up exceed the range of float64.
    """
    pairs = [pair for part in parts if (pair := _equal_inputs(part, input_count))]
    if not pairs:
        return Merging(np.arange(input_count + output_count), input_count, lambda atom: atom)
    root = list(range(input_count))

    def find(variable: int) -> int:
        while root[variable] != variable:
            root[variable] = root[root[variable]]
            variable = root[variable]
        return variable

    for a, b in pairs:
        low, high = sorted((find(a), find(b)))
        root[high] = low
    roots = np.array([find(variable) for variable in range(input_count)])
    free, input_map = np.unique(roots, return_inverse=True)
    slot = np.concatenate([input_map, len(free) + np.arange(output_count)])
    slots = slot.tolist()
    return Merging(slot, len(free), lambda atom: _renamed(atom, slots, source_name))


def _equal_inputs(part: Atom | Or, input_count: int) -> tuple[int, int] | None:
    """The pair (a, b) if `part` is ``a - b == 0`` over inputs."""
    if not isinstance(part, Atom) or part.relation != "==" or part.bound != 0 or isinstance(part.key, int):
        return None
    if [value for _, value in part.key] != [1.0, -1.0]:
        return None
    (first, _), (second, _) = part.key
    if len(first) == len(second) == 1 and first[0] < input_count and second[0] < input_count:
        return first[0], second[0]
    return None


def _renamed(atom: Atom, slots: list[int], source_name: str) -> Formula:
    if isinstance(atom.key, int):
        return Atom(slots[atom.key], atom.relation, atom.bound)
    collected: dict[Monomial, list[float]] = {}
    for monomial, value in atom.key:
        renamed = tuple(sorted(slots[variable] for variable in monomial))
        collected.setdefault(renamed, []).append(value)
    try:
        # Rounded once: of terms that nearly cancel, sums one by one could lose what is left.
        sums = {monomial: fsum(values) for monomial, values in collected.items()}
    except OverflowError:
        raise SpecError(
            f"{source_name}: coefficients of merged inputs add up to more than the range of float64"
        ) from None
    terms = sorted((term for term in sums.items() if term[1]), key=lambda term: (len(term[0]), term[0]))
    relation, bound = atom.relation, atom.bound
    if not terms:
        return TRUE if HOLDS[relation](0.0, bound) else FALSE
    if terms[0][1] < 0:
        terms = [(monomial, -value) for monomial, value in terms]
        relation, bound = FLIPPED[relation], 0.0 - bound
    if len(terms) == 1 and len(terms[0][0]) == 1:
        from fractions import Fraction

        (((variable,), factor),) = terms
        quotient = bound / factor
        if isfinite(quotient) and (frexp(factor)[0] == 0.5 or Fraction(quotient) * Fraction(factor) == Fraction(bound)):
            return Atom(variable, relation, quotient)
    return Atom(tuple(terms), relation, bound)
