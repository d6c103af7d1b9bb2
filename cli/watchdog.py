"""A thread that answers when the main thread cannot: at the deadline, and on Ctrl-C, while a long kernel runs."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

from .output import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ..verify.budget import Deadline

_ENDLESS = 1e8
"""Seconds from which a deadline is none: the system's calls take no larger ones."""

_DONE = 0
"""What is sent to the thread when the main thread has answered; signals send their numbers, which are positive."""


class Watchdog:
    """Ends the process with a ready-made answer unless the main thread claims the answer in time.

    `deadline` plus `grace` (seconds) is the moment. `expire` and `interrupt` (after Ctrl-C) write the answer and return
    the process's status. Exactly one of the two threads gets to answer: the main thread calls `claim` before it writes
    anything. While a watchdog is entered from the main thread, Ctrl-C raises no KeyboardInterrupt; a second one, or one
    after `claim`, ends the process at once.
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
        self._interrupts = 0
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._before: Any = None

    def __enter__(self) -> Watchdog:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            # A handler in Python waits for the main thread; the number that is sent is there at once.
            wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
            self._before = signal.signal(signal.SIGINT, self._count), wakeup
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.claim()
        if self._before is not None:
            handler, wakeup = self._before
            signal.set_wakeup_fd(wakeup)
            signal.signal(signal.SIGINT, handler)
        self._sender.send(bytes([_DONE]))

    def claim(self) -> None:
        """Take the right to answer; never returns if the watchdog took it first (it is ending the process)."""
        if not self._claimed:
            self._answer.acquire()
            self._claimed = True

    def _count(self, *_: Any) -> None:
        if self._claimed or self._interrupts:
            os._exit(INTERRUPTED)
        self._interrupts += 1

    def _watch(self) -> None:
        with self._receiver, self._sender:
            while True:
                seconds = max(0.0, self._deadline.remaining + self._grace)
                ready, _, _ = select.select([self._receiver], [], [], seconds if seconds < _ENDLESS else None)
                if not ready:
                    self._end(self._expire)
                    return
                received = self._receiver.recv(64)
                if signal.SIGINT in received:
                    self._end(self._interrupt)
                elif _DONE in received:
                    return

    def _end(self, answer: Callable[[], int]) -> None:
        """Answer and end the process, unless the main thread is answering."""
        if not self._answer.acquire(blocking=False):
            return
        status = 1
        try:
            status = answer()
        finally:
            os._exit(status)
