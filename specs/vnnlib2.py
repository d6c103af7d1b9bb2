"""Reader of VNN-LIB 2.0: networks with named, typed and shaped tensors.

Standard: https://www.vnnlib.org (query language, version 2.0). Accepted beyond it: exponents in numbers, ``=``
for ``==``, connectives of one condition, and infix comparisons (with a note).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import SpecError
from .formula import Conditions
from .property import NetworkDeclaration, TensorDeclaration
from .query import MAX_VARIABLES, Asserted, Ignored, Query, Versions, read_assertions, reduce_assert

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sexpr import Source

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_TYPE_AND_SHAPE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s*(\[[^\]]*\])?", re.ASCII)
_ELEMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*(?:\[([^\]]*)\])?", re.ASCII)
ELEMENT_TYPES = frozenset(
    [
        "real",
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "float8e4m3fn",
        "float8e5m2",
        "float8e4m3fnuz",
        "float8e5m2fnuz",
        "float4e2m1",
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    ]
)
_TENSORS = ("declare-input", "declare-hidden", "declare-output")


class _Tensor(NamedTuple):
    """A declaration inside a network; `kind` is the keyword."""

    kind: str
    declaration: TensorDeclaration
    offset: int


class _Link(NamedTuple):
    """``(equal-to f)`` or ``(isomorphic-to f)``."""

    keyword: str
    network: str


@dataclass
class _Scope:
    """The tensors and networks declared so far."""

    networks: list[NetworkDeclaration] = field(default_factory=list)
    tensors: dict[str, _Tensor] = field(default_factory=dict)
    first_number: dict[str, int] = field(default_factory=dict)
    ends: list[tuple[int, str]] = field(default_factory=list)
    assertions_begun: bool = False

    def of_kind(self, kind: str) -> tuple[TensorDeclaration, ...]:
        return tuple(tensor.declaration for tensor in self.tensors.values() if tensor.kind == kind)

    def number_tensors(self) -> None:
        """Number the elements of all tensors, inputs first; called once, when the first assertion refers to one."""
        if not self.first_number:
            number = 0
            for tensor in (*self.of_kind("declare-input"), *self.of_kind("declare-output")):
                self.first_number[tensor.name] = number
                self.ends.append((number + tensor.size, tensor.element_type))
                number += tensor.size

    def type_of(self, number: int) -> str:
        """The element type of a variable, as declared."""
        return next(element_type for end, element_type in self.ends if number < end)


def read_vnnlib2(source: Source, bulk: bool = True) -> Query:
    """Read a VNN-LIB 2.0 query.

    Args:
        bulk: read common shapes in bulk; False gives the same result, slowly.

    Raises:
        SpecError: with file, line and column.
    """
    scope = _Scope()
    number_of = _lookup(scope)
    conditions = Conditions(source, number_of, scope.type_of)
    versions = Versions(source, "2")
    readers: dict[str, Callable[[list[Any], list[int], int], Any]] = {
        "vnnlib-version": lambda items, offsets, start: versions.read(items, start),
        "declare-network": lambda items, offsets, start: _network(source, scope, items, offsets, start),
        "equal-to": lambda items, offsets, start: _link(source, scope, items, start),
        "isomorphic-to": lambda items, offsets, start: _link(source, scope, items, start),
        "assert": lambda items, offsets, start: _asserted(conditions, scope, items, offsets, start),
        **dict.fromkeys(_TENSORS, lambda items, offsets, start: _tensor(source, items, offsets, start)),
    }

    def reduce(items: list[Any], offsets: list[int], start: int) -> Any:
        reader = readers.get(items[0]) if items and isinstance(items[0], str) else None
        if reader:
            return reader(items, offsets, start)
        for item, offset in zip(items, offsets, strict=True):
            if isinstance(item, (Asserted, Ignored, _Tensor, _Link)):
                raise source.error(offset, "a declaration or assertion does not belong inside this form")
        return conditions.reduce(items, offsets, start)

    found = read_assertions(source, 0, reduce, number_of, bulk)
    if not scope.networks:
        raise SpecError(
            f"{source.name}: no network is declared; begin with (declare-network f (declare-input ...) ...)"
        )
    inputs, outputs = scope.of_kind("declare-input"), scope.of_kind("declare-output")
    return Query(
        source=source,
        version="2.0",
        networks=tuple(scope.networks),
        inputs=inputs,
        outputs=outputs,
        formulas=found.formulas,
        bounds=found.bounds,
        cases=found.cases,
        element_name=lambda number: _element_name(inputs + outputs, number),
        notes=tuple(conditions.notes),
    )


def _asserted(conditions: Conditions, scope: _Scope, items: list[Any], offsets: list[int], start: int) -> Asserted:
    scope.assertions_begun = True
    return reduce_assert(conditions, items, offsets, start)


def _link(source: Source, scope: _Scope, items: list[Any], start: int) -> _Link:
    if len(items) != 2 or not isinstance(items[1], str):
        raise source.error(start, f"{items[0]} takes the name of one network")
    other = next((network for network in scope.networks if network.name == items[1]), None)
    if other is None:
        raise source.error(start, f"network {items[1]!r} is not declared before this one")
    if other.equal_to or other.isomorphic_to:
        raise source.error(
            start,
            f"network {other.name!r} is itself declared {'equal' if other.equal_to else 'isomorphic'} to another; "
            f"name that one here ({other.equal_to or other.isomorphic_to})",
        )
    return _Link(items[0], items[1])


def _tensor(source: Source, items: list[Any], offsets: list[int], start: int) -> _Tensor:
    """The value of ``(declare-input NAME TYPE SHAPE "onnx name")``; the network's name is filled in by `_network`."""
    if not all(isinstance(item, str) for item in items):
        raise source.error(start, f'a tensor is declared as ({items[0]} X real [1,5] "onnx name")')
    onnx_name = None
    if items[-1].startswith('"'):
        onnx_name = re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), items[-1][1:-1])
        items = items[:-1]
    kind_of_tensor = _TYPE_AND_SHAPE.fullmatch("".join(items[2:]))
    if len(items) not in (3, 4) or not kind_of_tensor or not kind_of_tensor[2]:
        raise source.error(start, f"a tensor is declared as ({items[0]} X real [1,5]), with a name, a type and a shape")
    name, element_type = items[1], kind_of_tensor[1]
    if not _NAME.fullmatch(name):
        raise source.error(offsets[1], f"{name!r} is no name: it must start with a letter, then letters, digits, _")
    if element_type.lower() not in ELEMENT_TYPES:
        raise source.error(
            offsets[2], f"unknown element type {element_type!r}; known are {', '.join(sorted(ELEMENT_TYPES))}"
        )
    shape = _shape(source, kind_of_tensor[2], offsets[2])
    declaration = TensorDeclaration(name, "", element_type.lower(), shape, math.prod(shape), onnx_name)
    return _Tensor(items[0], declaration, start)


