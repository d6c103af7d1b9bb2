"""Threads that bound rows of one call: numpy lets go of the interpreter's lock while it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

Job = TypeVar("Job")


@dataclass(frozen=True)
class Workers:
    """An executor and how many threads it has. The caller must not be one of them: it waits for their answers."""

    executor: Executor
    count: int


def run(call: Callable[[Job], None], jobs: Sequence[Job], workers: Workers | None) -> None:
    """Call with every job, in the threads of `workers` where there are several of both."""
    if workers is None or workers.count == 1 or len(jobs) == 1:
        for job in jobs:
            call(job)
    else:
        for _ in workers.executor.map(call, jobs):
            pass
