"""Conditions over the variables of a query: atoms, `and`, `or`, and how forms are reduced to them.

Variables are numbered: inputs first, then outputs. Every comparison becomes a bound on one *form*: a variable, or a
polynomial without constant term. Constants are folded in exact rational arithmetic and rounded once, to the nearest
float64.
"""

from __future__ import annotations

import operator
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .errors import SpecError
from .sexpr import NUMBER, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from fractions import Fraction

#: A product of variables: their numbers, sorted; repetition is a power.
Monomial: TypeAlias = tuple[int, ...]
#: What is bounded: one variable, or a polynomial without constant whose first coefficient is positive.
Key: TypeAlias = "int | tuple[tuple[Monomial, float], ...]"
Polynomial: TypeAlias = "dict[Monomial, Fraction]"

MAX_DEGREE = 32
MAX_TERMS = 100_000
_MAX_BITS = 65536
_LEAST_NORMAL = 2.2250738585072014e-308
_LOST = 1 << 40
_EXACT_DIGITS = 400

FLIPPED: Mapping[str, str] = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "==": "=="}
HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}
_COMPARISONS: Mapping[str, str] = {**{name: name for name in HOLDS}, "=": "==", "!=": "!=", "distinct": "!="}


class Atom(NamedTuple):
    """``key relation bound``, where relation is one of <= < >= > ==."""

    key: Key
    relation: str
    bound: float


class And(NamedTuple):
    """All of the children hold; of none: true."""

    children: tuple[Formula, ...]


class Or(NamedTuple):
    """Some child holds; of none: false."""

    children: tuple[Formula, ...]


Formula: TypeAlias = "Atom | And | Or"
TRUE = And(())
FALSE = Or(())