def _shape(source: Source, text: str, offset: int) -> tuple[int, ...]:
    sizes = [size for part in text[1:-1].split(",") for size in part.split() or [""]] if text[1:-1].strip() else []
    if not all(re.fullmatch("[0-9]{1,8}", size) and int(size) for size in sizes):
        raise source.error(offset, f"{text} is no shape: it must be a list of positive integers such as [1,5]")
    shape = tuple(map(int, sizes))
    if math.prod(shape) > MAX_VARIABLES:
        raise source.error(offset, f"{text} has more than {MAX_VARIABLES} elements")
    return shape


def _network(source: Source, scope: _Scope, items: list[Any], offsets: list[int], start: int) -> Ignored:
    """Enter a network and its tensors into the scope."""
    if scope.assertions_begun or scope.first_number:
        raise source.error(start, "networks must be declared before the first assertion")
    if len(items) < 2 or not isinstance(items[1], str) or not _NAME.fullmatch(items[1]):
        raise source.error(
            start, "a network is declared as (declare-network NAME (declare-input ...) (declare-output ...))"
        )
    name = items[1]
    if name in (network.name for network in scope.networks):
        raise source.error(offsets[1], f"network {name!r} is declared twice")
    if name in scope.tensors:
        raise source.error(offsets[1], f"{name!r} is the name of a tensor already")
    links: dict[str, str] = {}
    for item, offset in zip(items[2:], offsets[2:], strict=True):
        if isinstance(item, _Link):
            if links:
                raise source.error(offset, f"network {name!r} is declared equal or isomorphic to another twice")
            links[item.keyword] = item.network
        elif isinstance(item, _Tensor):
            _enter(source, scope, name, item)
        else:
            raise source.error(
                offset, "expected declare-input, declare-hidden, declare-output, equal-to or isomorphic-to"
            )
    scope.networks.append(NetworkDeclaration(name, links.get("equal-to"), links.get("isomorphic-to")))
    own = {kind: _interface(scope, name, kind) for kind in ("declare-input", "declare-output")}
    for kind, interface in own.items():
        if not interface:
            raise source.error(start, f"network {name!r} has no {kind}")
    for other in links.values():
        if any(interface != _interface(scope, other, kind) for kind, interface in own.items()):
            raise source.error(
                start, f"networks {name!r} and {other!r} must have inputs and outputs of the same types and shapes"
            )
    return Ignored()


