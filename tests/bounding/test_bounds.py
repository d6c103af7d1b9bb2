"""Bounds: samples lie inside, tighter methods are tighter, batches equal singles, dtypes and libraries agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boundsmith.verify.arrays import Backend, to_numpy
from boundsmith.verify.bounding import crown, refine
from boundsmith.verify.bounding.api import bounds, bounds_of
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.forward import ForwardLines, forward_bounds
from boundsmith.verify.bounding.interval import interval_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.budget import Deadline, MemoryBudget, TimeUp
from boundsmith.verify.errors import ArgumentError, UnsupportedError
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, products, residual, samples

GRAPHS = {
    "dense": lambda seed: dense((3, 8, 8, 4), seed),
    "sigmoid": lambda seed: dense((3, 6, 6, 2), seed, "Sigmoid", scale=3.0),
    "sine": lambda seed: dense((3, 6, 6, 2), seed, "Sin", scale=3.0),
    "residual": lambda seed: residual(seed),
    "pooled": lambda seed: pooled(seed),
    "products": lambda seed: products(seed),
}


def ending_in_sigmoid(seed):
    """A dense network with a sigmoid as its output."""
    inner = dense((3, 6, 4), seed, scale=3.0)
    last = len(inner.nodes) - 1
    return Graph((*inner.nodes, node("y", "Sigmoid", (last,), inner.nodes[last].shape)), inner.inputs, (last + 1,))


METHODS = ("ibp", "crown-ibp", "crown", "forward")


def boxes(graph, count, seed, largest=1.0):
    rng = np.random.default_rng(seed)
    size = graph.nodes[graph.inputs[0]].size
    centre = rng.normal(size=(count, size))
    radius = largest * rng.random((count, size))
    return centre - radius, centre + radius


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-6, 0.1, 1.0, 5.0]))
def test_samples_lie_inside(kind, method, seed, largest):
    graph = GRAPHS[kind](seed)
    lower, upper = boxes(graph, 4, seed, largest)
    result = bounds_of(graph, lower, upper, method)
    for points in samples(lower, upper, 40, seed):
        value = output_vector(graph, points)
        assert (value >= result.lower - 1e-9).all()
        assert (value <= result.upper + 1e-9).all()


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_node_is_bounded(kind, seed):
    graph = GRAPHS[kind](seed)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 3, seed)
    for intervals in (relax(plan, lower, upper).intervals, forward_bounds(plan, lower, upper)):
        for points in samples(lower, upper, 20, seed):
            values = evaluate(graph, [points], range(len(graph.nodes)))
            for value, (low, high) in zip(values, intervals, strict=True):
                assert (value >= low - 1e-9).all()
                assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("kind", ["dense", "residual", "sigmoid"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_linear_bounds_lie_below_the_rows(kind, seed):
    """The affine function itself, not only its minimum, is below the row on the whole box: clipping relies on it."""
    graph = GRAPHS[kind](seed)
    lower, upper = boxes(graph, 3, seed)
    state = relax(make_plan(graph), lower, upper)
    rows = np.random.default_rng(seed).normal(size=(1, 5, graph.nodes[-1].size))
    bound = row_bounds(state, rows, np.full((1, 5), 0.25))
    for points in samples(lower, upper, 30, seed):
        line = np.einsum("bsn,bn->bs", bound.coefficients, points) + bound.constant
        value = output_vector(graph, points) @ rows[0].T - 0.25
        assert (line <= value + 1e-9).all()
        assert (bound.lower <= value + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), dtype=st.sampled_from(["float32", "float64"]))
def test_rows_know_the_range_of_a_bounded_output(seed, dtype):
    """A sigmoid's lines pass 0 and 1 on a wide box; a row just beyond its range is refuted all the same."""
    rng = np.random.default_rng(seed)
    graph = Backend(dtype).graph(ending_in_sigmoid(seed))
    size = graph.nodes[-1].size
    lower, upper = (end.astype(dtype) for end in boxes(graph, 3, seed, 8.0))
    state = relax(make_plan(graph), lower, upper)
    unit = np.eye(size, dtype=dtype)
    rows = np.concatenate([-unit, unit, rng.normal(size=(2, size)).astype(dtype)])[None]
    offsets = np.concatenate([np.full(size, -1.00001), np.full(size, -0.00001), rng.normal(size=2)]).astype(dtype)
    rows, offsets = (rows, offsets[None]) if seed % 2 else (np.tile(rows, (3, 1, 1)), np.tile(offsets, (3, 1)))
    bound = row_bounds(state, rows, offsets)
    assert (bound.lower[:, : 2 * size] > 0).all()
    for points in samples(lower, upper, 30, seed):
        value = np.einsum("bsm,bm->bs", np.broadcast_to(rows, (3, *rows.shape[1:])), output_vector(graph, points))
        assert (bound.lower <= value - offsets + 1e-6).all()


