"""The process's own settings: BLAS keeps to one thread unless the user says otherwise, and preparing never fails."""

from __future__ import annotations

import ctypes
import os
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


def test_the_allocator_is_told_to_keep_what_is_freed(monkeypatch):
    told = {}

    class Library:
        def mallopt(self, parameter, value):
            told[parameter] = value

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    process.prepare_process()
    trim, padding, mapping = -1, -2, -3  # malloc.h of the GNU C library
    assert told[trim] >= 1 << 28
    assert told[padding] >= 1 << 24
    assert 1 << 24 <= told[mapping] <= 1 << 25  # glibc refuses more than half of its largest heap
