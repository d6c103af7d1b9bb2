"""What the README says is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
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


def test_what_stderr_tells_is_what_the_readme_shows(monkeypatch) -> None:
    """All but the seconds."""
    monkeypatch.chdir(ROOT)
    examples = re.findall(r"```\n\$ boundsmith (.*)\n", README)
    told = [CliRunner().invoke(cli, shlex.split(arguments)).stderr for arguments in examples]
    (block,) = re.findall(r"```\n(unsat: (?:.*\n)*?)```", README)
    assert without_seconds(told[0]) == without_seconds(block)
    (remark,) = re.findall(r"Here stderr adds: `([^`]*)`", README)
    assert " ".join(remark.split()) in told[1]


def without_seconds(text: str) -> str:
    return re.sub(r"[0-9.]+ s\b", "s", text)


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


def ci(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`.ci/run`, copied into a folder."""
    (folder / ".ci").mkdir(exist_ok=True)
    (folder / ".ci" / "run").write_bytes((ROOT / ".ci" / "run").read_bytes())
    return subprocess.run(["bash", folder / ".ci" / "run", *arguments], capture_output=True, text=True, check=False)


def test_ci_runs_the_readmes_own_command(tmp_path: Path) -> None:
    """Beside the README with nothing else, `.ci/run` announces the README's command before it fails."""
    (tmp_path / "README.md").write_text("<!-- test command -->\n```\necho tests && exit 7\n```\n```\nother\n```\n")
    ended = ci(tmp_path)
    assert (ended.returncode, ended.stdout) == (7, "+ echo tests && exit 7\ntests\n")
    assert ci(tmp_path, "newer").returncode == 2


def test_the_readmes_commands_install_tested_versions() -> None:
    for name, end in (("test", "-m pytest -q"), ("quickstart", "bench benchmarks/quickstart")):
        (command,) = re.findall(rf"<!-- {name} command -->\n```\n(.*)\n```\n", README)
        assert " -m pip install --quiet -c constraints.txt " in command
        assert command.endswith(end)


def test_ci_tells_which_versions_are_not_the_tested_ones(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    for pinned, listed in ((np.__version__, ""), ("0.1", f"numpy {np.__version__} (tested: 0.1)\n")):
        constraints.write_text(f"# a comment\nnumpy=={pinned}\nno-such-package==1\n")
        ended = subprocess.run(
            [sys.executable, ROOT / ".ci" / "differing.py", constraints], capture_output=True, text=True, check=True
        )
        assert ended.stdout == listed
