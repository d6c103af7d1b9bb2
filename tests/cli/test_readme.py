"""What the README says is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
from boundsmith.cli.main import COMMANDS, cli
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_examples_print_what_the_readme_shows(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```\n\$ boundsmith (.*)\n((?:.*\n)*?)```", README)
    assert len(examples) == 2
    for arguments, output in examples:
        printed = CliRunner().invoke(cli, shlex.split(arguments)).stdout
        assert printed.splitlines()[0] == output.splitlines()[0]
        assert len(printed.splitlines()) == len(output.splitlines())


def test_the_table_names_every_command() -> None:
    assert set(re.findall(r"^\| `boundsmith (\w+)", README, re.MULTILINE)) == set(COMMANDS)


PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert "SAT" in capsys.readouterr().out


def test_the_example_of_an_added_operator_runs_and_its_bounds_hold() -> None:
    made: dict = {}
    exec(compile(PYTHON[1], "README.md", "exec"), made)
    assert len(PYTHON) == 2
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (500, 2)).astype(np.float32)
    with made["torch"].no_grad():
        values = made["module"](made["torch"].from_numpy(points)).numpy()
    assert (made["lower"] <= values.min(axis=0)).all()
    assert (values.max(axis=0) <= made["upper"]).all()
    assert (made["upper"] - made["lower"] < 1.5 * (values.max(axis=0) - values.min(axis=0))).all()


def test_ci_runs_the_readmes_own_command(tmp_path: Path) -> None:
    """`.ci/run`, copied beside the README with nothing else, announces the README's command before it fails."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "README.md").write_text("<!-- test command -->\n```\necho tests && exit 7\n```\n```\nother\n```\n")
    ended = subprocess.run(["bash", tmp_path / ".ci" / "run"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (7, "+ echo tests && exit 7\ntests\n")
    (command,) = re.findall(r"<!-- test command -->\n```\n(.*)\n```\n", README)
    assert command.endswith("-m pytest -q")
