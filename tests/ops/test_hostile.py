"""Intervals and lines hold for unusual parameters and for intervals of every size, without any tolerance.

What a library rounds, a row of the operator table gives away itself: nobody after it knows the terms.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from boundsmith.verify.ops import rule
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
            assert_below(case, sign * (k * x + c), sign * y, terms, where, f"{library}, {position}: {what}")
