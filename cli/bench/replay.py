"""Checking a printed counterexample from outside: parse what `verify` said, run onnxruntime, evaluate the query.

Shares nothing with the search that found the witness except the query's reader.
"""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import numpy as np

from ...specs.errors import BoundsmithError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...specs.property import Clause, Property

_TENSOR = re.compile(r"(?P<name>\S+) (?P<type>\S+) \[(?P<shape>[\d,]*)\]")


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
        values = lines[position + 1 : position + 1 + size]
        if len(values) < size:
            raise ValueError(f"tensor {header['name']} is incomplete")
        tensors.append(np.array(values, dtype=np.dtype(header["type"])).reshape(shape))
        position += 1 + size
    return tensors


def confirm(query: Path, networks: Mapping[str, Path], lines: Sequence[str]) -> str:
    """Why the printed assignment is no counterexample; the empty string if it is one.

    Inputs must lie in a clause's box in their own type, and the outputs onnxruntime gives must satisfy its rows.
    """
    from ...specs import read_property

    try:
        asked = read_property(query)
        tensors = _inputs(asked, parse_assignment(lines))
        outputs = _outputs(asked, networks, tensors)
    except (BoundsmithError, ValueError, TypeError) as error:
        return f"the assignment cannot be replayed: {error}"
    variables = np.concatenate([tensor.ravel() for tensor in tensors])
    free = np.zeros(asked.free_count, dtype=variables.dtype)
    free[asked.input_map] = variables
    if not np.array_equal(free[asked.input_map], variables):
        return "inputs that the query declares equal differ"
    monomials = _monomials(asked, free.astype(np.float64), outputs)
    if not any(_satisfied(clause, free, outputs, monomials) for clause in asked.clauses):
        return "onnxruntime's outputs violate no clause of the query"
    return ""


def _inputs(asked: Property, tensors: list[np.ndarray]) -> list[np.ndarray]:
    """The leading tensors, as many as hold the query's input variables."""
    counted, taken = 0, []
    for tensor in tensors:
        if counted == asked.input_count:
            break
        taken.append(tensor)
        counted += tensor.size
    if counted != asked.input_count:
        raise ValueError(f"the assignment has not the query's {asked.input_count} inputs")
    return taken


def _outputs(asked: Property, networks: Mapping[str, Path], tensors: list[np.ndarray]) -> np.ndarray:
    """All networks' outputs on the given input tensors, in order of declaration, float64 ``[m]``."""
    from ...verify.loading.runtime import make_session, reference_outputs

    pending = list(tensors)
    outputs: list[np.ndarray] = []
    for declaration in asked.networks:
        file = networks.get(declaration.name) or networks.get("") or networks.get(declaration.equal_to or "")
        if file is None:
            raise ValueError(f"no file is known for network {declaration.name}")
        usual, exact = (make_session(_source(file), exact=exact) for exact in (False, True))
        feeds = {}
        for entry in usual.get_inputs():
            if not pending:
                raise ValueError(f"{file} has more inputs than the assignment")
            shape = [size if isinstance(size, int) and size > 0 else 1 for size in entry.shape]
            dtype = np.float64 if "double" in entry.type else np.float32
            feeds[entry.name] = pending.pop(0).astype(dtype).reshape(shape)
        results = reference_outputs(usual, exact, feeds)
        outputs.extend(np.asarray(value, dtype=np.float64).ravel() for value in results)
    return np.concatenate(outputs)


def _source(file: Path) -> bytes | str:
    """What onnxruntime is given: the path, so that it finds weights beside it, or what a packed file holds."""
    content = file.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else str(file)


def _monomials(asked: Property, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    values = {"x": inputs, "y": outputs}
    return np.array([np.prod([values[kind][index] for kind, index in factors]) for factors in asked.monomials])


def _satisfied(clause: Clause, free: np.ndarray, outputs: np.ndarray, monomials: np.ndarray) -> bool:
    """Whether the point lies in the clause: its box rounded to the inputs' type, its rows in float64."""
    lower, upper = clause.box.lower.astype(free.dtype), clause.box.upper.astype(free.dtype)
    if not (np.all(free >= lower) and np.all(free <= upper)):
        return False
    margin = clause.output_rows @ outputs - clause.offset
    if clause.input_rows is not None:
        margin = margin + clause.input_rows @ free.astype(np.float64)
    if clause.monomial_rows is not None:
        margin = margin + clause.monomial_rows @ monomials
    return bool(np.all(np.where(clause.strict, margin < 0, margin <= 0)))
