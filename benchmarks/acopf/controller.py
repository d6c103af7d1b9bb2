"""Controllers that answer loads with a dispatch, and the network that computes by how much a controller's dispatch
violates the power balance."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from grid import dispatch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from grid import Grid

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"tanh": nn.Tanh, "sigmoid": nn.Sigmoid})

BALANCE_WEIGHT = 1e4
"""Of the mean squared imbalance in the loss, where dispatches count by squared standard deviations: one of an imbalance
of 0.01."""


class Controller(nn.Module):
    """Loads ``[B, 2 L]`` to a state ``[B, 2 n - 1 + 2 g]`` (as in `grid.imbalance`), by one hidden layer.

    Loads are scaled by `middle` and `reach` to [-1, 1], answers by the `mean` and `deviation` of the dispatches.
    """

    middle: Tensor
    reach: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, activation: str, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), ACTIVATIONS[activation](), nn.Linear(width, outputs))
        for name, size in (("middle", inputs), ("mean", outputs)):
            self.register_buffer(name, torch.zeros(size))
        for name, size in (("reach", inputs), ("deviation", outputs)):
            self.register_buffer(name, torch.ones(size))

    def scale(self, middle: np.ndarray, reach: np.ndarray, states: np.ndarray) -> None:
        """Take the scales from the box of loads and from dispatches ``[N, 2 n - 1 + 2 g]``."""
        # A voltage that the optimum holds at its limit does not deviate at all; the answer must still be free to.
        deviation = np.maximum(states.std(axis=0), 1e-3)
        own = (self.middle, self.reach, self.mean, self.deviation)
        for buffer, value in zip(own, (middle, reach, states.mean(axis=0), deviation), strict=True):
            buffer.copy_(torch.from_numpy(value))

    def forward(self, loads: Tensor) -> Tensor:
        """The state."""
        return self.mean + self.deviation * self.body((loads - self.middle) / self.reach)


class Balance(nn.Module):
    """The imbalance ``[B, 2 n]`` of a state at given loads, line by line: one sine, one cosine and three products each.

    The same as `grid.imbalance`; with ``d`` the difference of a line's angles, ``c = v v' cos d``, ``s = v v' sin d``
    and ``g + j b`` the line's entry of the admittance matrix, the line takes ``g c + b s`` and ``g s - b c`` from its
    start, ``g c - b s`` and ``-g s - b c`` from its end.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        start, end = (np.array([getattr(line, side) for line in grid.lines]) for side in ("start", "end"))
        entry = -np.array([line.admittance for line in grid.lines])
        g, b = entry.real[:, None], entry.imag[:, None]
        at_start, at_end = grid.spread(start.tolist()), grid.spread(end.tolist())
        shunts = grid.shunts
        from_loads, from_generators = grid.spread(grid.load_buses), grid.spread(grid.generator_buses)
        none_loads, none_generators = np.zeros_like(from_loads), np.zeros_like(from_generators)
        matrices = {
            "starts": at_start.T,
            "ends": at_end.T,
            "squares": np.concatenate([np.diag(shunts.real), np.diag(-shunts.imag)], axis=1),
            "cosines": np.concatenate([g * (at_start + at_end), -b * (at_start + at_end)], axis=1),
            "sines": np.concatenate([b * (at_start - at_end), g * (at_start - at_end)], axis=1),
            "consumed": np.block([[from_loads, none_loads], [none_loads, from_loads]]),
            "generated": np.block([[from_generators, none_generators], [none_generators, from_generators]]),
        }
        for name, value in matrices.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))

    def forward(self, state: Tensor, loads: Tensor) -> Tensor:
        """The imbalance: active, then reactive."""
        n = self.grid.buses
        size, angle, power = state[:, :n], state[:, n : 2 * n - 1], state[:, 2 * n - 1 :]
        # Bus 0 has the angle 0.
        difference = angle @ (self.starts - self.ends)[1:]
        product = (size @ self.starts) * (size @ self.ends)
        flows = (product * torch.cos(difference)) @ self.cosines + (product * torch.sin(difference)) @ self.sines
        return (size * size) @ self.squares + flows + loads @ self.consumed - power @ self.generated


class Violation(nn.Module):
    """A controller with the balance behind it: loads ``[B, 2 L]`` to the imbalance and the state, side by side
    ``[B, 2 n + 2 n - 1 + 2 g]``."""

    def __init__(self, controller: Controller, grid: Grid) -> None:
        super().__init__()
        self.controller, self.balance = controller, Balance(grid)

    def forward(self, loads: Tensor) -> Tensor:
        """Imbalance and state."""
        state = self.controller(loads)
        return torch.cat([self.balance(state, loads), state], dim=1)


def load_box(grid: Grid, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Middle and reach ``[2 L]`` of the box of loads within a share of the nominal ones."""
    return grid.nominal, share * np.abs(grid.nominal)


def build(grid: Grid, activation: str, width: int) -> Violation:
    """An untrained controller of a grid, one of `ACTIVATIONS`, with its balance."""
    outputs = 2 * grid.buses - 1 + 2 * len(grid.generators)
    return Violation(Controller(activation, 2 * len(grid.loads), width, outputs), grid)


def train(
    grid: Grid, activation: str, width: int, share: float, *, samples: int = 500, steps: int = 3000, seed: int = 0
) -> Violation:
    """A controller trained on optimal dispatches of random loads within a share of the nominal ones, with its balance;
    the same every time on one version of torch and scipy.

    The loss is the squared error in standard deviations, and the squared imbalance times `BALANCE_WEIGHT`.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    middle, reach = load_box(grid, share)
    loads = middle + reach * rng.uniform(-1, 1, (samples, len(middle)))
    first = dispatch(grid, middle)
    states = np.array([dispatch(grid, one, first) for one in loads])
    network = build(grid, activation, width)
    network.controller.scale(middle, reach, states)
    x, y = torch.tensor(loads, dtype=torch.float32), torch.tensor(states, dtype=torch.float32)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for _ in range(steps):
        answer = network(x)
        imbalance, state = answer[:, : 2 * grid.buses], answer[:, 2 * grid.buses :]
        error = ((state - y) / network.controller.deviation).square().mean()
        loss = error + BALANCE_WEIGHT * imbalance.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def write(network: Violation, path: Path) -> None:
    """Write a network for one vector of loads as ONNX."""
    example = network.controller.middle[None]
    torch.onnx.export(network, (example,), path, input_names=["loads"], output_names=["violation"], dynamo=False)
