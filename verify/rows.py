"""A problem's rows as padded arrays, ready for batched bounds and attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .arrays import array_namespace, options_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Array
    from .problem import Group


MODERATE = 2.0**64
"""Largest coefficients of a row, and the inverse of the least, that are left as they are."""

SINGLE_LARGEST, SINGLE_LEAST = 2.0**100, 2.0**-100
"""Magnitudes between which products with float32 numbers of moderate size are float32 numbers."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All groups' rows, padded to one shape.

    rows     ``[G, R, m]``;  offsets ``[G, R]``. Padding rows have an infinite offset and are never positive.
    slots    integers ``[G, K, S]``: the rows of each clause; entries equal to ``R`` stand for no row.
    clauses  bool ``[G, K]``: whether the clause exists.
    direct   whether every clause of every group is one row, in order, so that rows and clauses are the same.
    strict   bool ``[G, R]``: rows that hold only where they are below their offset; None: there are none.
    """

    rows: Array
    offsets: Array
    slots: Array
    clauses: Array
    direct: bool
    strict: Array | None = None

    def of(self, group: Array) -> Rows:
        """The rows of each domain's group ``[B, ...]``; with a single group as they are, ``[1, ...]`` (broadcasts)."""
        if self.rows.shape[0] == 1:
            return self
        strict = None if self.strict is None else self.strict[group]
        return Rows(self.rows[group], self.offsets[group], self.slots[group], self.clauses[group], self.direct, strict)

    def only(self, clauses: Array) -> Rows:
        """The clauses at these positions ``[k]`` with their rows alone."""
        xp = array_namespace(self.rows)
        slots = self.slots[:, clauses]
        groups, count, depth = slots.shape
        where = slots.reshape(groups, count * depth)
        lead = xp.arange(groups, **options_like(slots))[:, None]
        missing = self.rows.shape[1]
        rows = xp.concat([self.rows, xp.zeros_like(self.rows[:, :1])], axis=1)[lead, where]
        offsets = xp.concat([self.offsets, xp.full_like(self.offsets[:, :1], xp.inf)], axis=1)[lead, where]
        place = xp.arange(count * depth, **options_like(slots)).reshape(1, count, depth)
        kept = xp.where(slots == missing, count * depth, place)
        strict = self.strict
        if strict is not None:
            strict = xp.concat([strict, xp.zeros_like(strict[:, :1])], axis=1)[lead, where]
        return Rows(rows, offsets, kept, self.clauses[:, clauses], self.direct, strict)

    def by_clause(self, values: Array, fill: float) -> Array:
        """Row values ``[B, R, ...]`` arranged as ``[B, K, S, ...]``, `fill` where a clause has fewer rows."""
        xp = array_namespace(values)
        batch = values.shape[0]
        if self.direct:
            return values[:, :, None]
        padding = xp.full_like(values[:, :1], fill)
        padded = xp.concat([values, padding], axis=1)
        if self.slots.shape[0] == 1:
            return padded[:, self.slots[0]]
        return padded[xp.arange(batch, **options_like(values))[:, None, None], self.slots]

    def strongest(self, values: Array) -> Array:
        """The largest value of each clause's rows, ``[B, R]`` to ``[B, K]``; ``-inf`` for a clause without rows."""
        return array_namespace(values).max(self.by_clause(values, -float("inf")), axis=2)


def scaled(rows: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``[R, m]`` and offsets ``[R]`` with coefficients around 1 where theirs are very large or small: multiplied
    by powers of two, which is exact (a row for which it would not be stays)."""
    largest = abs(rows).max(axis=1, initial=0.0)
    far = np.flatnonzero((largest > MODERATE) | ((largest > 0) & (largest < 1 / MODERATE)))
    if not far.size:
        return rows, offsets
    rows, offsets = rows.copy(), offsets.copy()
    for row in far:
        power = -int(np.frexp(largest[row])[1])
        with np.errstate(over="ignore", under="ignore"):
            values = np.ldexp(np.append(rows[row], offsets[row]), power)
            back = np.ldexp(values, -power)
        if np.array_equal(back, np.append(rows[row], offsets[row])):
            rows[row], offsets[row] = values[:-1], values[-1]
    return rows, offsets


def fit_single(groups: Sequence[Group]) -> bool:
    """Whether float32 holds all boxes, and all coefficients and offsets with as many digits as it has."""
    for group in groups:
        if max(abs(group.lower).max(initial=0.0), abs(group.upper).max(initial=0.0)) > SINGLE_LARGEST:
            return False
        for values in (group.rows, group.offsets):
            size = abs(values[values != 0])
            if size.size and (size.max() > SINGLE_LARGEST or size.min() < SINGLE_LEAST):
                return False
    return True


def _offsets_in(offsets: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Offsets (float64) as numbers of the dtype that are no smaller, so that a row that these refute is refuted; far
    below the dtype's range they are numbers that sums with outputs do not overflow from."""
    least = -float(np.finfo(dtype).max) / 16
    with np.errstate(over="ignore"):
        rounded = np.maximum(offsets, least).astype(dtype)
    return np.where(rounded.astype(np.float64) < offsets, np.nextafter(rounded, dtype.type(np.inf)), rounded)


def prepare_rows(groups: Sequence[Group], like: Array) -> Rows:
    """Pad the groups' rows to one shape in the library, dtype and device of `like`."""
    count = max(1, max(len(group.offsets) for group in groups))
    clauses = max(group.count for group in groups)
    depth = max(1, max(int(np.bincount(group.clause, minlength=1).max()) for group in groups))
    columns = groups[0].rows.shape[1]
    rows = np.zeros((len(groups), count, columns))
    offsets = np.full((len(groups), count), np.inf)
    dtype = np.dtype(np.float64 if like.dtype.itemsize == 8 else np.float32)
    strict = np.zeros((len(groups), count), dtype=bool)
    slots = np.full((len(groups), clauses, depth), count, dtype=np.int64)
    present = np.zeros((len(groups), clauses), dtype=bool)
    for position, group in enumerate(groups):
        size = len(group.offsets)
        rows[position, :size] = group.rows
        strict[position, :size] = group.strict
        offsets[position, :size] = _offsets_in(group.offsets, dtype)
        # Rows are sorted by clause, so a row's place within its clause is its distance from the clause's first row.
        first = np.searchsorted(group.clause, group.clause)
        slots[position, group.clause, np.arange(size) - first] = np.arange(size)
        present[position, : group.count] = True
    xp = array_namespace(like)
    options = options_like(like)
    return Rows(
        xp.asarray(rows, dtype=like.dtype, **options),
        xp.asarray(offsets, dtype=like.dtype, **options),
        xp.asarray(slots, **options),
        xp.asarray(present, **options),
        direct=depth == 1 and clauses == count and bool((slots[:, :, 0] == np.arange(count)).all()),
        strict=xp.asarray(strict, **options) if strict.any() else None,
    )
