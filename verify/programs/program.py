"""A linear or mixed-integer programme as plain arrays, and how it is put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise ``cost x`` subject to ``row_lower <= A x <= row_upper`` and ``column_lower <= x <= column_upper``.

    A is given by rows: row ``r`` holds `values` at the columns `indices` from ``starts[r]`` to ``starts[r + 1]``.
    integer   ``[columns]``: whether the column takes whole numbers only.
    """

    cost: np.ndarray
    column_lower: np.ndarray
    column_upper: np.ndarray
    row_lower: np.ndarray
    row_upper: np.ndarray
    starts: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    integer: np.ndarray

    def with_ceiling(self, most: float) -> Program:
        """The same programme with the last column (the objective ``t``) at most `most`."""
        upper = self.column_upper.copy()
        upper[-1] = most
        return replace(self, column_upper=upper)

    def elastic(self, rows: np.ndarray) -> Program:
        """How far the programme is from feasible: minimise the sum of violations of the given (equality) rows.

        The columns keep their places; two new ones for each of the rows take up its violation.
        """
        position = np.full(len(self.row_lower), -1)
        position[rows] = np.arange(len(rows))
        row = np.repeat(np.arange(len(self.row_lower)), np.diff(self.starts))
        first = len(self.cost)
        extra_row = np.concatenate([rows, rows])
        extra_column = np.concatenate([first + position[rows], first + len(rows) + position[rows]])
        extra_value = np.concatenate([np.ones(len(rows)), -np.ones(len(rows))])
        slack = np.zeros(2 * len(rows))
        return _by_rows(
            np.concatenate([row, extra_row]),
            np.concatenate([self.indices, extra_column]),
            np.concatenate([self.values, extra_value]),
            cost=np.concatenate([np.zeros(first), slack + 1.0]),
            column_lower=np.concatenate([self.column_lower, slack]),
            column_upper=np.concatenate([self.column_upper, slack + np.inf]),
            row_lower=self.row_lower,
            row_upper=self.row_upper,
            integer=np.concatenate([self.integer, slack.astype(bool)]),
        )


def _by_rows(row: np.ndarray, column: np.ndarray, value: np.ndarray, **rest: np.ndarray) -> Program:
    """The programme with these coefficients, sorted by rows; zeros are left out, duplicates do not occur."""
    keep = value != 0.0
    row, column, value = row[keep], column[keep], value[keep]
    order = np.argsort(row, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rest["row_lower"])))])
    return Program(starts=starts.astype(np.int32), indices=column[order].astype(np.int32), values=value[order], **rest)


class ProgramBuilder:
    """Collects columns, rows and coefficients."""

    def __init__(self) -> None:
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self._rows: list[tuple[np.ndarray, np.ndarray]] = []
        self._terms: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._column_count = 0
        self._row_count = 0

    def add_columns(
        self, lower: np.ndarray, upper: np.ndarray, *, cost: float = 0.0, integer: bool = False
    ) -> np.ndarray:
        """New columns with these bounds; returns their indices."""
        count = len(lower)
        self._columns.append((np.full(count, cost), lower, upper, np.full(count, integer)))
        self._column_count += count
        return np.arange(self._column_count - count, self._column_count)

    def add_rows(self, lower: np.ndarray | float, upper: np.ndarray | float, count: int) -> np.ndarray:
        """New rows without coefficients; returns their indices."""
        self._rows.append((np.zeros(count) + lower, np.zeros(count) + upper))
        self._row_count += count
        return np.arange(self._row_count - count, self._row_count)

    def add_terms(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray | float) -> None:
        """Coefficients at (row, column) pairs, each pair once in a programme's life."""
        self._terms.append((rows, columns, np.zeros(len(rows)) + values))

    def add_block(self, matrix: Any, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """New rows with the coefficients of a sparse matrix ``[R, columns so far]``; returns their indices."""
        rows = self.add_rows(lower, upper, len(lower))
        terms = matrix.tocoo()
        self.add_terms(rows[terms.row], terms.col, terms.data)
        return rows

    def finish(self) -> Program:
        """The programme of everything added."""
        cost, lower, upper, integer = (np.concatenate(part) for part in zip(*self._columns, strict=True))
        row, column, value = (np.concatenate(part) for part in zip(*self._terms, strict=True))
        row_lower, row_upper = (np.concatenate(part) for part in zip(*self._rows, strict=True))
        return _by_rows(
            row,
            column,
            value,
            cost=cost,
            column_lower=lower,
            column_upper=upper,
            row_lower=row_lower,
            row_upper=row_upper,
            integer=integer,
        )
