"""`boundsmith doctor`: what this installation has to work with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import click

from ..options import check_writable, debug_option, json_option
from ..output import Answering, say, write_report

if TYPE_CHECKING:
    from pathlib import Path

DOCTOR_SCHEMA = "boundsmith.doctor/1"

REQUIRED = ("boundsmith", "numpy", "scipy", "array-api-compat", "onnx", "onnxruntime", "torch", "click", "rich")
SOLVERS = {"highspy": "linear and mixed-integer programmes"}
OPTIONAL = {"auto_LiRPA": "bounds --engine auto-lirpa", "matplotlib": "plots of bench"}


@click.command(cls=Answering)
@json_option
@debug_option
def command(json_file: Path | None) -> None:
    """Show versions, devices, threads and solvers. Packages are looked up, not imported.

    \b
    Example:
      boundsmith doctor
    """
    check_writable(json_file)
    findings = examine()
    say(describe(findings))
    write_report(json_file, findings)


def examine() -> dict[str, Any]:
    """Everything the command shows, as one JSON object."""
    return {
        "schema": DOCTOR_SCHEMA,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "memory_bytes": _memory(),
        "gpus": _gpus(),
        "required": {name: _version(name) for name in REQUIRED},
        "solvers": {name: _version(name) for name in SOLVERS},
        "optional": {name: _version(name) for name in OPTIONAL},
    }


def describe(findings: dict[str, Any]) -> str:
    """The findings as lines of text; what is missing is named with what to do."""
    memory = findings["memory_bytes"]
    lines = [
        f"Python {findings['python']} on {findings['system']}",
        f"cores: {findings['usable_cores']} usable of {findings['cores']}",
        f"memory: {memory / 2**30:.1f} GiB" if memory else "memory: unknown",
        *(f"{name}={value}" for name, value in findings["threads"].items() if value is not None),
        f"devices: cpu{''.join(f', {gpu}' for gpu in findings['gpus'])}",
    ]
    lines += [f"{name} {version or 'is missing; install it'}" for name, version in findings["required"].items()]
    lines += [f"{name} {version or 'is missing'} ({SOLVERS[name]})" for name, version in findings["solvers"].items()]
    lines += [
        f"{name} {version or 'is not installed'} (optional: {OPTIONAL[name]})"
        for name, version in findings["optional"].items()
    ]
    if findings["gpus"] and "+cpu" in (findings["required"]["torch"] or ""):
        lines.append("The installed torch is a CPU build and cannot use the GPU; install one built for CUDA.")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str]:
    """The NVIDIA GPUs that the driver lists; torch is not imported, which takes seconds."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listed.stdout.splitlines() if line.strip()]