def _enter(source: Source, scope: _Scope, network: str, tensor: _Tensor) -> None:
    declared = tensor.declaration
    if declared.name in scope.tensors:
        raise source.error(tensor.offset, f"tensor {declared.name!r} is declared twice")
    if declared.name in (network, *(other.name for other in scope.networks)):
        raise source.error(tensor.offset, f"{declared.name!r} is the name of a network already")
    if sum(other.declaration.size for other in scope.tensors.values()) + declared.size > MAX_VARIABLES:
        raise source.error(tensor.offset, f"the query has more than {MAX_VARIABLES} variables")
    owned = TensorDeclaration(
        declared.name, network, declared.element_type, declared.shape, declared.size, declared.onnx_name
    )
    scope.tensors[declared.name] = _Tensor(tensor.kind, owned, tensor.offset)


def _interface(scope: _Scope, network: str, kind: str) -> list[tuple[str, tuple[int, ...] | None]]:
    """Types and shapes of a network's tensors of one kind."""
    return [(tensor.element_type, tensor.shape) for tensor in scope.of_kind(kind) if tensor.network == network]


def _lookup(scope: _Scope) -> Callable[[str], int]:
    class Numbers(dict[str, int]):
        def __missing__(self, token: str) -> int:
            number = self[token] = _number(scope, token)
            return number

    return Numbers().__getitem__


def _number(scope: _Scope, token: str) -> int:
    """The number of the variable `token`, such as ``X[0,3]``."""
    scope.number_tensors()
    match = _ELEMENT.fullmatch(token)
    if not match:
        raise SpecError(f"{token!r} is neither an element of a declared tensor nor a number")
    tensor = scope.tensors.get(match[1])
    if tensor is None:
        raise SpecError(f"variable {match[1]} is not declared")
    if tensor.kind == "declare-hidden":
        raise SpecError(f"{match[1]} is a hidden node; assertions over hidden nodes are not supported yet")
    shape = tensor.declaration.shape or ()
    indices = [index.strip() for index in match[2].split(",")] if (match[2] or "").strip() else []
    if not all(re.fullmatch("[0-9]{1,9}", index) for index in indices):
        raise SpecError(f"the index of {token} must consist of non-negative integers")
    if len(indices) != len(shape):
        raise SpecError(f"{token} has {len(indices)} indices, but {match[1]} has shape {list(shape)}")
    number = 0
    for index, size in zip(map(int, indices), shape, strict=True):
        if index >= size:
            raise SpecError(f"{token} lies outside of {match[1]}, which has shape {list(shape)}")
        number = number * size + index
    return scope.first_number[match[1]] + number


def _element_name(tensors: tuple[TensorDeclaration, ...], number: int) -> str:
    for tensor in tensors:
        if number < tensor.size:
            indices: list[int] = []
            for size in reversed(tensor.shape or ()):
                number, index = divmod(number, size)
                indices.insert(0, index)
            return f"{tensor.name}[{','.join(map(str, indices))}]" if indices else tensor.name
        number -= tensor.size
    raise IndexError(number)
