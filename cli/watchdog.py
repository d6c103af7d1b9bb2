"""A thread that answers when the main thread cannot: at the deadline, and on Ctrl-C, while a long kernel runs."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from .output import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..verify.budget import Deadline

_DONE = 0
"""What is sent to the thread that waits for signals when there are no more; signals send their numbers."""


_AGAIN = 1.0
"""Seconds within which a second interrupt is the first one's echo: a terminal and a wrapper may both send it."""


class Watchdog:
    """Ends the process with a ready-made answer unless the main thread claims the answer in time.

    `deadline` plus `grace` (seconds) is the moment. `expire` and `interrupt` (after Ctrl-C) write the answer and return
    the process's status. Exactly one of the two threads gets to answer: the main thread calls `claim` before it writes
    anything. While a watchdog is entered from the main thread, Ctrl-C raises no KeyboardInterrupt; a second one ends
    the process at once, for the case that writing the answer takes for ever.
    """

    def __init__(
        self, deadline: Deadline, grace: float, expire: Callable[[], int], interrupt: Callable[[], int]
    ) -> None:
        self._deadline = deadline
        self._grace = grace
        self._expire = expire
        self._interrupt = interrupt
        self._answer = threading.Lock()
        self._claimed = False
        self._patience = math.inf
        self._done = threading.Event()
        self._signals: _Signals | None = None

    def __enter__(self) -> Watchdog:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._signals = _Signals(self._count, lambda: self._end(self._interrupt))
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.claim()
        if self._signals is not None:
            self._signals.close()
        self._done.set()

    def claim(self) -> None:
        """Take the right to answer; never returns if the watchdog took it first (it is ending the process)."""
        if not self._claimed:
            self._answer.acquire()
            self._claimed = True

    def _count(self, *_: Any) -> None:
        now = time.monotonic()
        if now > self._patience:
            os._exit(INTERRUPTED)
        self._patience = min(self._patience, now + _AGAIN)

    def _watch(self) -> None:
        seconds = max(0.0, self._deadline.remaining + self._grace)
        if not self._done.wait(min(seconds, threading.TIMEOUT_MAX)):
            self._end(self._expire)

    def _end(self, answer: Callable[[], int]) -> None:
        """Answer and end the process, unless the main thread is answering."""
        if not self._answer.acquire(blocking=False):
            return
        status = 1
        try:
            status = answer()
        finally:
            os._exit(status)


class _Signals:
    """Calls `act` in a thread of its own on Ctrl-C, and `handler` in the main thread when that comes to it.

    A handler in Python has to wait for the main thread; what the system's own handler writes into a pipe is there at
    once. To be made and closed in the main thread.
    """

    def __init__(self, handler: Callable[..., None], act: Callable[[], None]) -> None:
        self._act = act
        self._reader, self._writer = os.pipe()
        if os.name == "posix":
            os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._handler = signal.signal(signal.SIGINT, handler)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        """Let signals do what they did before."""
        signal.set_wakeup_fd(self._wakeup)
        signal.signal(signal.SIGINT, self._handler)
        os.write(self._writer, bytes([_DONE]))

    def _listen(self) -> None:
        while (number := os.read(self._reader, 1)[0]) != _DONE:
            if number == signal.SIGINT:
                self._act()
        os.close(self._reader)
        os.close(self._writer)
