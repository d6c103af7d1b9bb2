"""The VNN-LIB 2.0 rule about arithmetic: a query says over which numbers it is meant, and we decide over the reals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import SpecError

if TYPE_CHECKING:
    from .property import Property


def require_real(property: Property) -> None:
    """Refuse a 2.0 query whose tensors are declared with a type other than `real`.

    Raises SpecError, which names the tensor. VNN-LIB 1.0 has no element types and always passes.
    """
    for tensor in (*property.inputs, *property.outputs):
        if property.version != "1.0" and tensor.element_type != "real":
            raise SpecError(
                f"{property.source}: {tensor.name} is declared {tensor.element_type}, and Boundsmith decides over the "
                "real numbers; declare it real, or add --assume-real"
            )