def test_rows_of_an_output_without_a_known_range_keep_their_lines_bounds():
    graph = ending_in_sigmoid(0)
    lower, upper = boxes(graph, 2, 0)
    state = relax(make_plan(graph), lower, upper)
    size = graph.nodes[-1].size
    state.intervals[-1] = (np.full((2, size), -np.inf), np.full((2, size), np.inf))
    rows, offsets = np.concatenate([np.eye(size), np.zeros((1, size))])[None], np.zeros((1, size + 1))
    bound = row_bounds(state, rows, offsets)
    assert np.isfinite(bound.lower).all()
    for points in samples(lower, upper, 30, 0):
        assert (bound.lower <= output_vector(graph, points) @ rows[0].T + 1e-9).all()


@pytest.mark.parametrize("kind", GRAPHS)
def test_tighter_methods_are_tighter_on_average(kind):
    widths = dict.fromkeys(METHODS, 0.0)
    for seed in range(10):
        graph = GRAPHS[kind](seed)
        lower, upper = boxes(graph, 4, seed, 0.3)
        for method in METHODS:
            result = bounds_of(graph, lower, upper, method)
            widths[method] += float((result.upper - result.lower).mean())
    assert widths["crown"] <= widths["crown-ibp"] * (1 + 1e-9)
    assert widths["crown-ibp"] <= widths["ibp"] * (1 + 1e-9)
    assert widths["forward"] <= widths["ibp"] * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_what_lines_miss_shrinks_with_the_square_of_the_box(seed):
    """Of products and quotients that others read, too: their intervals alone would miss in proportion to the box."""
    graph = products(seed)
    plan = make_plan(graph)
    centre = np.random.default_rng(seed).normal(size=(8, 3))
    rows, offsets = np.array([[[1.0, 0.0], [0.0, -1.0]]]), np.zeros((1, 2))
    gaps = []
    for radius in (1e-2, 1e-3):
        state = relax(plan, centre - radius, centre + radius)
        bound = row_bounds(state, rows, offsets)
        at_centre = np.einsum("bsn,bn->bs", bound.coefficients, centre) + bound.constant
        gaps.append(output_vector(graph, centre) * [1.0, -1.0] - at_centre)
    # A hundredth where all is smooth; kinks of ReLUs in the box shrink the rest by ten only.
    assert np.median(gaps[1] / gaps[0]) < 0.03


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_batch_equals_its_members(kind):
    graph = GRAPHS[kind](1)
    lower, upper = boxes(graph, 7, 1)
    whole = bounds_of(graph, lower, upper)
    # The touching points of curved relaxations come from an iteration that turns rounding into small shifts (of the
    # slope, not of soundness).
    slack = 1e-9 if kind in ("dense", "residual", "pooled") else 1e-2
    for k in range(7):
        one = bounds_of(graph, lower[k : k + 1], upper[k : k + 1])
        np.testing.assert_allclose(one.lower[0], whole.lower[k], rtol=0, atol=slack)
        np.testing.assert_allclose(one.upper[0], whole.upper[k], rtol=0, atol=slack)


@pytest.mark.parametrize("kind", GRAPHS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-5, 0.05, 0.5, 3.0]))
def test_float32_bounds_contain_float64_bounds(kind, seed, largest):
    """The rounding allowance: float32 never claims more than float64 (which is itself correct to 1e-13)."""
    graph = GRAPHS[kind](seed)
    single = Backend("float32").graph(graph)
    # The comparison is about arithmetic, so both use the weights that float32 can represent.
    double = Backend("float64").graph(single)
    lower, upper = (end.astype(np.float32) for end in boxes(graph, 6, seed, largest))
    curved = kind in ("sigmoid", "sine")
    for method in ("ibp",) if curved else ("ibp", "forward"):
        rough = bounds_of(single, lower, upper, method)
        exact = bounds_of(double, lower.astype(np.float64), upper.astype(np.float64), method)
        assert (rough.lower <= exact.lower).all()
        assert (rough.upper >= exact.upper).all()
    if curved:
        return  # in float32 other touching points may be chosen, so that backward bounds are not comparable
    plan = make_plan(single)
    state = relax(plan, lower, upper)
    wide = relax(
        make_plan(double),
        lower.astype(np.float64),
        upper.astype(np.float64),
        refine=False,
        inherited={
            key: tuple(end.reshape(end.shape[0], -1).astype(np.float64) for end in state.intervals[key])
            for key in plan.targets
        },
    )
    rows = np.eye(graph.nodes[-1].size)[None]
    offsets = np.zeros((1, rows.shape[1]))
    rough = row_bounds(state, rows.astype(np.float32), offsets.astype(np.float32))
    exact = row_bounds(wide, rows, offsets)
    assert (rough.lower <= exact.lower + 1e-12).all()


