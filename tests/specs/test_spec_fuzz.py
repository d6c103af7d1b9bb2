"""Whatever is thrown at the readers: a Property or a SpecError comes out."""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.specs import Property, SpecError, parse_property, read_instances, read_property, write_property
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_helpers import box, declarations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

V1 = declarations(2, 2) + box(2) + "(assert (or (and (<= X_0 0.5) (>= Y_0 1)) (and (<= Y_0 (* 2 Y_1)))))\n"
V2 = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,2] "a") (declare-output Y real [2]))
(declare-network g (equal-to f)
    (declare-input A real [1,2]) (declare-hidden H real [3] "b") (declare-output B real [2]))
(assert (and (>= X[0,0] 0) (<= X[0,0] 1) (== X[0,1] 1.5e-1) (== A[0,0] X[0,0]) (<= X[0,1] A[0,1] 1)))
(assert (or (!= (* X[0,0] Y[0]) (- B[1])) (B[0] < (+ Y[1] 0.5))))
"""
WORDS = """
( ) () [ ] [0] [0,0] ; " é 1e400 1e-999999999 -1 0 nan inf - + * <= < >= > == = != or and assert declare-const
declare-input declare-network declare-output equal-to isomorphic-to vnnlib-version X_0 X_9 Y_0 Z X X[0,0] Y[1] A[0,1]
f g real Real float32 <2.0> 9999999999 (* (and (or (assert (((((((((( )))))))))) ٣
"""
PIECES = st.sampled_from([*WORDS.split(), "\n", "\0", "(assert (<= Y_0 X_0))", "1" * 5000])


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid text with some pieces cut, doubled, moved or put in."""
    text = draw(st.sampled_from([V1, V2]))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        piece = draw(
            st.sampled_from(["", text[start:end] * 2, text[: end - start]]) | PIECES.map(" {} ".format) | PIECES
        )
        text = text[:start] + piece + text[end:]
    return text


def outcome(read: Callable[[], object]) -> object:
    """What `read` returns, or the message of its SpecError; any other exception is a failure."""
    try:
        return read()
    except SpecError as problem:
        return str(problem)


def check(content: str | bytes) -> None:
    prop = outcome(lambda: parse_property(content))
    if isinstance(prop, str):
        assert prop.startswith("query")
        return
    assert isinstance(prop, Property)
    for clause in prop.clauses:
        assert np.isfinite(clause.box.lower).all()
        assert (clause.box.lower <= clause.box.upper).all()
        assert np.isfinite(clause.offset).all()
    assert isinstance(parse_property(write_property(prop)), Property)


@settings(max_examples=500, deadline=None)
@given(mutated())
def test_mutated_queries(text: str) -> None:
    check(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=30).map(" ".join) | st.text(max_size=60))
def test_random_texts(text: str) -> None:
    check(text)
    check("(vnnlib-version <2.0>)" + text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.booleans(), st.integers(0, 200))
def test_random_bytes(tmp_path: Path, noise: bytes, packed: bool, cut: int) -> None:
    check(noise)
    path = tmp_path / ("query.vnnlib.gz" if packed else "query.vnnlib")
    content = gzip.compress(V1.encode())
    path.write_bytes(content[:cut] + noise + content[cut + len(noise) :] if packed else noise)
    result = outcome(lambda: read_property(path))
    path.unlink()
    assert isinstance(result, Property) or "query.vnnlib" in result


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.sampled_from(["a.onnx", "", "1", "-1", "nan", "[('f','a')]", "[", "'", "x\n", "\0"]) | st.text())
    )
)
def test_random_instance_lists(tmp_path: Path, rows: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    path = tmp_path / "instances.csv"
    path.write_text(written.getvalue(), encoding="utf-8", errors="surrogatepass")
    result = outcome(lambda: read_instances(path))
    assert isinstance(result, tuple) or "instances.csv" in result


@pytest.mark.parametrize(
    "text",
    [
        V1 + "(assert (<= Y_0 " + "(* 1.1 " * 5000 + "Y_1" + ")" * 5000 + "))",
        V1 + "(assert (<= Y_0 " + "(* 1e-300 " * 5000 + "Y_1" + ")" * 5000 + "))",
        V1 + "(assert (<= Y_0 1e-999999999))(assert (<= (+ Y_0 1e-999999999) 0))",
        V1 + f"(assert (<= (+ Y_0 0.{'1' * 10000}) 1{'0' * 300}))",
        V1 + "(assert (<= " + "(* (+ Y_0 Y_1) " * 25 + "1" + ")" * 25 + " 1))",
        V1 + "(assert (or " + "(and (or " * 3000 + "(<= Y_0 1)" + "))" * 3000 + "))",
        "(" * 50_000 + V1,
        V1 + ")" * 50_000,
        V1 + "[" * 50_000,
        V1 + '"' * 50_000,
        V1 + "a" * 100_000,
        V1 + "(assert (<= Y_0" + " " * 100_000,
        V1 + "(assert " * 20_000,
    ],
)
def test_extremes(text: str) -> None:
    check(text)
