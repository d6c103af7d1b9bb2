"""Trains the controllers, bisects the bound on their violation of the power balance, and prints the table.

`python run.py --nets DIR` keeps each network there as ONNX (and its parameters, to sample with), and the tightest query
proved of it as VNN-LIB; networks that are there are not trained again.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch
from bisection import Found, at_most, largest_violation, smallest_bound
from boundsmith.specs import save_property
from boundsmith.verify import load
from controller import ACTIVATIONS, Violation, build, load_box, train, write
from grid import GRIDS, Grid


def prepared(name: str, grid: Grid, activation: str, width: int, share: float, steps: int, folder: Path) -> Violation:
    """A trained controller with its balance; trained now unless the folder has it."""
    parameters, onnx = folder / f"{name}.pt", folder / f"{name}.onnx"
    if parameters.exists() and onnx.exists():
        network = build(grid, activation, width)
        network.load_state_dict(torch.load(parameters, weights_only=True))
        return network.eval()
    began = time.monotonic()
    network = train(grid, activation, width, share, steps=steps)
    torch.save(network.state_dict(), parameters)
    write(network, onnx)
    print(f"{name}: trained in {time.monotonic() - began:.0f} s", flush=True)
    return network


def measure(name: str, network: Violation, share: float, folder: Path, timeout: float, gap: float, dtype: str) -> Found:
    """Attack and bisect; the query that proves the bound is written to the folder."""
    grid = network.balance.grid
    rows, (middle, reach) = 2 * grid.buses, load_box(grid, share)
    loaded = load(folder / f"{name}.onnx")
    violation = largest_violation(network, rows, middle, reach)
    found = smallest_bound(loaded, rows, middle, reach, violation, timeout=timeout, gap=gap, dtype=dtype)
    outputs = loaded.graph.nodes[loaded.graph.outputs[0]].size
    save_property(at_most(found.proved, rows, outputs, middle, reach), folder / f"{name}.vnnlib")
    return found


COLUMNS = (
    "network",
    "loads within",
    "CROWN alone",
    "proved",
    "largest found",
    "ratio",
    "seconds",
    "domains",
    "queries",
    "seconds of all",
)


def row(name: str, share: float, found: Found) -> str:
    """A line of the table. Bounds proved are rounded up: what is printed is proved, too."""
    figures = (
        f"{math.ceil(found.crown * 1e4) / 1e4:.4f}",
        f"{math.ceil(found.proved * 1e5) / 1e5:.5f}",
        f"{found.violation:.5f}",
        f"{found.proved / found.violation:.3f}",
        f"{found.seconds:.2f}",
        str(found.domains),
        str(found.queries),
        f"{found.total:.1f}",
    )
    return f"| {name} | {100 * share:.0f} % | {' | '.join(figures)} |"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    names = [grid.name for grid in GRIDS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=Path, help="folder that networks and queries are kept in; default: not kept")
    parser.add_argument("--grids", nargs="*", choices=names, default=names)
    parser.add_argument("--activations", nargs="*", choices=list(ACTIVATIONS), default=list(ACTIVATIONS))
    parser.add_argument("--width", type=int, default=16, help="hidden neurons")
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--shares", nargs="*", type=float, default=[0.1, 0.3], help="how far loads go from the nominal")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds a query")
    parser.add_argument("--gap", type=float, default=0.01, help="how near the bound must come to the violation found")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64", help="arithmetic of the searches")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as passing:
        folder = given.nets or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for grid in (grid for grid in GRIDS if grid.name in given.grids):
            for activation in given.activations:
                for share in given.shares:
                    name = f"{grid.name}_{activation}_{given.width}"
                    stored = f"{name}_{100 * share:g}"
                    network = prepared(stored, grid, activation, given.width, share, given.steps, folder)
                    found = measure(stored, network, share, folder, given.timeout, given.gap, given.dtype)
                    rows.append(row(name, share, found))
    print(f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows, sep="\n")


if __name__ == "__main__":
    main()
