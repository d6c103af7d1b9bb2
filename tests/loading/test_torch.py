"""Torch modules become the same graphs: they evaluate as the module does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from boundsmith.verify import bounds
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load
from boundsmith.verify.loading.evaluate import evaluate
from torch import nn
from torch.nn import functional as tf

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 3, 3, padding=1, groups=3)
        self.head = nn.Linear(3 * 4 * 4, 5)
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(tf.relu(self.norm(self.first(x)))) + x
        return self.head(torch.flatten(tf.max_pool2d(y, 2), 1))


class Plumbing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=1)
        c, d = torch.split(x, [1, 3], dim=1)
        joined = torch.cat([a, b * 2, c, d], dim=1)
        moved = joined.permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1, 2)
        picked = moved[:, ::2, :1].squeeze(-1).unsqueeze(1).expand(-1, 2, -1)
        return torch.stack([picked, picked.repeat(1, 1, 1)], dim=1).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joint = self.qkv(self.norm(x))
        q, k, v = joint[..., :8], joint[..., 8:16], joint[..., 16:]
        return tf.scaled_dot_product_attention(q, k, v) + torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v


class Arithmetic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = 2.0 - x * self.gain + x**2 / 3.0 - torch.add(x, x, alpha=0.5)
        z = torch.where(x > 0, torch.sin(x), y.clamp(min=-1)) + torch.maximum(x, y).abs().sqrt()
        return y.sum(dim=1), z.mean(dim=-1, keepdim=True) + z.amax(dim=1, keepdim=True)


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.1),
    nn.PReLU(),
    nn.ReLU6(),
    nn.Hardtanh(),
    nn.ELU(0.7),
    nn.SELU(),
    nn.CELU(0.7),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(2.0),
    nn.Softsign(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Softmax(dim=-1),
    nn.LogSoftmax(dim=-1),
    nn.Dropout(),
    nn.Identity(),
]


class Many(nn.Module):
    """Every activation on one dense layer; one export is much faster than one an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.activations = nn.ModuleList(ACTIVATIONS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(activation(self.layer(x)) for activation in self.activations)


IMAGE = (1, 4, 6, 8)

MODULES: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("residual", Residual(), (1, 3, 8, 8)),
    ("plumbing", Plumbing(), (1, 4, 3, 2)),
    ("attention", Attention(), (1, 5, 8)),
    ("arithmetic", Arithmetic(), (2, 4)),
    ("batch norm 1d", nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()), (2, 4)),
    ("conv 1d", nn.Conv1d(2, 3, 3, stride=2, padding=1), (1, 2, 9)),
    ("conv same", nn.Conv2d(4, 3, 3, padding="same", dilation=2), IMAGE),
    ("conv transpose", nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1), IMAGE),
    ("unbatched conv", nn.Conv2d(4, 3, 3), IMAGE[1:]),
    (
        "pools",
        nn.Sequential(nn.AvgPool2d(2), nn.MaxPool2d(2, 1, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGE,
    ),
    ("group norm", nn.GroupNorm(2, 4), IMAGE),
    ("padding", nn.Sequential(nn.ZeroPad2d(1), nn.ConstantPad2d(2, 0.5)), IMAGE),
    ("upsampling", nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelShuffle(2)), IMAGE),
    ("bilinear", nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    ("activations", Many(), (2, 4)),
]


def outputs_of(module: nn.Module, points: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        made = [module(point) for point in points]
    columns = zip(*made, strict=True) if isinstance(made[0], tuple) else [made]
    return [torch.stack(list(column)).numpy() for column in columns]


BOTH_WAYS = ("residual", "attention", "arithmetic", "batch norm 1d", "group norm", "activations")

RUNS = [(entry, live) for entry in MODULES for live in (False, True) if not live or entry[0] in BOTH_WAYS]


@pytest.mark.parametrize(("entry", "live"), RUNS, ids=[f"{e[0]}{' live' if live else ''}" for e, live in RUNS])
def test_module(entry: tuple[str, nn.Module, tuple[int, ...]], live: bool) -> None:
    _, module, shape = entry
    torch.manual_seed(0)
    module.train()
    network = load(module, torch.rand(shape), live=live)
    assert all(part.training for part in module.modules())
    module.eval()
    points = torch.randn((3, *shape))
    ours = evaluate(network.graph, [points if live else points.numpy()])
    for mine, theirs in zip(ours, outputs_of(module, points), strict=True):
        mine = mine.detach().numpy() if live else mine
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_live_parameters_are_the_modules_own_and_get_gradients() -> None:
    module = Residual().eval()
    network = load(module, torch.rand(1, 3, 8, 8), live=True)
    (output,) = evaluate(network.graph, [torch.rand(2, 1, 3, 8, 8)])
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    held = {id(array) for node in network.graph.nodes for array in node.params.values()}
    assert id(module.head.weight) in held


def test_double_precision() -> None:
    network = load(nn.Linear(3, 2).double(), torch.rand(1, 3, dtype=torch.float64))
    assert network.graph.nodes[1].params["weight"].dtype == np.float64


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x) + torch.cumprod(x, 0)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_all_unsupported_operators_are_named_at_once() -> None:
    with pytest.raises(LoadError, match=r"2 operator.*bessel_j0.*cumprod"):
        load(Unsupported(), torch.rand(3))


def test_data_dependent_control_flow_is_refused() -> None:
    with pytest.raises(LoadError, match="cannot trace"):
        load(Branching(), torch.rand(3))


def test_bad_arguments() -> None:
    with pytest.raises(LoadError, match="example input"):
        load(nn.Linear(2, 2))
    with pytest.raises(LoadError, match="torch module"):
        load(3, torch.rand(1))


class Normalised(nn.Module):
    """What is normalised by buffers, and what follows from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("centre", torch.zeros(4))
        self.gain = nn.Parameter(torch.ones(4))
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x - 0.5)) * torch.exp(self.gain) - self.centre))


def test_live_networks_follow_training() -> None:
    """Parameters, buffers, and everything that is worked out from them, are those of the moment."""
    torch.manual_seed(1)
    module = Normalised()
    with pytest.warns(UserWarning, match="BatchNorm1d acts otherwise"):
        network = load(module, torch.rand(1, 3), live=True)
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for step in range(3):
        optimiser.zero_grad()
        lower, upper = bounds(network, torch.rand(2, 1, 3), 0.05, method="ibp")
        (module(torch.rand(8, 3) * 3).square().sum() + (upper - lower).sum()).backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
        optimiser.step()
        module.centre.fill_(0.3 * step)
        x = torch.rand(1, 3)
        module.eval()
        (now,) = evaluate(network.graph, [x[None]])
        np.testing.assert_allclose(now.detach()[0], module(x).detach(), atol=1e-5)
        lower, upper = bounds(network, x, 1e-5, method="crown")
        assert (lower <= module(x) + 1e-6).all()
        assert (module(x) <= upper + 1e-6).all()
        np.testing.assert_allclose(network.runtime.run(x.numpy())[0], module(x).detach(), atol=1e-6)
        module.train()


def test_networks_that_are_not_live_stay_what_they_were() -> None:
    module = nn.Linear(3, 2)
    network = load(module, torch.rand(1, 3))
    before = evaluate(network.graph, [np.ones((1, 1, 3), np.float32)])[0].copy()
    with torch.no_grad():
        module.weight.add_(1.0)
    np.testing.assert_array_equal(evaluate(network.graph, [np.ones((1, 1, 3), np.float32)])[0], before)


class Returning(nn.Module):
    """A layer, and whatever a function makes of its result."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.function = function

    def forward(self, *given: Any) -> Any:
        return self.function(self, *given)


ONE = torch.rand(1, 3)

STRUCTURED: dict[str, tuple[Callable[..., Any], Any, int]] = {
    "dictionary": (lambda m, x: {"b": m.layer(x), "a": x}, ONE, 2),
    "nested": (lambda m, x: (m.layer(x), [x, {"c": x + 1}]), ONE, 3),
    "none": (lambda m, x: (m.layer(x), None), ONE, 1),
    "a parameter": (lambda m, x: (m.layer(x), m.layer.weight), ONE, 2),
    "no entries": (lambda m, x: (m.layer(x)[:, :0], x), ONE, 2),
    "dictionary of inputs": (lambda m, d: m.layer(d["x"]), {"x": ONE}, 1),
    "list of inputs": (lambda m, d, e: m.layer(d[0]) + d[1].sum() + e, ([ONE, ONE], ONE[:, :1]), 1),
    "number as input": (lambda m, x, k: m.layer(x) * k, (ONE, 3), 1),
    "none as input": (lambda m, x, k: m.layer(x), (ONE, None), 1),
    "an array": (lambda m, x: m.layer(x), ONE.numpy(), 1),
    "one tensor twice": (lambda m, x, y: m.layer(x), (ONE, ONE), 1),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_arguments_and_results_with_structure(name: str) -> None:
    function, example, outputs = STRUCTURED[name]
    network = load(Returning(function), example)
    assert len(network.outputs) == outputs


EIGHT = torch.zeros(1, 2).to(torch.bfloat16)

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "no entries": (Returning(lambda m, x: m.layer(x)[:, :0]), ONE, "no entries"),
    "nothing": (Returning(lambda m, x: None), ONE, "returns no tensor"),
    "a number": (Returning(lambda m, x: (x, 3)), ONE, "type int"),
    "writing a buffer": (Returning(lambda m, x: (m.norm.running_mean.add_(1), x)[1]), ONE, "norm.running_mean"),
    "writing an input": (Returning(lambda m, x: x.add_(1)), ONE, "changes"),
    "bfloat16": (nn.Linear(3, 2).bfloat16(), ONE.bfloat16(), "bfloat16"),
    "bfloat16 inside": (Returning(lambda m, x: m.layer(x).bfloat16().float()), ONE, "bfloat16"),
    "bfloat16 constants": (Returning(lambda m, x: m.layer(x) + EIGHT.float()), ONE, "bfloat16"),
    "half inside": (Returning(lambda m, x: m.layer(x).half().float()), ONE, "float16"),
    "random": (Returning(lambda m, x: x + torch.rand(3)), ONE, "random"),
    "wrong code": (Returning(lambda m, x: [x][1]), ONE, "IndexError"),
    "script": (torch.jit.script(nn.Linear(3, 2)), ONE, "TorchScript"),
    "weights alone": (nn.Linear(3, 2).state_dict(), None, "load_state_dict"),
    "a class": (nn.Linear, ONE, "an instance"),
    "no tensors": (nn.Linear(3, 2), [1.0, 2.0], "no tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_network(name: str) -> None:
    source, example, word = REFUSED[name]
    with pytest.raises(LoadError, match=word):
        load(source, example)
