"""The last resort of the deadline: a thread that answers when the main thread is stuck in a long kernel."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..verify.budget import Deadline


class Watchdog:
    """Ends the process with a ready-made answer unless the main thread claims the answer in time.

    `deadline` plus `grace` (seconds) is the moment; `expire` writes the answer, then the process ends with `status`.
    Exactly one of the two threads gets to answer: the main thread calls `claim` before it writes anything.
    """

    def __init__(self, deadline: Deadline, grace: float, expire: Callable[[], None], status: int) -> None:
        self._deadline = deadline
        self._grace = grace
        self._expire = expire
        self._status = status
        self._answer = threading.Lock()
        self._cancelled = threading.Event()

    def __enter__(self) -> Watchdog:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cancelled.set()

    def claim(self) -> None:
        """Take the right to answer; never returns if the watchdog took it first (it is ending the process)."""
        self._answer.acquire()

    def _watch(self) -> None:
        if self._cancelled.wait(max(0.0, self._deadline.remaining + self._grace)):
            return
        if self._answer.acquire(blocking=False):
            try:
                self._expire()
            finally:
                os._exit(self._status)
