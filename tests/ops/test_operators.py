"""Properties of every row of the operator table; a row without a case in `operator_cases` fails the first test."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from boundsmith.verify.errors import UndefinedOnRegion, UnsupportedError
from boundsmith.verify.graph import Graph, Node
from boundsmith.verify.ops import OPERATORS, Lines, rule
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.operator_cases import CASES, Case, agreed, converted, label

torch = pytest.importorskip("torch")

RELAXED = [case for case in CASES if OPERATORS[case.node.op].relax is not None]
LINEAR = [case for case in CASES if OPERATORS[case.node.op].linear is not None]
BACKWARD = [case for case in CASES if OPERATORS[case.node.op].backward is not None]
BATCH = 24
INNER_EXTREMES = ("Sin", "Cos", "Gelu", "Silu", "HardSwish", "Piecewise")
"""Functions whose extremes may lie between the points of a grid."""

cases = pytest.mark.parametrize("case", CASES, ids=label)
relaxed_cases = pytest.mark.parametrize("case", RELAXED, ids=label)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
few = settings(max_examples=8, deadline=None)


def to_torch(x: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(x))


def to_numpy(x: Any) -> np.ndarray:
    return np.asarray(x if isinstance(x, np.ndarray) else x.detach().cpu().numpy())


def random_intervals(case: Case, seed: int, dtype: Any, batch: int = BATCH) -> list[tuple[np.ndarray, np.ndarray]]:
    """Intervals of every kind, mixed: points, tiny, moderate, huge, to one side of zero, ending at zero."""
    random = np.random.default_rng(seed)
    intervals = []
    for shape, domain in zip(case.node.input_shapes, case.domains, strict=True):
        size = (batch, *shape)
        centre = random.normal(size=size) * random.choice([0.0, 0.1, 1.0, 4.0, 30.0], size=size)
        radius = abs(random.normal(size=size)) * random.choice([0.0, 1e-7, 1e-3, 0.3, 2.0, 10.0, 1e3], size=size)
        lower, upper = (centre - radius).astype(dtype), (centre + radius).astype(dtype)
        side = random.integers(0, 8, size=size)
        lower, upper = np.where(side == 0, 0, lower), np.where(side == 1, 0, upper)
        lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
        intervals.append((domain(lower.astype(dtype)), domain(upper.astype(dtype))))
    return agreed(case, intervals)


def samples(
    case: Case, intervals: list[tuple[np.ndarray, np.ndarray]], seed: int, count: int = 40
) -> list[list[np.ndarray]]:
    """Points of the intervals in float64: the corners, inner points, and points about zero and other special places."""
    random = np.random.default_rng(seed + 1)
    points = []
    if case.agreeing:
        common = np.maximum(*(low for low, _ in intervals)), np.minimum(*(high for _, high in intervals))
        intervals = [common] * len(intervals)
    for k in range(count):
        xs = []
        for (lower, upper), domain in zip(intervals, case.domains, strict=True):
            low, high = lower.astype(np.float64), upper.astype(np.float64)
            weight = random.random(size=low.shape)
            if k < 6:
                weight = (weight < (0.0, 1.0, 0.5, 0.5, 0.5, 0.5)[k]).astype(float)
            x = np.clip(low + weight * (high - low), low, high)
            if k >= count // 2:
                special = random.choice([0.0, 1e-9, -1e-9, 1.0, -1.0, 3.0, -3.0, 0.5, -0.75, 1.5], size=low.shape)
                x = np.clip(special + random.normal(size=low.shape) * random.choice([0.0, 0.1]), low, high)
            if domain.__name__ in ("bit", "whole"):
                x = np.clip(np.round(x), low, high)
            xs.append(x)
        points.append([xs[0]] * len(xs) if case.agreeing else xs)
    return points


def tolerance(dtype: Any, *terms: np.ndarray) -> np.ndarray:
    """A few units of roundoff of the terms that a comparison adds up."""
    return 8 * np.finfo(dtype).eps * sum(abs(term) for term in terms) + 8 * float(np.finfo(dtype).tiny)


def assert_lines_hold(case: Case, lines: Lines, intervals: list, points: list[list[np.ndarray]], dtype: Any) -> None:
    evaluate = rule(case.node.op).evaluate
    lower_slopes, upper_slopes = (
        [to_numpy(k).astype(float) for k in s] for s in (lines.lower_slopes, lines.upper_slopes)
    )
    low, high = to_numpy(lines.lower_intercept).astype(float), to_numpy(lines.upper_intercept).astype(float)
    for array in (*lower_slopes, *upper_slopes, low, high):
        assert array.shape == (len(intervals[0][0]), *case.node.shape)
        assert not np.isnan(array).any()
    assert all(np.isfinite(k).all() for k in (*lower_slopes, *upper_slopes))
    exact = converted(case.node, lambda p: p.astype(dtype).astype(float))
    for xs in points:
        with np.errstate(all="ignore"):
            y = evaluate(exact, xs)
        slack = tolerance(dtype, y)
        below, above = low, high
        for x, k, m in zip(xs, lower_slopes, upper_slopes, strict=True):
            below, above = below + k * x, above + m * x
            slack = slack + tolerance(dtype, k * x, m * x)
        bad = ~((below <= y + slack) & (y <= above + slack)) & np.isfinite(y)
        assert not bad.any(), (
            f"at {[x[bad][:3] for x in xs]} in {[(a[bad][:3], b[bad][:3]) for a, b in intervals]}: "
            f"{below[bad][:3]} <= {y[bad][:3]} <= {above[bad][:3]}"
        )


def random_slope(kind: int, shape: tuple[int, ...], seed: int, dtype: Any) -> np.ndarray | None:
    if kind == 0:
        return None
    random = np.random.default_rng(seed + 2)
    return (random.random(size=shape) if kind == 1 else random.integers(0, 2, size=shape)).astype(dtype)


def test_every_row_has_a_case() -> None:
    assert {case.node.op for case in CASES} | {"Input"} == set(OPERATORS)


def test_every_row_states_what_it_needs() -> None:
    for name, row in OPERATORS.items():
        assert row.summary, name
        if row.linear is None and name != "Input":
            assert row.vjp is not None, name
            # What stands beside another form of its value may leave lines to that one.
            assert (row.relax is None) != (row.backward is None) or name == "LogSoftmax", name
            assert row.relax is None or row.backward is None, name
        else:
            assert row.relax is None, name
            assert row.backward is None, name


def test_unknown_operator() -> None:
    with pytest.raises(UnsupportedError, match="NoSuchOperator"):
        rule("NoSuchOperator")


def test_input_row() -> None:
    node = Node("x", "Input", (), (3,))
    x = np.ones((2, 3))
    assert OPERATORS["Input"].evaluate(node, [x]) is x
    assert OPERATORS["Input"].interval(node, [(x, x)]) == (x, x)


@cases
def test_shapes_dtypes_and_libraries_agree(case: Case) -> None:
    intervals = random_intervals(case, 3, np.float32, 5)
    xs = [lower for lower, _ in intervals]
    node32 = converted(case.node, lambda p: p.astype(np.float32))
    evaluate = rule(case.node.op).evaluate
    y = evaluate(node32, xs)
    assert y.shape == (5 if xs else 1, *case.node.shape)
    assert y.dtype == np.float32
    y_torch = evaluate(converted(node32, to_torch), [to_torch(x) for x in xs])
    assert y_torch.dtype == torch.float32
    np.testing.assert_allclose(to_numpy(y_torch), y, rtol=2e-5, atol=1e-5 * max(1.0, float(abs(y).max(initial=0))))
    # Parameters of another library or dtype are converted on the way.
    np.testing.assert_allclose(to_numpy(evaluate(case.node, [to_torch(x) for x in xs]) if xs else y), y_torch)


@cases
@dtypes
def test_interval_contains_values(case: Case, dtype: Any) -> None:
    node = converted(case.node, lambda p: p.astype(dtype))
    exact = converted(node, lambda p: p.astype(float))
    row = rule(node.op)
    for seed in range(4):
        intervals = random_intervals(case, seed, dtype)
        lower, upper = row.interval(node, intervals)
        assert lower.dtype == dtype
        assert (lower <= upper).all()
        by_torch = row.interval(converted(node, to_torch), [(to_torch(p), to_torch(q)) for p, q in intervals])
        scale = np.ones(())
        if row.linear is not None:
            scale = to_numpy(
                row.linear.magnitude(exact, [np.maximum(abs(p), abs(q)).astype(float) for p, q in intervals])
            )
        elif node.op == "MatMul":
            scale = row.evaluate(exact, [np.maximum(abs(p), abs(q)).astype(float) for p, q in intervals])
        for xs in samples(case, intervals, seed, 16):
            y = row.evaluate(exact, xs)
            slack = tolerance(dtype, y, 4 * scale, *(x for x in xs if case.elementwise))
            assert (lower - slack <= y).all()
            assert (y <= upper + slack).all()
        slack = tolerance(
            dtype, lower, upper, 4 * scale, *(end for pair in intervals for end in pair if case.elementwise)
        )
        assert (abs(to_numpy(by_torch[0]) - lower) <= slack).all()
        assert (abs(to_numpy(by_torch[1]) - upper) <= slack).all()


@pytest.mark.parametrize(
    "case", [c for c in CASES if len(c.domains) == 1 and c.elementwise and c.node.op != "LogSoftmax"], ids=label
)
def test_interval_of_one_variable_is_tight(case: Case) -> None:
    random = np.random.default_rng(5)
    centre, radius = random.normal(size=(50, *case.node.shape)) * 3, abs(random.normal(size=(50, *case.node.shape)))
    interval = case.domains[0](centre - radius), case.domains[0](centre + radius)
    row = rule(case.node.op)
    lower, upper = row.interval(case.node, [interval])
    grid = [row.evaluate(case.node, [interval[0] + t * (interval[1] - interval[0])]) for t in np.linspace(0, 1, 4001)]
    zero = row.evaluate(case.node, [np.clip(0.0, *interval)])
    least, most = np.minimum(np.min(grid, axis=0), zero), np.maximum(np.max(grid, axis=0), zero)
    slack = 1e-6 + 1e-3 * (most - least) * (case.node.op in INNER_EXTREMES)
    np.testing.assert_array_less(least - lower, slack + 1e-6)
    np.testing.assert_array_less(upper - most, slack + 1e-6)


@cases
def test_interval_survives_infinite_ends(case: Case) -> None:
    if not case.domains or any(domain.__name__ in ("bit", "whole") for domain in case.domains):
        pytest.skip("no infinite values")
    row = rule(case.node.op)
    for seed in range(4):
        intervals = [with_infinite_ends(case, pair, seed) for pair in random_intervals(case, seed, np.float64)]
        lower, upper = row.interval(case.node, intervals)
        assert not np.isnan(lower).any()
        assert not np.isnan(upper).any()
        for xs in samples(case, [(np.maximum(p, -1e4), np.minimum(q, 1e4)) for p, q in intervals], seed, 8):
            with np.errstate(all="ignore"):
                y = row.evaluate(case.node, xs)
            slack = tolerance(np.float64, y, np.full_like(y, 1e7))
            assert (lower - slack <= y).all()
            assert (y <= upper + slack).all()


def with_infinite_ends(case: Case, interval: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some ends made infinite, as far as the domain goes (the tangent has poles)."""
    random = np.random.default_rng(seed + 11)
    lower, upper = interval
    names = {domain.__name__ for domain in case.domains}
    if "branch" in names or "shifted_branch" in names:
        return interval
    if "positive" not in names or case.node.op == "Div":
        keep = "negative" in names or "positive" not in names
        lower = np.where((random.random(lower.shape) < 0.2) & keep & ~is_divisor(case, interval), -math.inf, lower)
    if "negative" not in names:
        upper = np.where((random.random(upper.shape) < 0.2), math.inf, upper)
    return lower, upper


