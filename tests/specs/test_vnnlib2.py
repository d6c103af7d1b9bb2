"""VNN-LIB 2.0: networks, tensors, and what is said about what is not accepted."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs import SpecError, parse_property, write_property
from spec_helpers import assert_same

ONE = """(vnnlib-version <2.0>)
(declare-network f
    (declare-input X float32 [1,2] "image; or so")
    (declare-output Y real [2])
)
(assert (and (>= X[0,0] 0) (<= X[0,0] 1)))
(assert (and (>= X[0,1] 0) (<= X[0,1] 1)))
(assert (<= Y[0] Y[1]))
"""
TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [2]) (declare-output Y_f real [1]))
(declare-network g ({link} f) (declare-input X_g real [2]) (declare-output Y_g real [1]))
(assert (and (>= X_f[0] 0) (<= X_f[0] 1)))
(assert (== X_f[1] 0.5))
(assert (== X_f[1] X_g[1]))
{rest}
"""


def test_declarations() -> None:
    prop = parse_property(ONE)
    assert prop.version == "2.0"
    (tensor,) = prop.inputs
    assert (tensor.name, tensor.network, tensor.element_type, tensor.shape) == ("X", "f", "float32", (1, 2))
    assert tensor.onnx_name == "image; or so"
    assert prop.outputs[0].onnx_name is None
    assert prop.clauses[0].output_rows.tolist() == [[1, -1]]


@pytest.mark.parametrize(
    "text",
    [
        ONE.replace("<2.0>", "2.0"),
        ONE.replace("(vnnlib-version <2.0>)\n", ""),
        ONE.replace("[1,2]", " [ 1 , 2 ]").replace("X[0,1]", "X [0, 1]"),
        ONE.replace("[1,2]", "[1 2]"),
        ONE.replace("(<= Y[0] Y[1])", "(Y[0] <= Y[1])"),
        ONE.replace("real", "Real").replace("; or so", '; or so \\"two\\\\'),
    ],
)
def test_spellings_of_the_same_query(text: str) -> None:
    assert_same(parse_property(text), parse_property(ONE))


def test_infix_is_noted() -> None:
    prop = parse_property(ONE.replace("(<= Y[0] Y[1])", "((+ Y[0] 1) < Y[1])"), "q.vnnlib")
    assert prop.notes == ("q.vnnlib:8:9: read the infix comparison as prefix",)
    assert prop.clauses[0].offset.tolist() == [-1]


def test_elements_are_numbered_row_major_over_all_tensors() -> None:
    text = """(declare-network f
        (declare-input A real []) (declare-input B real [2,3])
        (declare-output C real [1]) (declare-output D real [2,2]))
    (assert (and (>= A[] 0) (<= A 1)))
    """ + "".join(f"(assert (== B[{i},{j}] {3 * i + j}))" for i in range(2) for j in range(3))
    prop = parse_property(text + "(assert (<= D[1,0] 0))")
    assert prop.clauses[0].box.lower.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert prop.clauses[0].output_rows.tolist() == [[0, 0, 0, 1, 0]]


def test_two_networks() -> None:
    text = TWO.format(link="equal-to", rest="(assert (<= X_f[0] X_g[0] 1))(assert (< Y_f[0] (- Y_g[0] 0.5)))")
    prop = parse_property(text)
    assert [(network.name, network.equal_to) for network in prop.networks] == [("f", None), ("g", "f")]
    assert prop.input_map.tolist() == [0, 1, 2, 1]
    (clause,) = prop.clauses
    assert clause.box.lower.tolist() == [0, 0.5, 0]
    assert clause.box.upper.tolist() == [1, 0.5, 1]
    assert clause.input_rows.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert clause.output_rows.tolist() == [[0, 0], [1, -1]]
    assert clause.strict.tolist() == [False, True]
    assert parse_property(text.replace("equal", "isomorphic")).networks[1].isomorphic_to == "f"


