"""Arrays that are computed once and kept in the user's cache folder.

A cache may be absent, unwritable, damaged or foreign: then the array is computed, and nothing is reported.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """The folder for files that can be computed again: ``$XDG_CACHE_HOME/boundsmith``, else the platform's own."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification asks for relative paths to be ignored.
    if os.path.isabs(given):
        return Path(given) / "boundsmith"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "boundsmith" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "boundsmith"


def cached_array(
    name: str, version: str, shape: tuple[int, ...], dtype: str, build: Callable[[], np.ndarray]
) -> np.ndarray:
    """The array called `name` of the given shape and dtype: from the cache folder if it holds one, else built and put
    there.

    version   anything that the array depends on; files of other versions are not looked at.
    """
    key = hashlib.sha256(repr((version, shape, dtype)).encode()).digest()
    try:
        path = cache_folder() / f"{name}-{key.hex()[:16]}.bin"
        content = path.read_bytes() if path.exists() else b""
    except (OSError, RuntimeError):
        # A folder that cannot be read, or no home folder.
        return build()
    data = content[DIGEST:]
    if content and content[:DIGEST] == _seal(key, data):
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    array = np.ascontiguousarray(build(), dtype=dtype).reshape(shape)
    data = array.tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _seal(key, data) + data)
    except OSError:
        return array
    return array


def _seal(key: bytes, data: bytes) -> bytes:
    """What a file starts with, so that a damaged or foreign one is told by it."""
    return hashlib.sha256(key + data).digest()
