"""`boundsmith bench` goes on whatever one instance is like, leaves no process behind, and says what is wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from boundsmith.cli.bench.judge import Expectation, expected_of
from boundsmith.cli.bench.record import Record
from boundsmith.cli.bench.suite import read_suite
from boundsmith.cli.bench.summary import _curves, describe, summarise
from boundsmith.cli.main import cli
from boundsmith.cli.progress import Progress
from click.testing import CliRunner, Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)])


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]


def record(number: int, verdict: str, seconds: float = 1.0, **more: object) -> Record:
    return Record("tiny", f"net{number}.onnx", "q.vnnlib", 30.0, verdict, seconds, 1 << 20, 0, **more)


def test_a_sat_that_cannot_be_replayed_is_recorded_and_the_run_goes_on(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boundsmith.cli.bench import replay

    def fail(*_: object) -> object:
        raise RuntimeError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT")

    monkeypatch.setattr(replay, "_session", fail)
    ended = bench(suite, "--out", tmp_path / "run", "--limit", "2")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.startswith("UNCONFIRMED: tiny net0.onnx unsafe.vnnlib: answered sat, expected sat")
    assert "INVALID_ARGUMENT" in ended.stdout
    assert [entry["verdict"] for entry in records(tmp_path / "run")] == ["unsat", "sat"]
    assert records(tmp_path / "run")[1]["replayed"] is None
    assert bench(suite, "--out", tmp_path / "run", "--limit", "2", "--resume").exit_code == 0
    assert len(records(tmp_path / "run")) == 2


def test_an_instance_that_bench_itself_stumbles_over_is_an_error(suite: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "instances" / "tiny-0000.json").mkdir(parents=True)
    rows = ["net0.onnx,safe.vnnlib,30", "net0.onnx,unsafe.vnnlib,30", "nul\0.onnx,safe.vnnlib,30"]
    (suite / "instances.csv").write_text("\n".join(rows))
    ended = bench(suite, "--out", run)
    assert ended.exit_code == 0, ended.output
    verdicts = [entry["verdict"] for entry in records(run)]
    assert verdicts == ["error", "sat", "error"]
    assert "nul\\x00.onnx" in ended.stdout
    assert "\0" not in ended.output


def test_errors_are_counted_once_and_a_run_of_errors_has_failed(suite: Path, tmp_path: Path) -> None:
    for file in suite.glob("*.onnx"):
        file.write_bytes(b"not a network")
    ended = bench(suite, "--out", tmp_path / "run", "--limit", "2")
    assert ended.exit_code == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["sets"]["tiny"]["error"] == summary["sets"]["tiny"]["instances"] == 2
    heading, row = (line.split() for line in ended.stdout.splitlines()[-3:-1])
    assert row[heading.index("error")] == "2"


def test_the_table_fits_into_eighty_columns() -> None:
    long = "a" * 16
    many = [Record(long, f"net{n}", "q", 1.0, "unsat", 3.5, 1, 0) for n in range(500)]
    lines = describe(summarise(many, {}, 500)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80


def test_a_renamed_folder_is_matched_by_its_files(suite: Path, tmp_path: Path) -> None:
    renamed = suite.rename(tmp_path / "renamed")
    (renamed / "expected.csv").write_text((renamed / "expected.csv").read_text().replace(",unsat", ",sat"))
    ended = bench(renamed, "--out", tmp_path / "run", "--limit", "1")
    assert "has no set renamed; its set tiny, of the same files, stands for it" in ended.stderr
    assert ended.exit_code == 1
    assert ended.stdout.startswith("WRONG: renamed net0.onnx safe.vnnlib: answered unsat, expected sat")


def test_expected_answers_that_fit_nothing_are_said_to(suite: Path) -> None:
    instances = read_suite(suite)
    sat = Expectation("sat")
    several = {(name, "net0.onnx", "safe.vnnlib"): sat for name in ("one", "two")}
    for table in ({}, several, {("tiny", "other.onnx", "safe.vnnlib"): sat}):
        found, remarks = expected_of(instances, table, "expected.csv")
        assert not found
        assert len(remarks) == 1
        assert "no row for any instance of set tiny" in remarks[0]


def test_an_expected_answer_may_be_written_in_capitals(suite: Path, tmp_path: Path) -> None:
    (suite / "expected.csv").write_text(
        "benchmark,onnx,vnnlib,verdict\ntiny,net0.onnx,safe.vnnlib, SAT\ntiny,net0.onnx\n"
    )
    ended = bench(suite, "--out", tmp_path / "run", "--limit", "1")
    assert ended.exit_code == 1
    assert ended.stdout.startswith("WRONG")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_names_are_no_markup_and_no_commands_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("[/title]", 2) as progress:
        progress.step("[/x]", "name [/x] \x1b]0;owned\x07 [bold]")
    shown = terminal.getvalue()
    assert "[/title]" in shown
    assert "name [/x]" in shown
    assert "\x1b]0;" not in shown


def test_a_name_in_brackets_ends_no_run(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "net0.onnx").rename(suite / "[x].onnx")
    (suite / "instances.csv").write_text("[x].onnx,safe.vnnlib,30\n")
    ended = bench(suite, "--out", tmp_path / "run")
    assert ended.exit_code == 2
    assert "several networks are listed as" in ended.stderr
    (suite / "[x].onnx").rename(suite / "a[\x1b[31m].onnx")
    (suite / "instances.csv").write_text("a[\x1b[31m].onnx,safe.vnnlib,30\n")
    ended = bench(suite, "--out", tmp_path / "run")
    assert ended.exit_code == 0, ended.output
    assert "\x1b" not in ended.output


DAMAGE: dict[str, Callable[[Path], object]] = {
    "half a line in the middle": lambda run: _prepend(run, b'{"schema": "boundsmith.bench-rec\n'),
    "not JSON": lambda run: _prepend(run, b"hello\n"),
    "not text": lambda run: _prepend(run, b"\xff\xfe\n"),
    "an empty line": lambda run: _prepend(run, b"\n"),
    "deeply nested": lambda run: _prepend(run, b"[" * 100_000 + b"\n"),
    "a record without its keys": lambda run: _prepend(run, b'{"schema": "boundsmith.bench-record/1"}\n'),
    "seconds that are a word": lambda run: _reset(run, "seconds", "long"),
    "endless seconds": lambda run: _replace(run, '"timeout": 30.0', '"timeout": 1e999'),
    "NaN": lambda run: _replace(run, '"timeout": 30.0', '"timeout": NaN'),
    "a name that is a number": lambda run: _reset(run, "onnx", 7),
    "phases that are a word": lambda run: _reset(run, "phases", "long"),
    "results are a folder": lambda run: _folder(run / "results.jsonl"),
    "settings are a folder": lambda run: _folder(run / "run.json"),
    "settings are not JSON": lambda run: (run / "run.json").write_text("{"),
    "settings are not text": lambda run: (run / "run.json").write_bytes(b"\xff"),
    "settings are something else": lambda run: (run / "run.json").write_text("[1]"),
    "instances are a file": lambda run: _file(run / "instances"),
}


def _prepend(run: Path, line: bytes) -> None:
    file = run / "results.jsonl"
    file.write_bytes(line + file.read_bytes())


def _replace(run: Path, old: str, new: str) -> None:
    file = run / "results.jsonl"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def _reset(run: Path, key: str, value: object) -> None:
    (run / "results.jsonl").write_text("".join(json.dumps({**entry, key: value}) + "\n" for entry in records(run)))


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _file(folder: Path) -> None:
    for inner in folder.iterdir():
        inner.unlink()
    folder.rmdir()
    folder.write_text("")


@pytest.fixture
def started(suite: Path, tmp_path: Path) -> Path:
    """A run's folder as it is after the first of the suite's instances."""
    run = tmp_path / "run"
    (run / "instances").mkdir(parents=True)
    (run / "instances" / "tiny-0000.json").write_text("{}")
    first = Record("tiny", "net0.onnx", "safe.vnnlib", 30.0, "unsat", 0.5, 1 << 20, 0)
    (run / "results.jsonl").write_text(first.to_line() + "\n")
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_one_sentence(suite: Path, started: Path, damage: str) -> None:
    assert bench(suite, "--out", started, "--resume", "--limit", "1").exit_code == 0
    DAMAGE[damage](started)
    ended = bench(suite, "--out", started, "--resume", "--limit", "1")
    assert ended.exit_code == 2, (ended.output, ended.exception)
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stderr.startswith("error: ")


def test_an_instance_recorded_twice_counts_once(suite: Path, started: Path) -> None:
    file = started / "results.jsonl"
    file.write_text(2 * file.read_text())
    assert bench(suite, "--out", started, "--resume", "--limit", "1").exit_code == 0
    assert json.loads((started / "summary.json").read_text())["sets"]["tiny"]["instances"] == 1


def test_a_place_that_is_no_folder_is_refused(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = bench(suite, "--out", tmp_path / "file")
    assert ended.exit_code == 2
    assert "is not a folder" in ended.stderr


def test_the_plot_compares_the_same_instances(tmp_path: Path) -> None:
    judged = [record(0, "unsat"), record(1, "timed-out"), record(2, "unsat", 3.0), record(3, "sat", replayed=True)]
    known = {
        judged[0].key: Expectation("unsat", "unsat", 5.0),
        judged[1].key: Expectation("unsat", "unsat", 7.0),
        judged[2].key: Expectation("unsat", "timeout", 100.0),
    }
    ours, peer = _curves(summarise(judged, known, 4), known)
    assert (ours.seconds, ours.total) == ([1.0, 3.0], 3)
    assert (peer.seconds, peer.total) == ([5.0, 7.0], 3)
    (alone,) = _curves(summarise(judged, {}, 4), {})
    assert (alone.seconds, alone.total) == ([1.0, 3.0, 1.0], 4)


def test_the_plot_is_drawn_of_anything(tmp_path: Path) -> None:
    from boundsmith.cli.bench.plot import Curve, write_cactus

    for curves in ([], [Curve("a", [], 0)], [Curve("a", [3.0], 1), Curve("b", [0.0, 1e-9, 4e3], 7)]):
        write_cactus(tmp_path / "plot.png", curves, "a $\\title")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def _descendants(parent: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                state, above = stat.read().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(above) == parent and state not in "ZX":
            found += [int(name), *_descendants(int(name))]
    return found


def _alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_no_child_outlives_bench(suite: Path, tmp_path: Path, number: signal.Signals) -> None:
    (suite / "instances.csv").write_text("net0.onnx,safe.vnnlib,60\nnet1.onnx,safe.vnnlib,60\n")
    command = [sys.executable, "-m", "boundsmith.cli.main", "bench", suite, "--out", tmp_path / "run", "--jobs", "2"]
    process = subprocess.Popen([*command, "--method", "attack"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60.0
    while len(children := _descendants(process.pid)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(children) >= 2
    process.send_signal(number)
    assert process.wait(60.0) == (-number if number == signal.SIGKILL else 128 + number)
    while any(map(_alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_alive, children))


@LINUX
def test_a_child_ends_when_its_input_does(network: Path, safe: Path) -> None:
    command = [sys.executable, "-m", "boundsmith.cli.bench.child", "verify", safe, "--network", network]
    process = subprocess.Popen([*command, "--method", "attack"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.stdin.close()
    assert process.wait(30.0) == 1


def test_an_ignored_hang_up_stays_ignored(suite: Path, tmp_path: Path) -> None:
    """`nohup boundsmith bench ...` runs on when the terminal is closed."""
    script = (
        "import os, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from boundsmith.cli.bench import run\nhonest = run.run_one\n"
        "def run_one(*arguments):\n    os.kill(os.getpid(), signal.SIGHUP)\n    return honest(*arguments)\n"
        "run.run_one = run_one\nfrom boundsmith.cli.main import main\nmain(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, "bench", suite, "--out", tmp_path / "run", "--limit", "1"]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
