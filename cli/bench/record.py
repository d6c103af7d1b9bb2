"""One finished instance, and the file of them that survives a kill at any moment."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...specs.errors import BoundsmithError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

RECORD_SCHEMA = "boundsmith.bench-record/1"

Key = tuple[str, str, str]
"""What names an instance: its set, and its network and query as `instances.csv` writes them."""


@dataclass(frozen=True)
class Record:
    """What became of one instance.

    set, onnx, vnnlib    the instance's name.
    timeout              seconds it was given.
    verdict              unsat, sat, unknown, timed-out or error.
    seconds, peak_bytes  of the whole process; peak_bytes is the largest resident set.
    status               the process's exit status; negative: the signal that ended it.
    replayed             whether the witness of a `sat` was confirmed here; None if there is none to confirm, or it
                         could not be replayed.
    message              the last thing the process had to say, where the verdict is error; or why a replay failed.
    best_bound, counters, phases, method  from the result's JSON, where there is one.
    """

    set: str
    onnx: str
    vnnlib: str
    timeout: float
    verdict: str
    seconds: float
    peak_bytes: int
    status: int
    replayed: bool | None = None
    message: str = ""
    best_bound: float | str | None = None
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    phases: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    method: str = ""

    @property
    def key(self) -> Key:
        """What names the instance."""
        return self.set, self.onnx, self.vnnlib

    def to_line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps({"schema": RECORD_SCHEMA, **dataclasses.asdict(self)}, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The record that `to_line` wrote. Raises ValueError for anything else."""
        try:
            content = json.loads(line, parse_constant=_no_constant)
            if not isinstance(content, dict) or content.pop("schema", None) != RECORD_SCHEMA:
                raise ValueError(f"not a line of schema {RECORD_SCHEMA}")
            record = cls(**content)
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        for entry, kinds in _KINDS.items():
            value = getattr(record, entry)
            odd = isinstance(value, bool) and bool not in kinds
            if odd or not isinstance(value, kinds) or (isinstance(value, float) and not math.isfinite(value)):
                raise ValueError(f"{entry} is {value!r}")
        return record


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("set", "onnx", "vnnlib", "verdict", "message", "method"), (str,)),
    **dict.fromkeys(("timeout", "seconds"), (int, float)),
    **dict.fromkeys(("peak_bytes", "status"), (int,)),
    "replayed": (bool, type(None)),
    "best_bound": (int, float, str, type(None)),
    "counters": (dict,),
    "phases": (list,),
}
"""The types of a record's entries."""


class Journal:
    """The file `results.jsonl`: an append is on disk when it returns, and a half-written last line is forgotten.

    Only one process at a time may hold a journal open. Raises BoundsmithError if another does, or if the file holds
    something else than records.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream = file.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise BoundsmithError(f"{file} is in use by another bench; wait for it or choose another --out") from error
        self.records = self._read()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, record: Record) -> None:
        """Add a record and wait until it is on disk."""
        self._stream.write(record.to_line().encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.records.append(record)

    def _read(self) -> list[Record]:
        self._stream.seek(0)
        content = self._stream.read()
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) < len(content):
            self._stream.truncate(len(complete))
        records = []
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            try:
                records.append(Record.from_line(line.decode()))
            except ValueError as error:
                raise BoundsmithError(
                    f"{self._file} line {number} is no record of a bench ({error}); remove that line to run its "
                    "instance again"
                ) from error
        return records
