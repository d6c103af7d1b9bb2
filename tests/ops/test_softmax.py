"""The softmax in its parts: bounds by every method hold on boxes of every kind, and behind large masks."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify import bounds
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.loading.builder import GraphBuilder
from boundsmith.verify.loading.lowering_softmax import log_sum_exp, softmax
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import flatten
from hypothesis import given, settings
from hypothesis import strategies as st
from loading.models import model_of
from onnx import helper

METHODS = ("ibp", "forward", "crown", "alpha-crown")
CURVATURE = 0.25
"""No second derivative of an entry along a coordinate is larger: those of ``p`` are ``p (1 - p) (1 - 2 p)`` and
``p q (2 q - 1)`` of shares p and q."""


def graph_of(count, log=False, whole=None):
    """The softmax of ``[2, count]`` along the last axis; `whole` chooses its form (None: by size)."""
    builder = GraphBuilder(np.dtype(np.float64))
    x = builder.input("x", (2, count), np.dtype(np.float64))
    scores = x if not whole else builder.scale(x, shift=np.asarray([[0.0] * (count - 1) + [50.0]]))
    made = softmax(builder, scores, 1, log)
    shift = 0.0 if not whole else np.asarray([0.0] * (count - 1) + [50.0])
    return flatten(builder.graph((x,), (made,))), shift


def exact(x, log):
    """The value in float64 for points ``[..., 2, count]``."""
    below = x - x.max(axis=-1, keepdims=True)
    logarithm = below - np.log(np.exp(below).sum(axis=-1, keepdims=True))
    return logarithm if log else np.exp(logarithm)


def boxes(seed, count, dtype):
    """Boxes ``[8, 2 count]`` of points, tiny, moderate, huge and one-sided intervals."""
    random = np.random.default_rng(seed)
    size = (8, 2 * count)
    centre = random.normal(size=size) * random.choice([0.0, 1.0, 5.0, 40.0], size=(8, 1))
    radius = random.random(size) * random.choice([0.0, 1e-6, 1e-2, 0.5, 3.0, 30.0, 300.0], size=(8, 1))
    side = random.integers(0, 4, size)
    lower = np.where(side == 0, centre, centre - radius)
    return lower.astype(dtype), np.where(side == 1, centre, centre + radius).astype(dtype)


def points_of(lower, upper, seed, samples=60):
    """Random points and corners ``[samples, B, n]`` in float64."""
    random = np.random.default_rng(seed)
    mix = random.random((samples, *lower.shape))
    mix[: samples // 2] = mix[: samples // 2].round()
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    return np.clip(low + mix * (high - low), low, high)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("whole", [False, True])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 6), log=st.booleans())
def test_bounds_contain_the_values(dtype, method, whole, seed, count, log):
    graph, shift = graph_of(count, log, whole and count > 2)
    lower, upper = boxes(seed, count, dtype)
    found = bounds_of(graph, lower, upper, method)
    assert np.isfinite(found.lower).all()
    assert np.isfinite(found.upper).all()
    x = points_of(lower, upper, seed)
    value = exact(x.reshape(*x.shape[:2], 2, count) + shift, log).reshape(x.shape)
    # What the dtype cannot tell of differences of arguments, and of the value.
    slack = 8 * np.finfo(dtype).eps * (1 + abs(x).max(axis=(0, 2)) + 50 * whole)[:, None]
    assert (found.lower <= value + slack).all()
    assert (value <= found.upper + slack).all()


@pytest.mark.parametrize("seed", range(4))
def test_planes_hold_between_the_samples_too(seed):
    """The planes of an entry on a grid of the box, so fine that no plane is crossed by more than the remainder: in a
    cell of side h a function is below the least of the cell's corners by at most ``n h^2 M / 8``."""
    count, steps = 3, 41
    builder = GraphBuilder(np.dtype(np.float64))
    x = builder.input("x", (1, count), np.dtype(np.float64))
    graph = flatten(builder.graph((x,), (softmax(builder, x, 1),)))
    random = np.random.default_rng(seed)
    lower = random.normal(size=(6, count)) * 2
    upper = lower + random.random((6, 1)) * random.choice([0.01, 0.5, 2.0, 4.0], size=(6, 1))
    state = relax(make_plan(graph), lower, upper)
    mix = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, steps)] * count), axis=-1).reshape(-1, count)
    x = lower[:, None] + mix[None] * (upper - lower)[:, None]
    value = exact(x, False)
    spread = (value.max(axis=1) - value.min(axis=1)).max(axis=1)
    remainder = count * ((upper - lower).max(axis=1) / (steps - 1)) ** 2 * CURVATURE / 8
    assert (remainder <= 0.02 * spread).all()
    for sign in (1.0, -1.0):
        rows = np.broadcast_to(sign * np.eye(count), (6, count, count))
        plane = row_bounds(state, rows, np.zeros((6, count)))
        under = np.einsum("bsn,bpn->bps", plane.coefficients, x) + plane.constant[:, None]
        assert (under <= sign * value + 1e-12).all()
        assert ((sign * value - under).mean(axis=1) <= 0.6 * (value.max(axis=1) - value.min(axis=1)) + 1e-9).all()


