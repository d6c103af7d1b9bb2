"""From bounds on forms to the arrays of clauses; arrays that are equal are shared."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import SpecError
from .formula import Key, Monomial
from .property import Box, Clause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .interval import Interval

#: The coefficients of one row: a form and the sign it is taken with.
Row = tuple[Key, float]
MAX_BYTES = 2 << 30


class Leaf(NamedTuple):
    """A clause before its coefficient arrays are made: row s says ``rows[s] <= offset[s]``."""

    box: Box
    rows: tuple[Row, ...]
    offset: np.ndarray
    strict: tuple[bool, ...]


def rows_of(bounds: Iterable[tuple[Key, Interval]]) -> tuple[list[Row], list[float], list[bool]]:
    """Rows, offsets and strictness of bounds: for each form its upper, then its lower side."""
    rows: list[Row] = []
    offset: list[float] = []
    strict: list[bool] = []
    for key, interval in bounds:
        if isfinite(interval.upper):
            rows.append((key, 1.0))
            offset.append(interval.upper)
            strict.append(interval.upper_strict)
        if isfinite(interval.lower):
            rows.append((key, -1.0))
            offset.append(-interval.lower)
            strict.append(interval.lower_strict)
    return rows, offset, strict


class ClauseMaker:
    """Makes clauses of leaves.

    Args:
        free_count, output_count: numbers of free inputs n and outputs m; a variable below n is an input.
        source_name: for messages.
    """

    def __init__(self, free_count: int, output_count: int, source_name: str) -> None:
        self.free_count = free_count
        self.output_count = output_count
        self.source_name = source_name

    def make(self, leaves: list[Leaf]) -> tuple[tuple[Clause, ...], tuple[Monomial, ...]]:
        """The clauses, and the monomials of degree two and more that occur in them.

        Raises:
            SpecError: if their arrays would take more than `MAX_BYTES`.
        """
        distinct = dict.fromkeys(leaf.rows for leaf in leaves)
        monomials: dict[Monomial, int] = {}
        for rows in distinct:
            for key, _ in rows:
                for monomial, _ in _terms(key):
                    if len(monomial) > 1:
                        monomials.setdefault(monomial, len(monomials))
        self._require_room(leaves, distinct, len(monomials))
        arrays = {rows: self._coefficients(rows, monomials) for rows in distinct}
        stricts = {leaf.strict: np.array(leaf.strict, dtype=np.bool_) for leaf in leaves}
        clauses = []
        for leaf in leaves:
            output_rows, input_rows, monomial_rows = arrays[leaf.rows]
            # adding zero turns -0.0 into 0.0
            clauses.append(
                Clause(leaf.box, output_rows, leaf.offset + 0.0, stricts[leaf.strict], input_rows, monomial_rows)
            )
        return tuple(clauses), tuple(monomials)

    def _coefficients(
        self, rows: tuple[Row, ...], monomials: dict[Monomial, int]
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """The arrays C, E and Q of some rows."""
        output_rows = np.zeros((len(rows), self.output_count))
        input_rows = np.zeros((len(rows), self.free_count)) if self._mention_inputs(rows) else None
        monomial_rows = None
        for s, (key, sign) in enumerate(rows):
            for monomial, value in _terms(key):
                if len(monomial) > 1:
                    if monomial_rows is None:
                        monomial_rows = np.zeros((len(rows), len(monomials)))
                    monomial_rows[s, monomials[monomial]] = sign * value
                elif monomial[0] >= self.free_count:
                    output_rows[s, monomial[0] - self.free_count] = sign * value
                elif input_rows is not None:
                    input_rows[s, monomial[0]] = sign * value
        return output_rows, input_rows, monomial_rows

    def _mention_inputs(self, rows: tuple[Row, ...]) -> bool:
        return any(
            len(monomial) == 1 and monomial[0] < self.free_count for key, _ in rows for monomial, _ in _terms(key)
        )

    def _require_room(self, leaves: list[Leaf], distinct: Iterable[tuple[Row, ...]], monomial_count: int) -> None:
        numbers = 2 * self.free_count * len({id(leaf.box) for leaf in leaves})
        for rows in distinct:
            width = self.output_count + monomial_count + (self.free_count if self._mention_inputs(rows) else 0)
            numbers += len(rows) * width
        if 8 * numbers > MAX_BYTES:
            raise SpecError(
                f"{self.source_name}: the query's {len(leaves)} disjuncts would take {8 * numbers / 2**30:.0f} GiB; "
                "split it into several queries"
            )


def _terms(key: Key) -> tuple[tuple[Monomial, float], ...]:
    """The form as terms."""
    return (((key,), 1.0),) if isinstance(key, int) else key
