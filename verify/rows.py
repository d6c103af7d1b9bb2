"""A problem's rows as padded arrays, ready for batched bounds and attacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import array_namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Array
    from .problem import Group


@dataclass(frozen=True, eq=False)
class Rows:
    """All groups' rows, padded to one shape: rows ``[G, R, m]``, offsets ``[G, R]``, membership ``[G, R, K]`` (1
    where the row is one of
    the clause's), clauses ``[G, K]`` (True where the clause exists). Padding rows are never positive."""

    rows: Array
    offsets: Array
    membership: Array
    clauses: Array


def prepare_rows(groups: Sequence[Group], like: Array) -> Rows:
    """Pad the groups' rows to one shape in the library, dtype and device of `like`."""
    first = groups[0]
    count = max(1, max(len(group.offsets) for group in groups))
    clauses = max(group.count for group in groups)
    columns = first.rows.shape[1]
    rows = np.zeros((len(groups), count, columns))
    offsets = np.full((len(groups), count), np.inf)
    membership = np.zeros((len(groups), count, clauses))
    present = np.zeros((len(groups), clauses), dtype=bool)
    for position, group in enumerate(groups):
        size = len(group.offsets)
        rows[position, :size] = group.rows
        offsets[position, :size] = group.offsets
        membership[position, np.arange(size), group.clause] = 1
        present[position, : group.count] = True
    xp = array_namespace(like)
    options: dict[str, Any] = {} if isinstance(like, np.ndarray) else {"device": like.device}
    return Rows(
        xp.asarray(rows, dtype=like.dtype, **options),
        xp.asarray(offsets, dtype=like.dtype, **options),
        xp.asarray(membership, dtype=like.dtype, **options),
        xp.asarray(present, **options),
    )
