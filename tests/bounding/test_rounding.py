"""float32 and float64 bounds of networks made to lose digits contain the exact value, by every method and library.

Boxes are single points of the arithmetic (or a hair wide), so that nothing but the allowance for rounding lies between
a bound and the value, which is worked out in fractions.
"""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from boundsmith.specs import Box
from boundsmith.verify import load, verify
from boundsmith.verify.arrays import Backend, to_numpy
from boundsmith.verify.bounding import crown, interval, narrow
from boundsmith.verify.bounding.alpha_crown import alpha_crown
from boundsmith.verify.bounding.api import METHODS, bounds_of
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.errors import CrossedBounds, UnsupportedError
from boundsmith.verify.graph import Graph
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict
from boundsmith.verify.rounding import ELEMENT_TYPES, irregular, rounding, roundings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import node
from tests.onnx_files import random_layers, save_dense
from tests.queries import query_of

OURS = [method for method in METHODS if method != "auto-lirpa"]


def layered(weights, biases, activation="Relu"):
    """A dense network of float32 parameters."""
    nodes = [node("x", "Input", (), (weights[0].shape[1],))]
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        params = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
        nodes.append(node(f"z{number}", "Linear", (len(nodes) - 1,), (weight.shape[0],), params))
        if number + 1 < len(weights):
            nodes.append(node(f"a{number}", activation, (len(nodes) - 1,), (weight.shape[0],)))
    return Graph(tuple(nodes), (0,), (len(nodes) - 1,))


def signs(rng, *shape):
    return rng.choice([-1.0, 1.0], shape)


def cancelling_biases(rng):
    """Biases of 1e4 whose weighted sum is near 0, and a second output that is large."""
    width = int(rng.integers(4, 16))
    first = rng.normal(size=(width, 3))
    bias = 1e4 * (1.0 + rng.random(width))
    row = rng.normal(size=width)
    row -= bias * (row @ bias) / (bias @ bias)
    return [first, np.stack([row, np.ones(width)])], [bias, np.array([rng.normal(), 0.0])]


def cancelling_weights(rng):
    """Layers that undo each other: coefficients of the input are small differences of large numbers."""
    width = int(rng.integers(4, 12))
    first = np.repeat(1e3 * rng.normal(size=(width, 3)), 2, axis=0)
    first[1::2] *= 1.0 + 1e-6 * rng.normal(size=(width, 1))
    second = np.repeat(rng.normal(size=(2, width)), 2, axis=1)
    second[:, 1::2] *= -1.0
    return [first, second], [np.full(2 * width, 1e4), rng.normal(size=2)]


def every_size(rng):
    """Weights and biases between 1e-4 and 1e4."""
    sizes = [3, *(int(rng.integers(3, 14)) for _ in range(rng.integers(1, 4))), 2]
    weights = [signs(rng, b, a) * 10.0 ** rng.uniform(-4, 4, (b, a)) for a, b in itertools.pairwise(sizes)]
    return weights, [signs(rng, len(w)) * 10.0 ** rng.uniform(-4, 4, len(w)) for w in weights]


def underflowing(rng):
    """Products that are smaller than any number of float32 on the way, and as large as 1 at the end."""
    small, large = 10.0 ** rng.uniform(-36, -20), 10.0 ** rng.uniform(18, 36)
    weights = [abs(rng.normal(size=(4, 3))) * small, abs(rng.normal(size=(4, 4))) * small]
    weights += [abs(rng.normal(size=(4, 4))) * large, abs(rng.normal(size=(2, 4))) * large]
    return weights, [np.zeros(len(w)) for w in weights]


def equal_numbers(rng):
    """A long sum of equal terms, whose roundings all point the same way."""
    width = int(rng.integers(200, 400))
    weights = [np.full((width, 3), rng.random() + 0.5), np.full((2, width), rng.random() + 0.5)]
    return weights, [np.full(width, rng.random()), np.zeros(2)]


