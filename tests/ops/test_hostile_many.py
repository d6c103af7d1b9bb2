"""Bounds of operators of several inputs hold for intervals of every size, compared in the longest float."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from ops.hostile import LONG, Hostile, intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COUNT = 150
EPSILON = 16 * float(np.finfo(LONG).eps)
ANY = Hostile("any", abs)
Interval = tuple[np.ndarray, np.ndarray]

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def inside(pair: Interval, weight: Any) -> np.ndarray:
    low, high = (end.astype(LONG) for end in pair)
    return np.clip(low + LONG(1) * weight * (high - low), low, high)


def bits(seed: int, dtype: Any) -> Interval:
    drawn = np.sort(np.random.default_rng(seed).integers(0, 2, (2, 1, COUNT)), axis=0).astype(dtype)
    return drawn[0], drawn[1]


def inputs(op: str, count: int, seed: int, dtype: Any) -> list[Interval]:
    """Intervals of the inputs; of a choice, the first are bits; of values that are the same, all meet."""
    drawn = [intervals(ANY, 10 * seed + k, COUNT, dtype) for k in range(count)]
    if op == "Where":
        drawn[0] = bits(seed, dtype)
    if op == "Same":
        common = np.clip(0, *drawn[0]).astype(dtype)
        drawn = [(np.minimum(low, common), np.maximum(high, common)) for low, high in drawn]
    return drawn


def points(op: str, drawn: Sequence[Interval], corner: Sequence[float]) -> list[np.ndarray]:
    if op == "Same":
        common = np.maximum(drawn[0][0], drawn[1][0]), np.minimum(drawn[0][1], drawn[1][1])
        return [inside(common, corner[0])] * 2
    xs = [inside(pair, weight) for pair, weight in zip(drawn, corner, strict=True)]
    return [np.round(xs[0]), *xs[1:]] if op == "Where" else xs


MANY: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
    "Where": (3, lambda condition, a, b: np.where(condition != 0, a, b)),
    "Max": (4, lambda *xs: np.max(xs, axis=0)),
    "Min": (3, lambda *xs: np.min(xs, axis=0)),
    "Same": (2, lambda a, b: a),
}


@pytest.mark.parametrize("op", MANY)
@dtypes
@np.errstate(all="ignore")
def test_planes_hold(op: str, dtype: Any) -> None:
    count, value = MANY[op]
    for seed in range(2):
        drawn = inputs(op, count, seed, dtype)
        node = Node("y", op, tuple(range(count)), (COUNT,), {}, {}, ((COUNT,),) * count)
        low, high = rule(op).interval(node, drawn)
        assert (low <= high).all()
        for position in (None, 0.0, 0.4, 1.0):
            slope = None if position is None else np.full((1, COUNT), position, dtype)
            lines = rule(op).relax(node, drawn, slope)
            for corner in itertools.product((0.0, 1.0, 0.37), repeat=count):
                xs = points(op, drawn, corner)
                y = value(*xs)
                assert (low <= y).all()
                assert (y <= high).all()
                for slopes, intercept, sign in (
                    (lines.lower_slopes, lines.lower_intercept, 1),
                    (lines.upper_slopes, lines.upper_intercept, -1),
                ):
                    assert not np.isnan(intercept).any()
                    terms = [k.astype(LONG) * x for k, x in zip(slopes, xs, strict=True)]
                    plane = intercept.astype(LONG) + sum(terms)
                    size = abs(y) + sum(abs(term) for term in terms)
                    assert (sign * plane <= sign * y + EPSILON * np.where(np.isfinite(size), size, 0)).all()


@dtypes
@np.errstate(all="ignore")
def test_logarithm_of_softmax_holds(dtype: Any) -> None:
    drawn = intervals(ANY, 5, 4 * COUNT, dtype)
    pair = tuple(np.clip(end.reshape(1, COUNT, 4), -1e6, 1e6) for end in drawn)
    node = Node("y", "LogSoftmax", (0,), (COUNT, 4), {}, {"axis": 1}, ((COUNT, 4),))
    low, high = rule("LogSoftmax").interval(node, [pair])
    assert (low <= high).all()
    for corner in itertools.product((0.0, 1.0, 0.37), repeat=4):
        x = inside(pair, np.array(corner, LONG))
        for k in range(4):
            ahead = np.delete(x, k, axis=-1) - x[..., k : k + 1]
            most = np.maximum(ahead.max(axis=-1), 0)
            spread = np.exp(ahead - most[..., None]).sum(axis=-1)
            rest = np.where(most > 0, most + np.log(spread + np.exp(-most)), np.log1p(np.exp(ahead).sum(axis=-1)))
            assert (low[..., k] <= -rest * (1 - EPSILON)).all()
            assert (-rest * (1 + EPSILON) <= high[..., k]).all()


@dtypes
@pytest.mark.parametrize(("rows", "depth", "columns"), [(2, 5, 3), (1, 60, 1)])
def test_matrix_products_hold(rows: int, depth: int, columns: int, dtype: Any) -> None:
    """Also rows of coefficients whose constants nearly cancel."""
    random = np.random.default_rng(1)
    pairs = [
        tuple(
            np.clip(end.reshape(8, *shape), -1e12, 1e12)
            for end in intervals(ANY, 7 + k, 8 * shape[0] * shape[1], dtype)
        )
        for k, shape in enumerate([(rows, depth), (depth, columns)])
    ]
    node = Node("y", "MatMul", (0, 1), (rows, columns), {}, {}, ((rows, depth), (depth, columns)))
    low, high = rule("MatMul").interval(node, pairs)
    a = (random.normal(size=(8, 3, rows, columns)) * 10.0 ** random.integers(-5, 5, (8, 3, rows, columns))).astype(
        dtype
    )
    (on_left, on_right), constant = rule("MatMul").backward(node, pairs, a)
    for trial in range(24):
        weights = [random.random(pair[0].shape) for pair in pairs]
        left, right = (inside(p, np.round(w) if trial < 16 else w) for p, w in zip(pairs, weights, strict=True))
        y, size = left @ right, abs(left) @ abs(right)
        assert (low <= y + 1e-17 * size).all()
        assert (y - 1e-17 * size <= high).all()
        parts = [on_left * left[:, None], on_right * right[:, None]]
        bound = constant + sum(part.sum(axis=(-1, -2)) for part in parts)
        terms = abs(constant) + sum(abs(part).sum(axis=(-1, -2)) for part in parts)
        exact = (a * y[:, None]).sum(axis=(-1, -2))
        assert (bound <= exact + 1e-17 * (terms + (abs(a) * size[:, None]).sum(axis=(-1, -2)))).all()


@dtypes
def test_constants_that_cancel_are_bounded(dtype: Any) -> None:
    """What reads a scatter by its interval alone sums terms that are much larger than their sum."""
    random = np.random.default_rng(3)
    shapes = ((40, 5), (3, 1), (3, 5))
    node = Node("y", "ScatterND", (0, 1, 2), (40, 5), {}, {}, shapes)
    values = [(1e6 * random.normal(size=(1, *shape))).astype(dtype) for shape in shapes]
    values[1] = np.array([[[0], [1], [2]]], dtype)
    y = rule("ScatterND").evaluate(node, values).astype(LONG)
    for _ in range(40):
        a = random.normal(size=(1, 1, 40, 5)).astype(dtype)
        a[..., -1, -1] = -((a * y).sum() - a[..., -1, -1] * y[0, -1, -1]) / y[0, -1, -1]
        _, constant = rule("ScatterND").backward(node, [(x, x) for x in values], a)
        assert constant.astype(LONG) <= (a.astype(LONG) * y).sum()