class Conditions:
    """Reduces the forms of conditions and terms; declarations are left to the reader of each version.

    Args:
        source: for messages.
        number_of: the number of a variable named by a token; raises SpecError or KeyError for what is no variable.
        type_of: the element type of a variable; a comparison must not mix types. None: all have one.
    """

    def __init__(
        self, source: Source, number_of: Callable[[str], int], type_of: Callable[[int], str] | None = None
    ) -> None:
        self.source = source
        self.number_of = number_of
        self.type_of = type_of
        self.notes: list[str] = []

    def reduce(self, items: list[Any], offsets: list[int], start: int) -> Formula | Polynomial:
        """The value of a form inside an assertion."""
        try:
            return self._reduce(items, offsets, start)
        except OverflowError:
            raise self.source.error(
                start, "the constants of this form exceed the range of float64, or are too small for it"
            ) from None

    def _reduce(self, items: list[Any], offsets: list[int], start: int) -> Formula | Polynomial:
        head = items[0] if items else None
        if isinstance(head, str):
            if head in ("and", "or"):
                return self._connective(head, items, offsets, start)
            if head in ("+", "-", "*"):
                return self._arithmetic(head, items, offsets, start)
            if head in _COMPARISONS:
                return self._comparison(_COMPARISONS[head], items[1:], offsets[1:], start)
        if len(items) == 3 and isinstance(items[1], str) and items[1] in _COMPARISONS:
            self._note_infix(start)
            return self._comparison(_COMPARISONS[items[1]], items[::2], offsets[::2], start)
        if not items:
            raise self.source.error(start, "an empty form () stands where a condition or term is expected")
        raise self.source.error(
            offsets[0],
            f"unknown operator {head!r}; known are and, or, +, -, *, <=, >=, <, >, ==, !="
            if isinstance(head, str)
            else "a form must start with an operator such as and, or, <=, +",
        )

    def condition(self, value: Any, offset: int) -> Formula:
        """`value`, if it is a condition."""
        if isinstance(value, (Atom, And, Or)):
            return value
        what = f"{value!r} is none" if isinstance(value, str) else "this is a term" if value else "this form is empty"
        raise self.source.error(offset, f"expected a condition such as (<= Y_0 0.5), but {what}")

    def _note_infix(self, start: int) -> None:
        place = str(self.source.error(start, "")).rsplit(":", 1)[0]
        self.notes.append(f"{place}: read the infix comparison as prefix")

    def _connective(self, head: str, items: list[Any], offsets: list[int], start: int) -> Formula:
        if len(items) < 2:
            raise self.source.error(start, f"({head}) needs at least one condition")
        children = tuple(map(self.condition, items[1:], offsets[1:]))
        return And(children) if head == "and" else Or(children)

    def _comparison(self, relation: str, terms: list[Any], offsets: list[int], start: int) -> Formula:
        if len(terms) < 2:
            raise self.source.error(start, f"a comparison needs two terms, this one has {len(terms)}")
        if len(terms) == 2 and relation != "!=":
            return self._compare(relation, terms[0], terms[1], offsets[0], offsets[1])
        polynomials = [self._polynomial(term, offset) for term, offset in zip(terms, offsets, strict=True)]
        self._require_one_type(_variables(polynomials), offsets[0])
        parts: tuple[Formula, ...]
        if relation == "!=":
            pairs = combinations(polynomials, 2)
            parts = tuple(Or((_bound(_difference(a, b), "<"), _bound(_difference(a, b), ">"))) for a, b in pairs)
        else:
            parts = tuple(_bound(_difference(a, b), relation) for a, b in pairwise(polynomials))
        return parts[0] if len(parts) == 1 else And(parts)

    def _compare(self, relation: str, left: Any, right: Any, left_at: int, right_at: int) -> Formula:
        """One comparison, with short cuts for the shapes that fill files: a variable and a number or variable."""
        if isinstance(left, str) and isinstance(right, str):
            if _is_number(left) and not _is_number(right):
                left, right, left_at, right_at, relation = right, left, right_at, left_at, FLIPPED[relation]
            if not _is_number(left):
                variable = self._variable(left, left_at)
                if _is_number(right):
                    return Atom(variable, relation, self._float(right, right_at))
                other = self._variable(right, right_at)
                self._require_one_type((variable, other), right_at)
                if variable < other:
                    return Atom((((variable,), 1.0), ((other,), -1.0)), relation, 0.0)
                if variable > other:
                    return Atom((((other,), 1.0), ((variable,), -1.0)), FLIPPED[relation], 0.0)
        polynomials = [self._polynomial(left, left_at), self._polynomial(right, right_at)]
        self._require_one_type(_variables(polynomials), left_at)
        return _bound(_difference(*polynomials), relation)

    def _arithmetic(self, head: str, items: list[Any], offsets: list[int], start: int) -> Polynomial:
        if len(items) < 2:
            raise self.source.error(start, f"({head}) needs at least one term")
        terms = [self._polynomial(item, offset) for item, offset in zip(items[1:], offsets[1:], strict=True)]
        if head == "*":
            result = terms[0]
            for term in terms[1:]:
                result = self._product(result, term, start)
            return result
        if head == "-":
            negated = terms if len(terms) == 1 else terms[1:]
            for term in negated:
                for monomial in term:
                    term[monomial] = -term[monomial]
        terms.sort(key=len, reverse=True)
        result = terms[0]
        for term in terms[1:]:
            for monomial, value in term.items():
                result[monomial] = _bounded_in_length(result.get(monomial, 0) + value)
        return result

    def _product(self, left: Polynomial, right: Polynomial, start: int) -> Polynomial:
        if len(left) * len(right) > MAX_TERMS:
            raise self.source.error(start, f"this product has more than {MAX_TERMS} terms")
        result: Polynomial = {}
        for a, x in left.items():
            for b, y in right.items():
                monomial = tuple(sorted(a + b))
                if len(monomial) > MAX_DEGREE:
                    raise self.source.error(start, f"this product has a degree above {MAX_DEGREE}")
                result[monomial] = _bounded_in_length(result.get(monomial, 0) + x * y)
        return result

    def _polynomial(self, item: Any, offset: int) -> Polynomial:
        """The item as a polynomial of its own, free to be changed."""
        from fractions import Fraction  # takes 5 ms, and most queries have no arithmetic

        if isinstance(item, str):
            if not _is_number(item):
                return {(self._variable(item, offset),): Fraction(1)}
            value = self._float(item, offset)
            return {(): Fraction(item) if value and len(item) <= _EXACT_DIGITS else Fraction(value)}
        if isinstance(item, dict):
            return item
        raise self.source.error(offset, "expected a term, but this is a condition")

    def _float(self, token: str, offset: int) -> float:
        if not NUMBER.fullmatch(token):
            raise self.source.error(offset, f"{token!r} is not a number")
        value = float(token)
        if value in (float("inf"), float("-inf")):
            raise self.source.error(offset, f"the number {token[:40]} exceeds the range of float64")
        if vanishes(token, value):
            raise self.source.error(offset, f"the number {token[:40]} is too small for float64, but is not 0")
        return value + 0.0  # -0.0 becomes 0.0, so that equal bounds have equal bits

    def _require_one_type(self, variables: Iterable[int], offset: int) -> None:
        """Raise SpecError for variables of several element types: the standard does not convert between them."""
        if self.type_of is None:
            return
        types = sorted({self.type_of(variable) for variable in variables})
        if len(types) > 1:
            raise self.source.error(offset, f"this comparison mixes element types: {' and '.join(types)}")

    def _variable(self, token: str, offset: int) -> int:
        try:
            return self.number_of(token)
        except SpecError as problem:
            raise self.source.error(offset, str(problem)) from None


