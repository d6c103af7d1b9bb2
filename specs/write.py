"""Writer of VNN-LIB 1.0 and 2.0. What is written reads back as the same property."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import SpecError

if TYPE_CHECKING:
    from .property import Box, Clause, Property, TensorDeclaration


def write_property(prop: Property, version: str | None = None) -> str:
    """The property as VNN-LIB text.

    Args:
        version: "1.0" or "2.0"; by default the property's own.

    Raises:
        SpecError: if the version cannot express it: 1.0 knows one network only.
    """
    version = version or prop.version
    if version == "1.0":
        if len(prop.networks) > 1:
            raise SpecError("VNN-LIB 1.0 cannot express a property of several networks; write version 2.0")
        names = (
            [f"X_{index}" for index in range(prop.input_count)],
            [f"Y_{index}" for index in range(prop.output_count)],
        )
        header = [f"(declare-const {name} Real)" for name in (*names[0], *names[1])]
        equality = "="
    elif version == "2.0":
        names = _element_names(prop.inputs), _element_names(prop.outputs)
        header = ["(vnnlib-version <2.0>)", "", *_network_lines(prop)]
        equality = "=="
    else:
        raise SpecError(f"cannot write VNN-LIB {version}; known versions are 1.0 and 2.0")
    body = _Body(prop, *names)
    return "\n".join([*header, "", *body.merges(equality), *body.assertions(), ""])


def save_property(prop: Property, path: str | os.PathLike[str], version: str | None = None) -> None:
    """Write the property to a file, replacing it in one step.

    Raises:
        SpecError: if the version cannot express the property, or the file cannot be written.
    """
    target = Path(path)
    text = write_property(prop, version)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise SpecError(f"{path}: cannot be written: {problem.strerror or problem}") from None


def _element_names(tensors: tuple[TensorDeclaration, ...]) -> list[str]:
    """The names of all elements, in order."""
    names: list[str] = []
    for tensor in tensors:
        shape = _shape(tensor)
        for index in range(math.prod(shape)):
            position = ",".join(str(int(axis)) for axis in np.unravel_index(index, shape)) if shape else ""
            names.append(f"{tensor.name}[{position}]" if shape else tensor.name)
    return names


def _shape(tensor: TensorDeclaration) -> tuple[int, ...]:
    return (tensor.size,) if tensor.shape is None else tensor.shape


def _network_lines(prop: Property) -> list[str]:
    """The declarations of VNN-LIB 2.0."""
    lines: list[str] = []
    for network in prop.networks:
        lines.append(f"(declare-network {network.name}")
        if network.equal_to:
            lines.append(f"    (equal-to {network.equal_to})")
        if network.isomorphic_to:
            lines.append(f"    (isomorphic-to {network.isomorphic_to})")
        for keyword, tensors in (("input", prop.inputs), ("output", prop.outputs)):
            lines += [f"    {_tensor(keyword, tensor)}" for tensor in tensors if tensor.network == network.name]
        lines.append(")")
    return lines


def _tensor(keyword: str, tensor: TensorDeclaration) -> str:
    shape = ",".join(map(str, _shape(tensor)))
    onnx_name = ""
    if tensor.onnx_name is not None:
        escaped = tensor.onnx_name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        onnx_name = f' "{escaped}"'
    return f"(declare-{keyword} {tensor.name} {tensor.element_type} [{shape}]{onnx_name})"


class _Body:
    """Writes the assertions of a property, given the names of its variables."""

    def __init__(self, prop: Property, input_names: list[str], output_names: list[str]) -> None:
        self.prop = prop
        self.input_names = input_names
        _, first = np.unique(prop.input_map, return_index=True)
        self.free_names = [input_names[variable] for variable in first.tolist()]
        self.output_names = output_names
        self.monomials = [
            " ".join(self.free_names[index] if kind == "x" else output_names[index] for kind, index in monomial)
            for monomial in prop.monomials
        ]

    def merges(self, equality: str) -> list[str]:
        """The equalities of inputs that share one free input."""
        pairs = zip(self.input_names, self.prop.input_map.tolist(), strict=True)
        return [
            f"(assert ({equality} {self.free_names[free]} {name}))"
            for name, free in pairs
            if self.free_names[free] != name
        ]

    def assertions(self) -> list[str]:
        """The clauses: what all share first, then one disjunction."""
        clauses = self.prop.clauses
        if not clauses:
            return ["(assert (<= 1.0 0.0))"]
        boxes = {id(clause.box): clause.box for clause in clauses}
        lines: list[str] = []
        if len(boxes) == 1:
            lines += [f"(assert {bound})" for bound in self._box(clauses[0].box)]
            if any(not len(clause.offset) for clause in clauses):
                return lines
        cases = [
            ([] if len(boxes) == 1 else self._box(clause.box))
            + [self._row(clause, s) for s in range(len(clause.offset))]
            for clause in clauses
        ]
        if len(cases) == 1:
            return [*lines, *(f"(assert {condition})" for condition in cases[0])]
        return [*lines, "(assert (or", *(f"    (and {' '.join(case)})" for case in cases), "))"]

    def _box(self, box: Box) -> list[str]:
        sides = zip(self.free_names, box.lower.tolist(), box.upper.tolist(), strict=True)
        return [
            text
            for name, lower, upper in sides
            for text in (f"(>= {name} {_number(lower)})", f"(<= {name} {_number(upper)})")
        ]

    def _row(self, clause: Clause, s: int) -> str:
        """Row s of a clause."""
        terms: list[tuple[float, str]] = []
        for coefficients, names in (
            (clause.input_rows, self.free_names),
            (clause.output_rows, self.output_names),
            (clause.monomial_rows, self.monomials),
        ):
            if coefficients is not None:
                used = np.flatnonzero(coefficients[s]).tolist()
                terms += [(float(coefficients[s, index]), names[index]) for index in used]
        bound = float(clause.offset[s])
        less, greater = ("<", ">") if clause.strict[s] else ("<=", ">=")
        if not terms:
            return f"({less} 0.0 {_number(bound)})"
        if len(terms) == 1 and terms[0][0] == -1.0:
            return f"({greater} {_product(1.0, terms[0][1])} {_number(-bound)})"
        if len(terms) == 2 and bound == 0 and {value for value, _ in terms} == {1.0, -1.0}:
            (_, smaller), (_, larger) = sorted(terms, key=lambda term: -term[0])
            return f"({less} {_product(1.0, smaller)} {_product(1.0, larger)})"
        products = [_product(value, names) for value, names in terms]
        left = products[0] if len(products) == 1 else f"(+ {' '.join(products)})"
        return f"({less} {left} {_number(bound)})"


def _product(value: float, names: str) -> str:
    """``value * names``, where names are one or more variables."""
    if value != 1.0:
        return f"(* {_number(value)} {names})"
    return f"(* {names})" if " " in names else names


def _number(value: float) -> str:
    """The shortest decimal that reads back as `value`; without an exponent, which VNN-LIB 2.0 does not have."""
    text = repr(value)
    return np.format_float_positional(value, trim="0") if "e" in text else text