def one_above_all(rng):
    """A long sum of one large number and many that are too small to change it one by one."""
    width = int(rng.integers(40, 300))
    row = np.full(width, 2.0**-25 * (0.7 + 0.29 * rng.random()))
    row[int(rng.integers(0, 2))] = 1.0
    return [np.ones((width, 3)), np.stack([row, row])], [np.ones(width), np.zeros(2)]


def near_the_kink(rng):
    """Large values just beside 0: inactive and active neurons by a hair."""
    width = int(rng.integers(4, 12))
    first = 1e3 * rng.normal(size=(width, 3))
    return [first, rng.normal(size=(2, width)), rng.normal(size=(2, 2))], [
        -first @ np.array([0.3, -0.2, 0.1]),
        rng.normal(size=2),
        np.zeros(2),
    ]


FAMILIES = [
    cancelling_biases,
    cancelling_weights,
    every_size,
    underflowing,
    equal_numbers,
    one_above_all,
    near_the_kink,
]


def exact_values(graph, point):
    """The outputs at a point, in fractions."""
    values = [Fraction(float(x)) for x in point]
    for layer in graph.nodes[1:]:
        if layer.op == "Relu":
            values = [max(value, Fraction(0)) for value in values]
            continue
        weight, bias = layer.params["weight"], layer.params["bias"]
        if len({float(w) for w in weight.reshape(-1)}) == 1:
            values = [Fraction(float(weight[0, 0])) * sum(values)] * len(weight)
        else:
            rows = [[(Fraction(float(w)), x) for w, x in zip(row, values, strict=True)] for row in weight]
            values = [sum((w * x for w, x in row), Fraction(0)) for row in rows]
        values = [value + Fraction(float(b)) for value, b in zip(values, bias, strict=True)]
    return values


def contained(low, high, values):
    """Whether exact values lie between the bounds."""
    return all(
        (not np.isfinite(a) or Fraction(float(a)) <= value) and (not np.isfinite(b) or value <= Fraction(float(b)))
        for a, b, value in zip(to_numpy(low)[0], to_numpy(high)[0], values, strict=True)
    )


def made(family, seed):
    rng = np.random.default_rng(seed)
    graph = layered(*family(rng))
    point = np.array([0.3, -0.2, 0.1]) if family is near_the_kink else rng.normal(size=3)
    return graph, point.astype(np.float32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", [Backend("float32"), Backend("float64"), Backend("float32", "cpu")])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_bounds_of_a_point_contain_the_exact_value(family, backend, seed):
    graph, point = made(family, seed)
    values = exact_values(graph, point)
    own = backend.graph(graph)
    ends = backend.array(point.astype(backend.dtype)[None])
    for method in OURS:
        found = bounds_of(own, ends, ends, method)
        assert contained(found.lower, found.upper, values), method


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6), dtype=st.sampled_from(sorted(ELEMENT_TYPES)), width=st.sampled_from([0.0, 1e-6, 0.1])
)
def test_small_and_wide_networks_and_optimised_rows_contain_it(family, seed, dtype, width):
    """The ways of the searches: narrow graphs, rows about one box, parameters of lines, batches of boxes."""
    graph, point = made(family, seed)
    values = exact_values(graph, point)
    plan = make_plan(Backend(dtype).graph(graph))
    low, high = Backend(dtype).box(*(np.repeat(end[None], 3, axis=0) for end in (point - width, point + width)))
    rows = np.eye(2, dtype=dtype)
    rows = np.concatenate([rows, -rows])
    state = narrow.relax(plan, low, high)
    bound = narrow.row_bounds(state, rows[None], np.zeros((1, 4), dtype)).lower
    best = alpha_crown(plan, low, high, rows, steps=4)
    for found in (bound, best):
        assert contained(found[:, :2], -found[:, 2:], values)


