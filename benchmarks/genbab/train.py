"""Trains the networks on MNIST and writes them as ONNX: `python train.py --data mnist.npz --out DIR [NAME ...]`.

About a minute a network on one core. Training is adversarial with a short attack and a small radius: plainly trained
networks have no radius at which a bound means anything.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import models
import numpy as np
import torch
from torch import Tensor, nn

BATCH = 250


def images(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[B, 784]`` float32 in [0, 1] and labels ``[B]`` of the "train" or "test" part of an MNIST .npz file."""
    with np.load(path) as data:
        pixels, labels = data[f"{part}_x"], data[f"{part}_y"]
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255, labels.astype(np.int64)


def attacked(network: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Images within `eps` of x (and within [0, 1]) at which signed gradient steps raise the loss."""
    delta = eps * (2 * torch.rand_like(x) - 1)
    for _ in range(steps):
        delta.requires_grad_(True)
        loss = nn.functional.cross_entropy(network((x + delta).clip(0, 1)), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = (delta.detach() + 1.5 * eps / steps * gradient.sign()).clip(-eps, eps)
    return (x + delta).clip(0, 1).detach()


def train(name: str, x: Tensor, y: Tensor, epochs: int, eps: float) -> nn.Module:
    """A trained network of `models.NAMES`; the same every time on one version of torch."""
    torch.manual_seed(0)
    network = models.build(name)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-5)
    total = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=total)
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        radius = eps * min(1.0, epoch / max(1, epochs // 2))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            own = order[start : start + BATCH]
            seen = attacked(network, x[own], y[own], radius, 2) if radius > 0 else x[own]
            loss = nn.functional.cross_entropy(network(seen), y[own])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def write(network: nn.Module, path: Path) -> None:
    """Write a network for one image as ONNX."""
    torch.onnx.export(
        network, (torch.zeros(1, models.SIDE**2),), path, input_names=["x"], output_names=["y"], dynamo=False
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which networks; all of {', '.join(models.NAMES)}")
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz with train_x, train_y, test_x, test_y")
    parser.add_argument("--out", type=Path, required=True, help="folder for the ONNX files")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--eps", type=float, default=0.1, help="radius of the attack in training")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    x, y = (torch.from_numpy(part) for part in images(given.data, "train"))
    test_x, test_y = (torch.from_numpy(part) for part in images(given.data, "test"))
    for name in given.names or models.NAMES:
        started = time.monotonic()
        network = train(name, x, y, given.epochs, given.eps)
        write(network, given.out / f"{name}.onnx")
        with torch.no_grad():
            right = float((network(test_x).argmax(dim=1) == test_y).float().mean())
        print(f"{name}: {100 * right:.1f} % of the test images, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
