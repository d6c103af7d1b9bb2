"""Sums of ReLUs of one number become one function of it: the same function, with an exact range and safe lines."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.graph import Graph, Node
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.loading.piecewise import MOST_TERMS, fold_piecewise
from boundsmith.verify.ops import rule
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.networks import node

FINE = settings(max_examples=25, deadline=None)


def sum_of_relus(weights, factors, shifts, bias=None, indices=None, entries=3):
    """``sum_j weights_j relu(factors_j x + shifts_j)`` of every entry of the input."""
    terms = len(weights)
    if indices is None:
        indices = np.repeat(np.arange(entries), terms).reshape(1, entries, terms)
    shape = indices.shape
    last = {"weight": np.array([weights])} | ({} if bias is None else {"bias": np.array([bias])})
    return Graph(
        (
            Node("x", "Input", (), (entries,)),
            node("copies", "Take", [0], shape, {"indices": indices}),
            node("shifted", "Scale", [1], shape, {"scale": np.asarray(factors), "shift": np.asarray(shifts)}),
            node("relus", "Relu", [2], shape),
            node("y", "Linear", [3], (*shape[:-1], 1), last),
        ),
        (0,),
        (4,),
    )


def random_sum(seed, dtype=np.float32):
    """A sum with kinks anywhere, some of them shared, some terms without one."""
    rng = np.random.default_rng(seed)
    terms = int(rng.integers(3, 60))
    factors = rng.choice([1.0, 1.0, -1.0, 0.3, -7.0, 0.0], terms)
    shifts = rng.choice([rng.normal(scale=4.0, size=terms), np.full(terms, 0.5)])
    weights = rng.normal(size=terms) * rng.choice([1.0, 1e-3, 30.0])
    return sum_of_relus(*(x.astype(dtype) for x in (weights, factors, shifts)), bias=dtype(rng.normal()))


def values(graph, x):
    """Outputs ``[P, 3]`` at points ``[P, 3]``, in float64."""
    (y,) = evaluate(Backend("float64").graph(graph), [x])
    return y.reshape(len(x), -1)


def operators(graph):
    return [each.op for each in graph.nodes]


@FINE
@given(seed=st.integers(0, 10**6))
def test_the_function_stays_the_same(seed):
    graph = random_sum(seed)
    folded = fold_piecewise(graph)
    assert operators(folded) == ["Input", "Take", "Piecewise"]
    knots = np.array(folded.nodes[2].attributes["knots"])
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(scale=s, size=(40, 3)) for s in (0.1, 3.0, 1e3)] + [np.repeat(knots[:, None], 3, 1)])
    expected = values(graph, x)
    np.testing.assert_allclose(values(folded, x), expected, rtol=1e-12, atol=1e-12 * (1.0 + abs(expected).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("position", [None, 0.0, 0.37, 1.0])
@FINE
@given(seed=st.integers(0, 10**6))
@example(seed=1787)
def test_range_and_lines_hold_at_every_kink(dtype, position, seed):
    """Of a function of straight pieces, its kinks and the interval's ends say all. Judged in float64 by the sum."""
    graph = random_sum(seed)
    folded = fold_piecewise(graph)
    piecewise = folded.nodes[2]
    rng = np.random.default_rng(seed + 1)
    shape = (20, *piecewise.shape)
    centre = rng.normal(size=shape) * rng.choice([0.0, 1.0, 5.0, 100.0], shape)
    radius = rng.random(shape) * rng.choice([0.0, 1e-6, 1e-2, 1.0, 30.0, 1e4], shape)
    lower, upper = (centre - radius).astype(dtype), (centre + radius).astype(dtype)
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    least, most = rule("Piecewise").interval(piecewise, [(lower, upper)])
    slope = None if position is None else np.full_like(lower, position)
    lines = rule("Piecewise").relax(piecewise, [(lower, upper)], slope)
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    kinks = np.array(piecewise.attributes["knots"]).reshape(-1, *(1 for _ in shape))
    x = np.concatenate([low[None], np.clip(kinks, low, high), high[None]])
    y = values(graph, x.reshape(-1, 3)).reshape(x.shape)
    # Far out, the sum's own terms are as large as x and cancel.
    blur = 1e-14 * (1.0 + abs(y) + abs(x)) if dtype is np.float64 else 0.0
    assert (y >= least.astype(np.float64) - blur).all()
    assert (y <= most.astype(np.float64) + blur).all()
    below = lines.lower_slopes[0].astype(np.float64) * x + lines.lower_intercept.astype(np.float64)
    above = lines.upper_slopes[0].astype(np.float64) * x + lines.upper_intercept.astype(np.float64)
    blur = blur + 1e-15 * (abs(below) + abs(above))
    assert (below <= y + blur).all()
    assert (above >= y - blur).all()


