"""Writing text and JSON so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from ..verify.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["write_arrays", "write_bytes", "write_json", "write_text"]


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` for a JSON document; numbers must be finite (see `report.json.plain`)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """`write_bytes` for named arrays, as a compressed ``.npz``."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
