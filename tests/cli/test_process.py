"""The process's own settings: BLAS keeps to one thread unless the user says otherwise, and preparing never fails."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
from boundsmith.cli import process


def test_blas_keeps_to_one_thread(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    process.prepare_process()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_the_users_setting_wins(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    process.prepare_process()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_system_without_the_allocator_is_left_alone(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    process.prepare_process()


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults of the GNU allocator")
def test_freed_memory_is_kept():
    """Allocating and freeing the same array again and again faults its pages in once, not every time."""
    code = """
import resource, sys
if sys.argv[1] == "prepared":
    from boundsmith.cli.process import prepare_process
    prepare_process()
import numpy as np
for _ in range(400):
    np.ones(60_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""

    def faults(how):
        run = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert faults("prepared") < faults("plain") + 5_000
