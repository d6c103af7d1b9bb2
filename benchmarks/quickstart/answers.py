"""Known answers without the verifier.

`sat`     a point of the box that violates the property by a margin, found by sampling or by gradient steps.
`unsat`   for two or three inputs: interval arithmetic in float64 on every cell of a fine grid (`largest_on_grid`);
          for many inputs: the exact maximum over the box by mixed-integer programming with HiGHS (`largest_by_milp`);
          for the monotone network: its value at the upper corner (`monotone`'s weights are all non-negative).
Every argument must hold with a margin of `MARGIN`, far above what float32 rounding can move.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from nets import Network
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

MARGIN = 1e-3


def intervals(network: Network, lower: np.ndarray, upper: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Interval bounds of the value after every step, for boxes ``[B, n]``."""
    bounds, saved = (lower, upper), (lower, upper)
    found = []
    for step in network.steps:
        low, high = bounds
        if step.weight is not None and step.bias is not None:
            weight = step.weight.astype(np.float64)
            positive, negative = np.maximum(weight, 0).T, np.minimum(weight, 0).T
            bounds = low @ positive + high @ negative + step.bias, high @ positive + low @ negative + step.bias
        elif step.kind == "relu":
            bounds = np.maximum(low, 0), np.maximum(high, 0)
        elif step.kind == "tanh":
            bounds = np.tanh(low), np.tanh(high)
        elif step.kind == "save":
            saved = bounds
        else:
            bounds = low + saved[0], high + saved[1]
        found.append(bounds)
    return found


def with_row(network: Network, row: np.ndarray) -> Network:
    """The network with the one output ``row . y``: the row is multiplied into the last affine step."""
    *body, last = network.steps
    assert last.weight is not None
    assert last.bias is not None
    weight = row[None] @ last.weight.astype(np.float64)
    return Network(network.name, network.shape, (*body, type(last)("affine", weight, row[None] @ last.bias)))


def largest_on_grid(network: Network, row: np.ndarray, lower: np.ndarray, upper: np.ndarray, cells: int) -> float:
    """An upper bound of ``row . f`` over the box: interval arithmetic on ``cells ** n`` cells, in float64."""
    edges = [np.linspace(low, high, cells + 1) for low, high in zip(lower, upper, strict=True)]
    low = np.array(list(product(*(edge[:-1] for edge in edges))))
    high = np.array(list(product(*(edge[1:] for edge in edges))))
    return float(max(part[-1][1].max() for part in _in_parts(with_row(network, row), low, high)))


def _in_parts(network: Network, low: np.ndarray, high: np.ndarray) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    parts = range(0, len(low), 20_000)
    return [intervals(network, low[start : start + 20_000], high[start : start + 20_000])[-1:] for start in parts]


def largest_by_milp(network: Network, row: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The maximum of ``row . f`` over the box, as HiGHS's dual bound: one binary variable an unstable ReLU.

    Raises RuntimeError if HiGHS does not finish.
    """
    target = with_row(network, row)
    ranges = [(low[0], high[0]) for low, high in intervals(target, lower[None], upper[None])]
    programme = _Programme()
    current = programme.variables(lower, upper)
    saved = current
    before = (lower, upper)
    for step, after in zip(target.steps, ranges, strict=True):
        if step.weight is not None and step.bias is not None:
            fresh = programme.variables(*after)
            for position, name in enumerate(fresh):
                terms = {
                    name: 1.0,
                    **{source: -float(w) for source, w in zip(current, step.weight[position], strict=True)},
                }
                programme.equal(terms, float(step.bias[position]))
            current = fresh
        elif step.kind == "relu":
            current = [programme.relu(name, low, high) for name, low, high in zip(current, *before, strict=True)]
        elif step.kind == "save":
            saved = current
        elif step.kind == "add":
            fresh = programme.variables(*after)
            for name, left, right in zip(fresh, current, saved, strict=True):
                programme.equal({name: 1.0, left: -1.0, right: -1.0}, 0.0)
            current = fresh
        else:
            raise ValueError(f"no mixed-integer encoding of {step.kind}")
        before = after
    return programme.maximum(current[0])


class _Programme:
    """A mixed-integer linear programme that grows."""

    def __init__(self) -> None:
        self._lower: list[float] = []
        self._upper: list[float] = []
        self._binary: list[int] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []

    def variables(self, lower: np.ndarray, upper: np.ndarray) -> list[int]:
        first = len(self._lower)
        self._lower += [float(value) for value in lower]
        self._upper += [float(value) for value in upper]
        self._binary += [0] * len(lower)
        return list(range(first, len(self._lower)))

    def equal(self, terms: dict[int, float], value: float) -> None:
        self._rows.append((terms, value, value))

    def relu(self, source: int, low: float, high: float) -> int:
        (output,) = self.variables(np.array([max(low, 0.0)]), np.array([max(high, 0.0)]))
        if low >= 0:
            self.equal({output: 1.0, source: -1.0}, 0.0)
        elif high > 0:
            (active,) = self.variables(np.zeros(1), np.ones(1))
            self._binary[active] = 1
            self._rows.append(({output: 1.0, source: -1.0}, 0.0, np.inf))
            self._rows.append(({output: 1.0, active: -high}, -np.inf, 0.0))
            self._rows.append(({output: 1.0, source: -1.0, active: -low}, -np.inf, -low))
        return output

    def maximum(self, name: int) -> float:
        matrix = lil_matrix((len(self._rows), len(self._lower)))
        for position, (terms, _, _) in enumerate(self._rows):
            for column, factor in terms.items():
                matrix[position, column] += factor
        limits = LinearConstraint(matrix.tocsr(), [row[1] for row in self._rows], [row[2] for row in self._rows])
        objective = np.zeros(len(self._lower))
        objective[name] = -1.0
        solution = milp(
            objective, integrality=self._binary, bounds=Bounds(self._lower, self._upper), constraints=limits
        )
        if not solution.success:
            raise RuntimeError(f"HiGHS did not finish: {solution.message}")
        return -float(solution.mip_dual_bound)


def sample_largest(
    network: Network, row: np.ndarray, lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The largest ``row . f`` met, and where: corners and uniform points first, then coordinate-wise improvement."""
    count = 4000
    points = rng.uniform(lower, upper, (count, len(lower)))
    corners = rng.random((count, len(lower))) < 0.5
    points = np.concatenate([points, np.where(corners, lower, upper)])
    values = network(points) @ row
    best = points[values.argmax()]
    for _ in range(3):
        for coordinate in rng.permutation(len(lower)):
            trial = np.repeat(best[None], 9, axis=0)
            trial[:, coordinate] = np.append(np.linspace(lower[coordinate], upper[coordinate], 8), best[coordinate])
            best = trial[(network(trial) @ row).argmax()]
    return float((network(best[None]) @ row)[0]), best
