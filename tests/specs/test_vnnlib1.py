"""VNN-LIB 1.0: what is accepted, and what is said about what is not."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs import SpecError, parse_property
from spec_helpers import assert_same, box, declarations

GOOD = declarations(2, 2) + box(2) + "(assert (<= Y_0 Y_1))\n"


def test_declarations() -> None:
    prop = parse_property(GOOD, "file.vnnlib")
    assert (prop.version, prop.source) == ("1.0", "file.vnnlib")
    assert [(tensor.name, tensor.element_type, tensor.size) for tensor in prop.inputs] == [("X", "real", 2)]
    assert [(tensor.name, tensor.shape) for tensor in prop.outputs] == [("Y", None)]
    assert prop.input_map.tolist() == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(" ", "\t  "),
        "; first (\n" + GOOD.replace("\n", " ; comment )\n"),
        "\ufeff" + GOOD,
        "(vnnlib-version <1.0>)(set-logic QF_LRA)" + GOOD + "(check-sat)",
        GOOD.replace("declare-const X_0 Real", "declare-fun X_0 () Real"),
        GOOD.replace("(<= X_0 1)", "(>= 1 X_0)").replace("(>= X_1 0)", "(>= X_1 -0.0e-5)"),
        box(2) + declarations(2, 2) + "(assert(<= Y_0 Y_1))",
        "(declare-const Y_1 Real)" + GOOD.replace("(declare-const Y_1 Real)", ""),
        GOOD.replace("(<= Y_0 Y_1)", "(or (and (<= Y_0 Y_1)))"),
        GOOD.replace("(<= Y_0 Y_1)", "(and (<= Y_0 Y_1) (<= X_0 2) (<= -1 X_0))"),
    ],
)
def test_spellings_of_the_same_query(text: str) -> None:
    assert_same(parse_property(text), parse_property(GOOD))
    assert_same(parse_property(text.encode()), parse_property(GOOD))


def test_numbers() -> None:
    text = declarations(1, 1) + "(assert (>= X_0 -1.5E-1)) (assert (<= X_0 +.25e1)) (assert (<= Y_0 1.e2))"
    (clause,) = parse_property(text).clauses
    assert (clause.box.lower[0], clause.box.upper[0], clause.offset[0]) == (-0.15, 2.5, 100)


def test_decimals_are_read_to_the_nearest_float64() -> None:
    digits = "0.1000000000000000055511151231257827021181583404541015624"
    text = declarations(1, 1) + f"(assert (and (>= X_0 {digits}) (<= X_0 {digits}) (<= Y_0 {digits})))"
    (clause,) = parse_property(text).clauses
    assert clause.box.lower.tolist() == clause.box.upper.tolist() == [0.1]


BAD = [
    (GOOD + "(assert (<= Y_0 1)", 10, 1, "never closed"),
    (GOOD + "(assert (<= Y_0 1)))", 10, 20, "a ')' too many"),
    (GOOD + "assert", 10, 1, "expected '('"),
    (GOOD + "(assert (<= Y_7 1))", 10, 13, "variable Y_7 is not declared"),
    (GOOD + "(assert (<= X_00 1))", 10, 13, "'X_00' is neither a declared variable nor a number"),
    (GOOD + "(assert (<= Z 1))", 10, 13, "'Z' is neither"),
    (GOOD + "(assert (<= Y_0 1.2.3))", 10, 17, "'1.2.3' is not a number"),
    (GOOD + "(assert (<= Y_0 1_0))", 10, 17, "is not a number"),
    (GOOD + "(assert (<= X_0 1e999))", 10, 17, "exceeds the range of float64"),
    (GOOD + "(assert (<= Y_0 -1e999))", 10, 17, "exceeds the range of float64"),
    (GOOD + "(assert (<= Y_0 inf))", 10, 17, "'inf' is neither"),
    (GOOD + "(assert (<= Y_0 nan))", 10, 17, "'nan' is neither"),
    (GOOD + "(assert (<= (* 1e200 1e200 Y_0) 1))", 10, 9, "exceed the range of float64"),
    (GOOD + "(assert (<= Y_0))", 10, 9, "needs two terms"),
    (GOOD + "(assert (=> Y_0 1))", 10, 10, "unknown operator '=>'"),
    (GOOD + "(assert (not (<= Y_0 1)))", 10, 10, "unknown operator 'not'"),
    (GOOD + "(assert ((<= Y_0 1)))", 10, 10, "must start with an operator"),
    (GOOD + "(assert (and))", 10, 9, "needs at least one condition"),
    (GOOD + "(assert (+ Y_0 1))", 10, 9, "this is a term"),
    (GOOD + "(assert Y_0)", 10, 9, "'Y_0' is none"),
    (GOOD + "(assert)", 10, 1, "takes one condition"),
    (GOOD + "(assert (and (<= Y_0 1) Y_1))", 10, 25, "expected a condition"),
    (GOOD + "(assert (<= (and (<= Y_0 1)) 1))", 10, 13, "expected a term"),
    (GOOD + "(assert ())", 10, 9, "this form is empty"),
    (GOOD + "()", 10, 1, "expected a declaration or an assertion"),
    (GOOD + "(and (<= Y_0 1))", 10, 1, "expected a declaration or an assertion"),
    (GOOD + "(and (assert (<= Y_0 1)))", 10, 6, "must stand alone"),
    (GOOD + '(assert (<= Y_0 "1))', 10, 17, "stray"),
    (GOOD + "(assert (<= Y_0 (* Y_0" + " Y_0" * 40 + ")))", 10, 17, "degree above"),
    (GOOD + "(declare-const X_0 Real)", 10, 16, "X_0 is declared twice"),
    (GOOD + "(declare-const Z_0 Real)", 10, 16, "not 'Z_0'"),
    (GOOD + "(declare-const X_2 Int)", 10, 1, "has type 'Int'"),
    (GOOD + "(declare-const X_2)", 10, 1, "a declaration reads"),
    (GOOD + "(declare-network f)", 10, 1, "needs VNN-LIB 2.0"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), BAD, ids=[case[3][:30] for case in BAD])
def test_errors_say_where(text: str, line: int, column: int, message: str) -> None:
    if "declare-network" in text:
        text = "(vnnlib-version 1.0)" + text
    for bulk in (True, False):
        with pytest.raises(SpecError) as caught:
            parse_property(text, "bad.vnnlib", bulk=bulk)
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"bad.vnnlib:{line}:{column}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the query is empty"),
        (" ; nothing but a comment", "the query is empty"),
        (declarations(2, 2), "asserts nothing"),
        ("(assert (<= 1 2))", "no input X_0 is declared"),
        (declarations(2, 0) + box(2), "no output Y_0 is declared"),
        (GOOD + "(declare-const X_3 Real)", "X_2 is not declared"),
        ("(vnnlib-version <3.0>)" + GOOD, "unsupported version '<3.0>'"),
        ("(vnnlib-version 1.0", "no input X_0"),
        (b"\xff\xfe\x00", "is not text"),
        (b"(declare-const X_0 \xe9", "is not text"),
    ],
)
def test_other_errors(text: str | bytes, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_property(text)


def test_an_error_in_a_large_block_is_found() -> None:
    lines = [f"  (and (>= X_0 0.{i}) (<= X_0 0.{i}) (<= Y_0 {i}))\n" for i in range(500)]
    lines[321] = lines[321].replace("Y_0", "Y_9")
    text = declarations(1, 1) + "(assert (or\n" + "".join(lines) + "))"
    with pytest.raises(SpecError, match=r"^query:325:42: variable Y_9 is not declared"):
        parse_property(text)


def test_many_inputs() -> None:
    count = 150_000
    text = declarations(count, 1) + box(count, -1, 1) + "(assert (<= Y_0 0))"
    prop = parse_property(text)
    assert prop.input_count == count
    np.testing.assert_array_equal(prop.clauses[0].box.upper, np.ones(count))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_comment_ends_with_its_line(end: str) -> None:
    """A comment that swallows the condition after it makes the query weaker."""
    text = GOOD.replace("(assert", "; about the next one\n(assert").replace("\n", end)
    assert_same(parse_property(text), parse_property(GOOD))
    with pytest.raises(SpecError, match=r"^q:3:13: variable Y_9 is not declared"):
        parse_property(f'; one{end}; "two{end}(assert (<= Y_9 1)){end}' + GOOD.replace("\n", end), "q")


@pytest.mark.parametrize("number", ["1e-400", "-0.0000001E-330", "3e-324" + "0" * 3])
def test_numbers_that_round_to_zero_are_refused(number: str) -> None:
    for condition in (
        f"(<= Y_0 {number})",
        f"(or (and (<= Y_0 {number})) (and (>= Y_0 2)))",
        f"(<= (* {number} Y_0) 1)",
    ):
        for bulk in (True, False):
            with pytest.raises(SpecError, match=r"^query:10:\d+: the number .* is too small for float64"):
                parse_property(GOOD + f"(assert {condition})", bulk=bulk)


@pytest.mark.parametrize(
    "token", ["nan", "inf", "-inf", "+nan", "1e", "1e+", "0x10", "1_000", "1,5", "--1", "\u0661", ".", "1.2.3", "1e5.0"]
)
def test_what_is_no_number_is_refused(token: str) -> None:
    for bulk in (True, False):
        with pytest.raises(SpecError, match=r"^query:10:\d+: "):
            parse_property(GOOD + f"(assert (<= Y_0 {token}))", bulk=bulk)


def test_coefficients_keep_their_digits() -> None:
    """``3e-324 y >= 5e-324`` is ``y >= 5/3``; as float64 both numbers are the same."""
    with pytest.raises(SpecError, match="too small"):
        parse_property(GOOD + "(assert (>= (+ (* 3e-320 Y_0) Y_1) 5))")
    (clause,) = parse_property(GOOD + "(assert (>= (* 1e-200 Y_0) 3e-200))").clauses
    assert clause.output_rows[0, 0] * 3 == pytest.approx(clause.offset[0])


def test_the_version_stands_once() -> None:
    with pytest.raises(SpecError, match=r":1:24: the version is declared twice"):
        parse_property("(vnnlib-version <1.0>)" + " " + "(vnnlib-version <1.0>)" + GOOD)
    with pytest.raises(SpecError, match=r":1:24: only VNN-LIB"):
        parse_property("(vnnlib-version <1.0>)" + " " + "(vnnlib-version <2.0>)" + GOOD)
