"""Intervals and lines hold for unusual parameters and for intervals of every size, without any tolerance.

What a library rounds, a row of the operator table gives away itself: nobody after it knows the terms.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from boundsmith.verify.errors import UnsupportedError
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from boundsmith.verify.ops.arrays import largest, smallest, unit_roundoff
from ops.hostile import CASES, LONG, Hostile, intervals, points

torch = pytest.importorskip("torch")

COUNT, SAMPLES = 100, 8
LIBRARIES = ("numpy", "torch")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def converter(library: str, dtype: Any) -> Any:
    return (lambda x: torch.from_numpy(np.asarray(x, dtype))) if library == "torch" else (lambda x: x.astype(dtype))


def exact(case: Hostile, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.broadcast_to(case.value(x), x.shape)


@np.errstate(all="ignore")
def assert_below(case: Hostile, below: np.ndarray, y: np.ndarray, terms: np.ndarray, where: Any, what: str) -> None:
    """`below` is at most `y`, but for what the longest float rounds."""
    blur = 16 * np.finfo(LONG).eps * (abs(y) + terms)
    wrong = ~((below <= y + blur) | ~np.isfinite(y))
    if wrong.any():
        x, lower, upper = where
        k = np.argwhere(wrong)[0]
        pytest.fail(
            f"{what} of {case.name} on [{lower[0, k[1]]!r}, {upper[0, k[1]]!r}] at {x[tuple(k)]!r}: "
            f"{np.broadcast_to(below, y.shape)[tuple(k)]!r} against {y[tuple(k)]!r}, {wrong.any(axis=0).sum()} in all"
        )


@every_case
@dtypes
def test_intervals_hold(case: Hostile, dtype: Any) -> None:
    lower, upper = intervals(case, 0, COUNT, dtype)
    x = points(case, lower, upper, SAMPLES)
    y = exact(case, x)
    for library in LIBRARIES:
        convert = converter(library, dtype)
        bounds = rule(case.op).interval(case.node(COUNT, convert), [(convert(lower), convert(upper))])
        low, high = (np.asarray(end) for end in bounds)
        assert low.dtype == high.dtype == dtype
        assert not np.isnan(low).any()
        assert not np.isnan(high).any()
        assert (low <= high).all()
        nothing = np.zeros_like(y)
        assert_below(case, low.astype(LONG), y, nothing, (x, lower, upper), f"{library}: lower bound")
        assert_below(case, -high.astype(LONG), -y, nothing, (x, lower, upper), f"{library}: upper bound")


@pytest.mark.parametrize("case", [c for c in CASES if rule(c.op).relax is not None], ids=lambda case: case.name)
@dtypes
def test_lines_hold(case: Hostile, dtype: Any) -> None:
    lower, upper = intervals(case, 1, COUNT, dtype)
    x = points(case, lower, upper, SAMPLES)
    y = exact(case, x)
    for library, position in itertools.product(LIBRARIES, (None, 0.0, 0.4, 1.0)):
        convert = converter(library, dtype)
        slope = None if position is None else convert(np.full((1, COUNT), position))
        lines = rule(case.op).relax(case.node(COUNT, convert), [(convert(lower), convert(upper))], slope)
        for slopes, intercept, sign, what in (
            (lines.lower_slopes, lines.lower_intercept, 1, "line below"),
            (lines.upper_slopes, lines.upper_intercept, -1, "line above"),
        ):
            k, c = np.asarray(slopes[0]), np.asarray(intercept)
            assert k.dtype == c.dtype == dtype
            assert np.isfinite(k).all()
            assert not np.isnan(c).any()
            k, c = k.astype(LONG), c.astype(LONG)
            terms = abs(k * x) + np.where(np.isfinite(c), abs(c), 0)
            where = (x, lower, upper)
            if case.op == "Relu":
                # The one row that is too hot to give away what underflows.
                c = c - sign * LONG(np.finfo(dtype).smallest_subnormal) * (1 + abs(x).max(axis=0))
            assert_below(case, sign * (k * x + c), sign * y, terms, where, f"{library}, {position}: {what}")


BINARY = {
    "Mul": (lambda a, b: a * b, "real"),
    "Div": (lambda a, b: a / b, "positive"),
    "Div by negatives": (lambda a, b: a / b, "negative"),
    "Max": (np.maximum, "real"),
    "Min": (np.minimum, "real"),
    "MatMul": (lambda a, b: a * b, "real"),
}
"""Operators of two inputs, where the second one is defined. Differences from planes are least at corners, or between
them along the divisor."""


@pytest.mark.parametrize("name", BINARY)
@dtypes
def test_bounds_of_two_inputs_hold(name: str, dtype: Any) -> None:
    (value, domain), op = BINARY[name], name.split()[0]
    first = intervals(Hostile(op, value), 2, 300, dtype)
    second = intervals(Hostile(op, value, domain=domain), 3, 300, dtype)
    a = np.stack([first[0], first[1], first[0], first[1], first[0], first[1]])[:, 0].astype(LONG)
    low, high = (end[0].astype(LONG) for end in second)
    middle = np.clip(np.sqrt(abs(low)) * np.sqrt(abs(high)) * np.sign(high), low, high)
    b = np.stack([low, high, high, low, middle, middle])
    with np.errstate(all="ignore"):
        y = value(a, b)
    for library, position in itertools.product(LIBRARIES, (None, 0.0, 0.4, 1.0)):
        convert = converter(library, dtype)
        given = [tuple(convert(end) for end in pair) for pair in (first, second)]
        node = Node("y", op, (0, 1), (300,), {}, {}, ((300,),) * 2)
        row = rule(op)
        if op == "MatMul":
            given = [(low[..., None], high[..., None]) for low, high in (given[0], given[1])]
            given[0], given[1] = (tuple(x.reshape(1, 300, 1, 1) for x in pair) for pair in given)
            node = Node("y", op, (0, 1), (300, 1, 1), {}, {}, ((300, 1, 1),) * 2)
        least, most = (np.asarray(end).reshape(1, 300) for end in row.interval(node, given))
        where = (a, *(end for end in first))
        assert not np.isnan(least).any()
        assert not np.isnan(most).any()
        assert (least <= most).all()
        nothing = np.zeros_like(y)
        assert_below(Hostile(op, value), least.astype(LONG), y, nothing, where, f"{library}: lower bound")
        assert_below(Hostile(op, value), -most.astype(LONG), -y, nothing, where, f"{library}: upper bound")
        if row.relax is None:
            continue
        slope = None if position is None else convert(np.full((1, 300), position))
        lines = row.relax(node, given, slope)
        for slopes, intercept, sign, what in (
            (lines.lower_slopes, lines.lower_intercept, 1, "plane below"),
            (lines.upper_slopes, lines.upper_intercept, -1, "plane above"),
        ):
            k, m, c = (np.asarray(x).astype(LONG) for x in (*slopes, intercept))
            assert np.isfinite(k).all()
            assert np.isfinite(m).all()
            assert not np.isnan(c).any()
            terms = abs(k * a) + abs(m * b) + np.where(np.isfinite(c), abs(c), 0)
            plane = k * a + m * b + c
            assert_below(Hostile(op, value), sign * plane, sign * y, terms, where, f"{library}, {position}: {what}")


@dtypes
def test_intervals_of_the_tangent_hold(dtype: Any) -> None:
    """Also on far branches, as near to their poles as bounds are given."""
    random = np.random.default_rng(4)
    turns = random.integers(-1000, 1000, COUNT)
    places = np.sort(random.choice([0.0, 1e-30, -1e-5, 0.7, 1.2, 1.55, -1.55, -1.5, -0.3], (2, COUNT)), axis=0)
    lower, upper = ((place + turns * np.pi).astype(dtype) for place in places)
    node = Node("y", "Tan", (0,), (COUNT,), {}, {}, ((COUNT,),))
    x = lower + np.linspace(LONG(0), LONG(1), 33)[:, None] * (upper.astype(LONG) - lower)
    for library in LIBRARIES:
        convert = converter(library, dtype)
        bounds = rule("Tan").interval(node, [(convert(lower[None]), convert(upper[None]))])
        low, high = (np.asarray(end).astype(LONG) for end in bounds)
        assert (low <= np.tan(x)).all()
        assert (np.tan(x) <= high).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64], ids=str)
def test_element_types_whose_rounding_is_not_known_raise(dtype: Any) -> None:
    ends = torch.zeros(1, 1, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    for function in (unit_roundoff, smallest, largest):
        with pytest.raises(UnsupportedError, match=f"not in {name}"):
            function(ends)
    with pytest.raises(UnsupportedError, match=f"not in {name}"):
        rule("Relu").relax(Node("y", "Relu", (0,), (1,), {}, {}, ((1,),)), [(ends, ends)])
