"""Small power grids, their power balance, and dispatches of least cost.

Everything is in per unit (100 MVA) and radians. The grids are made up: three, five and nine buses, with impedances
and charging of the size of transmission lines of some tens of kilometres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize


class Line(NamedTuple):
    """A line between two buses: series impedance ``resistance + j reactance``, and its charging susceptance, half of
    which lies at each end."""

    start: int
    end: int
    resistance: float
    reactance: float
    charging: float

    @property
    def admittance(self) -> complex:
        """Series admittance."""
        return 1 / complex(self.resistance, self.reactance)


class Generator(NamedTuple):
    """A generator: its bus, and the cost ``linear p + quadratic p^2`` of an active power p."""

    bus: int
    linear: float
    quadratic: float


@dataclass(frozen=True)
class Grid:
    """A grid of buses 0 to ``buses - 1``; the angle of bus 0 is 0.

    loads  nominal load ``p + j q`` by bus.
    """

    name: str
    buses: int
    lines: tuple[Line, ...]
    generators: tuple[Generator, ...]
    loads: tuple[tuple[int, complex], ...]
    least_voltage: float = 0.94
    most_voltage: float = 1.06

    @property
    def nominal(self) -> np.ndarray:
        """The nominal loads ``[2 L]``: active, then reactive."""
        values = np.array([load for _, load in self.loads])
        return np.concatenate([values.real, values.imag])

    @property
    def shunts(self) -> np.ndarray:
        """The diagonal of the admittance matrix, complex ``[n]``."""
        diagonal = np.zeros(self.buses, complex)
        for line in self.lines:
            diagonal[[line.start, line.end]] += line.admittance + 0.5j * line.charging
        return diagonal

    @property
    def admittances(self) -> np.ndarray:
        """The admittance matrix ``Y = G + j B``, complex ``[n, n]``."""
        matrix = np.diag(self.shunts)
        for line in self.lines:
            matrix[line.start, line.end] -= line.admittance
            matrix[line.end, line.start] -= line.admittance
        return matrix

    def spread(self, buses: list[int]) -> np.ndarray:
        """The matrix ``[len(buses), n]`` that adds the power at each of `buses` to that bus."""
        return np.eye(self.buses)[buses]

    @property
    def load_buses(self) -> list[int]:
        return [bus for bus, _ in self.loads]

    @property
    def generator_buses(self) -> list[int]:
        return [generator.bus for generator in self.generators]


THREE = Grid(
    "three",
    3,
    (Line(0, 1, 0.010, 0.10, 0.02), Line(0, 2, 0.015, 0.12, 0.03), Line(1, 2, 0.020, 0.15, 0.03)),
    (Generator(0, 20.0, 8.0), Generator(1, 24.0, 10.0)),
    ((1, 0.4 + 0.1j), (2, 0.9 + 0.3j)),
)

FIVE = Grid(
    "five",
    5,
    (
        Line(0, 1, 0.010, 0.08, 0.02),
        Line(0, 3, 0.015, 0.11, 0.03),
        Line(1, 2, 0.012, 0.09, 0.02),
        Line(1, 4, 0.016, 0.10, 0.03),
        Line(2, 3, 0.020, 0.14, 0.03),
        Line(3, 4, 0.018, 0.12, 0.03),
    ),
    (Generator(0, 20.0, 8.0), Generator(1, 24.0, 10.0)),
    ((2, 0.6 + 0.2j), (3, 0.5 + 0.15j), (4, 0.4 + 0.1j)),
)

NINE = Grid(
    "nine",
    9,
    (
        Line(0, 3, 0.008, 0.06, 0.02),
        Line(1, 6, 0.009, 0.07, 0.02),
        Line(2, 8, 0.009, 0.07, 0.02),
        Line(3, 4, 0.012, 0.09, 0.03),
        Line(4, 5, 0.018, 0.13, 0.04),
        Line(5, 6, 0.014, 0.10, 0.03),
        Line(6, 7, 0.010, 0.08, 0.02),
        Line(7, 8, 0.012, 0.09, 0.03),
        Line(8, 3, 0.016, 0.12, 0.03),
    ),
    (Generator(0, 20.0, 8.0), Generator(1, 24.0, 10.0), Generator(2, 22.0, 12.0)),
    ((4, 0.7 + 0.25j), (5, 0.5 + 0.15j), (7, 0.6 + 0.2j), (8, 0.3 + 0.1j)),
)

GRIDS = (THREE, FIVE, NINE)


def imbalance(grid: Grid, state: np.ndarray, loads: np.ndarray) -> np.ndarray:
    """What the buses send into the lines, plus what is consumed, minus what is generated; ``[2 n]``: active, reactive.

    state  ``[2 n - 1 + 2 g]``: voltage magnitudes, angles (without bus 0), active and reactive generation.
    loads  ``[2 L]``.
    """
    n = grid.buses
    voltage = _voltage(grid, state)
    power = voltage * np.conj(grid.admittances @ voltage)
    active, reactive = np.split(state[2 * n - 1 :], 2)
    consumed, consumed_reactive = np.split(loads, 2)
    from_loads, from_generators = grid.spread(grid.load_buses), grid.spread(grid.generator_buses)
    return np.concatenate(
        [
            power.real + consumed @ from_loads - active @ from_generators,
            power.imag + consumed_reactive @ from_loads - reactive @ from_generators,
        ]
    )


def _voltage(grid: Grid, state: np.ndarray) -> np.ndarray:
    angles = np.concatenate([[0.0], state[grid.buses : 2 * grid.buses - 1]])
    return state[: grid.buses] * np.exp(1j * angles)


def _imbalance_slopes(grid: Grid, state: np.ndarray) -> np.ndarray:
    """The Jacobian of `imbalance` by the state, ``[2 n, 2 n - 1 + 2 g]``."""
    Y = grid.admittances
    voltage = _voltage(grid, state)
    current = np.diag(np.conj(Y @ voltage))
    direction = voltage / state[: grid.buses]
    by_size = current @ np.diag(direction) + np.diag(voltage) @ np.conj(Y @ np.diag(direction))
    by_angle = 1j * np.diag(voltage) @ (current - np.conj(Y @ np.diag(voltage)))
    by_voltage = np.concatenate([by_size, by_angle[:, 1:]], axis=1)
    generated = -grid.spread(grid.generator_buses).T
    nothing = np.zeros_like(generated)
    return np.block([[by_voltage.real, generated, nothing], [by_voltage.imag, nothing, generated]])


def dispatch(grid: Grid, loads: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """The state of least generation cost with all powers balanced and voltages within their limits.

    loads  ``[2 L]``; start: a state to begin with, by default the flat one.

    Raises RuntimeError if no optimum is found.
    """
    n, count = grid.buses, len(grid.generators)
    linear, quadratic = (np.array([getattr(one, name) for one in grid.generators]) for name in ("linear", "quadratic"))
    own = slice(2 * n - 1, 2 * n - 1 + count)
    if start is None:
        start = np.concatenate([np.ones(n), np.zeros(n - 1 + 2 * count)])

    def cost(state: np.ndarray) -> float:
        return float(linear @ state[own] + quadratic @ state[own] ** 2)

    def slopes(state: np.ndarray) -> np.ndarray:
        gradient = np.zeros_like(state)
        gradient[own] = linear + 2 * quadratic * state[own]
        return gradient

    found = minimize(
        cost,
        start,
        jac=slopes,
        method="SLSQP",
        bounds=[(grid.least_voltage, grid.most_voltage)] * n + [(-1.0, 1.0)] * (n - 1) + [(-4.0, 4.0)] * (2 * count),
        constraints={
            "type": "eq",
            "fun": lambda state: imbalance(grid, state, loads),
            "jac": lambda state: _imbalance_slopes(grid, state),
        },
        options={"maxiter": 100, "ftol": 1e-9},
    )
    if not found.success:
        raise RuntimeError(f"no dispatch of grid {grid.name} was found for the loads {loads}: {found.message}")
    return found.x