def test_products_become_monomials() -> None:
    rest = "(assert (<= (* 2 X_f[0] Y_g[0]) (* (+ X_f[0] Y_f[0]) (- X_f[0] Y_f[0]))))(assert (== X_g[0] X_f[0]))"
    prop = parse_property(TWO.format(link="equal-to", rest=rest))
    assert prop.monomials == ((("x", 0), ("x", 0)), (("x", 0), ("y", 1)), (("y", 0), ("y", 0)))
    (clause,) = prop.clauses
    assert clause.monomial_rows.tolist() == [[-1, 2, 1]] or clause.monomial_rows.tolist() == [[1, -2, -1]]
    assert clause.input_rows is None


def test_writing_keeps_declarations() -> None:
    for text in (ONE, TWO.format(link="isomorphic-to", rest="(assert (== X_g[0] X_f[0]))(assert (<= Y_f[0] Y_g[0]))")):
        prop = parse_property(text)
        again = parse_property(write_property(prop))
        assert_same(prop, again)
        assert (prop.networks, prop.inputs, prop.outputs) == (again.networks, again.inputs, again.outputs)


def test_several_networks_cannot_be_written_as_version_1() -> None:
    prop = parse_property(TWO.format(link="equal-to", rest="(assert (== X_g[0] X_f[0]))"))
    with pytest.raises(SpecError, match="several networks"):
        write_property(prop, "1.0")
    with pytest.raises(SpecError, match="known versions"):
        write_property(prop, "3.0")


HIDDEN = ONE.replace("    (declare-output", '    (declare-hidden Z real [3] "node")\n    (declare-output')


def test_hidden_nodes_may_be_declared_but_not_used() -> None:
    assert_same(parse_property(HIDDEN), parse_property(ONE))
    with pytest.raises(SpecError, match="Z is a hidden node"):
        parse_property(HIDDEN + "(assert (<= Z[0] 1))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE + "(assert (<= Y[2] 0))", r":9:13: Y\[2\] lies outside of Y, which has shape \[2\]"),
        (ONE + "(assert (<= X[0] 0))", r":9:13: X\[0\] has 1 indices, but X has shape \[1, 2\]"),
        (ONE + "(assert (<= X 0))", r":9:13: X has 0 indices"),
        (ONE + "(assert (<= X[a] 0))", r":9:13: the index of X\[a\]"),
        (ONE + "(assert (<= X[-1,0] 0))", ":9:13: the index of"),
        (ONE + "(assert (<= W[0] 0))", ":9:13: variable W is not declared"),
        (ONE + "(declare-network g (declare-input A real [1]) (declare-output B real [1]))", ":9:1: networks must be"),
        (ONE.replace("<2.0>", "<2.x>"), ":1:17: unsupported version"),
        (ONE.replace("vnnlib-version <2.0>", "vnnlib-version 2.0 1"), ":1:1: only VNN-LIB"),
        (ONE.replace("float32", "float31"), ":3:22: unknown element type 'float31'"),
        (ONE.replace("[1,2]", ""), ":3:5: a tensor is declared as"),
        (ONE.replace("[1,2]", "[1,0]"), r"\[1,0\] is no shape"),
        (ONE.replace("[1,2]", "[1,-2]"), "is no shape"),
        (ONE.replace("[1,2]", "[100000,200000]"), "has more than 10000000 elements"),
        (ONE.replace("[1,2]", "[99999999999999999999]"), "is no shape"),
        (ONE.replace("declare-output Y", "declare-output X"), ":4:5: tensor 'X' is declared twice"),
        (ONE.replace("    (declare-output Y real [2])\n", ""), ":2:1: network 'f' has no declare-output"),
        (ONE.replace("declare-input", "declare-const"), "unknown operator 'declare-const'"),
        (ONE.replace("network f", "network"), ":2:1: a network is declared as"),
        (ONE.replace("network f", "network 2f"), ":2:1: a network is declared as"),
        (ONE.replace("input X ", "input _X "), "'_X' is no name"),
        (ONE.replace('so"', "so"), "stray"),
        (TWO.format(link="equal-to", rest="").replace("to f", "to h"), ":3:20: network 'h' is not declared"),
        (TWO.format(link="equal-to", rest="").replace("network g", "network f"), "network 'f' is declared twice"),
        (TWO.format(link="equal-to", rest="").replace("X_g real [2]", "X_g real [1]"), "of the same types and shapes"),
        (TWO.format(link="equal-to", rest=""), r"input X_g\[0\] has no lower bound"),
        (
            TWO.format(link="equal-to", rest="(assert (<= X_f[0] -1))"),
            r":7:\d+: the bounds of input X_f\[0\] contradict",
        ),
        ("(vnnlib-version <2.0>)", "asserts nothing"),
        ("(vnnlib-version <2.0>) (assert (<= 1 2))", "no network is declared"),
    ],
)
def test_errors(text: str, message: str) -> None:
    for bulk in (True, False):
        with pytest.raises(SpecError, match=message):
            parse_property(text, bulk=bulk)


