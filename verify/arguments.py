"""What callers give to the Python functions: checked where it comes in, refused in one sentence."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import array_namespace, to_numpy
from .errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Array

_HINTS = {"gpu": "cuda"}


def require_choice(what: str, value: Any, allowed: Sequence[str]) -> str:
    """`value`, if it is one of those allowed; else an error that lists them, with the one that may be meant."""
    if isinstance(value, str) and value in allowed:
        return value
    near = [_HINTS[value.lower()]] if isinstance(value, str) and value.lower() in _HINTS else []
    if isinstance(value, str) and not near:
        near = difflib.get_close_matches(value.lower().replace("_", "-"), allowed, 1)
    hint = f"; did you mean {near[0]}?" if near and near[0] in allowed else ""
    raise ArgumentError(f"unknown {what} {value!r}{hint or ';'} choose one of {', '.join(allowed)}")


def require_number(what: str, value: Any, least: float, whole: bool = False) -> None:
    """Raise unless `value` is a number of at least `least` (whole: an integer)."""
    kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kind) or math.isnan(value) or value < least:
        raise ArgumentError(f"{what} must be {'a whole' if whole else 'a'} number of at least {least:g}, not {value!r}")


def region_of(center: Any, radius: Any, size: int, dtype: str) -> tuple[Array, Array]:
    """The centres and radii ``[B, size]`` of the boxes that a caller means, in one library and dtype; see
    `bounding.api.bounds`. Numbers that have no floating-point type become `dtype`."""
    library = next((x for x in (center, radius) if _is_tensor(x)), None)
    middle = _floats("centre", center, library, dtype)
    shape = tuple(int(extent) for extent in middle.shape)
    if size == 0 or math.prod(shape) == 0 or size not in {math.prod(shape[k:]) for k in range(len(shape) + 1)}:
        raise ArgumentError(
            f"the centre has shape {list(shape)}, which is no batch of points; the network takes {size} values a point"
        )
    reach = _floats("radius", radius, middle if library is not None else None, str(middle.dtype).split(".")[-1])
    xp = array_namespace(middle)
    _require_values("centre", middle, bool(xp.all(xp.isfinite(middle))), "finite numbers")
    _require_values("radius", reach, bool(xp.all(xp.isfinite(reach) & (reach >= 0))), "finite and not negative")
    reach = xp.broadcast_to(_aligned(reach, shape, size), shape)
    return middle.reshape(-1, size), reach.reshape(-1, size)


def _is_tensor(x: Any) -> bool:
    """Whether this is a torch tensor (without importing torch)."""
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "detach")


def _floats(what: str, value: Any, like: Array | None, dtype: str) -> Array:
    """The value as an array of float32 or float64: a tensor on the device of `like` where that is given."""
    if _is_tensor(value):
        array = value
    else:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):
            raise ArgumentError(f"the {what} is no array of numbers, but {type(value).__name__}") from None
    name = str(array.dtype).split(".")[-1]
    kind = "f" if _is_tensor(array) and array.dtype.is_floating_point else getattr(array.dtype, "kind", "i")
    if _is_tensor(array) and array.dtype.is_complex:
        kind = "c"
    if kind not in "fiub" or (kind == "f" and name not in ("float32", "float64")):
        raise ArgumentError(f"the {what} has element type {name}; give float32 or float64")
    # (A Python number or list has no type of its own.)
    wanted = name if kind == "f" and what == "centre" and hasattr(value, "dtype") else dtype
    if like is None:
        return array.astype(wanted, copy=False)
    import torch

    tensor = array if _is_tensor(array) else torch.tensor(array)
    return tensor.to(dtype=getattr(torch, wanted), device=like.device)


def _require_values(what: str, array: Array, holds: bool, kind: str) -> None:
    if not holds:
        values = to_numpy(array).reshape(-1)
        bad = values[~(np.isfinite(values) & ((values >= 0) | (what == "centre")))]
        raise ArgumentError(f"the {what} must be {kind}; it has {bad[0]:g}")


def _aligned(radius: Array, shape: tuple[int, ...], size: int) -> Array:
    """The radius with the axes of the centres, or an error where it fits in no way, or in two."""
    own = tuple(int(extent) for extent in radius.shape)
    if math.prod(own) == 1:
        return radius.reshape((1,) * len(shape))
    if len(own) == len(shape) and all(a in (1, b) for a, b in zip(own, shape, strict=True)):
        return radius
    points = math.prod(shape) // size
    batched = len(shape) > 1 and shape[0] == points
    each_point = batched and own[0] == points and math.prod(own) == points
    rest = shape[1:] if batched else ()
    each_input = len(own) == len(rest) and all(a in (1, b) for a, b in zip(own, rest, strict=True))
    if each_point and not each_input:
        return radius.reshape((points,) + (1,) * len(rest))
    if each_input and not each_point:
        return radius[None]
    spelled = f"{[points, *[1] * len(rest)]} for one radius a point, {[1, *rest]} for one an input"
    if each_point:
        raise ArgumentError(
            f"a radius of shape {list(own)} may mean one a point or one an input of centres {list(shape)}; give it the "
            f"shape {spelled}"
        )
    raise ArgumentError(
        f"a radius of shape {list(own)} does not fit centres of shape {list(shape)}; give a number, or the shape "
        f"{spelled}"
    )
