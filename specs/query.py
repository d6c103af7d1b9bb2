"""A query as read: declarations, and assertions not yet in normal form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .bulk import Bounds, Cases, read_bulk
from .errors import SpecError
from .sexpr import Reduce, Source, read_form, skip_blank

if TYPE_CHECKING:
    from collections.abc import Callable

    from .formula import Conditions, Formula
    from .property import NetworkDeclaration, TensorDeclaration

#: A query with more variables than this is taken for a mistake (or an attack) before memory is asked for.
MAX_VARIABLES = 10_000_000


_VERSION = re.compile(r"<?([0-9]+)\.[0-9]+>?", re.ASCII)


class Asserted(NamedTuple):
    """The value of an ``(assert ...)`` form."""

    formula: Formula


class Ignored:
    """The value of a form that says nothing about the property, such as ``(check-sat)``."""


@dataclass
class Versions:
    """Reads ``(vnnlib-version ...)``: once at most, and of one major version."""

    source: Source
    major: str
    found: bool = False

    def read(self, items: list[Any], start: int) -> Ignored:
        """The value of the form; raises SpecError if it says another version, or is not the first."""
        number = _VERSION.fullmatch(items[1]) if len(items) == 2 and isinstance(items[1], str) else None
        if number is None or number[1] != self.major:
            raise self.source.error(start, "only VNN-LIB 1.0 and 2.0 are supported: (vnnlib-version <2.0>)")
        if self.found:
            raise self.source.error(start, "the version is declared twice")
        self.found = True
        return Ignored()


@dataclass(frozen=True, eq=False)
class Query:
    """Declarations and assertions of one specification.

    Variables are numbered 0 ... over all inputs in order of declaration, then over all outputs.

    formulas, bounds, cases  the assertions, all of which must hold.
    element_name             the name of a variable, for messages.
    """

    source: Source
    version: str
    networks: tuple[NetworkDeclaration, ...]
    inputs: tuple[TensorDeclaration, ...]
    outputs: tuple[TensorDeclaration, ...]
    formulas: tuple[Formula, ...]
    bounds: tuple[Bounds, ...]
    cases: tuple[Cases, ...]
    element_name: Callable[[int], str]
    notes: tuple[str, ...] = ()

    @property
    def input_count(self) -> int:
        """Number of input variables."""
        return sum(tensor.size for tensor in self.inputs)

    @property
    def output_count(self) -> int:
        """Number of output variables."""
        return sum(tensor.size for tensor in self.outputs)


class Assertions(NamedTuple):
    """What `read_assertions` found."""

    formulas: tuple[Formula, ...]
    bounds: tuple[Bounds, ...]
    cases: tuple[Cases, ...]


def read_assertions(
    source: Source, position: int, reduce: Reduce, number_of: Callable[[str], int], bulk: bool
) -> Assertions:
    """Read all forms from `position` on.

    Args:
        reduce: reduces every form; a top-level form must come out as `Asserted` or `Ignored`.
        number_of: the number of a variable, for bulk reading; raises SpecError.
        bulk: whether to try `read_bulk` first.

    Raises:
        SpecError: on anything else, or if nothing is asserted.
    """
    formulas: list[Formula] = []
    bounds: list[Bounds] = []
    cases: list[Cases] = []
    text = source.text
    end = len(text)
    position = skip_blank(text, position)
    general_until = 0
    while position < end:
        if bulk and position >= general_until:
            block, after = read_bulk(text, position, number_of)
            if block is None:
                general_until = after
            else:
                if isinstance(block, Bounds):
                    bounds.append(block)
                else:
                    cases.append(block)
                position = skip_blank(text, after)
                continue
        value, after = read_form(source, position, reduce)
        if isinstance(value, Asserted):
            formulas.append(value.formula)
        elif not isinstance(value, Ignored):
            raise source.error(position, "expected a declaration or an assertion here")
        position = skip_blank(text, after)
    if not (formulas or bounds or cases):
        raise SpecError(f"{source.name}: the query asserts nothing; it needs at least one (assert ...)")
    return Assertions(tuple(formulas), tuple(bounds), tuple(cases))


def reduce_assert(conditions: Conditions, items: list[Any], offsets: list[int], start: int) -> Asserted:
    """The value of ``(assert condition)``."""
    if len(items) != 2:
        raise conditions.source.error(start, f"(assert) takes one condition, this one has {len(items) - 1}")
    return Asserted(conditions.condition(items[1], offsets[1]))
