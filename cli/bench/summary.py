"""What a run amounts to: disagreements first, then a table a set, as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..atomic import write_json, write_text
from .judge import Expectation, Judgement, judge
from .plot import write_cactus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .record import Key, Record

SUMMARY_SCHEMA = "boundsmith.bench/1"

_COLUMNS = ("set", "onnx", "vnnlib", "timeout", "expected", "verdict", "seconds", "peak_mb", "judgement", "message")


@dataclass(frozen=True)
class Judged:
    """A record with what was expected of it and what to think of it."""

    record: Record
    expected: str
    judgement: Judgement


@dataclass(frozen=True)
class Summary:
    """A whole run: its judged records and how many instances it should have had."""

    judged: tuple[Judged, ...]
    total: int

    @property
    def disagreements(self) -> tuple[Judged, ...]:
        """Answers that contradict the expected ones, wrong ones first."""
        found = [entry for entry in self.judged if entry.judgement.disagrees]
        return tuple(sorted(found, key=lambda entry: entry.judgement is not Judgement.WRONG))

    @property
    def wrong(self) -> int:
        """How many answers are wrong."""
        return sum(entry.judgement is Judgement.WRONG for entry in self.judged)

    def counts(self) -> dict[str, Counter[str]]:
        """For each set, and under "total", how often each verdict and each judgement occurred, and instances."""
        table: dict[str, Counter[str]] = {}
        for entry in self.judged:
            for row in (entry.record.set, "total"):
                table.setdefault(row, Counter()).update((entry.record.verdict, entry.judgement.value, "instances"))
        if "total" in table:
            table["total"] = table.pop("total")
        return table

    def seconds(self, name: str) -> float:
        """Seconds spent on a set, or on all of them for "total"."""
        return sum(entry.record.seconds for entry in self.judged if name in (entry.record.set, "total"))


def summarise(records: Sequence[Record], expected: Mapping[Key, Expectation], total: int) -> Summary:
    """Judge every record against the expected answers."""
    unknown = Expectation("unknown")
    judged = []
    for record in records:
        wanted = expected.get(record.key, unknown).verdict
        judged.append(Judged(record, wanted, judge(record, wanted)))
    return Summary(tuple(judged), total)


def describe(summary: Summary) -> str:
    """The report as lines of text: disagreements, errors, then one line a set."""
    lines = []
    for entry in summary.disagreements:
        record = entry.record
        note = f" ({record.message})" if record.message else ""
        lines.append(
            f"{entry.judgement.value.upper()}: {record.set} {record.onnx} {record.vnnlib}: "
            f"answered {record.verdict}, expected {entry.expected}{note}"
        )
    lines.extend(
        f"error: {entry.record.set} {entry.record.onnx} {entry.record.vnnlib}: {entry.record.message}"
        for entry in summary.judged
        if entry.judgement is Judgement.ERROR
    )
    columns = ("instances", "unsat", "sat", "unknown", "timed-out", "error", "right", "new", "wrong")
    counts = summary.counts()
    if len(counts) == 2:
        del counts["total"]
    width = max((len(name) for name in counts), default=5)
    lines.append(" ".join([f"{'set':{width}}", *(f"{column:>9}" for column in columns), f"{'seconds':>9}"]))
    for name, counted in counts.items():
        figures = [f"{counted[column]:>9}" for column in columns]
        lines.append(" ".join([f"{name:{width}}", *figures, f"{summary.seconds(name):>9.1f}"]))
    missing = summary.total - len(summary.judged)
    if missing:
        lines.append(f"{missing} of {summary.total} instances are missing; --resume runs them")
    return "\n".join(lines)


def to_object(summary: Summary) -> dict[str, Any]:
    """The report as one JSON object."""
    return {
        "schema": SUMMARY_SCHEMA,
        "instances": summary.total,
        "finished": len(summary.judged),
        "wrong": summary.wrong,
        "disagreements": [_row(entry) for entry in summary.disagreements],
        "sets": {name: {**counted, "seconds": summary.seconds(name)} for name, counted in summary.counts().items()},
    }


def _row(entry: Judged) -> dict[str, Any]:
    record = entry.record
    values = (
        record.set,
        record.onnx,
        record.vnnlib,
        record.timeout,
        entry.expected,
        record.verdict,
        record.seconds,
        record.peak_bytes >> 20,
        entry.judgement.value,
        record.message,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def write_reports(folder: Path, summary: Summary, expected: Mapping[Key, Expectation]) -> None:
    """Write `results.csv`, `summary.json`, `summary.txt` and `cactus.png` into a run's folder."""
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(entry) for entry in summary.judged)
    write_text(folder / "results.csv", table.getvalue())
    write_json(folder / "summary.json", to_object(summary))
    write_text(folder / "summary.txt", describe(summary) + "\n")
    write_cactus(folder / "cactus.png", _curves(summary, expected), summary.total)


def _curves(summary: Summary, expected: Mapping[Key, Expectation]) -> dict[str, list[float]]:
    """Our seconds on what we solved, and a peer's recorded seconds on the same instances where it solved them."""
    solved = (Judgement.RIGHT, Judgement.NEW, Judgement.NEW_COUNTEREXAMPLE)
    curves = {"boundsmith": [entry.record.seconds for entry in summary.judged if entry.judgement in solved]}
    known = [expected[entry.record.key].peer_seconds for entry in summary.judged if entry.record.key in expected]
    peer = [seconds for seconds in known if seconds is not None]
    if peer:
        curves["alpha,beta-CROWN (recorded)"] = peer
    return curves
