"""The deadline holds although the main thread is stuck."""

from __future__ import annotations

import subprocess
import sys

STUCK = """
import json, sys, time
import boundsmith.verify.strategy as strategy
strategy.verify_files = lambda *_: time.sleep(600)
from boundsmith.cli.main import main
main(sys.argv[1:])
"""


def test_a_stuck_run_answers_timed_out(network, safe, tmp_path) -> None:
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
    assert '"verdict": "timed-out"' in report.read_text()
    assert results.read_text() == "timeout\n"
