"""Stdout is the answer's, whatever libraries print; and what is asked to be written is written, or said not to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from boundsmith.cli.main import cli
from boundsmith.cli.output import NOT_WRITTEN, one_line, printable
from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISY = """
import ctypes, os, subprocess, sys
import boundsmith.verify.strategy as strategy
decide = strategy.verify_files
def noisy(*arguments):
    print("noise of print")
    os.write(1, b"noise of write\\n")
    ctypes.CDLL(None).puts(b"noise of puts")
    subprocess.run(["echo", "noise of echo"], check=True)
    return decide(*arguments)
strategy.verify_files = noisy
from boundsmith.cli.main import main
main(sys.argv[1:])
"""

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="devices and descriptors of Linux")


def test_nothing_but_the_answer_reaches_stdout(network: Path, safe: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NOISY, "verify", safe, "--network", network],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "unsat\n")
    for source in ("print", "write", "puts", "echo"):
        assert f"noise of {source}\n" in ended.stderr


@pytest.mark.parametrize("command", ["verify", "bounds"])
def test_nor_does_it_in_a_process_that_calls_the_command(
    network: Path, safe: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from boundsmith.verify import loading, strategy
    from boundsmith.verify.loading import network as home

    honest = home.load

    def noisy(*arguments: object, **options: object) -> object:
        print("noise")
        return honest(*arguments, **options)

    for module in (loading, strategy):
        monkeypatch.setattr(module, "load", noisy)
    first, rest = (safe, ["--network", network]) if command == "verify" else (network, ["--center", "0", "--eps", "1"])
    ended = CliRunner().invoke(cli, [command, str(first), *map(str, rest)])
    assert ended.exit_code == 0, ended.output
    assert "noise" not in ended.stdout
    assert "noise" in ended.stderr
    assert ended.stdout.startswith("unsat\n" if command == "verify" else "net.onnx: ")


@LINUX
def test_a_report_may_go_to_stdout_after_the_answer(network: Path, safe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boundsmith.cli.main", "verify", safe, "--network", network]
    for name in ("/dev/stdout", "/dev/fd/1"):
        with open(tmp_path / "out", "wb") as stream:
            subprocess.run([*command, "--json", name], stdout=stream, check=True, timeout=120)
        verdict, report = (tmp_path / "out").read_text().split("\n", 1)
        assert verdict == "unsat"
        assert json.loads(report)["verdict"] == "unsat"


@LINUX
@pytest.mark.parametrize("option", ["--json", "--results", "--record"])
def test_a_file_that_cannot_be_written_has_its_own_status(
    boundsmith: Callable, network: Path, safe: Path, tmp_path: Path, option: str
) -> None:
    other = tmp_path / "other.json"
    arguments = ["verify", safe, "--network", network, option, "/dev/full"]
    ended = boundsmith(arguments if option == "--json" else [*arguments, "--json", other])
    assert (ended.returncode, ended.stdout) == (NOT_WRITTEN, "unsat\n")
    assert ended.stderr.splitlines()[-1] == "error: cannot write /dev/full: No space left on device"
    assert option == "--json" or json.loads(other.read_text())["verdict"] == "unsat"


@LINUX
def test_a_full_stdout_is_said_and_the_report_is_written(network: Path, safe: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = [sys.executable, "-m", "boundsmith.cli.main", "verify", safe, "--network", network, "--json", file]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert ended.returncode == NOT_WRITTEN
    assert "cannot write stdout" in ended.stderr
    assert json.loads(file.read_text())["verdict"] == "unsat"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_without_stdout_or_stderr_answers_all_the_same(
    network: Path, safe: Path, tmp_path: Path, closed: str
) -> None:
    file = tmp_path / "result.json"
    command = f'exec "$0" -m boundsmith.cli.main verify "$1" --network "$2" --json "$3" {closed}'
    ended = subprocess.run(
        ["sh", "-c", command, sys.executable, safe, network, file], capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == 0
    assert json.loads(file.read_text())["verdict"] == "unsat"
    assert ended.stdout == (b"" if ">&- " in f"{closed} ".replace("2>&- ", "") else b"unsat\n")


def test_a_fifo_gets_the_answer_once(network: Path, safe: Path, tmp_path: Path) -> None:
    """Also in the results file's form, which says `timeout` beforehand in a file that can be replaced."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(fifo.read_text()), daemon=True)
    reader.start()
    ended = CliRunner().invoke(cli, ["verify", str(safe), "--network", str(network), "--results", str(fifo)])
    reader.join(10.0)
    assert ended.exit_code == 0
    assert received == ["unsat\n"]


