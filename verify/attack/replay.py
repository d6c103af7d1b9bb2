"""Replay: a candidate counts as a witness only if the reference runtime agrees that it violates the property.

The candidate is first moved to the nearest point of the network's own element type inside the box, exactly (not
within a tolerance); the outputs that decide are onnxruntime's, and the rows are evaluated in float64 on exactly the
printed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..integers import input_types
from ..loading.runtime import ReplayError
from ..result import Witness
from .reals import violated_over_the_reals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..loading.network import Network
    from ..problem import Problem


@np.errstate(over="ignore")
def clamp_exactly(points: np.ndarray, lower: np.ndarray, upper: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The points in `dtype`, moved inside ``lower <= x <= upper`` (float64) exactly.

    Where no number of `dtype` lies between the ends (a fixed input such as 0.1), the nearest number stands.
    """
    if dtype.kind != "f":
        return np.clip(np.rint(points), np.ceil(lower), np.floor(upper)).astype(dtype)
    clamped = np.clip(points.astype(np.float64), lower, upper).astype(dtype)
    clamped = np.where(clamped.astype(np.float64) < lower, np.nextafter(clamped, dtype.type(np.inf)), clamped)
    clamped = np.where(clamped.astype(np.float64) > upper, np.nextafter(clamped, dtype.type(-np.inf)), clamped)
    outside = (clamped.astype(np.float64) < lower) | (clamped.astype(np.float64) > upper)
    return np.where(outside, np.clip(points.astype(np.float64), lower, upper).astype(dtype), clamped)


@dataclass(frozen=True, eq=False)
class Replay:
    """Checks candidates of a problem on the networks' runtimes."""

    problem: Problem
    networks: Mapping[str, Network]

    def check(self, points: np.ndarray, groups: np.ndarray, at_most: int = 8) -> Witness | None:
        """The first of the candidates (``[P, n]`` free inputs, ``[P]`` their groups) that is a witness; None if none
        of the first `at_most` is."""
        for point, group in zip(points[:at_most], groups[:at_most], strict=True):
            witness = self.check_one(np.asarray(point), int(group))
            if witness is not None:
                return witness
        return None

    def check_one(self, point: np.ndarray, group: int) -> Witness | None:
        """Replay one candidate ``[n]`` in its group's box."""
        problem = self.problem
        region = problem.groups[group]
        inputs: list[tuple[str, np.ndarray]] = []
        outputs: list[tuple[str, np.ndarray]] = []
        start = 0
        point = self._in_all_types(point, group)
        printed = np.full(problem.property.free_count, np.nan)
        for declared in problem.property.networks:
            network = self.networks[declared.name]
            arrays = []
            for info in network.inputs:
                size = int(np.prod(info.shape, dtype=np.int64))
                free = problem.property.input_map[start : start + size]
                start += size
                values = clamp_exactly(point[free], region.lower[free], region.upper[free], np.dtype(info.dtype))
                # (No number of a type may lie in a box beyond its range.)
                if not np.isfinite(values.astype(np.float64)).all():
                    return None
                if (~np.isnan(printed[free]) & (printed[free] != values)).any():
                    return None
                printed[free] = values
                arrays.append(values)
            try:
                results = network.runtime.run(*arrays)
            except ReplayError:
                return None
            inputs += [(info.name, a.reshape(info.shape)) for info, a in zip(network.inputs, arrays, strict=True)]
            outputs += [(info.name, np.asarray(y)) for info, y in zip(network.outputs, results, strict=True)]
        flat = np.concatenate([np.asarray(y, dtype=np.float64).reshape(-1) for _, y in outputs])
        if not self._violates(group, printed, flat):
            return None
        return Witness(
            _renamed(problem.property.inputs, inputs),
            _renamed(problem.property.outputs, outputs),
            violated_over_the_reals(problem, printed, group),
        )

    def _in_all_types(self, point: np.ndarray, group: int) -> np.ndarray:
        """The point in the coarsest element type that reads each free input: networks that share it see one number."""
        region, input_map = self.problem.groups[group], self.problem.property.input_map
        types = input_types(self.problem.property, self.networks)
        kinds = sorted(set(types), key=lambda dtype: (dtype.kind == "f", dtype.itemsize))
        if len(kinds) == 1:
            return point
        moved = point.astype(np.float64)
        for dtype in kinds:
            free = input_map[[own == dtype for own in types]]
            moved[free] = clamp_exactly(moved[free], region.lower[free], region.upper[free], dtype)
        return moved

    def _violates(self, group: int, x: np.ndarray, y: np.ndarray) -> bool:
        """Whether all rows of some clause hold at (x, y), evaluated in float64."""
        region = self.problem.groups[group]
        vector = self.problem.extend(x, y)
        if not np.isfinite(vector).all():
            return False
        left = region.rows @ vector
        holds = np.where(region.strict, left < region.offsets, left <= region.offsets)
        failed = np.bincount(region.clause[~holds], minlength=region.count)
        return bool((failed == 0).any())


def _renamed(declared: tuple, arrays: list[tuple[str, np.ndarray]]) -> tuple[tuple[str, np.ndarray], ...]:
    """The arrays under the query's names, where the query declares one tensor for each."""
    if len(declared) != len(arrays):
        return tuple(arrays)
    return tuple((declaration.name, array) for declaration, (_, array) in zip(declared, arrays, strict=True))
