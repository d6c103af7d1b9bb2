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


@dataclass(frozen=True, eq=False)
class Rows:
    """All groups' rows, padded to one shape.

    rows     ``[G, R, m]``;  offsets ``[G, R]``. Padding rows have an infinite offset and are never positive.
    slots    integers ``[G, K, S]``: the rows of each clause; entries equal to ``R`` stand for no row.
    clauses  bool ``[G, K]``: whether the clause exists.
    direct   whether every clause of every group is one row, in order, so that rows and clauses are the same.
    """

    rows: Array
    offsets: Array
    slots: Array
    clauses: Array
    direct: bool

    def of(self, group: Array) -> Rows:
        """The rows of each domain's group ``[B, ...]``; with a single group as they are, ``[1, ...]`` (broadcasts)."""
        if self.rows.shape[0] == 1:
            return self
        return Rows(self.rows[group], self.offsets[group], self.slots[group], self.clauses[group], self.direct)

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
        return Rows(rows, offsets, kept, self.clauses[:, clauses], self.direct)

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


def prepare_rows(groups: Sequence[Group], like: Array) -> Rows:
    """Pad the groups' rows to one shape in the library, dtype and device of `like`."""
    count = max(1, max(len(group.offsets) for group in groups))
    clauses = max(group.count for group in groups)
    depth = max(1, max(int(np.bincount(group.clause, minlength=1).max()) for group in groups))
    columns = groups[0].rows.shape[1]
    rows = np.zeros((len(groups), count, columns))
    offsets = np.full((len(groups), count), np.inf)
    slots = np.full((len(groups), clauses, depth), count, dtype=np.int64)
    present = np.zeros((len(groups), clauses), dtype=bool)
    for position, group in enumerate(groups):
        size = len(group.offsets)
        rows[position, :size] = group.rows
        offsets[position, :size] = group.offsets
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
    )
