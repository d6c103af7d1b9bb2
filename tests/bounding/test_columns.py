"""Passes about one box (`columns`) agree with the general backward pass, on networks of every shape they treat."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import columns, refine
from boundsmith.verify.bounding.backward import backward, single
from boundsmith.verify.bounding.crown import relax, row_bounds
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.workers import Workers
from boundsmith.verify.budget import Deadline, TimeUp
from boundsmith.verify.graph import Graph
from boundsmith.verify.kernels.convolution import Window
from boundsmith.verify.loading.evaluate import evaluate, output_vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.networks import dense, node, pooled, residual, samples

ACTIVATIONS = ("Relu", "Relu", "Relu", "Sigmoid", "LeakyRelu", "Abs")


def convolutional(seed, channels=3, size=8, depth=3, activations=ACTIVATIONS):
    """A random network of convolutions (strides, uneven padding, dilation), residual sums, scales, activations, and a
    dense layer at the end."""
    rng = np.random.default_rng(seed)
    image = (1, 2, size, int(rng.integers(size - 2, size + 2)))
    nodes = [node("x", "Input", (), (int(np.prod(image)),)), node("image", "Reshape", (0,), image)]

    def append(name, op, inputs, shape, params=None, **attributes):
        nodes.append(node(f"{name}{len(nodes)}", op, inputs, shape, params, **attributes))
        return len(nodes) - 1

    def convolution(source, outputs, window, kernel):
        shape = nodes[source].shape
        spatial = window.output(shape[2:], kernel)
        params = {"weight": rng.normal(size=(outputs, shape[1] // window.groups, *kernel)) / np.sqrt(shape[1] * 4)}
        if rng.random() < 0.7:
            params["bias"] = 0.3 * rng.normal(size=outputs)
        attributes = {k: getattr(window, k) for k in ("strides", "pads", "dilations", "groups")}
        return append("conv", "Conv", (source,), (1, outputs, *spatial), params, **attributes)

    def activation(source):
        op = str(rng.choice(activations))
        params = {"slope": np.array(0.1)} if op == "LeakyRelu" else None
        return append("act", op, (source,), nodes[source].shape, params)

    top = 1
    if rng.random() < 0.3:
        params = {"scale": rng.normal(size=(1, image[1], 1, 1)), "shift": rng.normal(size=(1, image[1], 1, 1))}
        top = append("scale", "Scale", (1,), image, params)
    for _ in range(depth):
        kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
        strides, dilations = (tuple(int(k) for k in rng.integers(1, 3, 2)) for _ in range(2))
        pads = tuple(int(k) for k in rng.integers(0, 3, 4))
        groups = 2 if nodes[top].shape[1] % 2 == 0 and rng.random() < 0.3 else 1
        window = Window(strides, pads, dilations, groups)
        if min(window.output(nodes[top].shape[2:], kernel)) < 1:
            continue
        below = top
        top = convolution(below, 2 * channels, window, kernel)
        kind = rng.random()
        if kind < 0.3:
            side = convolution(activation(top), 2 * channels, Window((1, 1), (1, 1, 1, 1), (1, 1)), (3, 3))
            top = append("sum", "Add", (side, top), nodes[top].shape, signs=(1, -1))
        elif kind < 0.5:
            side = convolution(below, 2 * channels, window, kernel)
            top = append("sum", "Add", (top, side), nodes[top].shape, signs=(1, 1))
        top = activation(top)
    top = append("flat", "Reshape", (top,), (nodes[top].size,))
    for width in (5, 3):
        fan_in = nodes[top].size
        weight = rng.normal(size=(width, fan_in)) / np.sqrt(fan_in)
        top = append("dense", "Linear", (top,), (width,), {"weight": weight, "bias": rng.normal(size=width)})
        if width == 5:
            top = activation(top)
    return Graph(tuple(nodes), (0,), (top,))


def enlarging(seed, activations=ACTIVATIONS):
    """A random network of convolutions and what enlarges, moves, joins and scales images, whose output pixels are
    compared with one another at the end (as a softmax over channels does)."""
    rng = np.random.default_rng(seed)
    image = (1, 2, int(rng.integers(5, 8)), int(rng.integers(5, 8)))
    nodes = [node("x", "Input", (), (int(np.prod(image)),)), node("image", "Reshape", (0,), image)]

    def append(op, inputs, shape, params=None, **attributes):
        nodes.append(node(f"{op}{len(nodes)}", op, inputs, shape, params, **attributes))
        return len(nodes) - 1

    def convolution(op, source, outputs):
        shape = nodes[source].shape
        kernel, strides, dilations = (tuple(int(k) for k in rng.integers(1, top, 2)) for top in (4, 3, 3))
        pads = tuple(int(k) for k in rng.integers(0, 2, 4))
        window = Window(strides, pads, dilations)
        weight = rng.normal(size=(outputs, shape[1], *kernel)) / np.sqrt(shape[1] * 4)
        attributes = {"strides": strides, "pads": pads, "dilations": dilations, "groups": 1}
        if op == "ConvTranspose":
            extra = tuple(int(k) for k in rng.integers(0, strides))
            attributes["output_padding"] = extra
            spatial = tuple(
                (n - 1) * s + (k - 1) * d + 1 + e - begin - end
                for n, s, k, d, e, begin, end in zip(
                    shape[2:], strides, kernel, dilations, extra, pads[:2], pads[2:], strict=True
                )
            )
            weight = weight.transpose(1, 0, 2, 3)
        else:
            spatial = window.output(shape[2:], kernel)
        if not 2 <= min(spatial) <= max(spatial) <= 14:
            return source
        params = {"weight": weight} | ({"bias": 0.3 * rng.normal(size=outputs)} if rng.random() < 0.7 else {})
        return append(op, (source,), (1, outputs, *spatial), params, **attributes)

    def taken(source):
        """An image moved (cut off and padded), or its pixels repeated."""
        _, channels, height, width = nodes[source].shape
        flat = np.arange(channels * height * width).reshape(channels, height, width)
        if rng.random() < 0.3 and max(height, width) < 7:
            factors = rng.integers(1, 3, 2)
            index = flat.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
        else:
            sides = rng.integers(0, 2, (2, 2))
            index = np.pad(flat, ((0, 0), *map(tuple, sides)), constant_values=-1)
            index = index[
                int(rng.random() < 0.3 and channels > 1) :, int(rng.integers(0, 2)) :, int(rng.integers(0, 2)) :
            ]
        return append("Take", (source,), (1, *index.shape), {"indices": index[None]}, fill=0.0)

    def scaled(source):
        shape = nodes[source].shape
        per = (shape[1], 1, 1) if rng.random() < 0.5 else shape
        params = {key: rng.normal(size=per) for key in ("scale", "shift") if rng.random() < 0.8}
        return append("Scale", (source,), shape, params)

    top = 1
    for _ in range(3):
        below = top
        top = convolution(str(rng.choice(["Conv", "ConvTranspose"])), top, 4)
        kind = rng.random()
        if kind < 0.4:
            top = taken(top)
        elif kind < 0.7:
            top = scaled(top)
        if nodes[below].shape[2:] == nodes[top].shape[2:] and below != top:
            channels = nodes[below].shape[1] + nodes[top].shape[1]
            top = append("Concat", (below, top), (1, channels, *nodes[top].shape[2:]), axis=1)
        op = str(rng.choice(activations))
        top = append(op, (top,), nodes[top].shape, {"slope": np.array(0.1)} if op == "LeakyRelu" else None)
    _, channels, height, width = nodes[top].shape
    weight = rng.normal(size=(2, channels, 1, 1)) / np.sqrt(channels)
    settings = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
    top = append("Conv", (top,), (1, 2, height, width), {"weight": weight, "bias": rng.normal(size=2)}, **settings)
    turned = append("Transpose", (top,), (1, width, height, 2), perm=(0, 3, 2, 1))
    other = np.arange(height * width * 2).reshape(1, width, height, 2)[..., ::-1]
    swapped = append("Take", (turned,), other.shape, {"indices": other.copy()}, fill=0.0)
    top = append("Add", (swapped, turned), other.shape, signs=(1, -1))
    top = append("Sigmoid", (top,), other.shape)
    return Graph(tuple(nodes), (0,), (append("Reshape", (top,), (nodes[top].size,)),))


NETWORKS = {
    "convolutional": convolutional,
    "enlarging": enlarging,
    "dense": lambda seed: dense((6, 20, 20, 4), seed),
    "residual": residual,
    "pooled": pooled,
}


def boxes(graph, count, seed, largest=0.5):
    rng = np.random.default_rng(seed)
    size = graph.nodes[graph.inputs[0]].size
    centre, radius = rng.normal(size=(count, size)), largest * rng.random((count, size))
    return centre - radius, centre + radius


@pytest.fixture(params=["settled", "unsettled", "mixed"])
def ways(request, monkeypatch):
    """All networks go through columns, convolutions by chosen entries, by folding, or by what suits."""
    monkeypatch.setattr(refine, "COLUMNS_FROM", 0)
    monkeypatch.setattr(refine, "ROWS_A_BOX", 0)
    monkeypatch.setattr(refine, "TWO_STEPS_FROM", 0)
    if request.param != "mixed":
        monkeypatch.setattr(columns, "_SETTLED_ROWS", 0 if request.param == "settled" else 10**9)
        monkeypatch.setattr(columns, "_WINDOW_SHARE", 1e9 if request.param == "settled" else 1.0)
    return request.param


def reference(state, target, entries, signs):
    """Lower bounds of one box by the general pass, from rows of the identity."""
    shape = state.plan.graph.nodes[target].shape
    rows = np.zeros((1, len(entries), int(np.prod(shape))), dtype=state.lower.dtype)
    rows[0, np.arange(len(entries)), entries] = signs
    return backward(state, target, rows.reshape(1, -1, *shape)).lower[0]


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from([0.02, 0.5, 2.0]))
def test_columns_agree_with_the_general_pass(kind, ways, seed, largest):
    graph = NETWORKS[kind](seed)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 2, seed, largest)
    state = relax(plan, lower, upper, refine=False)
    rng = np.random.default_rng(seed)
    for box, about in enumerate(refine.box_passes(state)):
        for target in plan.targets:
            size = graph.nodes[target].size
            entries = np.sort(rng.permutation(size)[: int(rng.integers(1, size + 1))])
            signs = rng.choice([-1.0, 1.0], len(entries))
            found = about.entry_bounds(target, entries, signs)
            np.testing.assert_allclose(
                found, reference(single(state, box), target, entries, signs), rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("kind", NETWORKS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000))
def test_refined_bounds_agree_and_hold(kind, ways, seed):
    graph = NETWORKS[kind](seed)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 2, seed)
    state = relax(plan, lower, upper)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "TWO_STEPS_FROM", 10**9)
        at_once = relax(plan, lower, upper)
        patch.setattr(refine, "COLUMNS_FROM", 10**9)
        other = relax(plan, lower, upper)
    for target in plan.targets:
        for one, two in zip(at_once.intervals[target], other.intervals[target], strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-8, atol=1e-8)
    first = min(plan.targets, default=None)
    if first is not None and plan.targets[first].kinked:
        (low, high), (known_low, known_high) = state.intervals[first], at_once.intervals[first]
        open_ = (known_low < 0) & (known_high > 0)
        np.testing.assert_array_equal((low < 0) & (high > 0), open_)
        np.testing.assert_allclose(low[open_], known_low[open_], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(high[open_], known_high[open_], rtol=1e-12, atol=1e-12)
    for points in samples(lower, upper, 12, seed):
        values = evaluate(graph, [points], range(len(graph.nodes)))
        for value, (low, high) in zip(values, state.intervals, strict=True):
            assert (value >= low - 1e-9).all()
            assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("ways", ["mixed"], indirect=True)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), largest=st.sampled_from([1e-4, 0.05, 1.0]))
def test_float32_stays_below_float64(ways, seed, largest):
    graph = convolutional(seed)
    if any(step.op == "Sigmoid" for step in graph.nodes):
        return  # in float32 other touching points may be chosen, so that backward bounds are not comparable
    rough_graph = Backend("float32").graph(graph)
    exact_graph = Backend("float64").graph(rough_graph)
    lower, upper = (end.astype(np.float32) for end in boxes(graph, 1, seed, largest))
    rough = relax(make_plan(rough_graph), lower, upper)
    plan = make_plan(exact_graph)
    known = {key: tuple(end.reshape(1, -1).astype(np.float64) for end in rough.intervals[key]) for key in plan.targets}
    exact = relax(plan, lower.astype(np.float64), upper.astype(np.float64), refine=False, inherited=known)
    (one,), (two,) = refine.box_passes(rough), refine.box_passes(exact)
    for target in plan.targets:
        entries = np.arange(graph.nodes[target].size)
        for sign in (-1.0, 1.0):
            signs = np.full(len(entries), sign)
            found = one.entry_bounds(target, entries, signs.astype(np.float32))
            assert (found <= two.entry_bounds(target, entries, signs) + 1e-12).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_threads_change_nothing(kind, ways):
    graph = NETWORKS[kind](4)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 3, 4)
    alone = relax(plan, lower, upper)
    with ThreadPoolExecutor(2) as executor:
        together = relax(plan, lower, upper, workers=Workers(executor, 2))
    for (low, high), (other_low, other_high) in zip(alone.intervals, together.intervals, strict=True):
        np.testing.assert_allclose(low, other_low, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(high, other_high, rtol=1e-9, atol=1e-9)


def test_an_inactive_neuron_keeps_its_interval_lower_bound():
    """What the second bound is not computed for changes no relaxation, and so no bound of the output."""
    graph = convolutional(3)
    plan = make_plan(graph)
    lower, upper = boxes(graph, 2, 3)
    state = relax(plan, lower, upper)
    for points in samples(lower, upper, 12, 3):
        rows = np.eye(3)[None]
        bound = row_bounds(state, rows, np.zeros((1, 3)))
        assert (bound.lower <= output_vector(graph, points) + 1e-9).all()


def test_the_deadline_is_asked(ways):
    graph = convolutional(2)
    with pytest.raises(TimeUp):
        relax(make_plan(graph), *boxes(graph, 2, 2), deadline=Deadline(0.0))
