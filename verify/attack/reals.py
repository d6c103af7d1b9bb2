"""Whether a witness, which onnxruntime's floating-point arithmetic shows, violates the property over the reals, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Backend
from ..errors import UndefinedOnRegion
from ..ops.arrays import quiet
from ..rounding import rounding

if TYPE_CHECKING:
    from ..problem import Group, Problem


@quiet
def violated_over_the_reals(problem: Problem, point: np.ndarray, group: int) -> bool | None:
    """Whether the network with its stored weights, over the reals, is unsafe at a point ``[n]`` of a group's box; None
    where neither float64 bounds nor (for small piecewise-linear networks) rational arithmetic tell."""
    from ..bounding.interval import interval_bounds
    from ..search.exact import is_exact, refuted_exactly

    region = problem.groups[group]
    graph = Backend("float64").graph(problem.graph)
    at = point.astype(np.float64).reshape(1, *graph.nodes[graph.inputs[0]].shape)
    try:
        lower, upper = (end.reshape(-1) for end in interval_bounds(graph, at, at)[graph.outputs[0]])
    except UndefinedOnRegion:
        return None
    least, most = _rows(region, lower, upper)
    surely, possibly = _met(region, most), _met(region, least)
    if surely.any() or not possibly.any():
        return bool(surely.any())
    if is_exact(graph) and all(
        refuted_exactly(graph, region, at[0], at[0], np.array([clause])) for clause in np.flatnonzero(possibly)
    ):
        return False
    return None


def _rows(region: Group, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the rows, less their offsets, ``[R]``."""
    positive, negative = region.rows.clip(0, None), region.rows.clip(None, 0)
    largest = np.maximum(abs(lower), abs(upper))
    used = (region.rows != 0).any(axis=0)
    lower, upper, largest = (np.where(used, x, 0.0) for x in (lower, upper, largest))
    off = rounding(lower, len(lower)) * (abs(region.rows) @ largest + abs(region.offsets))
    least = positive @ lower + negative @ upper - region.offsets
    most = positive @ upper + negative @ lower - region.offsets
    return np.nan_to_num(least - off, nan=-np.inf), np.nan_to_num(most + off, nan=np.inf)


def _met(region: Group, values: np.ndarray) -> np.ndarray:
    """The clauses all of whose rows hold where rows less offsets have these values, bool ``[K]``."""
    holds = np.where(region.strict, values < 0, values <= 0)
    return np.bincount(region.clause[~holds], minlength=region.count) == 0
