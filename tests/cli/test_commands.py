"""The command line as a whole, and the commands that only report."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.cli.main import COMMANDS, cli
from click.testing import CliRunner

from .conftest import QUICKSTART

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("torch", "scipy", "rich", "matplotlib", "cvxpy", "z3")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert f"boundsmith {command}" in shown.stdout.split("Example:")[1]


def _imported(arguments: list[str]) -> set[str]:
    """The top-level modules that the command has imported when it ends."""
    script = (
        "import sys\nfrom boundsmith.cli.main import cli\n"
        f"try:\n    cli.main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ended.stderr.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    assert not _imported(["--help"]) & {*HEAVY, "numpy", "onnx", "onnxruntime"}


def test_an_easy_instance_imports_nothing_heavy(network: Path, safe: Path) -> None:
    assert not _imported(["verify", str(safe), "--network", str(network)]) & set(HEAVY)


def test_version_and_name() -> None:
    from importlib.metadata import version

    assert CliRunner().invoke(cli, ["--version"]).stdout.strip() == version("boundsmith")
    assert CliRunner().invoke(cli, ["--name"]).stdout.strip() == "Boundsmith"


@pytest.mark.parametrize(
    ("flag", "includes"),
    [
        ("--onnx-opset-versions", None),
        ("--onnx-element-types", "real"),
        ("--onnx-operators", "Relu"),
        ("--vnnlib-versions", "2.0"),
        ("--hidden-node-theories", "NH"),
        ("--multiple-input-output-theories", "MIO"),
        ("--multiple-network-theories", "MNET"),
        ("--multiple-node-comparison-theories", "MNC"),
        ("--arithmetic-complexity-theories", "LIN"),
        ("--optimised-disjunctive-reasoning", "true"),
        ("--serialise-assignments", "true"),
    ],
)
def test_supports_answers_the_standards_questions(flag: str, includes: str | None) -> None:
    answer = CliRunner().invoke(cli, ["supports", flag])
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert all(lines)
    if includes is None:
        oldest, newest = map(int, lines)
        assert oldest < newest
    else:
        assert includes in lines


def test_supports_needs_a_question() -> None:
    assert CliRunner().invoke(cli, ["supports"]).exit_code == 2


def test_doctor_reports_what_is_there_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from boundsmith.cli.commands import doctor

    monkeypatch.setattr(doctor, "REQUIRED", (*doctor.REQUIRED, "no-such-package"))
    file = tmp_path / "doctor.json"
    ended = CliRunner().invoke(cli, ["doctor", "--json", str(file)])
    assert ended.exit_code == 0
    assert "no-such-package is missing" in ended.stdout
    found = json.loads(file.read_text())
    assert found["required"]["numpy"] == np.__version__
    assert set(found["solvers"]) == {"highspy"}  # nothing that no module calls
    assert "highspy" in ended.stdout


def test_inspect_lists_layers_and_parameters(tmp_path: Path) -> None:
    file = tmp_path / "inspect.json"
    network = QUICKSTART / "onnx" / "digits_conv.onnx"
    ended = CliRunner().invoke(cli, ["inspect", str(network), "--json", str(file)])
    assert ended.exit_code == 0
    found = json.loads(file.read_text())
    assert found["operators"] == {"Conv": 1, "Flatten": 1, "Gemm": 2, "Relu": 2}
    assert found["parameters"] == 6 * 9 + 6 + 96 * 24 + 24 + 24 * 10 + 10
    assert found["inputs"] == [{"name": "X", "type": "float32", "shape": [1, 1, 8, 8]}]
    assert [layer["op"] for layer in found["layers"]].count("Relu") == 2
