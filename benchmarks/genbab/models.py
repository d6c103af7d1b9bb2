"""The networks of the benchmark: dense ones with smooth activations, a small vision transformer, an LSTM.

All take flat images ``[B, 784]`` with values in [0, 1] and answer ten class scores. They are written with plain torch
operations, so that their ONNX files hold nothing but dense layers, products, softmax and activations.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIDE = 28
CLASSES = 10

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "sin": torch.sin, "gelu": nn.functional.gelu}
)

DENSE = ((4, 100), (6, 100), (4, 200))
"""Depth and width of the dense networks (the depth counts hidden layers)."""

NAMES = (*(f"{op}_{depth}x{width}" for op in ACTIVATIONS for depth, width in DENSE), "vit", "lstm")


class Dense(nn.Module):
    """Dense layers with one activation between them."""

    def __init__(self, activation: str, depth: int, width: int) -> None:
        super().__init__()
        sizes = [SIDE * SIDE, *[width] * depth, CLASSES]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        if activation == "sigmoid":
            # Its slope is 1/4 at most: with torch's own initial weights six layers pass on no gradient at all.
            for layer in self.layers[:-1]:
                nn.init.xavier_normal_(layer.weight, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[B, 10]`` of images ``[B, 784]``."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class VisionTransformer(nn.Module):
    """Patches of 7 x 7 pixels, one attention layer with two heads, one ReLU layer, no normalisation."""

    def __init__(self, width: int = 16, heads: int = 2, patch: int = 7) -> None:
        super().__init__()
        self.width, self.heads, self.patch = width, heads, patch
        self.tokens = (SIDE // patch) ** 2
        self.embed = nn.Linear(patch * patch, width)
        self.position = nn.Parameter(0.1 * torch.randn(self.tokens, width))
        self.query, self.key, self.value, self.joined = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[B, 10]`` of images ``[B, 784]``."""
        count = SIDE // self.patch
        x = x.reshape(-1, count, self.patch, count, self.patch).permute(0, 1, 3, 2, 4)
        x = self.embed(x.reshape(-1, self.tokens, self.patch * self.patch)) + self.position
        x = x + self._attention(x)
        x = x + self.narrow(torch.relu(self.wide(x)))
        return self.head(x.mean(dim=1))

    def _attention(self, x: Tensor) -> Tensor:
        size = self.width // self.heads

        def split(y: Tensor) -> Tensor:
            return y.reshape(-1, self.tokens, self.heads, size).permute(0, 2, 1, 3)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(size), dim=-1)
        return self.joined((weights @ v).permute(0, 2, 1, 3).reshape(-1, self.tokens, self.width))


class Lstm(nn.Module):
    """An LSTM over seven strips of four image rows; the last hidden state is classified."""

    def __init__(self, hidden: int = 32, steps: int = 7) -> None:
        super().__init__()
        self.hidden, self.steps = hidden, steps
        self.from_input = nn.Linear(SIDE * SIDE // steps, 4 * hidden)
        self.from_hidden = nn.Linear(hidden, 4 * hidden, bias=False)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[B, 10]`` of images ``[B, 784]``."""
        strips = self.from_input(x.reshape(-1, self.steps, SIDE * SIDE // self.steps))
        hidden = cell = torch.zeros_like(strips[:, 0, : self.hidden])
        for step in range(self.steps):
            gates = strips[:, step] if step == 0 else strips[:, step] + self.from_hidden(hidden)
            enter, forget, new, leave = gates.split(self.hidden, dim=1)
            entered = torch.sigmoid(enter) * torch.tanh(new)
            cell = entered if step == 0 else torch.sigmoid(forget) * cell + entered
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
        return self.head(hidden)


def build(name: str) -> nn.Module:
    """An untrained network of `NAMES`. Raises ValueError for another name."""
    if name == "vit":
        return VisionTransformer()
    if name == "lstm":
        return Lstm()
    if name not in NAMES:
        raise ValueError(f"no network is called {name!r}; choose one of {', '.join(NAMES)}")
    activation, size = name.split("_")
    depth, width = (int(part) for part in size.split("x"))
    return Dense(activation, depth, width)
