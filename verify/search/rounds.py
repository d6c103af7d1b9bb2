"""What the searches' rounds have in common: taking domains from blocks, sharing a batch among threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def take(blocks: list[Any], count: int) -> list[Any]:
    """Up to `count` domains off the end of a list of blocks, newest block first; what is left of a block stays."""
    taken = []
    missing = count
    while missing and blocks:
        block = blocks.pop()
        if len(block) > missing:
            blocks.append(block.pick(slice(0, len(block) - missing)))
            block = block.pick(slice(len(block) - missing, len(block)))
        taken.append(block)
        missing -= len(block)
    return taken


def pieces(domains: Any, workers: int, fewest: int) -> list[Any]:
    """The batch in equal parts, one a worker; fewer than `fewest` a worker stay whole (a thread costs more than it
    brings)."""
    count = len(domains)
    if workers == 1 or count < fewest * workers:
        return [domains]
    size = -(-count // workers)
    return [domains.pick(slice(start, min(start + size, count))) for start in range(0, count, size)]


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor | None]:
    """So many threads for `on_threads`, or None if it is one; at the end those at work are waited for, and what has not
    begun is dropped."""
    if workers == 1:
        yield None
        return
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def on_threads(executor: ThreadPoolExecutor | None, work: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
    """The work's answer for every part, in order."""
    if executor is None or len(parts) == 1:
        return [work(part) for part in parts]
    return list(executor.map(work, parts))
