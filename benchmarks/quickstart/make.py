"""Make the quickstart suite again: train the networks, write the queries, establish every answer.

    python benchmarks/quickstart/make.py

Overwrites `onnx/`, `vnnlib/`, `instances.csv` and `expected.csv` beside this file. Needs the `test` extra.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from nets import train_all, write_onnx
from queries import TIMEOUT, all_queries, confirm, text

HERE = Path(__file__).resolve().parent

KNOWN = ("benchmark", "onnx", "vnnlib", "timeout_s", "verdict", "note")
"""The columns that are filled in; the others are there because VNN-COMP's table of answers has them."""

COLUMNS = (
    *("benchmark_year", "benchmark", "onnx", "vnnlib", "timeout_s", "verdict", "n_tools_solved", "best_tool"),
    *("best_time_s", "abcrown_time_s", "abcrown_result", "tools_run", "note", "source_benchmark"),
)


def main() -> None:
    """Write everything; stops with an error where an intended answer cannot be established."""
    networks = train_all()
    (HERE / "onnx").mkdir(exist_ok=True)
    (HERE / "vnnlib").mkdir(exist_ok=True)
    for network in networks.values():
        write_onnx(network, HERE / "onnx")
    rng = np.random.default_rng(0)
    instances, expected = [], []
    for query in all_queries():
        network = networks[query.network]
        note = confirm(query, network, rng)
        (HERE / "vnnlib" / f"{query.name}.vnnlib").write_text(text(query, network))
        names = f"onnx/{query.network}.onnx", f"vnnlib/{query.name}.vnnlib"
        instances.append((*names, TIMEOUT))
        expected.append(dict(zip(KNOWN, ("quickstart", *names, TIMEOUT, query.answer, note), strict=True)))
        print(f"{query.answer:6} {query.name}: {note}")
    with open(HERE / "instances.csv", "w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(instances)
    with open(HERE / "expected.csv", "w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(expected)


if __name__ == "__main__":
    main()
