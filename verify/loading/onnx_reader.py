"""Reading ONNX files: bytes to a protobuf message, and its tensors and attributes to numpy and Python values.

Importing the `onnx` package costs several times more than parsing a small network, and only its generated message
classes are needed here, so those are loaded alone; a later ``import onnx`` gets the very same classes.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import sys
import zlib
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LoadError
from .builder import MOST_AXES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

LARGEST_MODEL = (1 << 31) - 1
"""Bytes of the largest model that protobuf can hold, hence of the largest that is unpacked."""

_GZIP_MAGIC = b"\x1f\x8b"
_OF_TORCH = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How zip archives and pickles begin, and no ONNX file does."""

_ELEMENT_TYPES: Mapping[int, np.dtype] = MappingProxyType(
    {
        1: np.dtype(np.float32),
        2: np.dtype(np.uint8),
        3: np.dtype(np.int8),
        4: np.dtype(np.uint16),
        5: np.dtype(np.int16),
        6: np.dtype(np.int32),
        7: np.dtype(np.int64),
        9: np.dtype(np.bool_),
        10: np.dtype(np.float16),
        11: np.dtype(np.float64),
        12: np.dtype(np.uint32),
        13: np.dtype(np.uint64),
    }
)

_TYPE_NAMES: Mapping[int, str] = MappingProxyType(
    {0: "undefined", 8: "string", 14: "complex64", 15: "complex128", 16: "bfloat16"}
)


@cache
def _schema() -> ModuleType:
    """The module that defines ONNX's protobuf messages."""
    if "onnx" not in sys.modules:
        package = importlib.machinery.PathFinder.find_spec("onnx")
        for folder in (package.submodule_search_locations or ()) if package else ():
            source = Path(folder) / "onnx_ml_pb2.py"
            spec = (
                importlib.util.spec_from_file_location("boundsmith_onnx_messages", source) if source.exists() else None
            )
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return importlib.import_module("onnx")


def read_bytes(source: str | os.PathLike[str]) -> bytes:
    """The content of a model file, unpacked if it is gzip.

    `source` may name a plain or a gzip file; where only ``source.gz`` exists that is read. Raises `LoadError` if the
    file is missing, unreadable, cut short, or named ``.gz`` without being gzip.
    """
    path = Path(source)
    packed = path.with_name(path.name + ".gz") if path.name else path
    if not path.exists() and packed.exists():
        path = packed
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LoadError(f"{path}: no such network file; check the path.") from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if content[:2] == _GZIP_MAGIC:
        return _gunzip(content, str(path))
    if path.suffix == ".gz":
        raise LoadError(f"{path}: is named .gz but is not a gzip file; rename it or compress it with gzip.")
    return content