@pytest.mark.parametrize("kind", GRAPHS)
def test_torch_agrees_with_numpy(kind):
    graph = GRAPHS[kind](2)
    lower, upper = boxes(graph, 5, 2)
    backend = Backend("float64", "cpu")
    for method in METHODS:
        ours = bounds_of(graph, lower, upper, method)
        theirs = bounds_of(backend.graph(graph), backend.array(lower), backend.array(upper), method)
        np.testing.assert_allclose(theirs.lower.numpy(), ours.lower, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(theirs.upper.numpy(), ours.upper, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["dense", "residual"])
def test_bounds_are_differentiable(kind, method):
    """The gradient by the radius agrees with a finite difference: certified training uses this call."""
    graph = Backend("float64", "cpu").graph(GRAPHS[kind](3))
    size = graph.nodes[graph.inputs[0]].size
    centre = torch.linspace(-1, 1, 2 * size, dtype=torch.float64).reshape(2, size).requires_grad_()
    radius = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    lower, _ = bounds(graph, centre, radius, method)
    total = lower.sum()
    total.backward()
    step = 1e-6
    moved = bounds(graph, centre.detach(), radius.detach() + step, method)[0].sum()
    assert abs(float((moved - total.detach()) / step) - float(radius.grad)) < 1e-3 * max(1.0, abs(float(radius.grad)))
    assert torch.isfinite(centre.grad).all()


@pytest.mark.parametrize("method", METHODS)
def test_curved_relaxations_pass_gradients(method):
    """Touching points are held fixed in the backward pass, so that the gradient is an approximation there; it must be
    finite and point inward."""
    graph = Backend("float64", "cpu").graph(GRAPHS["sigmoid"](3))
    radius = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    lower, upper = bounds(graph, torch.zeros((1, 3), dtype=torch.float64), radius, method)
    (upper - lower).sum().backward()
    assert torch.isfinite(radius.grad)
    assert float(radius.grad) > 0


def test_chunks_change_nothing():
    graph = dense((4, 30, 30, 6), 5)
    lower, upper = boxes(graph, 9, 5)
    whole = bounds_of(graph, lower, upper)
    pieces = bounds_of(graph, lower, upper, memory=MemoryBudget(20_000))
    np.testing.assert_allclose(pieces.lower, whole.lower, rtol=0, atol=1e-9)


def test_inherited_bounds_are_used():
    """A child box with its parent's refined bounds is at least as tight as with interval bounds alone."""
    graph = dense((3, 10, 10, 10, 2), 6)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 2, 6)
    parent = relax(plan, lower, upper)
    known = {key: tuple(end.reshape(2, -1) for end in parent.intervals[key]) for key in plan.targets}
    child = relax(plan, lower, upper, refine=False, inherited=known)
    alone = relax(plan, lower, upper, refine=False)
    for key in plan.targets:
        assert (child.intervals[key][0] >= parent.intervals[key][0]).all()
        assert (child.intervals[key][1] <= parent.intervals[key][1]).all()
    last = max(plan.targets)
    assert (child.intervals[last][0] > alone.intervals[last][0]).any()


def test_a_passed_deadline_stops_refinement():
    graph = dense((3, 10, 10, 2), 6)
    lower, upper = boxes(graph, 2, 6)
    with pytest.raises(TimeUp):
        relax(make_plan(graph), lower, upper, deadline=Deadline.after(-1))


def test_unbounded_inputs_never_give_nan():
    graph = dense((3, 10, 10, 2), 7)
    lower, upper = np.full((1, 3), -np.inf), np.full((1, 3), np.inf)
    low, high = interval_bounds(graph, lower, upper)[-1]
    assert not np.isnan(low).any()
    assert not np.isnan(high).any()


