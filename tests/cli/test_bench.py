"""`boundsmith bench`: every row is run once, whatever happens, and compared with what is known."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from boundsmith.cli.main import cli
from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _lines(run: Path) -> list[str]:
    file = run / "results.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def _keys(run: Path) -> list[tuple[str, str, str]]:
    return [(line["set"], line["onnx"], line["vnnlib"]) for line in map(json.loads, _lines(run))]


def test_runs_every_row_and_reports(suite: Path, tmp_path: Path, boundsmith: Callable) -> None:
    run, summary = tmp_path / "run", tmp_path / "summary.json"
    ended = boundsmith(["bench", suite, "--out", run, "--jobs", "2", "--json", summary])
    assert ended.returncode == 0, ended.stderr
    assert len(set(_keys(run))) == len(_keys(run)) == 6
    with open(run / "results.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["judgement"] for row in rows] == ["right"] * 6
    assert sorted(row["verdict"] for row in rows) == ["sat"] * 3 + ["unsat"] * 3
    assert json.loads(summary.read_text())["sets"]["tiny"]["right"] == 6
    assert (run / "cactus.png").read_bytes().startswith(b"\x89PNG")
    assert ended.stderr.count("(right)") == 6
    record = json.loads(_lines(run)[0])
    assert record["peak_bytes"] > 0
    assert record["seconds"] > 0


def test_killed_and_resumed_it_loses_nothing_and_repeats_nothing(
    suite: Path, tmp_path: Path, boundsmith: Callable
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "boundsmith.cli.main", "bench", str(suite), "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(_lines(run)) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (run / "results.jsonl").read_bytes()
    finished = before[: before.rfind(b"\n") + 1]
    assert 2 <= finished.count(b"\n") < 6
    with open(run / "results.jsonl", "ab") as stream:
        stream.write(b'{"schema": "boundsmith.bench-rec')
    ended = boundsmith(["bench", suite, "--out", run, "--resume"])
    assert ended.returncode == 0, ended.stderr
    assert (run / "results.jsonl").read_bytes().startswith(finished)
    assert len(set(_keys(run))) == len(_keys(run)) == 6
    again = boundsmith(["bench", suite, "--out", run, "--resume"])
    assert "[" not in again.stderr
    assert len(_keys(run)) == 6


def test_an_interrupt_ends_the_children_and_keeps_what_is_done(suite: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "boundsmith.cli.main", "bench", str(suite), "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while len(_lines(run)) < 1 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "--resume" in said
    assert len(_lines(run)) >= 1


def test_wrong_answers_come_first_and_set_the_status(suite: Path, tmp_path: Path, boundsmith: Callable) -> None:
    known = (suite / "expected.csv").read_text()
    known = known.replace("net0.onnx,safe.vnnlib,unsat", "net0.onnx,safe.vnnlib,sat")
    known = known.replace("net1.onnx,unsafe.vnnlib,sat", "net1.onnx,unsafe.vnnlib,unsat")
    other = tmp_path / "other.csv"
    other.write_text(known)
    ended = boundsmith(["bench", suite, "--out", tmp_path / "run", "--expected", other, "--jobs", "2"])
    assert ended.returncode == 1
    first, second, *_ = ended.stdout.splitlines()
    assert first.startswith("WRONG: tiny net0.onnx safe.vnnlib: answered unsat, expected sat")
    assert second.startswith("NEW COUNTEREXAMPLE: tiny net1.onnx unsafe.vnnlib: answered sat, expected unsat")


def test_a_failing_instance_is_an_error_and_the_rest_goes_on(suite: Path, tmp_path: Path) -> None:
    (suite / "net1.onnx").write_bytes(b"not a network")
    ended = CliRunner().invoke(cli, ["bench", str(suite), "--out", str(tmp_path / "run"), "--jobs", "2"])
    assert ended.exit_code == 0
    assert ended.stdout.count("error: tiny net1.onnx") == 2
    assert len(_keys(tmp_path / "run")) == 6


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([], [], "add --resume"),
        ([], ["--resume", "--no-attack"], "other options"),
        ([], ["--resume", "--sets", "nowhere"], "no set nowhere"),
    ],
)
def test_misuse_of_a_run_is_refused(
    suite: Path, tmp_path: Path, first: list[str], second: list[str], says: str
) -> None:
    common = ["bench", str(suite), "--out", str(tmp_path / "run"), "--limit", "1"]
    assert CliRunner().invoke(cli, [*common, *first]).exit_code == 0
    refused = CliRunner().invoke(cli, [*common, *second])
    assert refused.exit_code == 2
    assert says in refused.stderr


def test_a_run_in_use_is_refused(suite: Path, tmp_path: Path) -> None:
    from boundsmith.cli.bench.record import Journal

    (tmp_path / "run").mkdir()
    with Journal(tmp_path / "run" / "results.jsonl"):
        refused = CliRunner().invoke(cli, ["bench", str(suite), "--out", str(tmp_path / "run")])
    assert refused.exit_code == 2
    assert "in use" in refused.stderr


def test_resume_finds_the_latest_run_by_itself(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["bench", str(suite), "--resume"]).exit_code == 2
    assert CliRunner().invoke(cli, ["bench", str(suite), "--limit", "1"]).exit_code == 0
    ended = CliRunner().invoke(cli, ["bench", str(suite), "--limit", "2", "--resume"])
    assert ended.exit_code == 0
    assert len(os.listdir("runs")) == 1
    assert ended.stderr.startswith("[2/2]")


def test_check_only_names_what_fails(suite: Path, tmp_path: Path) -> None:
    well = CliRunner().invoke(cli, ["bench", str(suite.parent), "--check-only"])
    assert well.exit_code == 0, well.output
    assert well.stdout.splitlines()[-1] == "100 %"
    (suite / "net2.onnx").write_bytes(b"not a network")
    (suite / "safe.vnnlib").write_text("(declare-const X_0 Real")
    report = tmp_path / "check.json"
    ended = CliRunner().invoke(cli, ["bench", str(suite), "--check-only", "--json", str(report)])
    assert ended.exit_code == 1
    failures = json.loads(report.read_text())["failures"]
    assert len(failures) == 2
    assert "net2.onnx" in failures[0]
    assert "safe.vnnlib" in failures[1]


def test_check_only_takes_more_files_than_one_pool_serves(suite: Path, safe: Path) -> None:
    rows = []
    for number in range(45):
        (suite / f"many{number}.vnnlib").write_bytes(safe.read_bytes())
        rows.append(f"net0.onnx,many{number}.vnnlib,30")
    (suite / "instances.csv").write_text("\n".join(rows))
    ended = CliRunner().invoke(cli, ["bench", str(suite), "--check-only"])
    assert ended.exit_code == 0, ended.output
    assert "45 of 45" in ended.stdout


def test_check_only_goes_on_after_a_fault_of_its_own(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boundsmith.cli.bench import check

    monkeypatch.setattr(check, "check_network_file", int)  # which takes no path: a TypeError in the other process
    ended = CliRunner().invoke(cli, ["bench", str(suite), "--check-only"])
    assert ended.exit_code == 1
    assert ended.stdout.count("TypeError") == 3
    assert "2 of 2" in ended.stdout