def is_divisor(case: Case, interval: tuple[np.ndarray, np.ndarray]) -> bool:
    return case.node.op == "Div" and bool((interval[0] > 0).all())


@relaxed_cases
@dtypes
@few
@given(seed=st.integers(0, 10**6), kind=st.integers(0, 2), library=st.sampled_from(["numpy", "torch"]))
def test_lines_enclose_the_function(case: Case, dtype: Any, seed: int, kind: int, library: str) -> None:
    node = converted(case.node, lambda p: p.astype(dtype))
    intervals = random_intervals(case, seed, dtype)
    slope = random_slope(kind, (BATCH, *node.shape), seed, dtype)
    if library == "torch":
        given_intervals = [(to_torch(p), to_torch(q)) for p, q in intervals]
        lines = rule(node.op).relax(
            converted(node, to_torch), given_intervals, None if slope is None else to_torch(slope)
        )
        assert lines.lower_intercept.dtype == to_torch(intervals[0][0]).dtype
    else:
        lines = rule(node.op).relax(node, intervals, slope)
        assert lines.lower_intercept.dtype == dtype
    assert_lines_hold(case, lines, intervals, samples(case, intervals, seed), dtype)


@relaxed_cases
@settings(max_examples=25, deadline=None)
@given(
    ends=st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=6, max_size=6),
    slope=st.one_of(st.none(), st.floats(0, 1, width=32)),
)
def test_lines_enclose_the_function_on_intervals_found_by_hypothesis(
    case: Case, ends: list[tuple[float, float]], slope: float | None
) -> None:
    table = np.sort(np.array(ends, dtype=np.float32), axis=1).reshape(1, *case.node.shape, 2)
    intervals = [
        (domain(np.roll(table[..., 0], k)), domain(np.roll(table[..., 1], k))) for k, domain in enumerate(case.domains)
    ]
    intervals = agreed(case, intervals)
    node = converted(case.node, lambda p: p.astype(np.float32))
    slopes = None if slope is None else np.full((1, *node.shape), slope, dtype=np.float32)
    lines = rule(node.op).relax(node, intervals, slopes)
    assert_lines_hold(case, lines, intervals, samples(case, intervals, 0), np.float32)


