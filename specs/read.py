"""Reading a specification file, whatever its version and packing."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SpecError
from .normal import normalise
from .sexpr import Source

if TYPE_CHECKING:
    from .property import Property

MAX_FILE_BYTES = 2 << 30
_BYTE_ORDER_MARK = "\ufeff"
_GZIP_MAGIC = b"\x1f\x8b"
_VERSION = re.compile(r"\(\s*vnnlib-version\s+([^\s()]*)", re.ASCII)
_VERSION_NUMBER = re.compile(r"<?([0-9]+)\.[0-9]+>?", re.ASCII)


def read_property(path: str | os.PathLike[str]) -> Property:
    """Read the VNN-LIB file at `path`, version 1.0 or 2.0, plain or gzip (told by its content).

    If there is no such file but one with ``.gz`` appended, that one is read.

    Raises:
        SpecError: if the file is missing or unreadable, or its content is no valid query; with line and column.
    """
    return parse_property(read_bytes(path), os.fspath(path))


def parse_property(text: str | bytes, source: str = "query", bulk: bool = True) -> Property:
    """Read a VNN-LIB query from text (or UTF-8 bytes).

    Args:
        source: the name to give it in messages.
        bulk: read common shapes in bulk; False gives the same result, slowly.

    Raises:
        SpecError: with line and column.

    Example:
        >>> parse_property('''
        ... (declare-const X_0 Real) (declare-const Y_0 Real)
        ... (assert (and (>= X_0 0) (<= X_0 1))) (assert (>= Y_0 2))''').clauses[0].offset
        array([-2.])
    """
    if isinstance(text, bytes):
        text = _decoded(text, source)
    clean = Source.of(source, text.removeprefix(_BYTE_ORDER_MARK))
    if not clean.text.strip():
        raise SpecError(f"{source}: the query is empty")
    if _major_version(clean) == 2:
        from .vnnlib2 import read_vnnlib2

        return normalise(read_vnnlib2(clean, bulk))
    from .vnnlib1 import read_vnnlib1

    return normalise(read_vnnlib1(clean, bulk))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, unpacked if it is gzip; ``PATH.gz`` is read if there is no PATH.

    Raises:
        SpecError: if it is missing, unreadable, or not what its name says.
    """
    found = packed_path(Path(path))
    try:
        content = found.read_bytes()
    except OSError as problem:
        raise SpecError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise SpecError(f"{path!r}: is no file name: {problem}") from None
    if content.startswith(_GZIP_MAGIC):
        return _unpacked(content, str(found))
    if found.suffix == ".gz":
        raise SpecError(f"{found}: is named .gz but is not gzip; rename or repack it")
    return content


def packed_path(path: Path) -> Path:
    """`path`, or the same with ``.gz`` appended if only that exists."""
    try:
        if not path.exists():
            packed = path.with_name(path.name + ".gz")
            if packed.exists():
                return packed
    except (OSError, ValueError):
        return path
    return path


def _unpacked(content: bytes, name: str) -> bytes:
    """The content of a gzip file of one or more members."""
    parts: list[bytes] = []
    room = MAX_FILE_BYTES
    while content:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            part = member.decompress(content, room)
        except zlib.error as problem:
            raise SpecError(f"{name}: damaged gzip file ({problem})") from None
        parts.append(part)
        room -= len(part)
        if not member.eof:
            reason = "is truncated" if room > 0 else f"unpacks to more than {MAX_FILE_BYTES >> 30} GiB"
            raise SpecError(f"{name}: the gzip file {reason}")
        content = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise SpecError(
            f"{name}: is not text (byte {problem.start} is not UTF-8); a VNN-LIB file is expected"
        ) from None


def _major_version(source: Source) -> int:
    """1 or 2; a file without a version is 1.0 unless it declares networks."""
    version = _VERSION.search(source.text)
    if version is None:
        return 2 if "declare-network" in source.text else 1
    number = _VERSION_NUMBER.fullmatch(version[1])
    if number is None or number[1] not in ("1", "2"):
        raise source.error(version.start(1), f"unsupported version {version[1]!r}; VNN-LIB 1.0 and 2.0 are")
    return int(number[1])
