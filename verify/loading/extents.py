"""Input extents that a model leaves open: what they are called, and fixing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def symbolic_axes(value_info: Any) -> tuple[tuple[int, str], ...]:
    """The axes of an input's extents that are left open, with the names that the model gives them ("?" for none)."""
    dims = value_info.type.tensor_type.shape.dim
    return tuple((axis, dim.dim_param or "?") for axis, dim in enumerate(dims) if dim.dim_value <= 0)


def with_extents(model: Any, shapes: Mapping[str, Sequence[int]], label: str) -> Any:
    """A copy of a `ModelProto` whose inputs have these shapes (by name), where it leaves them open.

    Raises `LoadError` for a name that is no input's, and for a shape that is not one of those the model allows.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    inputs = {info.name: info for info in copy.graph.input}
    for name, shape in shapes.items():
        if name not in inputs:
            raise LoadError(f"{label}: has no input {name}; its inputs are {', '.join(inputs)}.")
        dims = inputs[name].type.tensor_type.shape.dim
        fits = len(dims) == len(shape) and all(
            extent > 0 and dim.dim_value in (extent, 0, -1) for dim, extent in zip(dims, shape, strict=True)
        )
        if not fits:
            told = ", ".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims)
            raise LoadError(f"{label}: input {name} has shape [{told}], which {list(shape)} does not fit.")
        for dim, extent in zip(dims, shape, strict=True):
            dim.dim_value = int(extent)
    return copy