@relaxed_cases
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_lines_survive_infinite_ends(case: Case, library: str) -> None:
    if any(domain.__name__ == "moderate" for domain in case.domains):
        pytest.skip("overflows")
    for seed in range(3):
        intervals = [
            pair if domain.__name__ == "bit" else with_infinite_ends(case, pair, seed)
            for pair, domain in zip(random_intervals(case, seed, np.float64), case.domains, strict=True)
        ]
        convert = to_torch if library == "torch" else np.asarray
        node = converted(case.node, convert)
        lines = rule(node.op).relax(node, [(convert(p), convert(q)) for p, q in intervals], None)
        finite = [(np.maximum(p, -1e4), np.minimum(q, 1e4)) for p, q in intervals]
        assert_lines_hold(case, lines, intervals, samples(case, finite, seed), np.float64)


@relaxed_cases
def test_a_batch_is_its_members(case: Case) -> None:
    intervals = random_intervals(case, 8, np.float64, 6)
    for slope in (None, random_slope(1, (6, *case.node.shape), 8, np.float64)):
        relax = rule(case.node.op).relax
        whole = relax(case.node, intervals, slope)
        for k in range(6):
            here = slice(k, k + 1)
            one = relax(case.node, [(p[here], q[here]) for p, q in intervals], None if slope is None else slope[here])
            for together, alone in (
                *zip(whole.lower_slopes, one.lower_slopes, strict=True),
                *zip(whole.upper_slopes, one.upper_slopes, strict=True),
                (whole.lower_intercept, one.lower_intercept),
                (whole.upper_intercept, one.upper_intercept),
            ):
                np.testing.assert_allclose(together[here], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", [c for c in RELAXED if len(c.domains) > 1], ids=label)
def test_a_constant_input_may_have_batch_one(case: Case) -> None:
    intervals = random_intervals(case, 4, np.float64, 5)
    intervals[1] = tuple(end[:1] for end in intervals[1])
    intervals = agreed(case, intervals)
    lines = rule(case.node.op).relax(case.node, intervals, None)
    repeated = [tuple(np.broadcast_to(end, (5, *end.shape[1:])) for end in pair) for pair in intervals]
    assert_lines_hold(case, lines, repeated, samples(case, repeated, 4), np.float64)


@pytest.mark.parametrize("case", [c for c in RELAXED if len(c.domains) == 1 and c.node.op != "IsZero"], ids=label)
def test_default_lines_are_tight(case: Case) -> None:
    """At the centre the best line is the convex envelope there, so that gaps can be compared with the best
    possible ones.
    """
    random = np.random.default_rng(2)
    shape = (60, *case.node.shape)
    centre, radius = random.normal(size=shape) * 2, abs(random.normal(size=shape)) + 0.1
    lower, upper = case.domains[0](centre - radius), case.domains[0](centre + radius)
    row = rule(case.node.op)
    lines = row.relax(case.node, [(lower, upper)], None)
    middle = 0.5 * (lower + upper)
    weights = np.linspace(0, 1, 101)
    values = np.stack([row.evaluate(case.node, [lower + t * (upper - lower)]) for t in weights])
    best_below, best_above = envelope(weights, values), -envelope(weights, -values)
    gap = (lines.upper_slopes[0] - lines.lower_slopes[0]) * middle + lines.upper_intercept - lines.lower_intercept
    loosest = {"Floor": 3.0, "Ceil": 3.0, "Round": 3.0, "LeakyRelu": 1.5, "Exp": 1.6}
    assert gap.sum() <= loosest.get(case.node.op, 1.25) * (best_above - best_below).sum() + 1e-6


def envelope(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The convex envelope at the middle of sampled functions ``[points, ...]``: the least chord over it."""
    middle = len(weights) // 2
    best = values[middle]
    for i in range(middle):
        for j in range(middle + 1, len(weights)):
            t = (weights[middle] - weights[i]) / (weights[j] - weights[i])
            best = np.minimum(best, (1 - t) * values[i] + t * values[j])
    return best


@pytest.mark.parametrize("case", LINEAR, ids=label)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_linear_rules(case: Case, library: str) -> None:
    convert = to_torch if library == "torch" else np.asarray
    node, linear = converted(case.node, convert), rule(case.node.op).linear
    random = np.random.default_rng(1)
    xs = [convert(random.normal(size=(4, *shape))) for shape in node.input_shapes]
    image = linear.apply_linear(node, xs)
    a = random.normal(size=image.shape)
    pulled = linear.adjoint(node, convert(a))
    assert [tuple(p.shape) for p in pulled] == [tuple(x.shape) for x in xs]
    inner = sum(float((p * x).sum()) for p, x in zip(pulled, xs, strict=True))
    assert float((to_numpy(image) * a).sum()) == pytest.approx(inner, abs=1e-9)
    bias = linear.bias(node)
    constant = 0.0 if bias is None else to_numpy(bias)
    np.testing.assert_allclose(to_numpy(linear.apply(node, xs)), to_numpy(image) + constant, atol=1e-12)
    assert (to_numpy(linear.magnitude(node, [abs(x) for x in xs])) >= abs(to_numpy(image)) - 1e-12).all()


def test_the_padding_of_a_max_pool_does_not_poison_a_backward_pass() -> None:
    node = Node("p", "Take", (0,), (2,), {"indices": np.array([0, -1])}, {"fill": -math.inf}, ((1,),))
    assert rule("Take").evaluate(node, [np.ones((1, 1))])[0, 1] == -math.inf
    bias = rule("Take").linear.bias(node)
    assert (np.array([1.0, 0.0]) @ bias) == 0.0
    pair = ((np.array([[0.0]]), np.array([[1.0]])), (np.array([[-math.inf]]), np.array([[-math.inf]])))
    lines = rule("Max").relax(Node("m", "Max", (0, 1), (1,), {}, {}, ((1,), (1,))), pair)
    assert (lines.lower_slopes[0], lines.upper_slopes[0]) == (1.0, 1.0)
    assert (lines.lower_slopes[1], lines.upper_slopes[1]) == (0.0, 0.0)
    assert (lines.lower_intercept, lines.upper_intercept) == (0.0, 0.0)


@pytest.mark.parametrize("case", BACKWARD, ids=label)
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("infinite", [False, True])
def test_backward_bounds(case: Case, library: str, infinite: bool) -> None:
    convert = to_torch if library == "torch" else np.asarray
    random = np.random.default_rng(9)
    row = rule(case.node.op)
    for seed in range(4):
        intervals = random_intervals(case, seed, np.float64, 5)
        if infinite:
            low, high = intervals[0]
            intervals[0] = np.where(random.random(low.shape) < 0.02, -math.inf, low), high
        a = random.normal(size=(5, 3, *case.node.shape))
        pulled, constant = row.backward(case.node, [(convert(p), convert(q)) for p, q in intervals], convert(a))
        pulled, constant = [to_numpy(p) for p in pulled], to_numpy(constant)
        assert [p.shape for p in pulled] == [(5, 3, *shape) for shape in case.node.input_shapes]
        assert not np.isnan(constant).any()
        for xs in samples(case, [(np.maximum(p, -1e3), q) for p, q in intervals], seed, 16):
            y = row.evaluate(case.node, xs)
            exact = (a * y[:, None]).reshape(5, 3, -1).sum(axis=-1)
            bound = constant + sum(
                (p * x[:, None]).reshape(5, 3, -1).sum(axis=-1) for p, x in zip(pulled, xs, strict=True)
            )
            assert (bound <= exact + 1e-9 * (1 + abs(a).sum() * max(float(abs(x).max()) for x in xs) ** 2)).all()


@pytest.mark.parametrize("case", [c for c in CASES if c.differentiable and rule(c.node.op).vjp], ids=label)
def test_vjp_is_the_gradient(case: Case) -> None:
    random = np.random.default_rng(3)
    xs = [
        domain(random.normal(size=(4, *shape)))
        for shape, domain in zip(case.node.input_shapes, case.domains, strict=True)
    ]
    row = rule(case.node.op)
    tensors = [to_torch(x).requires_grad_() for x in xs]
    y = row.evaluate(case.node, tensors)
    gradient = random.normal(size=tuple(y.shape))
    expected = torch.autograd.grad(y, tensors, to_torch(gradient), allow_unused=True)
    for result, grad in zip(row.vjp(case.node, xs, to_numpy(y), gradient), expected, strict=True):
        np.testing.assert_allclose(result, 0 * result if grad is None else grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if rule(c.node.op).vjp], ids=label)
def test_extreme_values_do_not_warn(case: Case) -> None:
    """Attacks walk through overflowing values; numpy's warnings about them would reach the user's terminal."""
    row = rule(case.node.op)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (0.0, 200.0, -200.0, 3e38):
            xs = [
                domain(np.full((2, *s), value, np.float32))
                for s, domain in zip(case.node.input_shapes, case.domains, strict=True)
            ]
            y = row.evaluate(case.node, xs)
            for gradient in (0.0, 1.0, 1e38):
                row.vjp(case.node, xs, y, np.full_like(y, gradient))


@pytest.mark.parametrize("op", ["GatherND", "ScatterND", "DynamicSlice"])
def test_vjp_of_variable_positions_is_the_gradient(op: str) -> None:
    case = next(c for c in CASES if c.node.op == op)
    random = np.random.default_rng(6)
    xs = [
        domain(random.normal(size=(3, *shape)))
        for shape, domain in zip(case.node.input_shapes, case.domains, strict=True)
    ]
    # Positions written twice have no gradient to agree on.
    xs[1] = np.array([[[0, 0], [1, 1], [2, 2]]] * 3, dtype=float) if op != "DynamicSlice" else xs[1]
    tensors = [to_torch(x) for x in xs]
    for k in (0, 2):
        if k < len(xs):
            tensors[k].requires_grad_()
    y = rule(op).evaluate(case.node, tensors)
    gradient = random.normal(size=tuple(y.shape))
    result = rule(op).vjp(case.node, xs, to_numpy(y), gradient)
    y.backward(to_torch(gradient))
    for k, tensor in enumerate(tensors):
        np.testing.assert_allclose(result[k], tensor.grad.numpy() if tensor.requires_grad else 0.0, atol=1e-12)


@relaxed_cases
def test_lines_have_finite_gradients(case: Case) -> None:
    """Gradients of the lines by the interval ends, where training needs them."""
    intervals = random_intervals(case, 2, np.float64, 8)
    tensors = [tuple(to_torch(end).requires_grad_() for end in pair) for pair in intervals]
    lines = rule(case.node.op).relax(case.node, tensors, None)
    total = sum(
        x.sum() for x in (*lines.lower_slopes, lines.lower_intercept, *lines.upper_slopes, lines.upper_intercept)
    )
    if not total.requires_grad:
        return
    flat = [end for pair in tensors for end in pair]
    for grad in torch.autograd.grad(total, flat, allow_unused=True):
        assert grad is None or torch.isfinite(grad).all()


@pytest.mark.parametrize(
    ("op", "lower", "upper", "attributes"),
    [
        ("Log", -1.0, 2.0, {}),
        ("Sqrt", -1.0, 2.0, {}),
        ("Reciprocal", -1.0, 2.0, {}),
        ("Reciprocal", 0.0, 2.0, {}),
        ("Pow", -1.0, 2.0, {"exponent": -2.0}),
        ("Pow", -1.0, 2.0, {"exponent": 0.5}),
        ("Tan", 1.0, 2.0, {}),
        ("Div", -1.0, 2.0, {}),
    ],
)
def test_undefined_on_the_region(op: str, lower: float, upper: float, attributes: dict[str, float]) -> None:
    count = 2 if op == "Div" else 1
    node = Node("here", op, tuple(range(count)), (1,), {}, attributes, ((1,),) * count)
    interval = np.array([[lower]]), np.array([[upper]])
    for function in (rule(op).interval, rule(op).relax):
        with pytest.raises(UndefinedOnRegion, match="here"):
            function(node, [interval] * count)


def test_a_graph_tells_nodes_their_input_shapes() -> None:
    graph = Graph((Node("x", "Input", (), (2, 3)), Node("y", "Reshape", (0,), (6,))), (0,), (1,))
    assert graph.nodes[1].input_shapes == ((2, 3),)
