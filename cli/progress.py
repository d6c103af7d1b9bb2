"""Showing a long run: a live table on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from .output import one_line

if TYPE_CHECKING:
    from types import TracebackType


class Progress:
    """Counts finished steps and tells how many are done, their outcomes, and the time left.

    total    number of steps; done: how many were finished before, in an earlier run.
    jobs     how many steps run at a time.
    """

    def __init__(self, title: str, total: int, done: int = 0, jobs: int = 1) -> None:
        self._title = title
        self._total = total
        self._done = done
        self._first = done
        self._jobs = jobs
        self._outcomes: Counter[str] = Counter()
        self._recent: list[str] = []
        self._start = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(get_renderable=self._table, console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            # (The terminal may be gone; the run's end is not to be hidden by that.)
            with contextlib.suppress(OSError):
                self._live.stop()

    def step(self, outcome: str, line: str) -> None:
        """One more step is done: `outcome` is counted, `line` shown."""
        self._done += 1
        self._outcomes[outcome] += 1
        if self._live is None:
            print(f"[{self._done}/{self._total}] {one_line(line)}", file=sys.stderr, flush=True)
        else:
            self._recent = [*self._recent[-7:], one_line(line)]
            self._live.refresh()

    def time_left(self) -> float | None:
        """Seconds left if the rest goes as the steps so far; None before the first."""
        finished = self._done - self._first
        if not finished:
            return None
        return (time.monotonic() - self._start) / finished * (self._total - self._done)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        left = self.time_left()
        outcomes = ", ".join(f"{count} {name}" for name, count in self._outcomes.most_common())
        table = Table.grid(padding=(0, 1))
        # Names come from files: as plain strings, brackets in them would be markup.
        table.add_row(Text(one_line(self._title), "bold"), f"{self._done} of {self._total} done", Text(outcomes))
        table.add_row("", f"time left {_clock(left)}" if left is not None else "", f"{self._jobs} at a time")
        for line in self._recent:
            table.add_row("", "", Text(line))
        return table


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds as ``h:mm:ss``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
