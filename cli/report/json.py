"""A result as one JSON object. Every other report of a result is drawn from this object alone."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...verify.result import Result

RESULT_SCHEMA = "boundsmith.result/1"

PACKAGES = ("boundsmith", "numpy", "scipy", "onnx", "onnxruntime", "torch")
"""The packages whose versions a result records."""


def plain(value: Any) -> Any:
    """`value` in JSON's own types: arrays as nested lists, non-finite numbers as the strings nan, inf and -inf.

    Raises TypeError for a value of a type that a report should not hold.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    raise TypeError(f"a report cannot hold a {type(value).__name__}")


def result_object(result: Result, options: Any, seconds: float) -> dict[str, Any]:
    """What one `verify` run found; `seconds` is the whole process so far, start-up included."""
    return {
        "schema": RESULT_SCHEMA,
        "verdict": result.verdict.value,
        "sentence": result.verdict.sentence,
        "statement": result.statement,
        "seconds": seconds,
        "witness": _witness_object(result),
        "best_bound": plain(result.best_bound),
        "phases": plain(result.phases),
        "counters": plain(result.counters),
        "method": result.method,
        "device": result.device,
        "details": plain(result.details),
        "warnings": list(result.warnings),
        "options": plain(options),
    }


def provenance(query: Path, networks: Mapping[str, Path]) -> dict[str, Any]:
    """What the answer is about and what gave it: files with their SHA-256, versions. Reads every file once."""
    return {
        "query": {"file": str(query), "sha256": sha256(query)},
        "networks": [{"name": name, "file": str(file), "sha256": sha256(file)} for name, file in networks.items()],
        "versions": versions(),
    }


def _witness_object(result: Result) -> dict[str, Any] | None:
    if result.witness is None:
        return None
    return {
        side: [
            {
                "name": name,
                "type": np.asarray(values).dtype.name,
                "shape": list(np.shape(values)),
                "values": plain(np.asarray(values).ravel()),
            }
            for name, values in tensors
        ]
        for side, tensors in (("inputs", result.witness.inputs), ("outputs", result.witness.outputs))
    }


def sha256(file: Path) -> str:
    """The SHA-256 of the file's stored bytes (compressed, if it is), in hexadecimal."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of Python and of `PACKAGES`, read without importing them; None for a package that is absent."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
