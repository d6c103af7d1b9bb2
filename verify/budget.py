"""Time and memory budgets. They are passed explicitly and asked everywhere; nothing reads a global."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def process_start() -> float:
    """The `time.monotonic` reading at which this process started (interpreter start-up included).

    Read from the operating system on Linux; elsewhere the moment of the first call, which `boundsmith` makes first
    thing.
    """
    try:
        with open("/proc/self/stat", "rb") as stat:
            started_ticks = int(stat.read().rsplit(b")", 1)[1].split()[19])
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic() - max(0.0, uptime - started_ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic()


class TimeUp(Exception):
    """The deadline passed in the middle of a computation; whoever owns the verdict turns it into `timed-out`."""


@dataclass(frozen=True)
class Deadline:
    """A moment on a clock, in seconds, after which no work may start.

    clock: the monotonic one, unless a caller counts otherwise (`time.process_time`: what this process computes).
    """

    at: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, start: float | None = None, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline `seconds` after `start` (a reading of the clock; default now)."""
        return cls((clock() if start is None else start) + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left; negative once passed."""
        return self.at - self.clock()

    @property
    def passed(self) -> bool:
        return self.remaining <= 0

    def check(self) -> None:
        """Raise `TimeUp` if the deadline has passed."""
        if self.passed:
            raise TimeUp

    def sooner(self, seconds: float) -> Deadline:
        """The earlier of this deadline and `seconds` from now."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)


NEVER = Deadline(float("inf"))
"""The deadline of a caller who sets none."""


@dataclass(frozen=True)
class MemoryBudget:
    """How many bytes of temporaries a step may allocate."""

    bytes: int

    @classmethod
    def default(cls) -> MemoryBudget:
        """An eighth of the memory that is available now, between 256 MiB and 1 GiB: several temporaries live at
        once."""
        try:
            available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            available = 4 << 30
        return cls(max(256 << 20, min(1 << 30, available // 8)))

    def rows(self, bytes_per_row: int, at_most: int) -> int:
        """How many rows of `bytes_per_row` fit, at least 1 and at most `at_most`."""
        return max(1, min(at_most, self.bytes // max(1, bytes_per_row)))
