"""Runs the methods on the instances and prints the table: proved, seconds, domains.

`python run.py --data mnist.npz --nets DIR --results FILE.csv` appends a line an instance and method, skips those that
are there already, and prints the table of all that the file holds.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from boundsmith.verify.loading.network import load
from methods import METHODS, Task
from train import images

COLUMNS = ("network", "image", "method", "limit", "status", "seconds", "domains")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """A Markdown table: for each network and method how many instances were proved (of how many), the mean seconds of
    all of them, and the median of domains of those proved."""
    lines = ["| network | method | proved | seconds | domains |", "|---|---|---|---|---|"]
    for network in dict.fromkeys(row["network"] for row in rows):
        for method in METHODS:
            own = [row for row in rows if (row["network"], row["method"]) == (network, method)]
            if not own:
                continue
            proved = [row for row in own if row["status"] == "proved"]
            seconds = np.mean([float(row["seconds"]) for row in own])
            domains = np.median([int(row["domains"]) for row in proved]) if proved else 0
            lines.append(f"| {network} | {method} | {len(proved)} of {len(own)} | {seconds:.2f} | {domains:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--nets", type=Path, required=True, help="folder with instances.csv and the ONNX files")
    parser.add_argument("--results", type=Path, required=True, help="CSV file that results are appended to")
    parser.add_argument("--only", nargs="*", help="networks; all in instances.csv")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--instances", type=int, default=100, help="the first so many of each network")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds an instance")
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
                started = time.monotonic()
                outcome = task.decide(method, x[int(row["image"])], int(row["label"]), float(row["eps"]), given.timeout)
                seconds = time.monotonic() - started
                with given.results.open("a", newline="") as file:
                    writer = csv.writer(file)
                    if file.tell() == 0:
                        writer.writerow(COLUMNS)
                    entry = (network, row["image"], method, given.timeout, outcome.status, f"{seconds:.3f}")
                    writer.writerow([*entry, outcome.domains])
    print(table(read(given.results)))


if __name__ == "__main__":
    main()