def test_messages_say_what_to_do():
    graph = dense((3, 4, 2), 8)
    with pytest.raises(ArgumentError, match="takes 3 values a point"):
        bounds(graph, np.zeros((1, 4)), 0.1)
    with pytest.raises(ArgumentError, match="choose one of"):
        bounds_of(graph, np.zeros((1, 3)), np.zeros((1, 3)), "magic")
    with pytest.raises(UnsupportedError, match="auto_LiRPA"):
        bounds_of(graph, np.zeros((1, 3)), np.zeros((1, 3)), "auto-lirpa")


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-3, 0.1, 3.0]))
def test_forward_lines_bound_every_node_also_where_inputs_are_fixed(kind, dtype, seed, largest):
    graph = Backend(dtype).graph(GRAPHS[kind](seed))
    lower, upper = (end.astype(dtype) for end in boxes(graph, 3, seed, largest))
    fixed = np.random.default_rng(seed).random(lower.shape[1]) < 0.5
    assume(not fixed.all())
    upper[:, fixed] = lower[:, fixed]
    # Fixed in some boxes only: such an input still varies.
    upper[0, ~fixed] = lower[0, ~fixed]
    state = relax(make_plan(graph), lower, upper)
    ahead = ForwardLines(state)
    assert ahead.inputs == int((~fixed).sum())
    ranges = [ahead.range(index) for index in range(len(graph.nodes))]
    exact = Backend("float64").graph(graph)
    for points in samples(lower, upper, 20, seed):
        values = evaluate(exact, [points.astype(np.float64)], range(len(graph.nodes)))
        for value, (low, high) in zip(values, ranges, strict=True):
            assert (value >= low - 1e-9).all()
            assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("device", [None, "cpu"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), largest=st.sampled_from([1e-3, 0.1, 3.0]))
def test_forward_lines_of_boxes_that_vary_in_different_inputs(kind, device, seed, largest):
    """Each box has its own inputs that vary, others fixed, and others a unit of float32 wide: these do not count."""
    backend = Backend("float32", device)
    graph = backend.graph(GRAPHS[kind](seed))
    lower, upper = (end.astype(np.float32) for end in boxes(graph, 5, seed, largest))
    kinds = np.random.default_rng(seed).integers(0, 3, lower.shape)
    kinds[0, 0] = 0
    upper = np.where(
        kinds == 0,
        np.maximum(upper, lower + np.float32(1e-4)),
        np.where(kinds == 1, lower, np.nextafter(lower, np.float32(np.inf))),
    )
    state = relax(make_plan(graph), backend.array(lower), backend.array(upper))
    ahead = ForwardLines(state)
    assert ahead.inputs == (kinds == 0).sum(axis=1).max()
    ranges = [[to_numpy(end) for end in ahead.range(index)] for index in range(len(graph.nodes))]
    exact = Backend("float64").graph(Backend("float32").graph(GRAPHS[kind](seed)))
    for points in samples(lower, upper, 20, seed):
        values = evaluate(exact, [points.astype(np.float64)], range(len(graph.nodes)))
        for value, (low, high) in zip(values, ranges, strict=True):
            assert (value >= low - 1e-9).all()
            assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), varying=st.integers(1, 6))
def test_light_bounds_are_sound_and_go_backward_only_where_more_inputs_vary(activation, seed, varying):
    graph = dense((6, 260, 20, 2), seed, activation)
    lower, upper = boxes(graph, 4, seed, 0.5)
    fixed = np.stack([np.random.default_rng(seed + k).permutation(6) >= varying for k in range(4)])
    upper = np.where(fixed, lower, upper)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_by_columns", "_by_triples"):
            own = getattr(refine, name)
            patch.setattr(refine, name, lambda *args, own=own: (asked.append(1), own(*args)))
        light = relax(make_plan(graph), lower, upper, light=True)
    assert bool(asked) is (varying > refine.LINES_ALONE)
    for points in samples(lower, upper, 20, seed):
        values = evaluate(graph, [points], range(len(graph.nodes)))
        for value, (low, high) in zip(values, light.intervals, strict=True):
            assert (value >= low - 1e-9).all()
            assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_forward_lines_spare_backward_rows_where_inputs_are_few(library, monkeypatch):
    """Wide layers behind two inputs: far fewer entries are bounded backward, and the bounds of rows are as good."""
    graph = dense((2, 300, 300, 3), 5)
    lower, upper = boxes(graph, 2, 5, 0.05)
    rows, offsets = np.random.default_rng(0).normal(size=(1, 4, 3)), np.zeros((1, 4))
    if library == "torch":
        graph = graph.map_params(torch.as_tensor)
        lower, upper, rows, offsets = (torch.as_tensor(x) for x in (lower, upper, rows, offsets))
    bounded = []
    for name in ("_by_columns", "_by_triples"):
        genuine = getattr(refine, name)

        def counted(*arguments, genuine=genuine):
            bounded.append(int(arguments[-1].sum()))
            return genuine(*arguments)

        monkeypatch.setattr(refine, name, counted)
    plan = make_plan(graph)
    ours = row_bounds(relax(plan, lower, upper), rows, offsets).lower
    few = sum(bounded)
    bounded.clear()
    monkeypatch.setattr(refine, "FORWARD_FROM", 10**9)
    plain = row_bounds(relax(plan, lower, upper), rows, offsets).lower
    assert 4 * few < sum(bounded)
    np.testing.assert_allclose(ours, plain, rtol=0.02)


