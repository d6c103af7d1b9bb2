"""Witnesses: exactly in the box, in the network's own type, confirmed by the runtime on the printed numbers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.attack.replay import Replay, clamp_exactly
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import join
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.onnx_files import random_layers, save, save_dense
from tests.queries import query_of

TYPES = [np.float32, np.float64, np.float16, np.int64, np.int32, np.int8]
NUMBERS = st.one_of(
    st.floats(-1e30, 1e30), st.floats(-2, 2), st.floats(1e-45, 1e-38), st.sampled_from([0.1, 0.3, 0.0, -0.0])
)


def representable(low, high, dtype):
    """Whether a number of the type lies between two float64 numbers, by rational arithmetic."""
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        first = max(-((-Fraction(low)).__floor__()), int(limits.min))
        return first <= min(Fraction(high), int(limits.max))
    with np.errstate(over="ignore"):
        near = np.float64(low).astype(dtype)
    for candidate in (near, np.nextafter(near, dtype(np.inf)), np.nextafter(near, dtype(-np.inf))):
        if np.isfinite(candidate) and Fraction(low) <= Fraction(float(candidate)) <= Fraction(high):
            return True
    return False


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=200, deadline=None)
@given(point=NUMBERS, ends=st.tuples(NUMBERS, NUMBERS), ulps=st.sampled_from([None, 0, 1, 3, 10**8, 10**9]))
@pytest.mark.filterwarnings("ignore:overflow")
def test_inside_whenever_a_number_of_the_type_is(dtype, point, ends, ulps):
    low, high = min(ends), max(ends)
    if ulps is not None:  # a box of a few units of float64 or of float32
        high = float(low + ulps * np.spacing(abs(low)))
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        low, high = (
            float(np.clip(end, max(int(limits.min), -(2**53)), min(int(limits.max), 2**53))) for end in (low, high)
        )
    result = clamp_exactly(np.array([point]), np.array([low]), np.array([high]), np.dtype(dtype))
    assert result.dtype == dtype
    if representable(low, high, dtype):
        assert Fraction(low) <= Fraction(result[0].item()) <= Fraction(high)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=100, deadline=None)
@given(point=st.floats(-3, 3), ends=st.tuples(st.floats(-2, 2), st.floats(-2, 2)))
def test_the_nearest_point_is_taken(dtype, point, ends):
    """A point of the type that is inside stays; another one moves no farther than to the nearest end and a rounding."""
    low, high = min(ends), max(ends)
    result = clamp_exactly(np.array([point]), np.array([low]), np.array([high]), np.dtype(dtype))[0]
    wanted = min(max(point, low), high)
    assert abs(float(result) - wanted) <= 2 * float(np.spacing(dtype(max(abs(wanted), 1e-30))))
    inside = dtype(point)
    if low <= float(inside) <= high:
        assert clamp_exactly(np.array([float(inside)]), np.array([low]), np.array([high]), np.dtype(dtype))[0] == inside


def test_a_fixed_input_without_a_number_takes_the_nearest():
    fixed = np.array([0.1, 0.3, 1 / 3])
    result = clamp_exactly(np.array([7.0, -7.0, 0.0]), fixed, fixed, np.dtype(np.float32))
    np.testing.assert_array_equal(result, fixed.astype(np.float32))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return load(save_dense(tmp_path_factory.mktemp("replay") / "net.onnx", random_layers((2, 5, 2), 3)))


def replay_of(network, clauses, strict=False):
    property = query_of(2, 2, clauses)
    if strict:
        property = replace(
            property,
            clauses=tuple(replace(clause, strict=np.ones(len(clause.offset), bool)) for clause in property.clauses),
        )
    return Replay(join(property, {"N": network.graph}), {"N": network})


def test_rows_are_judged_on_the_runtimes_outputs(network):
    """At a known point: an offset equal to the printed output holds, unless strict; the next smaller one does not."""
    point = np.array([0.25, -0.5])
    value = float(network.runtime.run(point.astype(np.float32))[0].reshape(-1)[0])
    box = Box(-np.ones(2), np.ones(2))
    exact, below = ([(box, [[1.0, 0.0]], [offset])] for offset in (value, np.nextafter(value, -np.inf)))
    witness = replay_of(network, exact).check_one(point, 0)
    assert witness is not None
    np.testing.assert_array_equal(dict(witness.inputs)["X"].reshape(-1), point)
    assert dict(witness.outputs)["Y"].reshape(-1)[0] == value
    assert replay_of(network, below).check_one(point, 0) is None
    assert replay_of(network, exact, strict=True).check_one(point, 0) is None


def test_all_rows_of_one_clause_must_hold(network):
    box = Box(-np.ones(2), np.ones(2))
    yes, no = ([1.0, 0.0], 100.0), ([0.0, 1.0], -100.0)
    mixed = [(box, [yes[0], no[0]], [yes[1], no[1]]), (box, [no[0], yes[0]], [no[1], yes[1]])]
    assert replay_of(network, mixed).check_one(np.zeros(2), 0) is None
    assert replay_of(network, [*mixed, (box, [yes[0], yes[0]], [yes[1], yes[1]])]).check_one(np.zeros(2), 0) is not None


def test_candidates_outside_are_moved_into_their_own_box(network):
    boxes = [Box(np.zeros(2), np.ones(2)), Box(np.full(2, -0.7), np.full(2, -0.1))]
    replay = replay_of(network, [(box, [[1.0, 0.0]], [100.0]) for box in boxes])
    for group, box in enumerate(boxes):
        witness = replay.check(np.array([[9.0, -9.0]]), np.array([group]))
        x = witness.inputs[0][1].reshape(-1).astype(np.float64)
        assert (x >= box.lower).all()
        assert (x <= box.upper).all()


def test_only_the_first_candidates_are_replayed(network):
    """Replays are slow: of many candidates that fail, a few are tried."""
    calls = []

    class Counting:
        def run(self, *points):
            calls.append(points)
            return network.runtime.run(*points)

    counting = replace(network, runtime=Counting())
    box = Box(-np.ones(2), np.ones(2))
    replay = replay_of(counting, [(box, [[1.0, 0.0]], [-100.0])])
    assert replay.check(np.zeros((1000, 2)), np.zeros(1000, int), at_most=5) is None
    assert len(calls) == 5


def test_integer_inputs(tmp_path):
    """An int64 input takes whole numbers of its box only."""
    nodes = [helper.make_node("Cast", ["X"], ["f"], to=TensorProto.FLOAT), helper.make_node("Relu", ["f"], ["Y"])]
    file = save(tmp_path / "net.onnx", nodes, [("X", (2,), TensorProto.INT64)], [("Y", (2,))])
    network = load(file)
    box = Box(np.array([0.5, -1.0]), np.array([2.5, 3.0]))
    witness = replay_of(network, [(box, [[-1.0, 0.0]], [-2.0])]).check_one(np.array([2.4, 0.2]), 0)
    x = witness.inputs[0][1]
    assert x.dtype == np.int64
    assert x.tolist() == [2, 0]
