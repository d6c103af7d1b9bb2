"""One instance in one process of its own, with its time, its memory and its end under control."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    status      exit status; negative: the signal that ended it.
    seconds     wall time.
    peak_bytes  largest resident set.
    killed      whether it was ended here because its time was over.
    """

    status: int
    seconds: float
    peak_bytes: int
    killed: bool


class Processes:
    """Starts processes, each the leader of its own group, and can end all that still run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._stopped = False

    def run(
        self,
        command: Sequence[str],
        seconds: float,
        stdout: IO[bytes],
        stderr: IO[bytes],
        environment: Mapping[str, str],
    ) -> Ended:
        """Run `command` to its end, or kill its whole group after `seconds`.

        Its standard input stays open while it runs, so that it may tell when this process is gone (see
        `verify.lifeline`). Raises InterruptedError once `stop` was called.
        """
        start = time.monotonic()
        with self._lock:
            if self._stopped:
                raise InterruptedError("the run was stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=dict(environment),
                start_new_session=True,
            )
            self._running.add(process.pid)
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._kill(process.pid)

        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), kill)
        timer.daemon = True
        timer.start()
        try:
            status, peak = self._wait(process)
        finally:
            timer.cancel()
            assert process.stdin is not None
            process.stdin.close()
        return Ended(status, time.monotonic() - start, peak, late.is_set() and status == -signal.SIGKILL)

    def _wait(self, process: subprocess.Popen[bytes]) -> tuple[int, int]:
        """Wait for the end; the exit status and the peak resident bytes."""
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._running.discard(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss * 1024

    def stop(self) -> None:
        """Kill everything that runs and start nothing more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for pid in running:
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        """Kill the group of a process that has not been waited for, so that its number is still its own."""
        with self._lock:
            if pid in self._running:
                os.killpg(pid, signal.SIGKILL)
