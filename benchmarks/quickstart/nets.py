"""The quickstart networks: training them with torch, and writing them as ONNX.

A network is a tuple of steps over flat float32 vectors, simple enough that `answers.py` can reason about it with code
that shares nothing with the verifier. Convolutions are kept as such for the ONNX file and as dense matrices besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits, make_moons
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPSET = 17


@dataclass(frozen=True, eq=False)
class Step:
    """One step: `affine` (weight [out, in], bias [out]), `relu`, `tanh`, `save` (the value), or `add` (the saved one).

    A convolution is an affine step whose `kernel` (weight [O, C, 3, 3], bias [O], input shape) makes the ONNX node.
    """

    kind: str
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    kernel: tuple[np.ndarray, np.ndarray, tuple[int, int, int]] | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network: its name, input shape (batch axis first) and steps."""

    name: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Outputs ``[B, m]`` at float64 points ``[B, n]``."""
        value, saved = points, points
        for step in self.steps:
            if step.kind == "affine":
                assert step.weight is not None
                assert step.bias is not None
                value = value @ step.weight.astype(np.float64).T + step.bias
            elif step.kind == "relu":
                value = np.maximum(value, 0)
            elif step.kind == "tanh":
                value = np.tanh(value)
            elif step.kind == "save":
                saved = value
            else:
                value = value + saved
        return value


class Residual(nn.Module):
    """``relu(x + W2 relu(W1 x))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class NonNegative(nn.Linear):
    """A linear layer with weights that are squares, so that the network is monotone in every input."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight**2, self.bias)


def steps_of(module: nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """The steps of a module over inputs of `shape` (without the batch axis)."""
    if isinstance(module, nn.Sequential):
        steps: list[Step] = []
        for inner in module:
            steps += steps_of(inner, shape)
            shape = tuple(inner(torch.zeros(1, *shape)).shape[1:])
        return steps
    if isinstance(module, nn.Linear):
        weight = module.weight**2 if isinstance(module, NonNegative) else module.weight
        return [Step("affine", _array(weight), _array(module.bias))]
    if isinstance(module, nn.Conv2d):
        return [_convolution(module, (shape[0], shape[1], shape[2]))]
    if isinstance(module, Residual):
        inner = [*steps_of(module.first, shape), Step("relu"), *steps_of(module.second, shape)]
        return [Step("save"), *inner, Step("add"), Step("relu")]
    simple: dict[type[nn.Module], list[Step]] = {nn.ReLU: [Step("relu")], nn.Tanh: [Step("tanh")], nn.Flatten: []}
    return simple[type(module)]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float32)


def _convolution(layer: nn.Conv2d, shape: tuple[int, int, int]) -> Step:
    """A convolution with stride 2 and padding 1, also as the dense matrix that it is."""
    assert layer.bias is not None
    with torch.no_grad():
        basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
        columns = nn.functional.conv2d(basis, layer.weight.double(), stride=2, padding=1)
    positions = columns.shape[2] * columns.shape[3]
    dense = columns.reshape(len(basis), -1).T.numpy().astype(np.float32)
    bias = np.repeat(_array(layer.bias), positions)
    return Step("affine", dense, bias, (_array(layer.weight), _array(layer.bias), shape))


def write_onnx(network: Network, folder: Path) -> None:
    """Write ``FOLDER/NAME.onnx``: float32, input X, output Y, fixed shapes."""
    nodes: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []
    value, saved, flat = "X", "X", len(network.shape) == 2

    def emit(op: str, inputs: list[str], **attributes: list[int] | int) -> str:
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(array: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(array, f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    for step in network.steps:
        if step.kernel is not None:
            weight, bias, _ = step.kernel
            value = emit("Conv", [value, constant(weight), constant(bias)], strides=[2, 2], pads=[1, 1, 1, 1])
        elif step.kind == "affine":
            assert step.weight is not None
            assert step.bias is not None
            if not flat:
                value, flat = emit("Flatten", [value]), True
            value = emit("Gemm", [value, constant(step.weight), constant(step.bias)], transB=1)
        elif step.kind == "save":
            saved = value
        elif step.kind == "add":
            value = emit("Add", [value, saved])
        else:
            value = emit({"relu": "Relu", "tanh": "Tanh"}[step.kind], [value])
    nodes[-1].output[0] = "Y"
    outputs = next(len(step.bias) for step in reversed(network.steps) if step.bias is not None)
    graph = helper.make_graph(
        nodes,
        network.name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, network.shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, (1, outputs))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / f"{network.name}.onnx")


def fit(
    model: nn.Module, inputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], steps: int
) -> nn.Module:
    """Train with Adam on the whole data set, learning rate decaying from 0.01 to 0."""
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(model(inputs), targets).backward()
        optimiser.step()
        schedule.step()
    return model


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images ``[1797, 64]`` in [0, 1], labels."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32), labels


def train_all() -> dict[str, Network]:
    """Train every network, from a fixed seed, on one thread: the same files on the same torch version."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = (torch.from_numpy(array) for array in digits())
    dense = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    conv = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )
    residual = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), Residual(24), nn.Linear(24, 10))
    noisy = images + 0.1 * torch.randn(8, *images.shape)
    many, wanted = noisy.clamp(0, 1).reshape(-1, 64), labels.repeat(8)
    entropy = nn.functional.cross_entropy
    fit(dense, many, wanted, entropy, 150)
    fit(conv, many.reshape(-1, 1, 8, 8), wanted, entropy, 150)
    fit(residual, many, wanted, entropy, 150)

    state = torch.rand(4000, 2) * 2 - 1
    torque = (-6 * state[:, :1] - 2.5 * state[:, 1:]).clamp(-2, 2)
    controller = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))
    fit(controller, state, torque, nn.functional.mse_loss, 600)

    points, sides = make_moons(2000, noise=0.08, random_state=0)
    moons = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    fit(moons, torch.from_numpy(points).float(), torch.from_numpy(sides), entropy, 400)

    load = torch.rand(4000, 3)
    wear = load[:, :1] ** 2 + 0.5 * load[:, 1:2] + load[:, 2:] * load[:, 1:2]
    monotone = nn.Sequential(NonNegative(3, 16), nn.ReLU(), NonNegative(16, 16), nn.ReLU(), NonNegative(16, 1))
    fit(monotone, load, wear, nn.functional.mse_loss, 600)

    place = torch.rand(4000, 2) * 4 - 2
    height = torch.sin(place[:, :1]) * torch.cos(place[:, 1:])
    surface = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))
    fit(surface, place, height, nn.functional.mse_loss, 800)

    models: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "digits_dense": (dense, (64,)),
        "digits_conv": (conv, (1, 8, 8)),
        "digits_residual": (residual, (64,)),
        "controller": (controller, (2,)),
        "moons": (moons, (2,)),
        "monotone": (monotone, (3,)),
        "surface": (surface, (2,)),
    }
    return {name: Network(name, (1, *shape), tuple(steps_of(model, shape))) for name, (model, shape) in models.items()}
