"""Runs the methods on the instances and prints the table: proved, seconds, domains.

`python run.py --data mnist.npz --nets DIR --results FILE.csv` appends a line an instance and method, skips those that
are there already, and prints the table of all that the file holds of these methods.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from boundsmith.verify.loading.network import load
from methods import METHODS, SEARCHES, Task
from train import images

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS = ("network", "image", "method", "limit", "status", "seconds", "domains")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]], methods: Sequence[str] = METHODS) -> str:
    """A Markdown table of the instances that all of the methods were run on: for each network and method how many it
    proves; for searches also the mean seconds of all instances and the median of domains of those proved by splits."""
    lines = ["| network | instances | " + " | ".join(methods) + " |", "|---|" + "---|" * (1 + len(methods))]
    totals = dict.fromkeys(methods, 0)
    count = 0
    for network in dict.fromkeys(row["network"] for row in rows):
        own = {(row["image"], row["method"]): row for row in rows if row["network"] == network}
        common = [image for image, _ in own if all((image, method) in own for method in methods)]
        common = list(dict.fromkeys(common))
        cells = []
        for method in methods:
            found = [own[image, method] for image in common]
            proved = [row for row in found if row["status"] == "proved"]
            totals[method] += len(proved)
            cells.append(f"{len(proved)}" + (_effort(found, proved) if method in SEARCHES else ""))
        count += len(common)
        lines.append(f"| {network} | {len(common)} | " + " | ".join(cells) + " |")
    lines.append(f"| all | {count} | " + " | ".join(str(totals[method]) for method in methods) + " |")
    return "\n".join(lines)


def _effort(found: list[dict[str, str]], proved: list[dict[str, str]]) -> str:
    seconds = np.mean([float(row["seconds"]) for row in found]) if found else 0.0
    split = [int(row["domains"]) for row in proved if row["domains"] != "0"]
    domains = np.median(split) if split else 0
    return f", {seconds:.2f} s, {domains:.0f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--nets", type=Path, required=True, help="folder with instances.csv and the ONNX files")
    parser.add_argument("--results", type=Path, required=True, help="CSV file that results are appended to")
    parser.add_argument("--only", nargs="*", help="networks; all in instances.csv")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--instances", type=int, default=100, help="the first so many of each network")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds an instance (of this process)")
    given = parser.parse_args()
    x, _ = images(given.data, "test")
    done = {(row["network"], row["image"], row["method"]) for row in read(given.results)}
    wanted = read(given.nets / "instances.csv")
    for network in dict.fromkeys(row["network"] for row in wanted):
        if given.only and network not in given.only:
            continue
        task = Task(load(given.nets / f"{network}.onnx").graph)
        for row in [row for row in wanted if row["network"] == network][: given.instances]:
            for method in given.methods:
                if (network, row["image"], method) in done:
                    continue
                started = time.process_time()
                outcome = task.decide(method, x[int(row["image"])], int(row["label"]), float(row["eps"]), given.timeout)
                seconds = time.process_time() - started
                with given.results.open("a", newline="") as file:
                    writer = csv.writer(file)
                    if file.tell() == 0:
                        writer.writerow(COLUMNS)
                    entry = (network, row["image"], method, given.timeout, outcome.status, f"{seconds:.3f}")
                    writer.writerow([*entry, outcome.domains])
    print(table(read(given.results), given.methods))


if __name__ == "__main__":
    main()
