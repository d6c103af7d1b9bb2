"""Boxes of inputs from the forms in which the command line takes them."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ..specs.errors import BoundsmithError, SpecError
from .options import require_file
from .output import counted

if TYPE_CHECKING:
    from pathlib import Path

    Boxes = tuple[np.ndarray, np.ndarray]

_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and the standard library raise while they read a damaged or foreign file."""


def read_boxes(size: int, *, region: Path | None, center: str | None, eps: float | None, data: Path | None) -> Boxes:
    """The boxes that exactly one of `region`, `center` and `data` gives, float64 ``[B, size]`` twice.

    Raises BoundsmithError for none or several of them, for a radius that is missing, and for sizes that do not fit.
    """
    given = [
        name for name, value in (("--region", region), ("--center", center), ("--data", data)) if value is not None
    ]
    if len(given) != 1:
        raise BoundsmithError("give the region by one of --region, --center and --data")
    if region is not None:
        if eps is not None:
            raise BoundsmithError("--eps goes with --center or --data, not with --region")
        lower, upper = _query_boxes(region)
    elif data is not None:
        lower, upper = _data_boxes(data, eps)
    else:
        assert center is not None
        lower, upper = _around(_center(center, size)[None], eps)
    if lower.shape[1] != size:
        raise SpecError(f"{given[0]} gives {counted(lower.shape[1], 'input')}; the network has {size}")
    if not len(lower):
        raise SpecError(f"{given[0]} gives no box; the first axis counts boxes or points, and is empty")
    if not np.all(lower <= upper):
        raise SpecError(f"{given[0]} gives a box whose lower bound is above its upper bound, or is no number")
    if not np.isfinite([lower, upper]).all():
        raise SpecError(f"{given[0]} gives a box that is not bounded; every input needs finite bounds")
    return lower, upper


def rounded_outward(lower: np.ndarray, upper: np.ndarray, dtype: str) -> Boxes:
    """The smallest boxes with ends of type `dtype` that contain the given ones (float64).

    Raises SpecError where the type has no such numbers.
    """
    with np.errstate(over="ignore"):
        low, high = lower.astype(dtype), upper.astype(dtype)
    if not np.isfinite([low, high]).all():
        raise SpecError(f"the region reaches beyond the numbers of {dtype}; use --dtype float64")
    low = np.where(low > lower, np.nextafter(low, low.dtype.type(-np.inf)), low)
    return low, np.where(high < upper, np.nextafter(high, high.dtype.type(np.inf)), high)


def _query_boxes(query: Path) -> Boxes:
    """The different boxes of a query's clauses, over its input variables."""
    from ..specs import read_property

    asked = read_property(require_file(query, "query"))
    if len(asked.networks) != 1:
        raise SpecError(f"{query} speaks of {len(asked.networks)} networks; bounds takes a query about one")
    boxes = {id(clause.box): clause.box for clause in asked.clauses}
    if not boxes:
        raise SpecError(f"{query} has no region: nothing satisfies its conditions on the inputs")
    lower = np.stack([box.lower[asked.input_map] for box in boxes.values()])
    return lower, np.stack([box.upper[asked.input_map] for box in boxes.values()])


def _data_boxes(file: Path, eps: float | None) -> Boxes:
    arrays = _arrays(require_file(file, "data"))
    if "x" in arrays:
        return _around(_flat(arrays["x"]), eps)
    if "lower" in arrays and "upper" in arrays:
        if eps is not None:
            raise BoundsmithError(f"--eps goes with points x; {file} has boxes")
        lower, upper = _flat(arrays["lower"]), _flat(arrays["upper"])
        if lower.shape != upper.shape:
            raise SpecError(f"{file}: lower and upper differ in shape")
        return lower, upper
    raise SpecError(f"{file} has neither x nor lower and upper; it has {', '.join(arrays) or 'nothing'}")


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except _UNREADABLE as error:
        raise SpecError(f"{file} is no readable .npz file ({error})") from error


def _flat(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2 or array.dtype.kind not in "fiu":
        raise SpecError("arrays of data need a first axis that counts points, and numbers in them")
    return array.reshape(len(array), math.prod(array.shape[1:])).astype(np.float64)


def _center(text: str, size: int) -> np.ndarray:
    """The point ``[n]`` that a list of numbers or an .npy file gives; one number stands for all `size` inputs."""
    try:
        if text.endswith(".npy"):
            point = np.load(text, allow_pickle=False).astype(np.float64).ravel()
        else:
            point = np.array([float(part) for part in text.split(",")])
    except FileNotFoundError:
        raise SpecError(f"--center {text} does not exist; check the path") from None
    except _UNREADABLE as error:
        raise SpecError(f"--center {text} is neither a list of numbers nor a readable .npy file") from error
    return np.full(size, point[0]) if len(point) == 1 else point


def _around(points: np.ndarray, eps: float | None) -> Boxes:
    if eps is None:
        raise BoundsmithError("points need a radius: add --eps")
    return points - eps, points + eps