@FINE
@given(seed=st.integers(0, 10**6), position=st.floats(0.0, 1.0))
@example(seed=163, position=1.0)
def test_lines_touch_the_envelope(seed, position):
    """At the point asked for, no chord of the graph lies below the lower line by more than rounding."""
    piecewise = fold_piecewise(random_sum(seed)).nodes[2]
    rng = np.random.default_rng(seed)
    lower = rng.normal(scale=3.0, size=(6, *piecewise.shape))
    upper = lower + rng.uniform(0.1, 6.0, lower.shape)
    lines = rule("Piecewise").relax(piecewise, [(lower, upper)], np.full_like(lower, position))
    kinks = np.array(piecewise.attributes["knots"])
    for place in np.ndindex(lower.shape):
        a, b = lower[place], upper[place]
        x = np.array([a, *kinks[(kinks > a) & (kinks < b)], b])
        y = rule("Piecewise").evaluate(piecewise, [x])
        t = a + position * (b - a)
        left, right = x <= t, x >= t
        gap = (x[right][None] - x[left][:, None]).clip(1e-300)
        share = (t - x[left][:, None]) / gap
        chords = y[left][:, None] + share * (y[right][None] - y[left][:, None])
        for slopes, intercept, best in (
            (lines.lower_slopes, lines.lower_intercept, chords.min()),
            (lines.upper_slopes, lines.upper_intercept, chords.max()),
        ):
            assert abs(slopes[0][place] * t + intercept[place] - best) <= 1e-2 * (y.max() - y.min()) + 1e-9


def test_other_sums_are_left_alone():
    weights, factors, shifts = np.ones(4), np.ones(4), np.arange(4.0)
    mixed = np.array([[[0, 0, 0, 1], [1, 1, 1, 1], [2, 2, 2, 2]]])
    padded = np.array([[[0, 0, 0, 0], [-1, -1, -1, -1], [2, 2, 2, 2]]])
    many = MOST_TERMS + 1
    own_shifts = np.arange(12.0).reshape(1, 3, 4)
    for graph in (
        sum_of_relus(weights, factors, shifts, indices=mixed),
        sum_of_relus(weights, factors, shifts, indices=padded),
        sum_of_relus(weights[:2], factors[:2], shifts[:2]),
        sum_of_relus(np.ones(many), np.ones(many), np.arange(float(many))),
        sum_of_relus(weights, factors, own_shifts),
        sum_of_relus(weights, 0.0 * factors, shifts),
        sum_of_relus(weights * np.inf, factors, shifts),
    ):
        assert operators(fold_piecewise(graph)) == operators(graph)


def test_relus_that_others_read_stay():
    graph = sum_of_relus(np.ones(4), np.ones(4), np.arange(4.0))
    both = Graph((*graph.nodes, node("z", "Sum", [3], (1, 3, 1), axes=(2,), keepdims=True)), (0,), (4, 5))
    assert "Piecewise" not in operators(fold_piecewise(both))
