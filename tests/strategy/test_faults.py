"""Faults never become verdicts: a runtime that disagrees, NaN, memory running out, exceptions, undefined operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify import falsify
from boundsmith.verify.api import verify
from boundsmith.verify.bounding import alpha, backward, crown, narrow
from boundsmith.verify.bounding.compact import LARGEST
from boundsmith.verify.errors import UndefinedOnRegion
from boundsmith.verify.loading.network import load
from boundsmith.verify.loading.runtime import ReplayError
from boundsmith.verify.options import Options
from boundsmith.verify.programs import leaf
from boundsmith.verify.result import Verdict
from boundsmith.verify.search import activation_search, activation_split, branching, input_split
from onnx import TensorProto, helper, numpy_helper

from tests.faults import FAULTS, Faulty, method_of
from tests.onnx_files import forward, random_layers, save, save_dense
from tests.queries import query_of

METHODS = ("auto", "attack", "input-split", "activation-split", "milp", "bounds")
UNIT = Box(np.zeros(2), np.ones(2))


@pytest.fixture
def network(tmp_path):
    """A ReLU network of two inputs and one output, between about -3 and 3 on the unit box."""
    return load(save_dense(tmp_path / "net.onnx", random_layers((2, 6, 6, 1), 1)))


@pytest.fixture
def wide(tmp_path):
    """The same with layers that are not bounded as those of narrow networks are."""
    return load(save_dense(tmp_path / "wide.onnx", random_layers((2, LARGEST + 1, 6, 1), 1)))


def least(network, box=UNIT):
    points = box.lower + np.random.default_rng(0).random((500, 2)) * (box.upper - box.lower)
    return min(float(network.runtime.run(point)[0].item()) for point in points)


def answer(network, property, timeout=20.0, **options):
    return verify(network, property, timeout, Options(threads=1, **options)).verdict


class Disagreeing:
    """A runtime that answers something else than the network's own."""

    def __init__(self, runtime, how):
        self.runtime, self.how = runtime, how

    def run(self, *points):
        if self.how == "fails":
            raise ReplayError("refused")
        outputs = self.runtime.run(*points)
        change = {"higher": 100.0, "slightly higher": 0.5, "nan": np.nan, "infinite": -np.inf}[self.how]
        return tuple((output + change).astype(output.dtype) for output in outputs)


@pytest.mark.parametrize("how", ["higher", "slightly higher", "nan", "infinite", "fails"])
@pytest.mark.parametrize("method", METHODS)
def test_a_violation_that_the_runtime_does_not_confirm_is_not_reported(network, method, how):
    property = query_of(2, 1, [(UNIT, [[1.0]], [least(network) + 0.3])])
    if method != "bounds":
        assert answer(network, property, method=method) is Verdict.SAT
    lying = replace(network, runtime=Disagreeing(network.runtime, how))
    assert answer(lying, property, 0.4, method=method) in (Verdict.UNKNOWN, Verdict.TIMEOUT)


PLACES = {
    "relax": (input_split, "relax"),
    "row_bounds": (input_split, "row_bounds"),
    "step": (backward, "backward_step"),
    "narrow": (narrow, "_backward"),
    "range": (narrow, "_range"),
}


def decide_with(monkeypatch, network, property, place, fault, **when):
    """The verdict with the fault in place; None if the fault came out as the exception it is."""
    module, name = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, Faulty(getattr(module, name), FAULTS[fault], **when))
        try:
            # (Splitting activations, which does not come this way, would decide where activations are few.)
            return answer(network, property, 1.0, attack=False, method="input-split")
        except RuntimeError:
            return None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_lasting_fault_never_proves(monkeypatch, network, wide, place, fault):
    """A property that holds easily is not answered `unsat` when its bounds cannot be computed."""
    network = wide if place == "step" else network
    property = query_of(2, 1, [(UNIT, [[1.0]], [least(network) - 0.2])])
    assert answer(network, property, attack=False) is Verdict.UNSAT
    verdict = decide_with(monkeypatch, network, property, place, fault)
    assert verdict is None if fault == "exception" else verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT)


ACTIVATION_PLACES = {
    "evaluate": (alpha.Ascent, "evaluate"),
    "minimum": (alpha.Ascent, "_concretize"),
    "improve": (alpha.Ascent, "improve"),
    "through": (alpha.Ascent, "_through"),
    "forward": (alpha.Ascent, "forward"),
    "step": (activation_split, "_step"),
    "tighten": (activation_split, "tighten"),
    "filtered": (activation_split, "filtered"),
    "trial": (branching, "trial_bounds"),
    "leaf": (leaf, "leaf_bound"),
    "programme": (leaf, "solve_linear"),
    "root": (activation_search, "open_root"),
}


