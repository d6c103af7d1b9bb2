"""Runs the campaign and prints the tables: `python benchmarks/trust/run.py --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from campaign import Figures, decide, hostile_queries, tiny_queries

PER_SEED = 42
"""Hostile queries that a seed makes, at most."""


def table(figures: Figures) -> str:
    """Verdicts by kind of query, in Markdown."""
    kinds = list(dict.fromkeys(kind for kind, _ in figures.verdicts))
    columns = ("sat", "unsat", "unknown", "timed-out", "refused", "unchecked")
    lines = ["| queries | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in kinds:
        cells = [str(figures.verdicts[kind, column]) for column in columns]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    total = [str(sum(figures.verdicts[kind, column] for kind in kinds)) for column in columns]
    return "\n".join([*lines, "| all | " + " | ".join(total) + " |"])


def main() -> int:
    """The command; its status is 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["hostile", "tiny"])
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), metavar=("FIRST", "END"))
    parser.add_argument("--limit", type=float, default=1.0, help="seconds a run")
    parser.add_argument("--ways", type=int, default=3, help="ways to run each query in, besides bounds")
    parser.add_argument("--step", type=int, default=50, help="seeds between two lines of progress")
    chosen = parser.parse_args()
    make = hostile_queries if chosen.part == "hostile" else tiny_queries
    figures = Figures()
    first, end = chosen.seeds
    for start in range(first, end, chosen.step):
        part = decide(make(range(start, min(end, start + chosen.step))), chosen.limit, chosen.ways)
        figures.add(part)
        for text in part.wrong:
            print(f"WRONG: {text}", flush=True)
        print(
            f"seeds to {start + chosen.step}: {figures.queries} queries, {figures.runs} runs, {figures.seconds:.0f} s, "
            f"{len(figures.wrong)} wrong",
            flush=True,
        )
    print(table(figures))
    return int(bool(figures.wrong))


if __name__ == "__main__":
    sys.exit(main())
