"""What a run amounts to: disagreements first, then a table a set, as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...verify.atomic import write_json, write_text
from ..output import counted, one_line
from .judge import Expectation, Judgement, judge
from .plot import Curve, write_cactus

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
        """Answers that contradict the expected ones, wrong ones first; then those whose witness was not replayed."""
        order = (Judgement.WRONG, Judgement.NEW_COUNTEREXAMPLE, Judgement.UNCONFIRMED)
        found = [entry for entry in self.judged if entry.judgement in order]
        return tuple(sorted(found, key=lambda entry: order.index(entry.judgement)))

    @property
    def wrong(self) -> int:
        """How many answers are wrong."""
        return sum(entry.judgement is Judgement.WRONG for entry in self.judged)

    @property
    def failed(self) -> bool:
        """Whether an answer is wrong, or every instance ended in an error."""
        return self.wrong > 0 or (
            bool(self.judged) and all(entry.judgement is Judgement.ERROR for entry in self.judged)
        )

    def counts(self) -> dict[str, Counter[str]]:
        """For each set, and under "total", how often each verdict and each judgement occurred, and instances."""
        table: dict[str, Counter[str]] = {}
        for entry in self.judged:
            for row in (entry.record.set, "total"):
                # (A verdict and a judgement may be one word: `error`.)
                table.setdefault(row, Counter()).update({entry.record.verdict, entry.judgement.value, "instances"})
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
    for record in {record.key: record for record in records}.values():
        wanted = expected.get(record.key, unknown).verdict
        judged.append(Judged(record, wanted, judge(record, wanted)))
    return Summary(tuple(judged), total)


_SHOWN = ("instances", "unsat", "sat", "unknown", "timed-out", "error", "right", "new", "wrong")
"""What is counted in the printed table."""

_HEADINGS = {"instances": "all"}
"""Shorter headings, so that the table fits into 80 columns."""


def describe(summary: Summary) -> str:
    """The report as lines of text: disagreements, errors, then one line a set."""
    lines = []
    for entry in summary.disagreements:
        note = f" ({entry.record.message})" if entry.record.message else ""
        lines.append(
            f"{entry.judgement.value.upper()}: {_name(entry)}: "
            f"answered {entry.record.verdict}, expected {entry.expected}{note}"
        )
    lines.extend(
        f"error: {_name(entry)}: {entry.record.message}"
        for entry in summary.judged
        if entry.judgement is Judgement.ERROR
    )
    lines = [one_line(line) for line in lines]
    counts = summary.counts()
    if len(counts) == 2:
        del counts["total"]
    rows = [["set", *(_HEADINGS.get(name, name) for name in _SHOWN), "seconds"]]
    for name, row in counts.items():
        rows.append([one_line(name), *(str(row[column]) for column in _SHOWN), f"{summary.seconds(name):.1f}"])
    lines += _aligned(rows)
    missing = summary.total - len(summary.judged)
    if missing:
        verb = "is" if missing == 1 else "are"
        lines.append(f"{missing} of {counted(summary.total, 'instance')} {verb} missing; --resume runs what is missing")
    return "\n".join(lines)


def _name(entry: Judged) -> str:
    return f"{entry.record.set} {entry.record.onnx} {entry.record.vnnlib}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines: the first column to the left, the others to the right, as narrow as they can be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(" ".join([first.ljust(widths[0]), *cells]))
    return lines


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
    write_cactus(folder / "cactus.png", _curves(summary, expected), folder.resolve().name)


def _curves(summary: Summary, expected: Mapping[Key, Expectation]) -> list[Curve]:
    """Our seconds on what we solved; beside a peer's, both on the instances of which the peer's run is recorded."""
    recorded = [
        (entry, wanted)
        for entry in summary.judged
        if (wanted := expected.get(entry.record.key)) is not None and wanted.peer and wanted.peer_seconds is not None
    ]
    judged = [entry for entry, _ in recorded] or summary.judged
    solved = (Judgement.RIGHT, Judgement.NEW, Judgement.NEW_COUNTEREXAMPLE)
    curves = [Curve("boundsmith", [entry.record.seconds for entry in judged if entry.judgement in solved], len(judged))]
    if recorded:
        seconds = [float(wanted.peer_seconds or 0.0) for _, wanted in recorded if wanted.peer in ("sat", "unsat")]
        curves.append(Curve("alpha,beta-CROWN (recorded)", seconds, len(recorded)))
    return curves
