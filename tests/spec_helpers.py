"""A naive evaluator of VNN-LIB text, and comparisons of properties: the yardsticks of the tests in this folder."""

from __future__ import annotations

import operator
import re
from fractions import Fraction
from functools import reduce
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from boundsmith.specs import Clause, Property

RELATIONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "=": operator.eq,
}


def forms(text: str) -> list:
    """The forms of a text as nested lists."""
    stack: list[list] = [[]]
    for token in re.findall(r"\(|\)|[^\s()]+", re.sub(r";[^\n]*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


def to_text(form: list | str) -> str:
    return form if isinstance(form, str) else f"({' '.join(map(to_text, form))})"


def value(term: list | str, point: dict[str, Fraction]) -> Fraction:
    """An arithmetic term at a point, exactly."""
    if isinstance(term, str):
        return point[term] if term in point else Fraction(term)
    head, *rest = term
    values = [value(item, point) for item in rest]
    if head == "*":
        return reduce(operator.mul, values)
    if head == "-":
        return -values[0] if len(values) == 1 else values[0] - sum(values[1:])
    assert head == "+"
    return sum(values, Fraction(0))


def holds(condition: list, point: dict[str, Fraction]) -> bool:
    """A condition at a point."""
    head, *rest = condition
    if head == "and":
        return all(holds(item, point) for item in rest)
    if head == "or":
        return any(holds(item, point) for item in rest)
    values = [value(item, point) for item in rest]
    if head == "!=":
        return all(a != b for a, b in combinations(values, 2))
    return all(RELATIONS[head](a, b) for a, b in pairwise(values))


def text_holds(text: str, point: dict[str, Fraction]) -> bool:
    """All assertions of a text at a point."""
    return all(holds(form[1], point) for form in forms(text) if form[0] == "assert")


def clause_holds(prop: Property, clause: Clause, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether free inputs x and outputs y lie in a clause."""
    if (x < clause.box.lower).any() or (x > clause.box.upper).any():
        return False
    left = clause.output_rows @ y
    if clause.input_rows is not None:
        left = left + clause.input_rows @ x
    if clause.monomial_rows is not None:
        monomials = [np.prod([x[i] if kind == "x" else y[i] for kind, i in monomial]) for monomial in prop.monomials]
        left = left + clause.monomial_rows @ np.array(monomials)
    return bool(np.where(clause.strict, left < clause.offset, left <= clause.offset).all())


def property_holds(prop: Property, variables: np.ndarray, y: np.ndarray) -> bool:
    """Whether the property calls inputs (one a variable) and outputs unsafe."""
    free = np.zeros(prop.free_count)
    free[prop.input_map] = variables
    if (free[prop.input_map] != variables).any():
        return False
    return any(clause_holds(prop, clause, free, y) for clause in prop.clauses)


def assert_same(left: Property, right: Property) -> None:
    """The two have equal clauses, in the same order, with the same sharing of boxes."""
    assert (left.input_count, left.output_count) == (right.input_count, right.output_count)
    assert left.monomials == right.monomials
    np.testing.assert_array_equal(left.input_map, right.input_map)
    assert len(left.clauses) == len(right.clauses)
    partner: dict[int, int] = {}
    for a, b in zip(left.clauses, right.clauses, strict=True):
        np.testing.assert_array_equal(a.box.lower, b.box.lower)
        np.testing.assert_array_equal(a.box.upper, b.box.upper)
        assert partner.setdefault(id(a.box), id(b.box)) == id(b.box)
        for name in ("output_rows", "offset", "strict", "input_rows", "monomial_rows"):
            one, other = getattr(a, name), getattr(b, name)
            assert (one is None) == (other is None), name
            if one is not None:
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, err_msg=name)


def declarations(inputs: int, outputs: int) -> str:
    """VNN-LIB 1.0 declarations."""
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def box(inputs: int, lower: float = 0, upper: float = 1) -> str:
    """VNN-LIB 1.0 bounds on all inputs."""
    return "".join(f"(assert (>= X_{i} {lower}))\n(assert (<= X_{i} {upper}))\n" for i in range(inputs))