def test_large_tensors_are_read_in_bulk() -> None:
    count = 20_000
    text = f"(declare-network f (declare-input X float32 [1,{count},2]) (declare-output Y float32 [1]))\n" + "".join(
        f"(assert (>= X[0,{i},{j}] {i}.5))\n(assert (<= X[0,{i},{j}] 1e9))\n" for i in range(count) for j in range(2)
    )
    prop = parse_property(text + "(assert (<= Y[0] 1))")
    np.testing.assert_array_equal(prop.clauses[0].box.lower, np.repeat(np.arange(count) + 0.5, 2))


def test_the_reference_parser_accepts_what_is_written() -> None:
    vnnlib = pytest.importorskip("vnnlib")
    unnamed = ONE.replace(' "image; or so"', "")
    products = unnamed + "(assert (or (< (+ (* 1e-7 X[0,0] Y[0]) (* 1e-300 Y[1])) 1e30) (!= Y[0] (* 3 Y[1]))))"
    two = TWO.format(link="isomorphic-to", rest="(assert (== X_g[0] X_f[0]))(assert (<= Y_f[0] Y_g[0]))")
    for text in (unnamed.replace("float32", "real"), products.replace("float32", "real"), two):
        written = write_property(parse_property(text))
        assert len(vnnlib.parse_query_string(written).networks) == len(parse_property(text).networks)


NOT_CLOSED = TWO.format(link="equal-to", rest="(assert (== X_g[0] X_f[0]))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NOT_CLOSED.replace("(equal-to f)", "(equal-to f) (isomorphic-to f)"), ":3:33: network 'g' is declared equal"),
        (NOT_CLOSED.replace("(equal-to f)", "(equal-to f) (equal-to f)"), ":3:33: network 'g' is declared equal"),
        (
            NOT_CLOSED.replace(
                "\n(assert",
                "(declare-network h (equal-to g)(declare-input A real [2])(declare-output B real [1]))(assert",
                1,
            ),
            "network 'g' is itself declared equal to another; name that one here",
        ),
        (
            NOT_CLOSED.replace("equal-to", "isomorphic-to").replace(
                "\n(assert",
                "(declare-network h (equal-to g)(declare-input A real [2])(declare-output B real [1]))(assert",
                1,
            ),
            "network 'g' is itself declared isomorphic to another; name that one here",
        ),
        (ONE.replace("declare-network f", "declare-network Y"), ":4:5: 'Y' is the name of a network already"),
        (NOT_CLOSED.replace("network g", "network X_f"), ":3:18: 'X_f' is the name of a tensor already"),
        (ONE + "(vnnlib-version <2.0>)", ":9:1: the version is declared twice"),
        (ONE + "(vnnlib-version <1.0>)", ":9:1: only VNN-LIB"),
        (ONE + "(assert (<= X[0,0] Y[0]))", ":9:20: this comparison mixes element types: float32 and real"),
        (ONE + "(assert (<= (* 2 X[0,0]) Y[0] 1))", ":9:13: this comparison mixes element types"),
        (ONE + "(assert (<= X[0,0 1] 1))", r":9:13: the index of X\[0,0 1\]"),
        (ONE.replace("[1,2]", "[1,,2]"), "is no shape"),
        (ONE + "(assert (<= Y[0] 1e-400))", ":9:18: the number 1e-400 is too small for float64"),
    ],
)
def test_what_would_weaken_a_query_is_an_error(text: str, message: str) -> None:
    for bulk in (True, False):
        with pytest.raises(SpecError, match=message):
            parse_property(text, bulk=bulk)
