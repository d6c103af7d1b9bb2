"""The child process of `highs.solve_integer`: reads one programme, answers one solution, lives no longer than asked.

``python -m boundsmith.verify.programs.highs_child``; the protocol is 8 bytes of length (little endian) and a pickle on
standard input, a pickle on standard output. Both ends are this package.
"""

from __future__ import annotations

import os
import pickle
import sys

from ..lifeline import die_with_parent, end_when_closed
from .highs import Solution, run_highs
from .program import Program


def main() -> None:
    """Answer one request."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # A solver that prints must not garble the answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    die_with_parent()
    header = source.read(8)
    request = source.read(int.from_bytes(header, "little"))
    end_when_closed(source)
    arrays, seconds, threads, target, memory, presolve = pickle.loads(request)
    if memory is not None:
        _limit_memory(memory)
    try:
        answer = run_highs(Program(**arrays), seconds=seconds, threads=threads, target=target, presolve=presolve)
    except MemoryError:
        answer = Solution("limit", message="HiGHS ran out of memory")
    sink.write(pickle.dumps(answer))
    sink.flush()
    # The solver's threads and its tree are not worth an orderly end.
    os._exit(0)


def _limit_memory(memory: int) -> None:
    """Let the system refuse allocations beyond so many bytes, where it can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


if __name__ == "__main__":
    main()
