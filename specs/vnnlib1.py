"""Reader of VNN-LIB 1.0: inputs ``X_0 ...`` and outputs ``Y_0 ...``, declared one by one.

Format: https://www.vnnlib.org, the subset of SMT-LIB that VNN-COMP 2020 to 2025 uses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .errors import SpecError
from .formula import Conditions
from .property import NetworkDeclaration, TensorDeclaration
from .query import MAX_VARIABLES, Asserted, Ignored, Query, Versions, read_assertions, reduce_assert
from .sexpr import Source, skip_blank

if TYPE_CHECKING:
    from collections.abc import Callable

_DECLARED = re.compile(r"\(\s*+declare-(?:const|fun)\s++([^\s()]++)", re.ASCII)
_DECLARATIONS = re.compile(r"(?:\(declare-const\s++[XY]_[0-9]++\s++Real\s*+\)\s*+)++", re.ASCII)
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
_REALS = ("Real", "real")
_IGNORED = frozenset({"set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "exit"})


def read_vnnlib1(source: Source, bulk: bool = True) -> Query:
    """Read a VNN-LIB 1.0 query.

    Args:
        bulk: read common shapes in bulk; False gives the same result, slowly.

    Raises:
        SpecError: with file, line and column.
    """
    numbers, input_count, output_count = _declared_variables(source)
    number_of = _lookup(numbers)
    conditions = Conditions(source, number_of)
    versions = Versions(source, "1")

    def reduce(items: list[Any], offsets: list[int], start: int) -> Any:
        head = items[0] if items and isinstance(items[0], str) else None
        if head == "assert":
            return reduce_assert(conditions, items, offsets, start)
        if head in ("declare-const", "declare-fun"):
            return _declaration(source, items, start)
        if head in _IGNORED:
            return Ignored()
        if head == "vnnlib-version":
            return versions.read(items, start)
        if not items:
            return ()
        if head == "declare-network":
            raise source.error(start, "declare-network needs VNN-LIB 2.0: start the file with (vnnlib-version <2.0>)")
        for item, offset in zip(items, offsets, strict=True):
            if isinstance(item, (Asserted, Ignored)):
                raise source.error(offset, "an assertion or declaration must stand alone, not inside another form")
        return conditions.reduce(items, offsets, start)

    declarations = _DECLARATIONS.match(source.text, skip_blank(source.text, 0))
    found = read_assertions(source, declarations.end() if declarations else 0, reduce, number_of, bulk)
    return Query(
        source=source,
        version="1.0",
        networks=(NetworkDeclaration("N"),),
        inputs=(TensorDeclaration("X", "N", "real", None, input_count),),
        outputs=(TensorDeclaration("Y", "N", "real", None, output_count),),
        formulas=found.formulas,
        bounds=found.bounds,
        cases=found.cases,
        element_name=lambda number: f"X_{number}" if number < input_count else f"Y_{number - input_count}",
        notes=tuple(conditions.notes),
    )


def _declared_variables(source: Source) -> tuple[dict[str, int], int, int]:
    """The number of every variable, and how many inputs and outputs there are.

    Declarations are found before anything is reduced: files that declare outputs after the assertions on inputs exist.
    """
    names = _DECLARED.findall(source.text)
    if len(names) > MAX_VARIABLES:
        raise SpecError(f"{source.name}: declares {len(names)} variables; more than {MAX_VARIABLES} are not supported")
    input_count = sum(name[0] == "X" for name in names)
    output_count = len(names) - input_count
    if not input_count or not output_count:
        missing = "input X_0" if not input_count else "output Y_0"
        raise SpecError(
            f"{source.name}: no {missing} is declared; each variable needs a line like "
            f"(declare-const {missing.split()[1]} Real)"
        )
    numbers = {f"X_{index}": index for index in range(input_count)}
    numbers |= {f"Y_{index}": input_count + index for index in range(output_count)}
    unknown = numbers.keys() ^ set(names)
    if unknown or len(names) != len(numbers):
        raise _wrong_declaration(source, numbers)
    return numbers, input_count, output_count


def _wrong_declaration(source: Source, numbers: dict[str, int]) -> SpecError:
    """The error for the first declaration that does not fit, or for the first one that is missing."""
    seen: set[str] = set()
    for match in _DECLARED.finditer(source.text):
        name = match[1]
        if not _VARIABLE.fullmatch(name):
            return source.error(
                match.start(1), f"VNN-LIB 1.0 variables are X_0, X_1, ... and Y_0, Y_1, ..., not {name!r}"
            )
        if name in seen:
            return source.error(match.start(1), f"{name} is declared twice")
        seen.add(name)
    missing = next(name for name in numbers if name not in seen)
    return SpecError(f"{source.name}: {missing} is not declared, though variables of a higher number are")


def _declaration(source: Source, items: list[Any], start: int) -> Ignored:
    """Check the form of a declaration; its variable was numbered before."""
    arguments = items[1:]
    if items[0] == "declare-fun" and len(arguments) == 3 and arguments[1] == ():
        arguments = [arguments[0], arguments[2]]
    if len(arguments) != 2 or not all(isinstance(argument, str) for argument in arguments):
        raise source.error(start, "a declaration reads (declare-const X_0 Real)")
    if arguments[1] not in _REALS:
        raise source.error(start, f"variable {arguments[0]} has type {arguments[1]!r}; only Real is supported")
    return Ignored()


def _lookup(numbers: dict[str, int]) -> Callable[[str], int]:
    class Numbers(dict[str, int]):
        def __missing__(self, name: str) -> int:
            if _VARIABLE.fullmatch(name):
                raise SpecError(f"variable {name} is not declared")
            raise SpecError(f"{name!r} is neither a declared variable nor a number")

    return Numbers(numbers).__getitem__
