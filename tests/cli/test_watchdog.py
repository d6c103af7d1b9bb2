"""The deadline holds although the main thread is stuck, and so does Ctrl-C."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from boundsmith.cli.watchdog import Watchdog
from boundsmith.verify.budget import NEVER, Deadline

if TYPE_CHECKING:
    from pathlib import Path

STUCK = """
import json, sys, time, ctypes
import boundsmith.verify.budget as budget
import boundsmith.verify.strategy as strategy
budget.process_start = time.monotonic  # however long it took to come here
def stuck(query, networks, options, deadline, log):
    log.phase("input split", time.monotonic(), 7)
    log.best_bound = -0.25
    print("searching", file=sys.stderr, flush=True)
    while True:
        ctypes.CDLL(None).sleep(600)  # which a signal ends
strategy.verify_files = stuck
from boundsmith.cli.main import main
main(sys.argv[1:])
"""


def test_a_stuck_run_answers_timed_out(network: Path, safe: Path, tmp_path: Path) -> None:
    report, results = tmp_path / "result.json", tmp_path / "results.txt"
    arguments = ["verify", safe, "--network", network, "--timeout", "2", "--exit-status"]
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, *map(str, arguments), "--json", str(report), "--results", str(results)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (30, "timed-out\n")
    found = json.loads(report.read_text())
    assert (found["verdict"], found["best_bound"]) == ("timed-out", -0.25)
    assert [phase["domains"] for phase in found["phases"]] == [7]
    assert results.read_text() == "timeout\n"


def test_an_interrupt_answers_with_what_is_known(network: Path, safe: Path, tmp_path: Path) -> None:
    """Also while the main thread is in foreign code, where no handler in Python can run."""
    report, results = tmp_path / "result.json", tmp_path / "results.txt"
    arguments = ["verify", safe, "--network", network, "--exit-status", "--json", report, "--results", results]
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "searching\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "unknown\n")
    found = json.loads(report.read_text())
    assert (found["verdict"], found["best_bound"]) == ("unknown", -0.25)
    assert "interrupted" in found["sentence"]
    assert results.read_text() == "unknown\n"


@pytest.mark.parametrize("command", ["inspect", "bounds"])
def test_other_commands_end_with_the_status_of_an_interrupt(network: Path, command: str) -> None:
    stuck = (
        "import sys, time\nimport boundsmith.verify.loading as loading\n"
        "def load(*_, **__):\n    print('loading', file=sys.stderr, flush=True)\n    time.sleep(600)\n"
        "loading.load = load\nfrom boundsmith.cli.main import main\nmain(sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", stuck, command, network], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=60)
    assert (process.returncode, said, complaint) == (130, "", "interrupted\n")


@pytest.mark.parametrize(("pause", "said"), [(0.0, "unknown\n"), (1.5, "")])
def test_a_second_interrupt_ends_the_process_unless_it_is_an_echo(pause: float, said: str) -> None:
    script = (
        "import sys, time\nfrom boundsmith.cli.watchdog import Watchdog\nfrom boundsmith.verify.budget import NEVER\n"
        "def slow():\n    print('answering', file=sys.stderr, flush=True)\n    time.sleep(3)\n"
        "    print('unknown', flush=True)\n    return 130\n"
        "with Watchdog(NEVER, 0.0, slow, slow):\n    print('ready', file=sys.stderr, flush=True)\n"
        "    while True:\n        time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "answering\n"
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == said
    assert process.returncode == 130


def never() -> int:
    raise AssertionError("the watchdog answered")


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 600.0])
def test_a_claimed_answer_ends_the_watch_and_restores_the_signals(seconds: float) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Watchdog(Deadline.after(seconds), 0.0, never, never) as watchdog:
        assert signal.getsignal(signal.SIGINT) != before
        watchdog.claim()
        watchdog.claim()
    assert signal.getsignal(signal.SIGINT) == before
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_in_another_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def watched() -> None:
        with Watchdog(NEVER, 0.0, never, never):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=watched)
    thread.start()
    thread.join()
    assert seen == [before]


def test_no_thread_and_no_descriptor_is_left() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def watching() -> bool:
        return any(thread.name in ("watchdog", "signals") for thread in threading.enumerate())

    before = descriptors()
    for _ in range(20):
        with Watchdog(NEVER, 0.0, never, never):
            pass
    until = time.monotonic() + 30.0
    while watching() and time.monotonic() < until:
        time.sleep(0.01)
    assert not watching()
    assert descriptors() <= before


def test_a_failing_answer_ends_the_process_all_the_same() -> None:
    script = (
        "import time\nfrom boundsmith.cli.watchdog import Watchdog\nfrom boundsmith.verify.budget import Deadline\n"
        "def fail():\n    raise ValueError\n"
        "with Watchdog(Deadline.after(0.1), 0.0, fail, fail):\n    time.sleep(600)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    assert ended.returncode == 1
