"""Checking a printed counterexample from outside: parse what `verify` said, run onnxruntime, evaluate the query.

Shares nothing with the search that found the witness except the readers of queries and of packed network files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...specs.errors import BoundsmithError
from ..output import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...specs.property import Clause, Property

_TENSOR = re.compile(r"(?P<name>\S.*) (?P<type>\S+) \[(?P<shape>[\d,]*)\]")

_GZIP_MAGIC = b"\x1f\x8b"

_ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    **{
        f"tensor({name})": name
        for name in ("float16", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
    },
}
"""numpy's names of onnxruntime's element types."""


_VISIBLE = 2e-4
"""Differences of outputs, relative to the largest, that no order of summation makes."""


class NotReplayed(Exception):
    """The counterexample could be neither confirmed nor refuted; the message says why."""


def parse_assignment(lines: Sequence[str]) -> list[np.ndarray]:
    """The tensors that `report.console.assignment_lines` wrote. Raises ValueError for lines of another form."""
    tensors: list[np.ndarray] = []
    position = 0
    while position < len(lines):
        header = _TENSOR.fullmatch(lines[position].strip())
        if header is None:
            raise ValueError(f"{lines[position]!r} is no tensor's heading")
        shape = tuple(int(size) for size in header["shape"].split(",") if size)
        size = int(np.prod(shape, dtype=np.int64))
        values = [line.strip() for line in lines[position + 1 : position + 1 + size]]
        if len(values) < size:
            raise ValueError(f"tensor {header['name']} is incomplete")
        tensors.append(_numbers(values, header["type"]).reshape(shape))
        position += 1 + size
    return tensors


def _numbers(values: list[str], name: str) -> np.ndarray:
    if name == "bool":
        if not set(values) <= {"True", "False"}:
            raise ValueError("a bool is neither True nor False")
        return np.array([value == "True" for value in values], dtype=bool)
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"{name} is no element type") from error
    return np.array(values).astype(dtype)


def confirm(query: Path, networks: Mapping[str, Path], lines: Sequence[str]) -> str:
    """Why the printed assignment is no counterexample; the empty string if it is one.

    Inputs must lie in a clause's box in their own type, and the outputs onnxruntime gives must satisfy its rows. Raises
    NotReplayed where it gives none.
    """
    from ...specs import read_property

    try:
        asked = read_property(query)
        tensors = _inputs(asked, parse_assignment(lines))
    except (BoundsmithError, ValueError) as error:
        return f"the assignment cannot be read: {error}"
    values = np.concatenate([tensor.ravel().astype(np.float64) for tensor in tensors]) if tensors else np.zeros(0)
    free = np.zeros(asked.free_count)
    free[asked.input_map] = values
    if not np.array_equal(free[asked.input_map], values):
        return "inputs that the query declares equal differ"
    inside = [clause for clause in asked.clauses if _contains(clause, asked, tensors)]
    if not inside:
        return "the inputs lie in no box of the query"
    try:
        outputs = _outputs(asked, networks, tensors)
    except Exception as error:
        # onnxruntime's errors have no common base below Exception. Whatever it is, nothing was confirmed, and the
        # instances after this one must run.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotReplayed(f"the counterexample could not be replayed: {reason[:300]}") from error
    if outputs.size != asked.output_count:
        return f"the networks have {counted(outputs.size, 'output')}; the query speaks of {asked.output_count}"
    monomials = _monomials(asked, free, outputs)
    if any(_satisfied(clause, free, outputs, monomials) for clause in inside):
        return ""
    return "onnxruntime's outputs violate no clause of the query"


def _inputs(asked: Property, tensors: list[np.ndarray]) -> list[np.ndarray]:
    """The leading tensors, as many as hold the query's input variables."""
    held, taken = 0, []
    for tensor in tensors:
        if held == asked.input_count:
            break
        taken.append(tensor)
        held += tensor.size
    if held != asked.input_count:
        raise ValueError(f"the assignment has not the query's {asked.input_count} inputs")
    return taken


