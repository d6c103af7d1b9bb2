"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_dir() -> Path:
    """The folder of benchmark data beside the checkout; the calling test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1] / "../shared"
    if not folder.is_dir():
        pytest.skip("the shared benchmark data is not here", allow_module_level=True)
    return folder.resolve()
