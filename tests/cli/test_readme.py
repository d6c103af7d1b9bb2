"""What the README says is what happens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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


def test_the_python_example_runs(monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert "SAT" in capsys.readouterr().out


def test_ci_runs_the_readmes_own_command() -> None:
    assert README.count("<!-- test command -->") == 1
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test command -->" in script
    assert "pytest" not in script
