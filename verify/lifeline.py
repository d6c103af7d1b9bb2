"""A child process that lives no longer than its parent, however the parent ends."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9


def end_when_closed(source: BinaryIO) -> None:
    """End this process when the other end of its input `source`, of which nothing more is read, is gone."""
    threading.Thread(target=_wait_for_end, args=(source.fileno(),), name="lifeline", daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    # (Not by the stream: its lock would be in the way of an orderly end.)
    while os.read(descriptor, 4096):
        pass
    os._exit(1)


def die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, also while foreign code keeps the interpreter from running."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
