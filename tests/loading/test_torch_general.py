"""Torch operators beyond layers: attention, reductions, indexing, writes in place, and what torch itself decomposes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from boundsmith.verify import bounds
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load, torch_export
from boundsmith.verify.loading.evaluate import evaluate
from torch import nn
from torch.nn import functional as tf

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

SHAPE = (1, 5, 8)
LOWER = torch.tril(torch.ones(5, 5)) > 0
HIDING = torch.zeros(5, 5).masked_fill(~LOWER, float("-inf"))
HEADS = nn.MultiheadAttention(8, 2, batch_first=True)
LAYER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

DIRECT: dict[str, Callable[[Any], Any]] = {
    "heads": lambda x: HEADS(x, x, x)[0],
    "heads and weights": lambda x: HEADS(x, x, x)[1],
    "encoder layer": LAYER,
    "causal": lambda x: tf.scaled_dot_product_attention(x, x, x, is_causal=True),
    "mask": lambda x: tf.scaled_dot_product_attention(x, x, x, attn_mask=LOWER),
    "offsets": lambda x: tf.scaled_dot_product_attention(x, x, x, attn_mask=0.3 * torch.eye(5)),
    "hiding": lambda x: torch.softmax(x @ x.transpose(1, 2) + HIDING, dim=-1),
    "flip": lambda x: x.flip(1),
    "list": lambda x: x[:, [0, 2]],
    "last": lambda x: x[:, -1],
    "gather": lambda x: x.gather(1, torch.zeros(1, 2, 7, dtype=torch.long) + 3),
    "cumsum": lambda x: x.cumsum(1),
    "norm": lambda x: x.norm(dim=1),
    "norm 1": lambda x: x.norm(p=1, dim=(1, 2)),
    "largest size": lambda x: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "logsumexp": lambda x: x.logsumexp(1),
    "prod": lambda x: x.prod(1),
    "max": lambda x: x.max(),
    "max over": lambda x: x.max(dim=1)[0] + x.max(dim=1)[1],
    "min over": lambda x: x.min(dim=-1, keepdim=True).values,
    "max of two": lambda x: torch.max(x, x * x),
    "argmax": lambda x: x.argmax(1).float(),
    "var": lambda x: x.var(1),
    "std": lambda x: x.std((1, 2), unbiased=False),
    "expm1": torch.expm1,
    "log1p": lambda x: torch.log1p(x * x),
    "log2": lambda x: torch.log2(x * x + 1) + torch.log10(x * x + 1),
    "erfc": torch.erfc,
    "log sigmoid": tf.logsigmoid,
    "trunc": torch.trunc,
    "unfold": lambda x: x.unfold(1, 2, 2),
    "diagonal": lambda x: x.diagonal(1, 1, 2),
    "ones": lambda x: x + torch.ones_like(x) + torch.full_like(x, 2.0),
    "linear1d": lambda x: tf.interpolate(x, scale_factor=2, mode="linear"),
    "scatter": lambda x: torch.zeros(1, 5, 8).scatter(1, torch.full((1, 1, 8), 2), x[:, :1]),
    "instance norm": lambda x: tf.instance_norm(x),
}
DECOMPOSED: dict[str, Callable[[Any], Any]] = {
    "heads and mask": lambda x: HEADS(x, x, x, attn_mask=HIDING)[0],
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "roll": lambda x: torch.roll(x, 2, 1),
    "unbind": lambda x: x.unbind(1)[2],
    "masked fill": lambda x: x.masked_fill(torch.tril(torch.ones(5, 8)) == 0, 0.5),
    "masked softmax": lambda x: torch.softmax((x @ x.transpose(1, 2)).masked_fill(~LOWER, float("-inf")), -1),
    "tril": torch.tril,
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "rms norm": lambda x: tf.rms_norm(x, (8,)),
    "glu": tf.glu,
    "between": lambda x: ((x > 0) & (x < 1)).float(),
    "tile": lambda x: x.tile(2, 1, 1),
    "normalise": lambda x: tf.normalize(x + 3, dim=-1),
}


class Together(nn.Module):
    """Many functions of one input: one export is much faster than one a function."""

    def __init__(self, functions: dict[str, Callable[[Any], Any]]) -> None:
        super().__init__()
        self.heads = HEADS
        self.layer = LAYER
        self.functions = functions

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(function(x) for function in self.functions.values())


@pytest.mark.parametrize("functions", [DIRECT, DECOMPOSED], ids=["direct", "decomposed"])
def test_functions(functions: dict[str, Callable[[Any], Any]]) -> None:
    module = Together(functions).eval()
    network = load(module, torch.rand(SHAPE))
    points = torch.randn((4, *SHAPE))
    ours = evaluate(network.graph, [points.numpy()])
    lower, upper = bounds(network, points.numpy().reshape(4, -1), 1e-3, "ibp")
    end = 0
    for name, mine in zip(functions, ours, strict=True):
        with torch.no_grad():
            theirs = torch.stack([functions[name](point) for point in points]).numpy()
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5, err_msg=name)
        start, end = end, end + theirs[0].size
        flat = theirs.reshape(4, -1)
        assert (lower[:, start:end] <= flat + 1e-5).all(), name
        assert (flat <= upper[:, start:end] + 1e-5).all(), name


class Hiding(nn.Module):
    """Attention with its mask as a buffer, by adding and by choosing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("mask", HIDING)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        scores = y @ y.transpose(1, 2)
        chosen = torch.where(self.mask == 0, scores, float("-inf"))
        return (torch.softmax(scores + self.mask, dim=-1) + torch.softmax(chosen, dim=-1)) @ y


def test_live_masks() -> None:
    module = Hiding()
    network = load(module, torch.rand(SHAPE), live=True)
    point = torch.randn(SHAPE)
    (ours,) = evaluate(network.graph, [point[None]])
    np.testing.assert_allclose(ours[0].detach().numpy(), module(point).detach().numpy(), rtol=1e-4, atol=1e-4)
    ours.square().sum().backward()
    assert torch.isfinite(module.layer.weight.grad).all()


class Written(nn.Module):
    """Writes in place into a copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:, 0] = 0.0
        y[:, 1:5:2] = x[:, 2:4] * 2
        y[:, :, 3] += 1.0
        return y


def test_writes_in_place() -> None:
    network = load(Written(), torch.rand(SHAPE))
    point = torch.randn(SHAPE)
    (ours,) = evaluate(network.graph, [point.numpy()[None]])
    np.testing.assert_allclose(ours[0], Written()(point).numpy(), atol=1e-6)


class Refused(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: tf.softplus(x, threshold=1), "threshold"),
        (lambda x: x + torch.full((8,), float("inf")), "NaN or infinite"),
        (lambda x: torch.relu(x[..., :5] + HIDING), "minus infinity"),
        (lambda x: x[..., :5] + HIDING, "minus infinity"),
        (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "indices depend on"),
        (lambda x: torch.linalg.vector_norm(x, 3, dim=1), "order 3"),
    ],
)
def test_what_is_not_covered_is_said(function: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(Refused(function), torch.rand(SHAPE))


def test_arguments_that_nothing_looks_at_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that passes over an argument is found out, whatever the argument does."""
    handlers = MappingProxyType({**torch_export.HANDLERS, "elu": lambda call: call.onnx("Elu", call.x)})
    monkeypatch.setattr(torch_export, "HANDLERS", handlers)
    load(nn.ELU(), torch.rand(3))
    with pytest.raises(LoadError, match="its argument alpha is not covered"):
        load(nn.ELU(0.5), torch.rand(3), check=False)
