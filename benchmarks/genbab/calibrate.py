"""Chooses a radius for every network at which alpha-CROWN proves about half of the images, and writes the instances.

`python calibrate.py --data mnist.npz --nets DIR` writes DIR/instances.csv: network, image, label, eps. Images that are
misclassified, or for which an attack finds a witness at that radius, are left out, so nothing can be proved of none of
them in vain.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from boundsmith.verify.loading.network import load
from methods import Task
from train import images

SHARE = 0.5
"""The share of images that alpha-CROWN should prove."""

HALVINGS = 6
SECONDS = 20.0
"""Most time for one image."""


def instances(task: Task, x: np.ndarray, y: np.ndarray, count: int, trial: int) -> tuple[float, list[int]]:
    """The radius found with the first `trial` images by bisection, and the first `count` images that qualify there."""
    right = np.nonzero(task.scores(x[: 3 * count]).argmax(axis=1) == y[: 3 * count])[0]
    low, high = 0.0, 0.1
    for _ in range(HALVINGS):
        eps = 0.5 * (low + high)
        safe = _safe(task, x, y, right, eps, trial)
        proved = sum(task.decide("alpha-crown", x[i], int(y[i]), eps, SECONDS).status == "proved" for i in safe)
        low, high = (eps, high) if proved > SHARE * len(safe) else (low, eps)
    eps = round(0.5 * (low + high), 4)
    return eps, _safe(task, x, y, right, eps, count)


def _safe(task: Task, x: np.ndarray, y: np.ndarray, right: np.ndarray, eps: float, count: int) -> list[int]:
    """The first images among `right` that the attack does not break."""
    safe: list[int] = []
    for i in right:
        if len(safe) == count:
            break
        if task.decide("attack", x[i], int(y[i]), eps, SECONDS).status != "witness":
            safe.append(int(i))
    return safe


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--nets", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--count", type=int, default=100, help="instances a network")
    parser.add_argument("--trial", type=int, default=100, help="images that the radius is chosen with")
    given = parser.parse_args()
    x, y = images(given.data, "test")
    target = given.nets / "instances.csv"
    known = set()
    if target.exists():
        with target.open(newline="") as file:
            known = {row["network"] for row in csv.DictReader(file)}
    for path in sorted(given.nets.glob("*.onnx")):
        if path.stem in known:
            continue
        eps, chosen = instances(Task(load(path).graph), x, y, given.count, given.trial)
        with target.open("a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["network", "image", "label", "eps"])
            writer.writerows([path.stem, i, int(y[i]), eps] for i in chosen)
        print(f"{path.stem}: eps {eps}, {len(chosen)} images", flush=True)


if __name__ == "__main__":
    main()
