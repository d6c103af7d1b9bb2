"""Writing files so that a reader sees the old content or the new one, never half of it.

The one place that writes what a user asked for. Only regular files can be replaced in one step; into a device, a FIFO
or an open descriptor (``/dev/stdout``, ``/dev/fd/3``) the content is written as a shell's redirection would.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_DESCRIPTOR = re.compile(r"/dev/fd/(\d+)|/proc/self/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Make `content` the content of `path`.

    A regular file is replaced in one step (temporary file beside it, flush to disk, rename) and keeps its mode and, as
    far as the system allows, its owner; of a symbolic link, the file that it leads to. Anything else is written into.
    Raises OSError where it cannot be written.
    """
    number = descriptor_of(path)
    if number is not None:
        # Opening the name again would cut a file that the descriptor stands for.
        with os.fdopen(os.dup(number), "wb") as stream:
            stream.write(content)
        return
    try:
        status = os.stat(path)
    except FileNotFoundError:
        status = None
    if status is None or stat.S_ISREG(status.st_mode):
        _replace(Path(os.path.realpath(path)), content, status)
        return
    with open(os.open(path, os.O_WRONLY), "wb") as stream:
        stream.write(content)


def descriptor_of(path: str | os.PathLike[str]) -> int | None:
    """The number of this process's open descriptor that a path such as ``/dev/stdout`` names; None for others."""
    name = os.fspath(path)
    match = _DESCRIPTOR.fullmatch(name)
    return int(match[1] or match[2]) if match is not None else _STANDARD.get(name)


def _replace(target: Path, content: bytes, status: os.stat_result | None) -> None:
    import tempfile

    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if status is not None and hasattr(os, "chown"):
            with contextlib.suppress(PermissionError):
                os.chown(temporary, status.st_uid, status.st_gid)
        os.chmod(temporary, 0o666 & ~_umask() if status is None else stat.S_IMODE(status.st_mode))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """`write_bytes` for a JSON document; numbers must be finite (see `cli.report.json.plain`)."""
    import json

    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """`write_bytes` for named arrays, as a compressed ``.npz``."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
