"""Operators at the edge of where they have a value: bounds that hold, or an error that names the node; never NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from boundsmith.verify.arrays import to_numpy
from boundsmith.verify.bounding.interval import node_interval
from boundsmith.verify.errors import UndefinedOnRegion
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from hypothesis import example, given, settings
from hypothesis import strategies as st

mpmath = pytest.importorskip("mpmath")
mp, mpf = mpmath.mp, mpmath.mpf

OPERATORS = [
    ("Div", {}, 0.0),
    ("Reciprocal", {}, 0.0),
    ("Log", {}, 0.0),
    ("Sqrt", {}, 0.0),
    ("Exp", {}, 88.7),
    ("Tan", {}, 0.5 * math.pi),
    ("Tan", {}, 40.5 * math.pi),
    ("Pow", {"exponent": -1.0}, 0.0),
    ("Pow", {"exponent": -2.0}, 0.0),
    ("Pow", {"exponent": -0.5}, 0.0),
    ("Pow", {"exponent": 1.5}, 0.0),
    ("Pow", {"exponent": 3.0}, 0.0),
]
"""Operator, attributes, and a point where it stops having a value (or overflows)."""

SIZES = [0.0, 1e-45, 1e-38, 1e-30, 1e-7, 1e-3, 0.5, 1.4, 40.0, 1e20, 3e38]


def exact(op, attributes, xs):
    """The value in high precision; None where there is none."""
    with mp.workdps(60):
        x = [mpf(float(v)) for v in xs]
        if op in ("Div", "Reciprocal"):
            top, bottom = (x[0], x[1]) if op == "Div" else (mpf(1), x[0])
            return None if bottom == 0 else top / bottom
        if op == "Exp":
            return mp.exp(x[0])
        if op == "Log":
            return mp.log(x[0]) if x[0] > 0 else None
        if op == "Sqrt":
            return mp.sqrt(x[0]) if x[0] >= 0 else None
        if op == "Tan":
            return mp.tan(x[0])
        exponent = attributes["exponent"]
        if (x[0] == 0 and exponent < 0) or (x[0] < 0 and not exponent.is_integer()):
            return None
        return x[0] ** (int(exponent) if exponent.is_integer() else mpf(exponent))


def holds_a_pole(low, high):
    """Whether an odd multiple of pi / 2 lies in the interval."""
    with mp.workdps(60):
        first = mp.ceil(mpf(float(low)) / mp.pi - mpf(1) / 2)
        return (first + mpf(1) / 2) * mp.pi <= mpf(float(high))


def points_of(low, high, dtype):
    """The ends, points between, and what is special in the interval."""
    inner = [dtype(0), np.nextafter(dtype(0), dtype(1)), np.nextafter(dtype(0), dtype(-1))]
    spread = [low, high, *(low + (high - low) * dtype(t) for t in np.linspace(0, 1, 9))]
    return [x for x in (*inner, *spread) if low <= x <= high]


@pytest.mark.parametrize(("op", "attributes", "edge"), OPERATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(
    below=st.sampled_from(SIZES),
    above=st.sampled_from(SIZES),
    side=st.sampled_from([-1, 0, 1]),
    jitter=st.floats(0.5, 1.0),
    top=st.tuples(st.sampled_from([-3e38, -2.0, -1e-30]), st.sampled_from([0.0, 1e-30, 3.0, 3e38])),
    library=st.sampled_from(["numpy", "torch"]),
)
@example(below=0.5, above=1e-7, side=0, jitter=1.0, top=(0.0, 1.0), library="numpy")
def test_bounds_hold_or_the_node_is_named(op, attributes, edge, dtype, below, above, side, jitter, top, library):
    """`below` and `above`: how far from the edge the interval's ends are, on both sides of it or on one."""
    with np.errstate(over="ignore"):
        reach = (side * below, side * above) if side else (-below, above)
        ends = [dtype(edge) + dtype(jitter) * dtype(distance) for distance in reach]
    low, high = min(ends), max(ends)
    pairs = [(dtype(top[0]), dtype(top[1])), (low, high)] if op == "Div" else [(low, high)]
    node = Node("here", op, tuple(range(len(pairs))), (1,), {}, attributes, ((1,),) * len(pairs))
    convert = torch.from_numpy if library == "torch" else np.asarray
    intervals = [tuple(convert(np.array([[end]], dtype)) for end in pair) for pair in pairs]
    values = [
        exact(op, attributes, xs)
        for xs in (
            [(x, y) for x in points_of(*pairs[0], dtype) for y in points_of(*pairs[1], dtype)]
            if op == "Div"
            else [(x,) for x in points_of(low, high, dtype)]
        )
    ]
    valueless = any(value is None for value in values) or (op == "Tan" and holds_a_pole(low, high))
    error = None
    try:
        bounds = node_interval(node, rule(op), intervals)
        lines = rule(op).relax(node, intervals)
    except UndefinedOnRegion as raised:
        error = raised
    if error is not None:
        assert "'here'" in str(error)
        assert error.valid.shape == (1, 1)
        assert not error.valid.any()
        far = 1e-6 * (1.0 + max(abs(float(low)), abs(float(high))))
        near = op == "Tan" and holds_a_pole(float(low) - far, float(high) + far)
        assert valueless or near, "the operator has a value everywhere"
        return
    assert not valueless
    assert bounds[0].shape == bounds[1].shape == (1, 1)
    lower, upper = (mpf(float(end[0, 0])) for end in bounds)
    slack = mpf(2.0**-22 if dtype == np.float32 else 2.0**-50)
    tiny = mpf(3e-38 if dtype == np.float32 else 1e-307)
    for value in values:
        assert lower - slack * abs(value) - tiny <= value <= upper + slack * abs(value) + tiny
    for array in (*lines.lower_slopes, lines.lower_intercept, *lines.upper_slopes, lines.upper_intercept):
        assert np.asarray(array).dtype == dtype
        assert not np.isnan(np.asarray(array)).any()
    assert float(lines.lower_intercept[0, 0]) < math.inf
    assert float(lines.upper_intercept[0, 0]) > -math.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_end_that_overflows_stays_finite_on_the_inner_side(dtype):
    """``exp`` of [1000, 1001] is no infinite number, only one too large for the dtype."""
    for op, ends in (("Exp", (1000.0, 1001.0)), ("Reciprocal", (np.nextafter(dtype(0), dtype(1)),) * 2)):
        node = Node("here", op, (0,), (1,), {}, {}, ((1,),))
        lower, upper = node_interval(node, rule(op), [tuple(np.array([[end]], dtype) for end in ends)])
        assert lower[0, 0] == np.finfo(dtype).max
        assert upper[0, 0] == math.inf


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), op=st.sampled_from(["Add", "Sum"]), wide=st.floats(0, 30))
def test_a_sum_of_positive_numbers_is_positive(seed, op, wide):
    """The rounding allowance of wide terms must not hide it: a root of the sum would seem undefined."""
    random = np.random.default_rng(seed)
    low = random.random((2, 2)).astype(np.float32)
    high = low + np.exp(wide * random.random((2, 2))).astype(np.float32)
    if op == "Sum":
        node = Node("s", op, (0,), (1,), {}, {"axes": (0,), "keepdims": True}, ((2,),))
        intervals = [(low, high)]
    else:
        node = Node("s", op, (0, 1), (1,), {}, {"signs": (1, 1)}, ((1,), (1,)))
        intervals = [(low[:, :1], high[:, :1]), (low[:, 1:], high[:, 1:])]
    lower, upper = node_interval(node, rule(op), intervals)
    assert (lower[:, 0] > 0).all()
    assert (lower[:, 0] <= low.astype(float).sum(axis=1)).all()
    assert (upper[:, 0] >= high.astype(float).sum(axis=1)).all()


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("op", ["GatherND", "ScatterND"])
def test_an_index_beyond_the_data_has_no_value(op, library):
    """From -n to n - 1 entries exist; the boxes in which an index may lie outside are told."""
    shapes = ((6, 2), (1, 1), (1, 2))
    first, last = np.array([-6.0, -7.0, 5.0, 5.0, 7.0]), np.array([5.0, 0.0, 5.0, 6.0, 9.0])
    intervals = [tuple(library(np.zeros((5, *shape))) for _ in range(2)) for shape in shapes]
    intervals[1] = tuple(library(end.reshape(5, 1, 1)) for end in (first, last))
    inputs = 2 if op == "GatherND" else 3
    one = Node("here", op, tuple(range(inputs)), shapes[2] if inputs == 2 else shapes[0], {}, {}, shapes[:inputs])
    with pytest.raises(UndefinedOnRegion, match="'here' is undefined on part of the region: its index") as raised:
        rule(op).interval(one, intervals[:inputs])
    assert raised.value.about == 1
    assert to_numpy(raised.value.valid).reshape(-1).tolist() == [True, False, True, False, False]
    good = [tuple(end[:1] for end in pair) for pair in intervals[:inputs]]
    assert all(np.isfinite(to_numpy(end)).all() for end in rule(op).interval(one, good))
