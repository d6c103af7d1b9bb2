"""What merged parameters may be off by reaches every place that reads them."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from boundsmith.verify.arrays import Backend, in_double
from boundsmith.verify.bounding.compact import compact
from boundsmith.verify.bounding.condense import condense
from boundsmith.verify.bounding.crown import relax
from boundsmith.verify.bounding.interval import node_interval
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.bounding.shrink import shrink
from boundsmith.verify.budget import NEVER
from boundsmith.verify.graph import Graph
from boundsmith.verify.ops import rule
from boundsmith.verify.problem import Group, Problem
from boundsmith.verify.programs.certified import certified_bound
from boundsmith.verify.programs.encoding import inexact, roles_of
from boundsmith.verify.programs.leaf import leaf_bound
from boundsmith.verify.trimmed import trimmed
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node

CONV = {"strides": (1, 1), "pads": (0, 1, 1, 0), "dilations": (1, 1), "groups": 2}
CASES = {
    "Linear": ((2, 3), (2, 4), {"weight": (4, 3), "bias": (4,)}, {}),
    "Conv": ((1, 4, 3, 3), (1, 2, 3, 3), {"weight": (2, 2, 2, 2), "bias": (2,)}, CONV),
    "ConvTranspose": ((1, 2, 3, 3), (1, 4, 3, 3), {"weight": (2, 2, 2, 2), "bias": (4,)}, CONV),
    "Scale": ((2, 3), (2, 3), {"scale": (3,), "shift": (2, 1)}, {}),
    "ConstMatMul": ((2, 3), (2, 4), {"matrix": (3, 4)}, {"side": "right"}),
}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("op", CASES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_parameter_error_bounds_what_wrong_parameters_change(op, library, seed):
    shape, made, sizes, attributes = CASES[op]
    rng = np.random.default_rng(seed)
    params = {key: rng.normal(size=size) for key, size in sizes.items()}
    errors = {key: rng.random(size) * rng.integers(0, 2) for key, size in sizes.items()}
    wrong = {key: value + errors[key] * rng.choice([-1, 1], value.shape) for key, value in params.items()}
    told = params | {f"{key}_error": error for key, error in errors.items()}
    stated, true = (
        Graph((node("x", "Input", (), shape), node("y", op, (0,), made, p, **attributes)), (0,), (1,)).nodes[1]
        for p in (told, wrong)
    )
    x = rng.normal(size=(3, *shape))
    linear = rule(op).linear
    reach = abs(x) if library == "numpy" else torch.tensor(abs(x))
    error = np.asarray(linear.parameter_error(stated, [reach]))
    assert error.shape == (3, *made)
    assert (abs(linear.apply(true, [x]) - linear.apply(stated, [x])) <= error + 1e-12).all()


def test_without_errors_there_is_nothing_to_add_and_no_operator_overlooks_one():
    plain = node("y", "Scale", (0,), (3,), {"scale": np.ones(3)})
    assert rule("Scale").linear.parameter_error(plain, [np.ones((1, 3))]) is None
    odd = node("y", "Take", (0,), (1,), {"indices": np.zeros(1, int), "indices_error": np.ones(1)}, fill=0.0)
    with pytest.raises(ValueError, match="no room"):
        rule("Take").linear.parameter_error(odd, [np.ones((1, 3))])


# --- rounding to float32 ---------------------------------------------------------------------------------------------


def wide(seed, sizes=(3, 8, 8, 2)):
    """A network whose parameters float32 does not hold."""
    return dense(sizes, seed)


def test_the_networks_own_numbers_are_found_again():
    graph = wide(0)
    for device in (None, "cpu"):
        narrow = Backend("float32", device).graph(graph)
        back = in_double(narrow)
        for before, between, after in zip(graph.nodes, narrow.nodes, back.nodes, strict=True):
            for key, value in before.params.items():
                assert "float32" in str(between.params[key].dtype)
                assert np.array_equal(np.asarray(after.params[key]), value)
            assert after.params.keys() == before.params.keys()


def test_twice_rounded_is_once_rounded():
    once = Backend("float32").graph(wide(0))
    twice = Backend("float32").graph(once)
    for first, second in zip(once.nodes, twice.nodes, strict=True):
        assert first.params.keys() == second.params.keys()


def test_a_constant_in_float32_has_its_own_number_in_its_interval():
    value = np.array([0.1, 1 / 3, 0.5])
    constant = node("c", "Constant", (), (3,), {"value": value})
    narrow = Backend("float32").graph(Graph((constant,), (), (0,))).nodes[0]
    low, high = (end.astype(np.float64) for end in node_interval(narrow, rule("Constant"), []))
    assert (low <= value).all()
    assert (value <= high).all()
    assert (high - low < 1e-6).all()


def test_what_underflows_in_float32_becomes_an_error():
    tiny = node("y", "Scale", (0,), (2,), {"scale": np.array([1e-50, 0.1])})
    narrow = Backend("float32").graph(Graph((node("x", "Input", (), (2,)), tiny), (0,), (1,))).nodes[1]
    error = rule("Scale").linear.parameter_error(narrow, [np.ones((1, 2), np.float32)])
    assert error[0, 0] > 0
    assert error[0, 1] < 1e-30


# --- where parameters go ---------------------------------------------------------------------------------------------


def with_errors(graph, share=0.25):
    """The graph, each parameter off by a share of itself."""

    def stated(one):
        errors = {f"{key}_error": share * abs(value) for key, value in one.params.items()}
        return replace(one, params=MappingProxyType({**one.params, **errors}))

    return replace(graph, nodes=tuple(map(stated, graph.nodes)))


def test_errors_and_rests_stay_with_the_neurons_that_are_kept():
    graph = Backend("float32").graph(with_errors(dense((4, 12, 12, 3), 1)))
    lower, upper = -np.full((1, 4), 0.1, np.float32), np.full((1, 4), 0.1, np.float32)
    smaller = shrink(graph, relax(make_plan(graph), lower, upper).intervals)[0]
    assert sum(one.size for one in smaller.nodes) < sum(one.size for one in graph.nodes)
    for layer in in_double(smaller).nodes[1::2]:
        for key in ("weight", "bias"):
            assert layer.params[key].dtype == np.float64
            np.testing.assert_allclose(layer.params[f"{key}_error"], 0.25 * abs(layer.params[key]), rtol=1e-6)


def test_errors_stay_with_the_entries_that_are_kept():
    rng = np.random.default_rng(0)
    weight = np.where(np.arange(6)[:, None] == np.arange(6), 1.0, 0.0)
    nodes = [node("x", "Input", (), (6,)), node("y", "Linear", (0,), (6,), {"weight": weight, "bias": rng.random(6)})]
    nodes += [node("z", "Relu", (1,), (6,)), node("o", "Linear", (2,), (6,), {"weight": weight})]
    graph = with_errors(Graph(tuple(nodes), (0,), (3,)))
    # The second output reads the fifth neuron by an error alone.
    last = graph.nodes[3]
    off = last.params["weight_error"].copy()
    off[1, 4] = 0.5
    graph = replace(graph, nodes=(*graph.nodes[:3], replace(last, params={**last.params, "weight_error": off})))
    rows = np.eye(6)[1:2]
    group = Group(-np.ones(6), np.ones(6), rows, np.zeros(1), np.zeros(1, bool), np.zeros(1, int), 1)
    cut = trimmed(Problem(graph, (group,), 6, None)).graph
    layer = cut.nodes[cut.outputs[0]]
    np.testing.assert_array_equal(layer.params["weight"], [[1.0, 0.0]])
    np.testing.assert_array_equal(layer.params["weight_error"], [[0.25, 0.5]])


def test_what_cannot_carry_errors_refuses_them():
    graph = dense((3, 6, 6, 2), 3)
    plan = make_plan(graph)
    lower, upper = -np.ones((1, 3)), np.ones((1, 3))
    assert inexact(graph) is None
    assert compact(plan) is not None
    off = with_errors(graph, 1e-9)
    assert "not exact" in inexact(off)
    assert compact(make_plan(off)) is None
    state = relax(make_plan(off), lower, upper)
    assert condense(make_plan(off), dict(enumerate(state.intervals))) is None


def test_certified_bounds_give_errors_away():
    graph = dense((3, 5, 2), 2)
    lower, upper = -np.ones(3), np.ones(3)
    state = relax(make_plan(graph), lower[None], upper[None])
    bounds = [(low.reshape(-1), high.reshape(-1)) for low, high in state.intervals]
    rows, offsets = np.array([[1.0, -1.0]]), np.array([-10.0])
    leaf = leaf_bound(graph, lower, upper, bounds, rows, offsets, {}, NEVER)
    narrowed, roles = roles_of(graph, bounds)
    last = replace(graph.nodes[-1], params={**graph.nodes[-1].params, "bias_error": np.array([0.5, 0.25])})
    off = replace(graph, nodes=(*graph.nodes[:-1], last))
    found = [certified_bound(one, lower, upper, narrowed, roles, rows, offsets, leaf.weights) for one in (graph, off)]
    assert found[1] == pytest.approx(found[0] - 0.75, abs=1e-9)
    assert found[1] <= found[0] - 0.75
