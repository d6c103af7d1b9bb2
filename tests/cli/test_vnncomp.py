"""VNN-COMP's three scripts, run with the competition's arguments."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import QUICKSTART

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "vnncomp"


@pytest.fixture
def script(tmp_path: Path) -> object:
    """Runs a script with `boundsmith` standing for the installed command."""
    command = tmp_path / "boundsmith"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m boundsmith.cli.main "$@"\n')
    command.chmod(0o755)

    def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "BOUNDSMITH": str(command), "TMPDIR": str(tmp_path)}
        return subprocess.run(
            [SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
        )

    return run


@pytest.mark.parametrize(
    ("network", "query", "word"),
    [("moons", "moons_upper", "unsat"), ("moons", "moons_between", "sat"), ("moons", "controller_limit", "error")],
)
def test_run_instance_writes_the_answer(script, tmp_path: Path, network: str, query: str, word: str) -> None:
    results = tmp_path / "results.txt"
    files = QUICKSTART / "onnx" / f"{network}.onnx", QUICKSTART / "vnnlib" / f"{query}.vnnlib"
    assert script("prepare_instance.sh", "v1", "quickstart", *files).returncode == 0
    ended = script("run_instance.sh", "v1", "quickstart", *files, results, "30")
    assert ended.returncode == 0
    assert ended.stdout == ""
    first, *assignment = results.read_text().splitlines()
    assert first == word
    assert (assignment[0].startswith("((X_0 ") and assignment[-1].endswith("))")) if word == "sat" else not assignment


def test_run_instance_leaves_timeout_when_killed(script, tmp_path: Path) -> None:
    results = tmp_path / "results.txt"
    files = QUICKSTART / "onnx" / "moons.onnx", QUICKSTART / "vnnlib" / "moons_upper.vnnlib"
    (tmp_path / "boundsmith").write_text("#!/bin/sh\nkill -9 $$\n")
    script("run_instance.sh", "v1", "quickstart", *files, results, "30")
    assert results.read_text() == "timeout\n"


def test_run_instance_leaves_devices_and_links_what_they_are(script, tmp_path: Path) -> None:
    files = QUICKSTART / "onnx" / "moons.onnx", QUICKSTART / "vnnlib" / "moons_upper.vnnlib"
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    assert script("run_instance.sh", "v1", "quickstart", *files, link, "30").returncode == 0
    assert link.is_symlink()
    assert target.read_text() == "unsat\n"
    assert script("run_instance.sh", "v1", "quickstart", *files, os.devnull, "30").returncode == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_prepare_instance_refuses_a_missing_file(script, tmp_path: Path) -> None:
    ended = script("prepare_instance.sh", "v1", "quickstart", tmp_path / "none.onnx", tmp_path / "none.vnnlib")
    assert ended.returncode == 1
    assert "cannot read" in ended.stderr


@pytest.mark.parametrize("name", ["install_tool.sh", "prepare_instance.sh", "run_instance.sh"])
def test_another_version_is_refused(script, name: str) -> None:
    assert script(name, "v2").returncode == 1
