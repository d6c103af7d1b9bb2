"""The VNN-LIB 2.0 rule about arithmetic: a query says over which numbers it is meant, and we decide over the reals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..specs.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path


def require_real(query: Path) -> None:
    """Refuse a 2.0 query whose tensors are declared with a type other than `real`.

    Raises SpecError, which names the tensor. VNN-LIB 1.0 has no element types and always passes.
    """
    from ..specs import parse_property
    from ..specs.read import read_bytes

    content = read_bytes(query)
    if b"declare-network" not in content:
        return
    declared = parse_property(content, str(query))
    for tensor in (*declared.inputs, *declared.outputs):
        if declared.version != "1.0" and tensor.element_type != "real":
            raise SpecError(
                f"{query}: {tensor.name} is declared {tensor.element_type}, and Boundsmith decides over the real "
                "numbers; declare it real, or add --assume-real"
            )
