"""What an installation brings: the pinned versions, the ranges around them, and what the modules import."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["dev"])]

PACKAGE_OF = {"array_api_compat": "array-api-compat", "sklearn": "scikit-learn", "z3": "z3-solver"}
"""Modules that are named otherwise than the package that brings them."""

BROUGHT = {"google", "packaging"}
"""Modules of packages that are always there with others: onnx needs protobuf, pytest needs packaging."""

OPTIONAL = {"auto_LiRPA"}
"""Modules that are imported only where a user asks for them, and asked for in one sentence where they are missing."""

OWN = {"boundsmith", "tests"}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    found = dict(re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)", line).groups() for line in lines)  # type: ignore[union-attr]
    assert len(found) == len(lines)
    return found


def imported(*folders: str) -> set[str]:
    """The foreign modules that the files of these folders import, at any depth of a function."""
    names: set[str] = set()
    local = {path.stem for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in ("", ".py")}
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names.update(alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                    names.add(node.module.split(".")[0])
    names -= set(sys.stdlib_module_names) | OWN | BROUGHT | OPTIONAL | local
    return {PACKAGE_OF.get(name, name) for name in names}


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_the_tested_version_is_pinned_and_admitted(requirement: Requirement) -> None:
    pinned = pins()[canonicalize_name(requirement.name)]
    assert pinned in requirement.specifier
    assert {each.operator for each in requirement.specifier} == {">=", "<"}


def test_pins_hold_on_every_platform() -> None:
    for name, version in pins().items():
        assert not name.startswith(("nvidia-", "triton", "cuda-"))
        assert Version(version).local is None


def test_modules_import_what_is_declared_and_nothing_else_is() -> None:
    hard = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert imported("cli", "specs", "verify") == hard


def test_tests_import_what_their_extra_brings() -> None:
    hard = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    extra = {canonicalize_name(Requirement(line).name) for line in EXTRAS["test"]}
    used = imported("tests", "benchmarks") - hard
    assert used <= extra
    assert extra - used == {"pytest-timeout"}  # a plugin, which nobody imports
