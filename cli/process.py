"""Settings of the whole process that suit many short array operations in several threads of our own."""

from __future__ import annotations

import ctypes
import os
import sys

_MALLOPT = {"M_TRIM_THRESHOLD": (-1, 1 << 30), "M_TOP_PAD": (-2, 1 << 26), "M_MMAP_THRESHOLD": (-3, 1 << 25)}
"""glibc's numbers of the parameters, and their values in bytes."""


def prepare_process() -> None:
    """Call before numpy is imported.

    Batches are shared among our own threads, so BLAS keeps to one (a user's setting wins). And glibc keeps the memory
    that is freed: by default it returns every temporary of more than 128 kB to the system, and fetching it again page
    by page costs a fifth of the search (ACAS Xu 1_1, property 6: 290,000 page faults against 14,000).
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _MALLOPT.values():
            mallopt(parameter, value)