@pytest.mark.parametrize("command", ["verify", "bounds", "inspect", "doctor", "bench"])
def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    network: Path, safe: Path, suite: Path, tmp_path: Path, command: str
) -> None:
    arguments = {
        "verify": [safe, "--network", network],
        "bounds": [network, "--center", "0", "--eps", "1"],
        "inspect": [network],
        "doctor": [],
        "bench": [suite, "--out", tmp_path / "run"],
    }[command]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place, says in (
        (tmp_path, "folder"),
        (tmp_path / "no" / "file", "does not exist"),
        (loop, "symbolic links"),
        (network / "file", "ot a directory"),
        ("nul\0", "null character"),
    ):
        ended = CliRunner().invoke(cli, [command, *map(str, arguments), "--json", str(place)])
        assert ended.exit_code == 2, ended.output
        assert ended.stdout == ""
        assert says in ended.stderr
    assert not (tmp_path / "run").exists()


def test_paths_that_lead_nowhere_are_one_sentence(tmp_path: Path, network: Path, safe: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for bad in (str(loop), "nul\0", "n" * 300):
        for arguments in (
            ["verify", bad, "--network", str(network)],
            ["verify", str(safe), "--network", bad],
            ["verify", str(safe), "--network", str(network), "--serialise-assignments", bad + "/x"],
            ["verify", str(safe), "--network", "[('f', " + repr(bad) + ")]"],
            ["bounds", bad, "--center", "0", "--eps", "1"],
            ["bounds", str(network), "--region", bad],
            ["bounds", str(network), "--data", bad, "--eps", "1"],
            ["bounds", str(network), "--center", bad + ".npy", "--eps", "1"],
            ["inspect", bad],
            ["bench", bad],
        ):
            ended = CliRunner().invoke(cli, arguments)
            assert ended.exit_code == 2, (arguments, ended.output, ended.exception)
            assert "rror: " in ended.stderr, arguments


@pytest.mark.parametrize("command", ["verify", "bounds", "bench"])
@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_limits_that_are_no_seconds_are_refused(
    network: Path, safe: Path, suite: Path, command: str, seconds: str
) -> None:
    arguments = {
        "verify": [safe, "--network", network],
        "bounds": [network, "--center", "0", "--eps", "1"],
        "bench": [suite, "--out", suite / "run"],
    }[command]
    ended = CliRunner().invoke(cli, [command, *map(str, arguments), "--timeout", seconds])
    assert ended.exit_code == 2
    assert "--timeout" in ended.stderr


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
def test_an_endless_limit_is_one(boundsmith: Callable, network: Path, safe: Path, seconds: str) -> None:
    ended = boundsmith(["verify", safe, "--network", network, "--timeout", seconds])
    assert (ended.returncode, ended.stdout) == (0, "unsat\n")
    assert "Traceback" not in ended.stderr
    ended = boundsmith(["bounds", network, "--center", "0", "--eps", "1", "--timeout", seconds])
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_control_characters_reach_no_terminal(network: Path, tmp_path: Path) -> None:
    assert printable("a\x1b[31mb\nc\x9b\u202ed é") == "a\\x1b[31mb\nc\\x9b\\u202ed é"
    assert one_line("a\nb\tc") == "a\\nb\\tc"
    name = tmp_path / "\x1b[31mnet.onnx"
    name.write_bytes(network.read_bytes())
    shown = CliRunner().invoke(cli, ["inspect", str(name)])
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\\x1b[31mnet.onnx" in shown.stdout
    refused = CliRunner().invoke(cli, ["inspect", str(tmp_path / "\x1b[2Jnone")])
    assert "\x1b" not in refused.stderr
