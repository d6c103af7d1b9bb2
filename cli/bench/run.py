"""Running instances: which are left, one process each, a record as each one ends."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from .record import Record
from .replay import NotReplayed, confirm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .process import Ended, Processes
    from .suite import Instance

VERDICTS = ("unsat", "sat", "unknown", "timed-out")

_GRACE = 5.0
"""Seconds past an instance's limit (2 % more for long ones) after which its process is killed."""


@dataclass(frozen=True)
class Settings:
    """How every instance is run: further arguments of `verify`, a cap on its seconds, and processes at a time."""

    arguments: tuple[str, ...] = ()
    cap: float | None = None
    jobs: int = 1

    def limit(self, instance: Instance) -> float:
        """The seconds an instance gets."""
        return instance.timeout if self.cap is None else min(instance.timeout, self.cap)


def run_all(
    instances: Sequence[Instance], settings: Settings, folder: Path, processes: Processes
) -> Iterator[tuple[Instance, Record]]:
    """Yield each instance with its record as it ends. Results in JSON are left in `folder`.

    Leaving the iteration early, by an exception or an interrupt too, kills what still runs.
    """
    waiting = iter(instances)
    with ThreadPoolExecutor(settings.jobs) as threads:
        running: dict[Future[Record], Instance] = {}
        try:
            while True:
                while len(running) < settings.jobs and (instance := next(waiting, None)) is not None:
                    running[threads.submit(run_safely, instance, settings, folder, processes)] = instance
                if not running:
                    return
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(ended), ended.result()
        finally:
            processes.stop()


def run_safely(instance: Instance, settings: Settings, folder: Path, processes: Processes) -> Record:
    """`run_one`, whose failures are this instance's errors: those after it must run.

    Raises InterruptedError once the processes were stopped.
    """
    try:
        return run_one(instance, settings, folder, processes)
    except InterruptedError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        # A name that the system does not take, a folder where the report should be, no memory for the replay ...
        message = f"bench itself failed: {error or type(error).__name__}"
        return Record(
            set=instance.set,
            onnx=instance.onnx,
            vnnlib=instance.vnnlib,
            timeout=settings.limit(instance),
            verdict="error",
            seconds=0.0,
            peak_bytes=0,
            status=0,
            message=message,
        )


def run_one(instance: Instance, settings: Settings, folder: Path, processes: Processes) -> Record:
    """Run one instance to its end and judge its witness, if it has one."""
    limit = settings.limit(instance)
    report = folder / f"{instance.label}.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "boundsmith.cli.bench.child", "verify", str(instance.query)]
    for name, file in instance.networks.items():
        command += ["--network", f"{name}={file}" if name else str(file)]
    command += ["--timeout", str(limit), "--json", str(report), *settings.arguments]
    if settings.jobs > 1:
        command += ["--threads", str(_threads(settings.jobs))]
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        ended = processes.run(command, limit + _GRACE + 0.02 * limit, stdout, stderr, _environment(settings.jobs))
        lines = _lines(stdout)
        complaints = _lines(stderr)
    verdict, message = _verdict(ended, lines, complaints)
    replayed: bool | None = None
    if verdict == "sat":
        try:
            message = confirm(instance.query, instance.networks, lines[1:])
            replayed = not message
        except NotReplayed as error:
            message = str(error)
    return Record(
        set=instance.set,
        onnx=instance.onnx,
        vnnlib=instance.vnnlib,
        timeout=limit,
        verdict=verdict,
        seconds=round(ended.seconds, 3),
        peak_bytes=ended.peak_bytes,
        status=ended.status,
        replayed=replayed,
        message=message,
        **_figures(report),
    )


def _verdict(ended: Ended, lines: list[str], complaints: list[str]) -> tuple[str, str]:
    """The verdict that a process printed, and why there is none. A killed or failed process has given no verdict."""
    if ended.killed:
        return "timed-out", "the process was killed past its limit"
    if ended.status < 0:
        return "error", f"the process was ended by signal {-ended.status}"
    if ended.status == 0 and lines and lines[0] in VERDICTS:
        return lines[0], ""
    return "error", complaints[-1] if complaints else f"the process ended with status {ended.status} and no message"


def _figures(report: Path) -> dict[str, Any]:
    """What a record takes from the result's JSON; nothing where the process did not come to write it."""
    try:
        result = json.loads(report.read_text())
        return {key: result[key] for key in ("best_bound", "counters", "phases", "method")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _environment(jobs: int) -> dict[str, str]:
    """The process's own environment; with several jobs the cores are shared out among them."""
    if jobs == 1:
        return dict(os.environ)
    threads = str(_threads(jobs))
    return {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads} | dict(os.environ)


def _threads(jobs: int) -> int:
    """The threads each of several jobs gets."""
    return max(1, (os.cpu_count() or 1) // jobs)


def _lines(stream: IO[bytes]) -> list[str]:
    stream.seek(0)
    return [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