@pytest.mark.parametrize("family", [cancelling_biases, cancelling_weights, every_size])
def test_allowances_are_not_much_wider_than_the_arithmetic(family):
    """Nothing but rounding is given away: a point's bounds are within 1e-3 of the magnitudes of its sums."""
    for seed in range(20):
        graph, point = made(family, seed)
        found = bounds_of(graph, point[None], point[None], "crown")
        size = np.abs(point).astype(float)
        for layer in graph.nodes[1:]:
            if layer.op == "Linear":
                size = np.abs(layer.params["weight"]).astype(float) @ size + np.abs(layer.params["bias"])
        assert (to_numpy(found.upper - found.lower)[0] <= 1e-3 * size).all()


def test_element_types_without_an_allowance_are_refused():
    for x in (np.zeros(1, np.float16), torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float16)):
        with pytest.raises(UnsupportedError, match="float16"):
            rounding(x, 1)
    graph, point = made(every_size, 0)
    with pytest.raises(UnsupportedError):
        bounds_of(graph, point[None].astype(np.float16), point[None].astype(np.float16))


def test_allowances_grow_with_the_terms():
    counts = [1, 2, 16, 17, 100, 1000, 10**6]
    found = [roundings(count) for count in counts]
    assert found == sorted(found)
    assert all(found[k] >= counts[k] for k in range(3))


def test_layers_whose_sums_round_the_same_way_are_told():
    rng = np.random.default_rng(0)
    random = rng.normal(size=(50, 60)).astype(np.float32)
    assert not irregular(random)
    assert irregular(np.ones((50, 60), np.float32))
    assert irregular(np.exp2(rng.integers(-8, 8, (50, 60))).astype(np.float32))
    tiny = random.copy()
    tiny[3, 1:] = 1e-7 * rng.random(59)
    tiny[3, 0] = 1.0
    assert irregular(tiny)
    assert not irregular(np.where(rng.random((50, 60)) < 0.5, random, 0).astype(np.float32))


def test_precision_chosen_for_training_does_not_reach_bounds():
    graph, point = made(cancelling_biases, 3)
    own, ends = Backend("float32", "cpu").graph(graph), torch.from_numpy(point[None])
    expected = bounds_of(own, ends, ends)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = bounds_of(own, ends, ends)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(to_numpy(found.lower), to_numpy(expected.lower))
    np.testing.assert_array_equal(to_numpy(found.upper), to_numpy(expected.upper))


@pytest.mark.parametrize("method", OURS)
def test_bounds_keep_the_element_type(method):
    """Float64 would hide what float32 takes, at twice the time."""
    graph, point = made(every_size, 1)
    width = np.float32(0.1)
    found = bounds_of(Backend("float32").graph(graph), point[None] - width, point[None] + width, method)
    assert found.lower.dtype == found.upper.dtype == np.float32


def test_crossed_bounds_are_an_error_and_never_a_verdict(monkeypatch, tmp_path):
    network = load(save_dense(tmp_path / "net.onnx", random_layers((3, 8, 8, 2), 0)))
    right = interval.node_interval

    def crossed(node_, operator, intervals):
        low, high = right(node_, operator, intervals)
        return (high + 1.0, low - 1.0) if node_.shape[-1] == 8 else (low, high)

    monkeypatch.setattr(interval, "node_interval", crossed)
    monkeypatch.setattr(crown, "node_interval", crossed)
    # (Graphs of few entries have a relaxation of their own.)
    monkeypatch.setattr(narrow, "_narrowed", lambda plan, form, ends, *_: crown.relax(plan, *ends))
    box = Box(np.zeros(3), np.ones(3))
    with pytest.raises(CrossedBounds, match="please report"):
        bounds_of(network, np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32), "crown")
    asked = query_of(3, 2, [(box, [[1.0, 0.0]], [-100.0])])
    result = verify(network, asked, timeout=5, options=Options(attack=False, method="input-split"))
    assert result.verdict is Verdict.UNKNOWN
    assert any("internal error" in warning for warning in result.warnings)