def test_a_product_that_a_kink_reads_has_lines():
    """Backward bounds of what several inputs make go through its lines: with x near y, ``x y - y^2`` is small."""
    nodes = (
        node("x", "Input", (), (2,)),
        node("first", "Take", (0,), (1,), {"indices": np.array([0])}, fill=0.0),
        node("second", "Take", (0,), (1,), {"indices": np.array([1])}, fill=0.0),
        node("product", "Mul", (1, 2), (1,)),
        node("kink", "Relu", (3,), (1,)),
        node("rest", "Add", (4, 1), (1,), signs=(1, -1)),
    )
    lower, upper = np.array([[1.0, 1.0]]), np.array([[2.0, 2.0]])
    found = bounds_of(Graph(nodes, (0,), (5,)), lower, upper, "crown")
    # relu(x y) - x = x (y - 1) lies in [0, 2]; the product's interval alone would give [-1, 3].
    assert found.lower[0, 0] > -0.51
    assert found.upper[0, 0] < 2.51


def test_a_relaxation_cut_short_is_continued(monkeypatch):
    """The targets that were done are not bounded again, and the bounds are those of one go."""
    graph = dense((3, 10, 10, 10, 2), 6)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 2, 6)
    refined = []
    refine_target = crown.refine_target

    def stopping(state, target, *given):
        refined.append(target.index)
        if len(refined) == 2:
            raise TimeUp
        refine_target(state, target, *given)

    monkeypatch.setattr(crown, "refine_target", stopping)
    started = crown.Relaxed(plan, lower, upper, [], {})
    with pytest.raises(TimeUp):
        relax(plan, lower, upper, started=started)
    state = relax(plan, lower, upper, started=started)
    assert state is started
    assert refined == [*list(plan.targets)[:2], *list(plan.targets)[1:]]
    monkeypatch.undo()
    for ours, theirs in zip(state.intervals, relax(plan, lower, upper).intervals, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 100_000), wide=st.sampled_from([1.0, 1e4, 1e9]))
def test_a_scaled_interval_keeps_the_sign_of_its_small_end(seed, wide):
    """One end in the billions must not cost the other its sign (1 + exp(x) has a reciprocal), and rounding counts."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.0, 1.0, (1, 4)).astype(np.float32)
    high = low + (wide * rng.random((1, 4))).astype(np.float32)
    params = {
        "scale": rng.choice([-2.0, 0.5, 3.0], 4).astype(np.float32),
        "shift": rng.normal(size=4).astype(np.float32),
    }
    for given_params, least in ((params, None), ({"shift": np.float32(1.0) * np.ones(())}, 1.0)):
        graph = Graph((node("x", "Input", (), (4,)), node("y", "Scale", (0,), (4,), given_params)), (0,), (1,))
        below, above = interval_bounds(graph, low, high)[-1]
        if least is not None:
            assert (below > 0.99 * least).all()
        for points in (low, high, low + (high - low) * rng.random((1, 4), dtype=np.float32)):
            exact = points.astype(np.float64) * np.float64(given_params.get("scale", 1.0)) + given_params["shift"]
            assert (below <= exact).all()
            assert (exact <= above).all()


def test_whole_numbers_stay_exact_in_large_nodes():
    """A class minus its own number is 0, not nearly 0: counts of pixels rest on that."""
    size = 3000
    numbers = np.arange(size, dtype=np.float32) % 7
    low, high = numbers[None], numbers[None] + (np.arange(size) % 5 == 0).astype(np.float32)
    nodes = (
        node("x", "Input", (), (size,)),
        node("less", "Scale", (0,), (size,), {"shift": -numbers}),
        node("same", "IsZero", (1,), (size,)),
    )
    below, above = interval_bounds(Graph(nodes, (0,), (2,)), low, high)[-1]
    decided = (low == high)[0]
    assert (below[0, decided] == 1).all()
    assert (below[0, ~decided] == 0).all()
    assert (above == 1).all()
