"""The normal form: a query's assertions as a union of clauses.

All assertions hold together, so bounds outside of any disjunction are collected first. They bound the box, decide most
disjuncts before these are expanded, and are shared by all clauses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from .boxes import Boxes, derive_missing_sides
from .bulk import Cases
from .cases import leaves_of_cases
from .clauses import ClauseMaker, Leaf, rows_of
from .errors import SpecError
from .expand import BoundsByKey, TooManyBranchesError, conjuncts, expand
from .formula import Atom, Formula, Key, Monomial, Or
from .interval import EVERYTHING, Interval
from .merge import Merging, merge_inputs
from .property import Property

if TYPE_CHECKING:
    from .query import Query

MAX_CLAUSES = 1_000_000


@dataclass(frozen=True, eq=False)
class Base:
    """The bounds that hold in every clause, over slots (free inputs, then outputs).

    lower, upper  float64 ``[n + m]``, infinite where there is no bound.
    others        bounds on forms, and those on single variables that are strict; in order of first mention.
    """

    free_count: int
    lower: np.ndarray
    upper: np.ndarray
    others: BoundsByKey

    def interval(self, key: Key) -> Interval:
        """What is known of a form."""
        known = self.others.get(key)
        if known is not None:
            return known
        if isinstance(key, int):
            return Interval(float(self.lower[key]), False, float(self.upper[key]), False)
        return EVERYTHING

    def strict_inputs(self) -> BoundsByKey:
        """The bounds on single inputs that are strict on some side."""
        return _strict_inputs(self.others, self.free_count)

    def forms(self) -> BoundsByKey:
        """The bounds on forms that are no single variable."""
        return {key: interval for key, interval in self.others.items() if not isinstance(key, int)}


def normalise(query: Query) -> Property:
    """The query in normal form.

    Raises:
        SpecError: if bounds outside of any disjunction contradict, an input lacks a bound in some clause, or the
            expansion has more than `MAX_CLAUSES` branches.
    """
    parts = [part for formula in query.formulas for part in conjuncts(formula)]
    merging = merge_inputs(parts, query.input_count, query.output_count, query.source.name)
    base = _collect(query, merging, parts)
    leaves = [] if base is None else _leaves(query, merging, base, [part for part in parts if isinstance(part, Or)])
    maker = ClauseMaker(merging.free_count, query.output_count, query.source.name)
    clauses, monomials = maker.make(leaves)
    notes = list(query.notes)
    if not clauses:
        notes.append("the assertions contradict each other whatever the network computes")
    if any(not len(clause.offset) for clause in clauses):
        notes.append("some disjunct constrains only inputs, so every input in its box is a violation")
    return Property(
        clauses=clauses,
        input_count=query.input_count,
        output_count=query.output_count,
        input_map=merging.slot[: query.input_count],
        networks=query.networks,
        inputs=query.inputs,
        outputs=query.outputs,
        monomials=tuple(_references(monomial, merging.free_count) for monomial in monomials),
        version=query.version,
        source=query.source.name,
        notes=tuple(notes),
    )


def _references(monomial: Monomial, free_count: int) -> tuple[tuple[str, int], ...]:
    return tuple(("x", slot) if slot < free_count else ("y", slot - free_count) for slot in monomial)


def _collect(query: Query, merging: Merging, parts: list[Atom | Or]) -> Base | None:
    """The bounds outside of any disjunction; None if those on outputs or forms contradict."""
    size = merging.free_count + query.output_count
    base = Base(merging.free_count, np.full(size, -inf), np.full(size, inf), {})
    for run in query.bounds:
        slot = merging.slot[run.variable]
        np.minimum.at(base.upper, slot[run.upper], run.value[run.upper])
        np.maximum.at(base.lower, slot[~run.upper], run.value[~run.upper])
    for part in parts:
        renamed: Formula = merging.rename(part) if isinstance(part, Atom) else part
        if isinstance(renamed, Atom):
            base.others[renamed.key] = base.interval(renamed.key).meet(renamed.relation, renamed.bound)
        elif isinstance(renamed, Or) and not renamed.children:
            return None
    for key, interval in base.others.items():
        if isinstance(key, int):
            base.lower[key], base.upper[key] = interval.lower, interval.upper
    empty: set[Key] = set(np.flatnonzero(base.lower > base.upper).tolist())
    empty.update(key for key, interval in base.others.items() if interval.is_empty)
    contradictory_inputs = [key for key in empty if isinstance(key, int) and key < merging.free_count]
    if contradictory_inputs:
        raise _contradiction(query, merging, base, min(contradictory_inputs))
    if empty:
        return None
    inputs = slice(0, merging.free_count)
    derive_missing_sides(base.lower[inputs], base.upper[inputs], base.forms())
    return None if (base.lower > base.upper).any() else _tidied(base)


def _tidied(base: Base) -> Base:
    """The base without the single-variable bounds that its arrays tell as well."""
    others: BoundsByKey = {}
    for key, interval in base.others.items():
        if not isinstance(key, int):
            others[key] = interval
        elif interval.lower_strict or interval.upper_strict:
            lower, upper = float(base.lower[key]), float(base.upper[key])
            others[key] = Interval(lower, interval.lower_strict, upper, interval.upper_strict)
    return Base(base.free_count, base.lower, base.upper, others)


def _contradiction(query: Query, merging: Merging, base: Base, slot: int) -> SpecError:
    name = _input_name(query, merging, slot)
    interval = base.interval(slot)
    left = "<" if interval.lower_strict else "<="
    right = "<" if interval.upper_strict else "<="
    return query.source.error(
        query.source.mention(name),
        f"the bounds of input {name} contradict: {interval.lower!r} {left} {name} {right} {interval.upper!r}",
    )


def _input_name(query: Query, merging: Merging, slot: int) -> str:
    """The name of the first variable that a free input stands for."""
    return query.element_name(int(np.argmax(merging.slot == slot)))


def _leaves(query: Query, merging: Merging, base: Base, disjunctions: list[Or]) -> list[Leaf]:
    """The clauses, before their arrays are made."""
    inputs = slice(0, merging.free_count)
    boxes = Boxes(
        base.lower[inputs], base.upper[inputs], lambda slot: _input_name(query, merging, slot), query.source.name
    )
    if len(query.cases) == 1 and not disjunctions:
        cases = _in_slots(query.cases[0], merging)
        if not any(key in base.others for key in np.unique(cases.bounds.variable).tolist()):
            tail = rows_of([*base.strict_inputs().items(), *base.forms().items()])
            strict_outputs = {key for key in base.others if isinstance(key, int)}
            return leaves_of_cases(cases, base.lower, base.upper, strict_outputs, base.others, tail, boxes)
    disjunctions = [*(cases.formula() for cases in query.cases), *disjunctions]
    known_outputs = _known_outputs(base)
    leaves: list[Leaf] = []
    try:
        for bounds in expand(disjunctions, base.interval, merging.rename, MAX_CLAUSES):
            leaf = _leaf(base, boxes, known_outputs, bounds)
            if leaf is not None:
                leaves.append(leaf)
    except TooManyBranchesError:
        raise SpecError(
            f"{query.source.name}: the nested and/or expand to more than {MAX_CLAUSES} cases; split the query"
        ) from None
    return leaves


def _in_slots(cases: Cases, merging: Merging) -> Cases:
    bounds = cases.bounds
    return Cases(type(bounds)(merging.slot[bounds.variable], bounds.upper, bounds.value), cases.case)


def _known_outputs(base: Base) -> BoundsByKey:
    """The bounds on single outputs that hold in every clause."""
    n = base.free_count
    bounded = n + np.flatnonzero(np.isfinite(base.lower[n:]) | np.isfinite(base.upper[n:]))
    return {key: base.interval(key) for key in bounded.tolist()}


def _leaf(base: Base, boxes: Boxes, known_outputs: BoundsByKey, bounds: BoundsByKey) -> Leaf | None:
    """The clause of one branch of the expansion; None if its box is empty."""
    n = base.free_count
    single = {key: interval for key, interval in bounds.items() if isinstance(key, int)}
    columns = np.array(
        sorted(
            key
            for key, interval in single.items()
            if key < n and (interval.lower != base.lower[key] or interval.upper != base.upper[key])
        ),
        dtype=np.int64,
    )
    everything = base.others | bounds
    box = boxes.box(
        columns,
        np.array([single[key].lower for key in columns.tolist()]),
        np.array([single[key].upper for key in columns.tolist()]),
        everything,
    )
    if box is None:
        return None
    outputs = known_outputs | {key: interval for key, interval in single.items() if key >= n}
    forms = {key: interval for key, interval in everything.items() if not isinstance(key, int)}
    rows, offset, strict = rows_of([*sorted(outputs.items()), *_strict_inputs(everything, n).items(), *forms.items()])
    return Leaf(box, tuple(rows), np.array(offset, dtype=np.float64), tuple(strict))


def _strict_inputs(bounds: BoundsByKey, free_count: int) -> BoundsByKey:
    """The strict sides of single inputs, in order; sides that the box tells are left out."""
    strict: BoundsByKey = {}
    for key in sorted(key for key in bounds if isinstance(key, int) and key < free_count):
        interval = bounds[key]
        if interval.lower_strict or interval.upper_strict:
            strict[key] = Interval(
                interval.lower if interval.lower_strict else -inf,
                interval.lower_strict,
                interval.upper if interval.upper_strict else inf,
                interval.upper_strict,
            )
    return strict
