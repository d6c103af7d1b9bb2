"""Updates in place and sums that numpy and torch spell differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..graph import Array


def row_squares(x: Array) -> Array:
    """The sums of squares ``[R]`` of the rows ``[R, n]``."""
    return np.einsum("rn,rn->r", x, x) if isinstance(x, np.ndarray) else (x * x).sum(dim=1)


def put(target: Array, source: Array, where: Array) -> None:
    """Overwrite the target's entries where the (broadcast) mask says so."""
    if isinstance(target, np.ndarray):
        np.copyto(target, source, where=where)
    else:
        target.copy_(source.where(where, target))


def add_at(target: Array, index: Array, amount: Array) -> None:
    """Add amounts ``[K]`` to the target's entries at `index`, of which some may be equal, in place."""
    if isinstance(target, np.ndarray):
        np.add.at(target, index, amount)
    else:
        target.index_add_(0, index, amount)