def decide_by_activations(monkeypatch, network, property, place, fault, **when):
    """The verdict by splitting activations with the fault in place; None if it came out as the exception it is."""
    module, name = ACTIVATION_PLACES[place]
    with monkeypatch.context() as patch:
        faulty = Faulty(getattr(module, name), FAULTS[fault], **when)
        patch.setattr(module, name, method_of(module, name, faulty))
        try:
            return answer(network, property, 1.0, attack=False, method="activation-split")
        except RuntimeError:
            return None


@pytest.fixture
def leaning(tmp_path):
    """A network of four inputs that takes splits, tightening and leaves; the threshold is near its minimum."""
    return load(save_dense(tmp_path / "leaning.onnx", random_layers((4, 8, 8, 1), 5, scale=2.0)))


FOUR = Box(-np.ones(4), np.ones(4))


def lowest_of(network):
    points = np.random.default_rng(0).uniform(-1, 1, (500, 4)).astype(np.float32)
    return min(float(network.runtime.run(point)[0].item()) for point in points)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ACTIVATION_PLACES)
def test_a_fault_while_activations_are_split_never_proves(monkeypatch, leaning, place, fault):
    """A violated property, whenever the fault comes and however long it lasts: never `unsat`."""
    property = query_of(4, 1, [(FOUR, [[1.0]], [lowest_of(leaning) + 1e-3])])
    for first, count in ((0, None), (0, 1), (1, 1), (2, None), (7, 1), (20, None)):
        verdict = decide_by_activations(monkeypatch, leaning, property, place, fault, first=first, count=count)
        assert verdict is not Verdict.UNSAT


@pytest.mark.parametrize("place", ["minimum", "through", "root"])
@pytest.mark.parametrize("fault", ["nan", "memory"])
def test_a_lasting_fault_of_the_bounds_leaves_a_true_property_open(monkeypatch, leaning, place, fault):
    """What only splits can prove is not answered when they cannot be bounded."""
    property = query_of(4, 1, [(FOUR, [[1.0]], [lowest_of(leaning) - 1.0])])
    assert answer(leaning, property, attack=False, method="activation-split") is Verdict.UNSAT
    if place == "root" and fault == "nan":
        return
    verdict = decide_by_activations(monkeypatch, leaning, property, place, fault)
    assert verdict in (Verdict.UNKNOWN, Verdict.TIMEOUT)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_passing_fault_never_hides_a_violation(monkeypatch, network, wide, place, fault):
    """A violation in one of several boxes: whenever the fault comes, the answer is not `unsat`."""
    network = wide if place == "step" else network
    strips = [Box(np.array([k / 4, 0.0]), np.array([(k + 1) / 4, 1.0])) for k in range(4)]
    lowest = [least(network, box) for box in strips]
    violated = int(np.argmin(lowest))
    clauses = [
        (box, [[1.0]], [low + (1e-3 if k == violated else -0.2)])
        for k, (box, low) in enumerate(zip(strips, lowest, strict=True))
    ]
    property = query_of(2, 1, clauses)
    for first in (0, 1, 2, 5):
        assert decide_with(monkeypatch, network, property, place, fault, first=first, count=1) in (Verdict.SAT, None)


def test_boxes_lost_to_memory_are_not_forgotten(monkeypatch, network):
    """One box closes in float64 only, the other one is lost to memory before that: no verdict."""
    value = float(network.runtime.run(np.array([0.5, 0.5]))[0].item())
    point = Box(np.full(2, 0.5), np.full(2, 0.5))
    genuine = input_split.row_bounds

    def starved(state, rows, offsets, **kwargs):
        if state.lower.dtype == np.float32 and (state.upper > state.lower).any():
            raise MemoryError
        return genuine(state, rows, offsets, **kwargs)

    monkeypatch.setattr(input_split, "row_bounds", starved)
    tight = [(point, [[1.0]], [value - 3e-7])]
    assert answer(network, query_of(2, 1, tight), attack=False, method="input-split") is Verdict.UNSAT
    for clauses in ([(UNIT, [[1.0]], [100.0]), *tight], [*tight, (UNIT, [[1.0]], [100.0])]):
        property = query_of(2, 1, clauses)
        assert answer(network, property, attack=False, method="input-split") is Verdict.UNKNOWN


