"""The normal form means what the text says."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from boundsmith.specs import Property, SpecError, normal, parse_property, write_property
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_helpers import assert_same, box, declarations, forms, property_holds, text_holds, to_text

GRID = ["-2", "-1", "-0.5", "0", "0.5", "1", "2.0", "1e0", "-5e-1"]
NUMBERS = st.sampled_from(GRID)
INPUTS = ["X_0", "X_1", "X_2"]
OUTPUTS = ["Y_0", "Y_1"]
VARIABLES = st.sampled_from(INPUTS + OUTPUTS)
RELATIONS = st.sampled_from(["<=", ">=", "<", ">", "==", "=", "!="])


def grow_term(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.builds(lambda head, items: [head, *items], st.sampled_from("+-"), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda number, item: ["*", number, item], st.sampled_from(["-2", "0.5", "1", "0", "3"]), inner),
        st.builds(lambda a, b: ["*", a, b], inner, VARIABLES),
    )


TERMS = st.recursive(NUMBERS | VARIABLES, grow_term, max_leaves=4)
ATOMS = st.one_of(
    st.builds(lambda relation, a, b: [relation, a, b], RELATIONS, VARIABLES, NUMBERS | VARIABLES),
    st.builds(lambda relation, a, b: [relation, a, b], RELATIONS, TERMS, TERMS),
    st.builds(lambda relation, items: [relation, *items], RELATIONS, st.lists(TERMS, min_size=2, max_size=3)),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.builds(
        lambda head, items: [head, *items], st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
POINTS = st.lists(
    st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=5, max_size=5), min_size=8, max_size=8
)


@st.composite
def queries(draw: st.DrawFn) -> str:
    """A VNN-LIB 1.0 text: a box, and conditions in any shape."""
    conditions = draw(st.lists(CONDITIONS, min_size=1, max_size=3))
    boxes = [box(3, -2, 2), box(2, -2, 2) + "(assert (or (and (<= X_2 1) (>= X_2 0)) (and (>= X_2 -2) (< X_2 -1))))"]
    first = draw(st.sampled_from(boxes))
    return declarations(3, 2) + first + "".join(f"(assert {to_text(condition)})\n" for condition in conditions)


def outcome(text: str, bulk: bool = True) -> Property | str:
    """The property that the text gives, or the message of its SpecError."""
    try:
        return parse_property(text, bulk=bulk)
    except SpecError as problem:
        return str(problem)


def point_of(values: list[float]) -> dict[str, Fraction]:
    return {name: Fraction(number) for name, number in zip(INPUTS + OUTPUTS, values, strict=True)}


@settings(max_examples=250, deadline=None)
@given(queries(), POINTS)
def test_equals_direct_evaluation(text: str, points: list[list[float]]) -> None:
    prop = outcome(text)
    if isinstance(prop, str):
        assert "contradict" in prop
        assert not any(text_holds(text, point_of(values)) for values in points)
        return
    for values in points:
        expected = text_holds(text, point_of(values))
        assert property_holds(prop, np.array(values[:3]), np.array(values[3:])) == expected


@settings(max_examples=150, deadline=None)
@given(queries(), st.sampled_from(["1.0", "2.0"]))
def test_writing_then_reading_gives_the_same(text: str, version: str) -> None:
    prop = outcome(text)
    if isinstance(prop, str):
        return
    again = parse_property(write_property(prop, version))
    assert again.version == version
    assert_same(again, parse_property(write_property(again)))
    if all(len(clause.offset) for clause in prop.clauses):
        assert_same(prop, again)


@st.composite
def case_lists(draw: st.DrawFn) -> str:
    """Bounds, and a large disjunction of bounds: the shapes that are read in bulk."""
    number = st.sampled_from(["-1", "0", "0.5", "1", "2", "-1.5e0", "+.5", "7."])
    bound = st.builds(
        lambda relation, name, value: f"({relation} {name} {value})", st.sampled_from(["<=", ">="]), VARIABLES, number
    )
    single = st.builds("(assert {})\n".format, bound)
    pair = st.builds("(assert (and {} {}))\n".format, bound, bound)
    case = st.lists(bound, min_size=1, max_size=4).map(lambda bounds: f"  (and {' '.join(bounds)})\n")
    cases = st.lists(case, min_size=1, max_size=6).map(lambda parts: f"(assert (or\n{''.join(parts)}))\n")
    other = st.sampled_from(["(assert (<= Y_0 Y_1))\n", "(assert (< Y_0 1))", "(assert (> X_1 -2))\n", "; nothing\n"])
    equal = st.sampled_from(["", "", "(assert (= X_0 X_1))\n"])
    parts = [box(3, -2, 2) if draw(st.booleans()) else box(2, -2, 2) + box(3, -3, 3)]
    parts += [*draw(st.lists(single | pair | other, max_size=3)), draw(equal)]
    parts += draw(st.lists(cases, min_size=1, max_size=2)) + draw(st.lists(single | other, max_size=2))
    return declarations(3, 2) + "".join(parts)


@settings(max_examples=150, deadline=None)
@given(case_lists(), POINTS)
def test_bulk_reading_changes_nothing(text: str, points: list[list[float]]) -> None:
    results = [outcome(text, bulk) for bulk in (True, False)]
    if isinstance(results[0], str):
        assert results[0] == results[1]
        return
    assert_same(*results)
    for values in points:
        expected = text_holds(text, point_of(values))
        assert property_holds(results[0], np.array(values[:3]), np.array(values[3:])) == expected


@settings(max_examples=100, deadline=None)
@given(queries() | case_lists())
def test_version_2_means_the_same(text: str) -> None:
    header = "(declare-network f (declare-input X real [3]) (declare-output Y real [1,2]))\n"
    assertions = text[text.index("(assert") :]
    translated = re.sub(r"Y_(\d)", r"Y[0,\1]", re.sub(r"X_(\d)", r"X[\1]", assertions))
    first, second = outcome(text), outcome(header + translated)
    if isinstance(first, str) or isinstance(second, str):
        assert isinstance(first, str)
        assert isinstance(second, str)
        return
    assert_same(first, second)


def read(assertions: str, inputs: int = 1, outputs: int = 2, bounds: bool = True) -> Property:
    return parse_property(declarations(inputs, outputs) + (box(inputs) if bounds else "") + assertions)


@pytest.mark.parametrize(
    ("atom", "row", "offset", "strict"),
    [
        ("(<= Y_0 3)", [1, 0], 3, False),
        ("(>= Y_0 3)", [-1, 0], -3, False),
        ("(< Y_0 3)", [1, 0], 3, True),
        ("(> 3 Y_0)", [1, 0], 3, True),
        ("(<= Y_0 Y_1)", [1, -1], 0, False),
        ("(>= Y_0 Y_1)", [-1, 1], 0, False),
        ("(<= (+ (* 2 Y_0) (- Y_1) 1) 4)", [2, -1], 3, False),
        ("(<= (- Y_0 Y_1 0.1) 0.2)", [1, -1], 0.3, False),
        ("(< (* 2 Y_0) 3)", [1, 0], 1.5, True),
        ("(<= (* 3 Y_0) 1)", [3, 0], 1, False),
        ("(<= (* Y_0 3 0.5) (* 1.5 Y_1))", [1.5, -1.5], 0, False),
    ],
)
def test_atoms(atom: str, row: list[float], offset: float, strict: bool) -> None:
    (clause,) = read(f"(assert {atom})").clauses
    np.testing.assert_array_equal(clause.output_rows, [row])
    assert clause.offset.tolist() == [offset]
    assert clause.strict.tolist() == [strict]
    assert clause.input_rows is None
    assert clause.monomial_rows is None


def test_equality_is_two_rows_and_inequality_two_clauses() -> None:
    (equal,) = read("(assert (== Y_0 3))").clauses
    assert equal.output_rows.tolist() == [[1, 0], [-1, 0]]
    assert equal.offset.tolist() == [3, -3]
    unequal = read("(assert (!= Y_0 3))").clauses
    assert [clause.offset.tolist() for clause in unequal] == [[3], [-3]]
    assert all(clause.strict.all() for clause in unequal)


def test_only_the_tightest_bound_of_a_form_stays() -> None:
    (clause,) = read("(assert (<= Y_0 3)) (assert (and (< Y_0 2) (<= Y_0 2))) (assert (<= Y_0 Y_1))").clauses
    assert clause.offset.tolist() == [2, 0]
    assert clause.strict.tolist() == [True, False]


def test_strict_input_bounds_are_exact() -> None:
    (clause,) = read("(assert (< X_0 0.5)) (assert (> X_0 -3)) (assert (<= Y_0 0))").clauses
    assert clause.box.upper.tolist() == [0.5]
    assert clause.input_rows.tolist() == [[0], [1]]
    assert clause.strict.tolist() == [False, True]


def test_clauses_over_the_same_box_share_it() -> None:
    prop = read(
        "(assert (or (and (<= X_0 0.25)) (and (>= X_0 0.5))))(assert (or (and (<= Y_0 Y_1)) (and (>= Y_0 2))))",
    )
    assert len(prop.clauses) == 4
    assert len({id(clause.box) for clause in prop.clauses}) == 2
    same = read("(assert (or (<= Y_0 0) (and (>= Y_0 1) (<= X_0 2))))")
    assert same.clauses[0].box is same.clauses[1].box


def test_contradictory_disjuncts_are_dropped_at_once() -> None:
    prop = read("(assert (or (and (<= X_0 -1) (<= Y_0 0)) (and (<= Y_0 1) (>= Y_0 2)) (<= Y_1 0)))")
    assert len(prop.clauses) == 1
    distributed = "".join(f"(assert (or (<= X_0 0.{i}) (>= X_0 0.{i}5)))" for i in range(1, 10)) * 3
    assert len(read(distributed + "(assert (<= Y_0 0))").clauses) == 10


def test_a_satisfied_disjunction_is_not_split() -> None:
    prop = read("(assert (<= Y_0 0))" + "(assert (or (<= Y_0 1) (>= Y_1 0)))" * 100)
    assert len(prop.clauses) == 1


def test_no_clause_is_left_when_outputs_contradict() -> None:
    prop = read("(assert (<= Y_0 0)) (assert (>= Y_0 1))")
    assert prop.clauses == ()
    assert any("contradict" in note for note in prop.notes)
    assert read("(assert (<= 1 0))", bounds=False).clauses == ()


def test_inputs_only_means_that_every_point_is_unsafe() -> None:
    prop = read("")
    assert [len(clause.offset) for clause in prop.clauses] == [0]
    assert prop.clauses[0].output_rows.shape == (0, 2)
    assert prop.notes


def test_equal_inputs_are_merged() -> None:
    prop = read("(assert (= X_2 X_0)) (assert (<= (+ X_0 X_2 Y_0) (* X_1 X_2)))", inputs=3)
    assert prop.input_map.tolist() == [0, 1, 0]
    assert prop.free_count == 2
    assert prop.monomials == ((("x", 0), ("x", 1)),)
    (clause,) = prop.clauses
    assert clause.input_rows.tolist() == [[2, 0]]
    assert clause.monomial_rows.tolist() == [[-1]]


def test_coefficients_of_merged_inputs_may_overflow() -> None:
    merged = "(assert (= X_0 X_1))"
    with pytest.raises(SpecError, match="more than the range of float64"):
        read(merged + "(assert (<= (+ (* 1e308 X_0) (* 1e308 X_1) Y_0) 0))", inputs=2)
    prop = read(merged + "(assert (<= (+ (* 1e-308 X_0) (* 1e-308 X_1)) 1e300))", inputs=2)
    assert prop.clauses[0].input_rows.tolist() == [[2e-308]]


def test_coefficients_of_merged_inputs_are_added_exactly() -> None:
    """``1e16 + 1 - 1e16`` is 1, not 0: a lost coefficient would change the query."""
    merged = "(assert (= X_0 X_1)) (assert (= X_1 X_2))"
    prop = read(merged + "(assert (<= (+ (* 1e16 X_0) X_1 (* -1e16 X_2) Y_0) 0))", inputs=3)
    assert prop.clauses[0].input_rows.tolist() == [[1]]


def test_equality_inside_a_disjunct_is_not_merged() -> None:
    prop = read("(assert (or (and (= X_0 X_1) (<= Y_0 0)) (>= Y_0 1)))", inputs=2)
    assert prop.input_map.tolist() == [0, 1]
    assert prop.clauses[0].input_rows.tolist() == [[0, 0], [1, -1], [-1, 1]]


def test_missing_bounds_are_derived_from_coupled_inputs() -> None:
    text = "(assert (>= X_0 0)) (assert (<= X_0 X_1)) (assert (<= (* 3 X_1) 1)) (assert (<= Y_0 0))"
    (clause,) = read(text, inputs=2, bounds=False).clauses
    assert clause.box.lower.tolist() == [0, 0]
    third = Fraction(1, 3)
    assert all(third <= Fraction(side) <= third + Fraction(1, 2**50) for side in clause.box.upper.tolist())
    assert clause.input_rows.shape == (3, 2)


def test_numbers_are_folded_exactly() -> None:
    (clause,) = read("(assert (<= (+ Y_0 0.1 0.2) 0.3))").clauses
    assert clause.offset.tolist() == [0]
    assert read("(assert (and (>= (- Y_0 0.1) 0.2) (<= Y_0 0.3)))").clauses


@pytest.mark.parametrize(
    ("assertions", "message"),
    [
        ("(assert (<= X_0 -1))", "bounds of input X_0 contradict: 0.0 <= X_0 <= -1.0"),
        ("(assert (< X_0 0))", "bounds of input X_0 contradict: 0.0 <= X_0 < 0.0"),
        ("(assert (and (== X_0 0.5) (== X_0 0.25)))", "bounds of input X_0 contradict"),
    ],
)
def test_contradictory_bounds(assertions: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read(assertions)
    assert str(caught.value).startswith("query:6:")


def test_unbounded_inputs_are_named() -> None:
    with pytest.raises(SpecError, match=r"input X_1 has no upper bound"):
        read("(assert (>= X_1 0)) (assert (<= X_0 1)) (assert (>= X_0 0))", inputs=2, bounds=False)
    with pytest.raises(SpecError, match=r"input X_0 has no lower bound"):
        read("(assert (or (and (>= X_0 0) (<= X_0 1)) (and (<= X_0 1) (<= Y_0 0))))", bounds=False)


def test_too_many_cases_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"(assert (or (<= Y_0 (* {i} Y_1)) (>= Y_1 (* {i + 1} X_0))))" for i in range(2, 40))
    monkeypatch.setattr(normal, "MAX_CLAUSES", 1000)
    with pytest.raises(SpecError, match="expand to more than 1000 cases"):
        read(text)


def test_depth_is_no_limit() -> None:
    depth = 5_000
    nested = "(and (or " * depth + "(<= Y_0 0)" + "))" * depth
    assert len(read(f"(assert {nested})").clauses) == 1
    sums = "(+ 1 " * depth + "Y_0" + ")" * depth
    assert read(f"(assert (<= {sums} 0))").clauses[0].offset.tolist() == [-depth]
    with pytest.raises(SpecError, match="never closed"):
        read("(" * 100_000)


def test_helper_agrees_on_a_known_text() -> None:
    text = "(assert (or (< X_0 1) (== Y_0 (* 2 X_0))))"
    assert forms(text) == [["assert", ["or", ["<", "X_0", "1"], ["==", "Y_0", ["*", "2", "X_0"]]]]]
    assert text_holds(text, {"X_0": Fraction(1), "Y_0": Fraction(2)})
    assert not text_holds(text, {"X_0": Fraction(1), "Y_0": Fraction(1)})
