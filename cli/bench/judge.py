"""Comparing answers with what is expected of them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ...specs.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .record import Key, Record
    from .suite import Instance


class Judgement(Enum):
    """What to think of an answer; the values are the words in reports, worst first."""

    WRONG = "wrong"
    UNCONFIRMED = "unconfirmed"
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
    """A known verdict (sat, unsat, or unknown where nobody knows), and what is recorded of a peer.

    peer          its verdict; empty where none is recorded.
    peer_seconds  its seconds, where they are recorded.
    """

    verdict: str
    peer: str = ""
    peer_seconds: float | None = None


def judge(record: Record, expected: str) -> Judgement:
    """Judge an answer.

    `sat` counts by its witness: replayed, it is right whatever was expected; refuted, it is wrong; where it could not
    be replayed, it is unconfirmed. `unsat` is wrong where a counterexample is known. Where nothing is known, an answer
    is new.
    """
    if record.verdict == "error":
        return Judgement.ERROR
    if record.verdict == "sat":
        if record.replayed is None:
            return Judgement.UNCONFIRMED
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
                known[row["benchmark"] or "", row["onnx"] or "", row["vnnlib"] or ""] = Expectation(
                    (row["verdict"] or "").strip().lower(),
                    (row.get("abcrown_result") or "").strip().lower(),
                    _seconds(row.get("abcrown_time_s")),
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise SpecError(f"{file} is no table of expected answers: {error}") from error
    return known


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None


def expected_of(
    instances: Sequence[Instance], known: Mapping[Key, Expectation], source: str
) -> tuple[dict[Key, Expectation], list[str]]:
    """What the table `known` (read from `source`) says of the instances, by their keys, and remarks for the user.

    A set is found by its name. Where the table has no set of that name, its folder may have been renamed: then the one
    set in the table that has instances of the same file names stands for it.
    """
    by_files: dict[tuple[str, str], set[str]] = {}
    for name, onnx, vnnlib in known:
        by_files.setdefault((onnx, vnnlib), set()).add(name)
    names = {name for name, _, _ in known}
    found: dict[Key, Expectation] = {}
    remarks = []
    for name in dict.fromkeys(instance.set for instance in instances):
        own = [instance for instance in instances if instance.set == name]
        called = name
        if name not in names:
            others = set().union(*(by_files.get((instance.onnx, instance.vnnlib), set()) for instance in own))
            if len(others) == 1:
                called = others.pop()
                remarks.append(f"{source} has no set {name}; its set {called}, of the same files, stands for it")
        matched = {i.key: known[called, i.onnx, i.vnnlib] for i in own if (called, i.onnx, i.vnnlib) in known}
        if not matched:
            remarks.append(f"{source} has no row for any instance of set {name}: wrong answers would pass unnoticed")
        found |= matched
    return found, remarks