def vanishes(token: str, value: float) -> bool:
    """Whether a number that is not 0 was read as 0."""
    return value == 0 and any(digit in "123456789" for digit in token.lower().partition("e")[0])


def _is_number(token: str) -> bool:
    return token[0] in "0123456789+-."


def _variables(polynomials: Iterable[Polynomial]) -> set[int]:
    """The variables of some polynomials."""
    return {variable for polynomial in polynomials for monomial in polynomial for variable in monomial}


def _difference(left: Polynomial, right: Polynomial) -> Polynomial:
    """left - right, as a new polynomial."""
    result = dict(left)
    for monomial, value in right.items():
        result[monomial] = result.get(monomial, 0) - value
    return result


def _bound(polynomial: Polynomial, relation: str) -> Formula:
    """The condition ``polynomial relation 0``; may raise OverflowError."""
    constant = polynomial.get((), 0)
    terms = sorted(
        ((monomial, value) for monomial, value in polynomial.items() if monomial and value),
        key=lambda term: (len(term[0]), term[0]),
    )
    if not terms:
        return TRUE if HOLDS[relation](constant, 0) else FALSE
    if terms[0][1] < 0:
        terms = [(monomial, -value) for monomial, value in terms]
        constant, relation = -constant, FLIPPED[relation]
    if len(terms) == 1 and len(terms[0][0]) == 1:
        factor = terms[0][1]
        quotient = -constant / factor
        # a quotient that rounds would move the bound; then the factor stays
        if _is_power_of_two(factor) or quotient == float(quotient):
            return Atom(terms[0][0][0], relation, _nearest(quotient))
    return Atom(tuple((monomial, _nearest(value)) for monomial, value in terms), relation, _nearest(-constant))


def _nearest(value: Fraction | int) -> float:
    """The nearest float64; raises OverflowError where it is infinite, or so small that most digits are lost."""
    from fractions import Fraction

    exact, nearest = Fraction(value), float(value)
    if abs(nearest) < _LEAST_NORMAL and abs(Fraction(nearest) - exact) * _LOST > abs(exact):
        raise OverflowError
    return nearest


def _is_power_of_two(value: Fraction) -> bool:
    return value.numerator & (value.numerator - 1) == 0 and value.denominator & (value.denominator - 1) == 0


def _bounded_in_length(value: Fraction) -> Fraction:
    """The value; raises OverflowError where exact arithmetic with it would crawl (rounded terms might cancel)."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) <= _MAX_BITS:
        return value
    raise OverflowError