def _outputs(asked: Property, networks: Mapping[str, Path], tensors: list[np.ndarray]) -> np.ndarray:
    """All networks' outputs on the given input tensors, in order of declaration, float64 ``[m]``.

    Of onnxruntime with its default optimisations, unless those change the outputs visibly: they may replace a network
    by one that rounds elsewhere (quantised layers), and what the file says is what the basic ones leave.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    levels = onnxruntime.GraphOptimizationLevel
    usual, exact = (
        _outputs_at(level, asked, networks, tensors) for level in (levels.ORT_ENABLE_ALL, levels.ORT_ENABLE_BASIC)
    )
    visible = _VISIBLE * max(1e-3, float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)))
    return usual if np.allclose(usual, exact, rtol=0.0, atol=visible, equal_nan=True) else exact


def _outputs_at(level: Any, asked: Property, networks: Mapping[str, Path], tensors: list[np.ndarray]) -> np.ndarray:
    pending = list(tensors)
    outputs: list[np.ndarray] = []
    for declaration in asked.networks:
        file = networks.get(declaration.name) or networks.get("") or networks.get(declaration.equal_to or "")
        if file is None:
            raise ValueError(f"no file is known for network {declaration.name}")
        session = _session(file, level)
        entries = session.get_inputs()
        if len(entries) > len(pending):
            raise ValueError(f"{file} has more inputs than the assignment")
        feeds = {entry.name: _fed(pending.pop(0), entry) for entry in entries}
        outputs.extend(np.asarray(value, dtype=np.float64).ravel() for value in session.run(None, feeds))
    return np.concatenate(outputs)


def _fed(tensor: np.ndarray, entry: Any) -> np.ndarray:
    """An input tensor as onnxruntime takes it: of the entry's type, in its shape where that is fixed."""
    if entry.type not in _ELEMENT_TYPES:
        raise ValueError(f"input {entry.name} has type {entry.type}, which is not known here")
    shape = tuple(entry.shape)
    if not all(isinstance(size, int) for size in shape):
        # A symbolic extent: the assignment says which it is, or it is 1.
        given = tensor.shape if tensor.ndim == len(shape) else (1,) * len(shape)
        shape = tuple(size if isinstance(size, int) else own for size, own in zip(shape, given, strict=True))
    return np.ascontiguousarray(tensor.astype(_ELEMENT_TYPES[entry.type]).reshape(shape))


def _session(file: Path, level: Any) -> Any:
    """onnxruntime on a file: by its path, so that it finds weights beside it, where it can read the file itself.

    It cannot where the file is packed, or writes a dynamic extent of an input as 0.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    providers = ["CPUExecutionProvider"]
    with open(file, "rb") as stream:
        packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if not packed:
        session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        if not any(size == 0 for entry in session.get_inputs() for size in entry.shape):
            return session
    return onnxruntime.InferenceSession(_content(file), options, providers=providers)


def _content(file: Path) -> bytes:
    """A network file unpacked, with its weights inside, and with symbols for extents of 0 of its inputs."""
    from ...verify.loading.onnx_reader import parse_model, read_bytes, runnable, with_external_data

    content = read_bytes(file)
    model = parse_model(content, str(file))
    return runnable(model, with_external_data(model, content, file.parent, str(file)))


def _contains(clause: Clause, asked: Property, tensors: list[np.ndarray]) -> bool:
    """Whether the inputs lie in the clause's box; its ends are rounded to the type of an input of real numbers."""
    start = 0
    for tensor in tensors:
        free = asked.input_map[start : start + tensor.size]
        start += tensor.size
        lower, upper = clause.box.lower[free], clause.box.upper[free]
        if tensor.dtype.kind == "f":
            lower, upper = lower.astype(tensor.dtype), upper.astype(tensor.dtype)
        values = tensor.ravel() if tensor.dtype.kind == "f" else tensor.ravel().astype(np.float64)
        if not (np.all(values >= lower) and np.all(values <= upper)):
            return False
    return True


def _monomials(asked: Property, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    values = {"x": inputs, "y": outputs}
    return np.array([np.prod([values[kind][index] for kind, index in factors]) for factors in asked.monomials])


def _satisfied(clause: Clause, free: np.ndarray, outputs: np.ndarray, monomials: np.ndarray) -> bool:
    """Whether the clause's rows hold, evaluated in float64."""
    margin = clause.output_rows @ outputs - clause.offset
    if clause.input_rows is not None:
        margin = margin + clause.input_rows @ free
    if clause.monomial_rows is not None:
        margin = margin + clause.monomial_rows @ monomials
    return bool(np.all(np.where(clause.strict, margin < 0, margin <= 0)))
