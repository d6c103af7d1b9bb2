"""Comparing answers with what is expected of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ...specs.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from .record import Key, Record


class Judgement(Enum):
    """What to think of an answer; the values are the words in reports, worst first."""

    WRONG = "wrong"
    NEW_COUNTEREXAMPLE = "new counterexample"
    ERROR = "error"
    NEW = "new"
    RIGHT = "right"
    OPEN = "open"

    @property
    def disagrees(self) -> bool:
        """Whether the answer contradicts the expected one."""
        return self in (Judgement.WRONG, Judgement.NEW_COUNTEREXAMPLE)


@dataclass(frozen=True)
class Expectation:
    """A known verdict (sat, unsat, or unknown where nobody knows) and a peer's seconds, where it was solved."""

    verdict: str
    peer_seconds: float | None = None


def judge(record: Record, expected: str) -> Judgement:
    """Judge an answer.

    `sat` counts by its witness: replayed, it is right whatever was expected; not replayed, it is wrong. `unsat` is
    wrong where a counterexample is known. Where nothing is known, an answer is new.
    """
    if record.verdict == "error":
        return Judgement.ERROR
    if record.verdict == "sat":
        if not record.replayed:
            return Judgement.WRONG
        return {"sat": Judgement.RIGHT, "unsat": Judgement.NEW_COUNTEREXAMPLE}.get(expected, Judgement.NEW)
    if record.verdict == "unsat":
        return {"unsat": Judgement.RIGHT, "sat": Judgement.WRONG}.get(expected, Judgement.NEW)
    return Judgement.OPEN


def read_expected(file: Path) -> dict[Key, Expectation]:
    """Read a table of known answers by its header: columns benchmark, onnx, vnnlib and verdict.

    The columns abcrown_result and abcrown_time_s give the peer's seconds, if they are there. Raises SpecError for a
    file that is no such table.
    """
    known: dict[Key, Expectation] = {}
    with open(file, newline="", encoding="utf-8") as stream:
        try:
            rows = csv.DictReader(stream)
            missing = {"benchmark", "onnx", "vnnlib", "verdict"} - set(rows.fieldnames or ())
            if missing:
                raise SpecError(f"{file} has no column {', '.join(sorted(missing))}; it cannot be the expected answers")
            for row in rows:
                known[row["benchmark"], row["onnx"], row["vnnlib"]] = Expectation(
                    row["verdict"],
                    _seconds(row.get("abcrown_time_s")) if row.get("abcrown_result") in ("sat", "unsat") else None,
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise SpecError(f"{file} is no table of expected answers: {error}") from error
    return known


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