def _gunzip(content: bytes, label: str) -> bytes:
    """Every member of a gzip file, unpacked to at most `LARGEST_MODEL` bytes."""
    parts: list[bytes] = []
    room = LARGEST_MODEL
    rest = content
    try:
        while rest[:2] == _GZIP_MAGIC:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(rest, room))
            room -= len(parts[-1])
            if not member.eof:
                if room <= 0:
                    raise LoadError(f"{label}: unpacks to more than 2 GiB, the most an ONNX file can hold.")
                raise LoadError(f"{label}: the gzip data is cut short; fetch the file again.")
            rest = member.unused_data
    except zlib.error:
        raise LoadError(f"{label}: the gzip data is damaged; fetch the file again.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse_model(content: bytes, label: str) -> Any:
    """The `ModelProto` in `content`; `label` names the source in messages. Raises `LoadError` if it is not ONNX."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not content:
        raise LoadError(f"{label}: the file is empty.")
    if content.startswith(_OF_TORCH):
        raise LoadError(
            f"{label}: is a zip archive or pickle, as torch.save and TorchScript write, not an ONNX model; build the "
            "module in Python and load(module, example_input), or export it with torch.onnx.export."
        )
    model = _schema().ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise LoadError(f"{label}: is not an ONNX model, or is cut short (it does not parse as protobuf).") from None
    if not model.HasField("graph") or not model.graph.output:
        raise LoadError(f"{label}: is not an ONNX model (it holds no graph with outputs).")
    return model


def with_external_data(model: Any, content: bytes, folder: Path, label: str) -> bytes:
    """`content`, the bytes of `model`, with all tensors that are stored in other files of `folder` inside; `model` too.

    The files may be packed with gzip, as the model's may. Raises `LoadError` for files that are missing, too short or
    outside of the folder, and where everything together is larger than an ONNX file can be.
    """
    outside = [tensor for tensor in _tensors(model.graph) if tensor.data_location == 1]
    if not outside:
        return content
    files: dict[str, bytes] = {}
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        what, location = f"{label}: tensor {tensor.name}", entries.get("location", "")
        if not _lies_in(folder, location):
            shown = location.replace("\0", "\\0") or "no file"
            raise LoadError(
                f"{what} is stored in {shown}, which is not in the model's own folder, or not a file there."
            )
        if location not in files:
            files[location] = read_bytes(folder / location)
        try:
            start = int(entries.get("offset", 0))
            length = int(entries.get("length", len(files[location]) - start))
        except ValueError:
            raise LoadError(f"{what} has an offset or length that is not a number; the model is damaged.") from None
        if min(start, length) < 0 or start + length > len(files[location]):
            raise LoadError(f"{what} is stored beyond the end of {location}; fetch that file again.")
        tensor.raw_data = files[location][start : start + length]
        tensor.data_location = 0
        del tensor.external_data[:]
    if model.ByteSize() > LARGEST_MODEL:
        raise LoadError(f"{label}: has more than 2 GiB of weights, the most that can be loaded.")
    return bytes(model.SerializeToString())


def _lies_in(folder: Path, location: str) -> bool:
    """Whether a file may be read for a model in a folder: it lies in there, not behind a link that leads out or in a
    circle, and is not a device or pipe, which might never end. (A file that is not there is for the reader to name.)"""
    try:
        path = (folder / location).resolve()
        special = path.exists() and not path.is_file()
        return bool(location) and path.is_relative_to(folder.resolve()) and not special
    except (OSError, RuntimeError, ValueError):
        return False


def _tensors(graph: Any) -> Iterator[Any]:
    """All stored tensors of a graph: initializers, and those in attributes, also in inner graphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def element_type(code: int, what: str) -> np.dtype:
    """The numpy dtype of an ONNX element type code; `what` names the tensor in the `LoadError` for unusable ones."""
    if code not in _ELEMENT_TYPES:
        name = _TYPE_NAMES.get(code, f"number {code}")
        raise LoadError(f"{what} has element type {name}, which is not supported; export it as float32 or float64.")
    return _ELEMENT_TYPES[code]


def tensor_to_array(tensor: Any) -> np.ndarray:
    """A `TensorProto` as a numpy array (read-only, and without a further copy, where it stores raw bytes).

    Raises `LoadError` for tensors stored outside the file, of unusable element type, or whose data does not fit
    their shape.
    """
    what = f"tensor {tensor.name or '(unnamed)'!s}"
    if tensor.data_location == 1 or tensor.external_data:
        raise LoadError(f"{what} is stored outside the ONNX file; load the file by its path, not as bytes.")
    dtype = element_type(tensor.data_type, what)
    shape = tuple(tensor.dims)
    if len(shape) > MOST_AXES:
        raise LoadError(f"{what} has {len(shape)} axes; at most {MOST_AXES} are supported.")
    if any(extent < 0 for extent in shape):
        raise LoadError(f"{what} has a negative dimension in its shape {list(shape)}.")
    data = _stored_values(tensor, dtype, what)
    if data.size != math.prod(shape):
        raise LoadError(f"{what} declares shape {list(shape)} but holds {data.size} values; the file is damaged.")
    return data.reshape(shape)


def _stored_values(tensor: Any, dtype: np.dtype, what: str) -> np.ndarray:
    """The flat values of a tensor from whichever field holds them."""
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if len(raw) % dtype.itemsize:
            raise LoadError(f"{what} holds {len(raw)} bytes, not a multiple of its element size; the file is damaged.")
        values = np.frombuffer(raw, dtype=dtype.newbyteorder("<"))
        return values if sys.byteorder == "little" else values.astype(dtype)
    if dtype == np.float32:
        return np.asarray(tensor.float_data, dtype=dtype)
    if dtype == np.float64:
        return np.asarray(tensor.double_data, dtype=dtype)
    if dtype == np.int64:
        return np.asarray(tensor.int64_data, dtype=dtype)
    if dtype in (np.uint32, np.uint64):
        return np.asarray(tensor.uint64_data, dtype=np.uint64).astype(dtype)
    stored = np.asarray(tensor.int32_data, dtype=np.int32)
    if dtype == np.float16:
        return stored.astype(np.uint16).view(np.float16)
    return stored.astype(dtype)


def attribute_value(attribute: Any) -> Any:
    """An `AttributeProto` as a float, int, str, array, or a tuple of those; None for subgraphs and the like."""
    match attribute.type:
        case 1:
            return float(attribute.f)
        case 2:
            return int(attribute.i)
        case 3:
            return attribute.s.decode("utf-8", "replace")
        case 4:
            return tensor_to_array(attribute.t)
        case 6:
            return tuple(float(value) for value in attribute.floats)
        case 7:
            return tuple(int(value) for value in attribute.ints)
        case 8:
            return tuple(value.decode("utf-8", "replace") for value in attribute.strings)
        case _:
            return None


def declared_shape(value_info: Any) -> tuple[int, ...] | None:
    """The shape that an input or output declares, unknown and non-positive dimensions as 1; None if it has none."""
    tensor_type = value_info.type.tensor_type
    if not tensor_type.HasField("shape"):
        return None
    return tuple(extent.dim_value if extent.dim_value > 0 else 1 for extent in tensor_type.shape.dim)


def runnable(model: Any, content: bytes) -> bytes:
    """`content`, the bytes of `model`, such that onnxruntime takes an extent of 1 for every dynamic input dimension.

    It refuses that where a file writes a dynamic dimension as 0; such dimensions are made symbolic.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    if not any(_zero_extents(info) for info in model.graph.input if info.name not in stored):
        return content
    copy = type(model)()
    copy.CopyFrom(model)
    for info in copy.graph.input:
        for extent in _zero_extents(info) if info.name not in stored else ():
            extent.dim_param = "dynamic"
    return bytes(copy.SerializeToString())


def _zero_extents(value_info: Any) -> list[Any]:
    dimensions = value_info.type.tensor_type.shape.dim
    return [extent for extent in dimensions if extent.HasField("dim_value") and extent.dim_value <= 0]