def test_the_sums_tangents_are_those_of_a_convex_function():
    """Below, the parts' lines make a tangent plane of ``log sum exp``: it holds on all of space."""
    builder = GraphBuilder(np.dtype(np.float64))
    x = builder.input("x", (1, 5), np.dtype(np.float64))
    graph = flatten(builder.graph((x,), (log_sum_exp(builder, x, 1),)))
    random = np.random.default_rng(0)
    lower = random.normal(size=(20, 5))
    upper = lower + random.random((20, 5)) * 3
    bound = row_bounds(relax(make_plan(graph), lower, upper), np.ones((20, 1, 1)), np.zeros((20, 1)))
    weights = bound.coefficients[:, 0]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-9)
    assert (weights >= 0).all()
    far = random.normal(size=(300, 20, 5)) * 10
    value = np.log(np.exp(far).sum(axis=2))
    assert (np.einsum("sbn,bn->sb", far, weights) + bound.constant[:, 0] <= value + 1e-9).all()
    entropy = -(weights * np.log(weights)).sum(axis=1)
    np.testing.assert_allclose(bound.constant[:, 0], entropy, rtol=1e-9)


def attention(count, mask):
    """Masked attention weights ``[1, count, count]`` of three features."""
    random = np.random.default_rng(0)
    below = np.tril(np.ones((count, count))) > 0
    constants = {
        "mask": np.where(below, 0.0, mask).astype(np.float32),
        "wq": random.normal(size=(3, 3)).astype(np.float32),
        "wk": random.normal(size=(3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("MatMul", ["x", "wk"], ["k"]),
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Add", ["s", "mask"], ["m"]),
        helper.make_node("Softmax", ["m"], ["y"], axis=-1),
    ]
    return load(model_of(nodes, {"x": [1, count, 3]}, ["y"], constants)), below


@pytest.mark.parametrize("count", [2, 3, 12])
def test_large_masks_bound_like_minus_infinity(count):
    """Finite, sound, zero where hidden, and as tight as what minus infinity gives in the same form."""
    random = np.random.default_rng(1)
    centre = random.normal(size=(1, 3 * count)).astype(np.float32)
    x = (centre + random.uniform(-0.1, 0.1, (60, 3 * count))).astype(np.float32)
    for method in METHODS:
        widths = []
        for mask in (-np.inf, -1e4, -1e9, float(np.finfo(np.float32).min)):
            network, below = attention(count, mask)
            with np.errstate(all="raise", under="ignore"):
                lower, upper = (end.reshape(count, count) for end in bounds(network, centre, 0.1, method))
            assert np.isfinite(lower).all()
            assert np.isfinite(upper).all()
            assert (abs(np.stack([lower, upper])[:, ~below]) <= 1e-30).all()
            made = np.stack([network.runtime.run(point.reshape(1, count, 3))[0].reshape(count, count) for point in x])
            assert (lower - 1e-6 <= made).all()
            assert (made <= upper + 1e-6).all()
            widths.append(float((upper - lower)[below].mean()))
        # With few entries, minus infinity leaves a second form, which large numbers would overflow.
        # (Of differences of float32's lowest number, float32 knows nothing.)
        assert max(widths[1:-1]) <= (1.45 if method == "alpha-crown" else 1.15) * widths[0]
        assert max(widths[1:-1]) <= 1.001 * min(widths[1:-1])
        assert widths[-1] <= 1.6 * max(widths[:-1])


def test_many_scores_are_not_written_with_differences():
    """Each would be bounded on its own: there are as many times more of them as a row has scores."""
    for count, largest in ((4, 12), (40, 40)):
        builder = GraphBuilder(np.dtype(np.float64))
        x = builder.input("x", (1, count), np.dtype(np.float64))
        graph = builder.graph((x,), (softmax(builder, x, 1),))
        assert max(node.size for node in graph.nodes) == largest
