"""The VNN-LIB 2.0 rule about arithmetic: a query says over which numbers it is meant, and we decide over the reals."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import TYPE_CHECKING

from ..specs.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

_HEAD_BYTES = 1 << 16
_VERSION_2 = re.compile(rb"^[^;\n]*\(\s*(vnnlib-version\s*<2|declare-network\b)", re.MULTILINE)


def require_real(query: Path) -> None:
    """Refuse a 2.0 query whose tensors are declared with a type other than `real`.

    Raises SpecError, which names the tensor. VNN-LIB 1.0 has no element types and always passes.
    """
    if not _VERSION_2.search(_head(query)):
        return
    from ..specs import read_property

    declared = read_property(query)
    for tensor in (*declared.inputs, *declared.outputs):
        if tensor.element_type.lower() != "real":
            raise SpecError(
                f"{query}: {tensor.name} is declared {tensor.element_type}, and Boundsmith decides over the real "
                "numbers; declare it real, or add --assume-real"
            )


def _head(query: Path) -> bytes:
    """The first bytes of the file's text; empty where it cannot be decompressed, which the reader will report."""
    try:
        with open(query, "rb") as stream:
            if stream.read(2) != b"\x1f\x8b":
                stream.seek(0)
                return stream.read(_HEAD_BYTES)
            stream.seek(0)
            with gzip.open(stream) as text:
                return text.read(_HEAD_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return b""
