"""End to end on tiny ReLU networks in ONNX and VNN-LIB files: the verdict is the one that Z3 gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.specs.read import read_property
from boundsmith.specs.write import save_property
from boundsmith.verify.budget import Deadline
from boundsmith.verify.options import Options
from boundsmith.verify.result import Verdict
from boundsmith.verify.strategy import verify_files
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.onnx_files import assert_witness, exact_minimum, is_violated, random_layers, save, save_dense
from tests.queries import query_of

SETTINGS = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def decide(folder, layers, property, version="2.0", **options):
    """Write network and query to files and decide them; returns the result, the query as read and the network."""
    network = save_dense(folder / "net.onnx", layers)
    save_property(property, folder / "query.vnnlib", version)
    chosen = Options(threads=1, **options)
    result = verify_files(folder / "query.vnnlib", {"": network}, chosen, Deadline.after(30))
    return result, read_property(folder / "query.vnnlib"), network


@pytest.mark.parametrize("attack", [True, False])
@pytest.mark.parametrize(
    ("weights", "dtype"), [(np.float32, "float32"), (np.float32, "float64"), (np.float64, "float32")]
)
@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    gap=st.sampled_from([-0.1, -1e-2, -1e-3, 1e-3, 1e-2, 1e-1]),
    version=st.sampled_from(["1.0", "2.0"]),
)
def test_a_threshold_near_the_minimum(tmp_path, attack, weights, dtype, seed, gap, version):
    """Below the exact minimum: unsat. Above it: sat, with a witness that replays."""
    rng = np.random.default_rng(seed)
    inputs = int(rng.integers(1, 4))
    layers = random_layers((inputs, 5, 2), seed, weights)
    lower = rng.uniform(-1, 0, inputs)
    upper = lower + rng.uniform(0, 1.5, inputs)
    row = rng.normal(size=2)
    minimum = exact_minimum(layers, lower, upper, row)
    property = query_of(inputs, 2, [(Box(lower, upper), [row], [minimum + gap])])
    result, read, network = decide(tmp_path, layers, property, version, attack=attack, dtype=dtype)
    assert result.verdict is (Verdict.SAT if gap > 0 else Verdict.UNSAT)
    if gap > 0:
        assert_witness(result, read, {read.networks[0].name: network})
        assert all(array.dtype == weights for _, array in result.witness.inputs)
    else:
        assert result.witness is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["auto", "input-split", "activation-split", "milp"])
@settings(parent=SETTINGS, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_disjunctions_over_several_boxes(tmp_path, method, dtype, seed):
    """Clauses of several rows over two boxes; answers that a shift of the offsets by 1e-3 would change are left out."""
    rng = np.random.default_rng(seed)
    layers = random_layers((2, 4, 3), seed)
    boxes = [Box(low, low + rng.uniform(0.2, 1, 2)) for low in rng.uniform(-1, 0.5, (2, 2))]
    clauses = [
        (boxes[k % 2], rng.normal(size=(count, 3)), rng.normal(size=count) - 0.5)
        for k, count in enumerate(rng.integers(1, 4, size=3))
    ]
    property = query_of(2, 3, clauses)
    answers = {is_violated(property, {"N": layers}, shift) for shift in (-1e-3, 1e-3)}
    assume(len(answers) == 1)
    result, read, network = decide(tmp_path, layers, property, method=method, dtype=dtype)
    if answers == {True}:
        assert result.verdict is Verdict.SAT
        assert_witness(result, read, {"N": network})
    else:
        assert result.verdict is Verdict.UNSAT


@pytest.mark.parametrize("method", ["bounds", "attack"])
@SETTINGS
@given(seed=st.integers(0, 10_000), gap=st.sampled_from([-3.0, -0.1, 0.1]))
def test_incomplete_methods_are_never_wrong(tmp_path, method, seed, gap):
    """One pass of bounds never answers falsely, and decides what is clear; an attack never answers unsat."""
    layers = random_layers((2, 5, 2), seed)
    box = Box(-np.ones(2), np.ones(2))
    minimum = exact_minimum(layers, box.lower, box.upper, [1.0, -1.0])
    property = query_of(2, 2, [(box, [[1.0, -1.0]], [minimum + (gap if gap > -3 else -30.0)])])
    network = save_dense(tmp_path / "net.onnx", layers)
    save_property(property, tmp_path / "query.vnnlib")
    result = verify_files(
        tmp_path / "query.vnnlib",
        {"": network},
        Options(method=method, threads=1),
        Deadline.after(0.3 if gap < 0 else 20),
    )
    allowed = {Verdict.UNKNOWN, Verdict.TIMEOUT, Verdict.SAT if gap > 0 else Verdict.UNSAT}
    if method == "attack":
        allowed -= {Verdict.UNSAT, Verdict.UNKNOWN}
        allowed -= {Verdict.TIMEOUT} if gap > 0 else set()
    if gap == -3.0 and method == "bounds":
        allowed = {Verdict.UNSAT}
    assert result.verdict in allowed


def test_a_query_without_clauses_holds(tmp_path):
    layers = random_layers((2, 4, 2), 0)
    result, _, _ = decide(tmp_path, layers, query_of(2, 2, [(Box(np.zeros(2), np.ones(2)), np.zeros((1, 2)), [-1.0])]))
    assert result.verdict is Verdict.UNSAT


def test_an_empty_conjunction_is_violated_anywhere(tmp_path):
    layers = random_layers((2, 4, 2), 0)
    property = query_of(2, 2, [(Box(np.zeros(2), np.ones(2)), np.zeros((0, 2)), [])])
    for attack in (True, False):
        result, read, network = decide(tmp_path, layers, property, attack=attack)
        assert result.verdict is Verdict.SAT
        assert_witness(result, read, {"N": network})


def test_the_range_of_a_bounded_output_to_less_than_float32_resolves(tmp_path):
    """3.4 times a sigmoid that is nearly 1 on the whole box stays below 3.400001: float64 settles the one box."""
    network = save(
        tmp_path / "net.onnx",
        [
            helper.make_node("Gemm", ["X", "W", "b"], ["z"], transB=1),
            helper.make_node("Sigmoid", ["z"], ["s"]),
            helper.make_node("Mul", ["s", "scale"], ["Y"]),
        ],
        [("X", (1, 2))],
        [("Y", (1, 1))],
        [
            numpy_helper.from_array(np.ones((1, 2), np.float32), "W"),
            numpy_helper.from_array(np.full(1, 30.0, np.float32), "b"),
            numpy_helper.from_array(np.full(1, 3.4, np.float32), "scale"),
        ],
    )
    property = query_of(2, 1, [(Box(-np.ones(2), np.ones(2)), [[-1.0]], [-3.400001])])
    save_property(property, tmp_path / "query.vnnlib", "2.0")
    chosen = Options(threads=1, method="input-split")
    result = verify_files(tmp_path / "query.vnnlib", {"": network}, chosen, Deadline.after(5))
    assert result.verdict is Verdict.UNSAT
    assert result.counters["domains"] == 2


@pytest.mark.parametrize("method", ["input-split", "activation-split"])
@pytest.mark.parametrize("gap", [2e-3, -2e-3])
def test_a_margin_below_the_allowance_of_cancelling_terms(tmp_path, method, gap):
    """1000 (sin a + cos a + sin b + cos b) - 2000 sqrt(2) is 0 where both are pi/4 and flat there; the runtime's
    float32 may be off by 0.001, bounds in float32 give away 0.006, so that boxes around that point stay open however
    small."""
    bias = np.float32(-2000 * math.sqrt(2))
    network = save(
        tmp_path / "net.onnx",
        [
            helper.make_node("Sin", ["X"], ["s"]),
            helper.make_node("Cos", ["X"], ["c"]),
            helper.make_node("Concat", ["s", "c"], ["both"], axis=1),
            helper.make_node("Gemm", ["both", "W", "b"], ["Y"], transB=1),
        ],
        [("X", (1, 2))],
        [("Y", (1, 1))],
        [
            numpy_helper.from_array(np.full((1, 4), 1000.0, np.float32), "W"),
            numpy_helper.from_array(np.full(1, bias), "b"),
        ],
    )
    most = 2000 * math.sqrt(2) + float(bias)
    property = query_of(2, 1, [(Box(np.full(2, 0.3), np.full(2, 1.2)), [[-1.0]], [-most - gap])])
    save_property(property, tmp_path / "query.vnnlib", "2.0")
    chosen = Options(threads=1, method=method)
    result = verify_files(tmp_path / "query.vnnlib", {"": network}, chosen, Deadline.after(20 if gap > 0 else 1))
    if gap > 0:
        assert result.verdict is Verdict.UNSAT
        assert result.counters["domains"] < 20_000
    else:
        assert result.verdict is not Verdict.UNSAT