def test_an_attack_that_runs_out_of_memory_ends_as_unknown(monkeypatch, network):
    def starved(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(falsify, "attack", starved)
    property = query_of(2, 1, [(UNIT, [[1.0]], [100.0])])
    result = verify(network, property, timeout=5.0)
    assert result.verdict is Verdict.UNKNOWN
    assert any("memory" in warning for warning in result.warnings)


def test_one_pass_on_a_point_ends(network):
    """A box that cannot be split is bounded once, not over and over until the deadline."""
    value = float(network.runtime.run(np.array([0.5, 0.5]))[0].item())
    point = Box(np.full(2, 0.5), np.full(2, 0.5))
    result = verify(
        network,
        query_of(2, 1, [(point, [[1.0]], [value - 1e-9])]),
        20,
        Options(attack=False, method="bounds", threads=1),
    )
    assert result.verdict is Verdict.UNKNOWN
    assert result.counters["domains"] == 1


@pytest.mark.parametrize("op", ["Log", "Reciprocal"])
@pytest.mark.parametrize("attack", [True, False])
def test_an_operator_without_a_value_on_the_region(tmp_path, op, attack):
    """``log x`` and ``1 / x`` on a box around 0: `unknown` with a warning; on a box beyond, an answer."""
    file = save(tmp_path / "net.onnx", [helper.make_node(op, ["X"], ["Y"])], [("X", (1,))], [("Y", (1,))])
    network = load(file, lower=np.array([0.5]), upper=np.array([1.0]))
    options = Options(threads=1, attack=attack)
    around = verify(network, query_of(1, 1, [(Box(-np.ones(1), np.ones(1)), [[1.0]], [-1e9])]), 10, options)
    assert around.verdict is Verdict.UNKNOWN
    assert len(around.warnings) == 1
    assert "Y" in around.warnings[0]
    beyond = verify(network, query_of(1, 1, [(Box(np.full(1, 0.5), np.ones(1)), [[1.0]], [-1e9])]), 10, options)
    assert beyond.verdict is Verdict.UNSAT
    assert not beyond.warnings


@pytest.mark.parametrize("method", ["auto", "input-split", "activation-split", "bounds", "milp"])
def test_no_method_hides_a_point_without_a_value(tmp_path, method):
    """A logarithm after a ReLU layer, of numbers that may be negative: never `unsat`, though nothing can be sampled
    below the threshold; and the node is named."""
    layers = random_layers((2, 6, 1), 3)
    file = save_dense(tmp_path / "net.onnx", layers)
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(helper.make_node("Log", ["inner"], ["Y"], name="the-log"))
    onnx.save(model, file)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 50)] * 2), -1).reshape(-1, 2)
    inner = forward(layers, grid)[:, 0]
    start = grid[inner.argmax()]
    network = load(file, lower=start, upper=start)
    result = verify(network, query_of(2, 1, [(UNIT, [[-1.0]], [-1e3])]), 10, Options(threads=1, method=method))
    assert inner.min() < 0 < inner.max()
    assert result.verdict is Verdict.UNKNOWN
    assert any("Log" in warning for warning in result.warnings)


def test_the_region_is_not_rounded_into_a_pole(tmp_path):
    """``1 / (x - 0.1)`` from just above 0.1 on, by less than float32 resolves: the exact region has no pole."""
    weights = [numpy_helper.from_array(np.array([-0.1]), "shift")]
    nodes = [helper.make_node("Add", ["X", "shift"], ["d"]), helper.make_node("Reciprocal", ["d"], ["Y"])]
    file = save(tmp_path / "net.onnx", nodes, [("X", (1,))], [("Y", (1,))], weights, TensorProto.DOUBLE)
    network = load(file, lower=np.array([0.5]), upper=np.array([1.0]))
    box = Box(np.array([0.1 + 1e-12]), np.ones(1))
    assert answer(network, query_of(1, 1, [(box, [[1.0]], [-1.0])])) is Verdict.UNSAT
    around = Box(np.array([0.05]), np.ones(1))
    assert answer(network, query_of(1, 1, [(around, [[0.0]], [-1.0])]), attack=False) is Verdict.UNKNOWN


def test_a_rule_that_raises_is_a_warning(monkeypatch, network):
    genuine = crown.rule

    def undefined(node, inputs):
        raise UndefinedOnRegion(f"{node.name} has no value here")

    for module in (crown, narrow):
        monkeypatch.setattr(
            module, "rule", lambda op: replace(genuine(op), relax=undefined) if op == "Relu" else genuine(op)
        )
    result = verify(network, query_of(2, 1, [(UNIT, [[1.0]], [-100.0])]), 10, Options(threads=1))
    assert result.verdict is Verdict.UNKNOWN
    assert "has no value here" in result.warnings[0]
