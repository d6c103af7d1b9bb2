"""The gate: differences from onnxruntime are found and placed; steps and failing points are not mistaken for them."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from boundsmith.verify.errors import LoadError
from boundsmith.verify.loading import load, onnx_import, supported_onnx_operators
from boundsmith.verify.loading.crosscheck import crosscheck, sample_points
from boundsmith.verify.loading.evaluate import evaluate
from boundsmith.verify.loading.lowering_table import LOWERINGS
from boundsmith.verify.loading.network import check_network
from boundsmith.verify.loading.runtime import ReplayError, make_session, reference_outputs
from onnx import TensorProto, helper

from .models import model_of, single

F = np.float32


def chain() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="dense"),
        helper.make_node("Tanh", ["a"], ["b"], name="squash"),
        helper.make_node("Relu", ["b"], ["y"], name="cut"),
    ]
    return model_of(nodes, {"x": [1, 3]}, ["y"], {"w": np.eye(3, dtype=F)})


def test_a_wrong_lowering_is_caught_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = MappingProxyType({**LOWERINGS, "Tanh": LOWERINGS["Sigmoid"]})
    monkeypatch.setattr(onnx_import, "LOWERINGS", wrong)
    with pytest.raises(LoadError, match=r"first at Tanh \(node squash, output b\)"):
        load(chain())


def test_wrong_parameters_are_caught() -> None:
    network = load(chain())
    wrong = network.graph.map_params(lambda array: array * 1.01)
    with pytest.raises(LoadError, match="differs"):
        crosscheck(wrong, network.inputs, network.runtime, "test", sample_points(network.inputs))
    slightly = network.graph.map_params(lambda array: array * F(1.0 + 1e-6))
    crosscheck(slightly, network.inputs, network.runtime, "test", sample_points(network.inputs))


def test_steps_may_fall_either_way_at_the_step() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Sub", ["a", "t"], ["b"]),
        helper.make_node("Sign", ["b"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["y"], keepdims=0),
    ]
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(50, 40)).astype(F)
    box = np.full(50, 0.3)
    at_the_step = (np.float32(0.3) * weight.astype(np.float64)).sum(axis=0)
    model = model_of(nodes, {"x": [1, 50]}, ["y"], {"w": weight, "t": at_the_step.astype(F)})
    load(model, lower=box, upper=box)


def test_points_outside_the_domain_are_passed_over() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["i", "one"], ["j"]),
        helper.make_node("GatherND", ["table", "j"], ["y"]),
    ]
    constants = {"one": np.asarray([1]), "table": np.arange(3, dtype=F)}
    load(model_of(nodes, {"x": [1]}, ["y"], constants))
    with pytest.raises(LoadError, match="onnxruntime fails"):
        load(model_of(nodes, {"x": [1]}, ["y"], constants), lower=np.asarray([20.0]), upper=np.asarray([21.0]))


def test_undefined_values_on_both_sides_agree() -> None:
    load(single("Log", [[4]]))


def test_runtime_replays_one_point_in_any_shape() -> None:
    network = load(chain())
    (flat,) = network.runtime.run(np.asarray([1.0, -1.0, 0.5]))
    (shaped,) = network.runtime.run(np.asarray([[1.0, -1.0, 0.5]], dtype=np.float64))
    assert flat.shape == (1, 3)
    assert flat.dtype == F
    np.testing.assert_array_equal(flat, shaped)
    np.testing.assert_allclose(flat, [[np.tanh(1.0), 0.0, np.tanh(0.5)]], rtol=1e-6)
    with pytest.raises(ReplayError):
        network.runtime.run(np.zeros(4))


def test_points_stay_in_the_box() -> None:
    network = load(chain())
    lower, upper = np.asarray([0.0, -2.0, 1.0]), np.asarray([1.0, -1.0, 1.0])
    (points,) = sample_points(network.inputs, lower, upper)
    assert points.shape == (6, 1, 3)
    assert np.all((points[:, 0] >= lower) & (points[:, 0] <= upper))


def test_the_table_of_supported_operators() -> None:
    rows = {row.op_type: row for row in supported_onnx_operators()}
    assert rows["Relu"].core == ("Relu",)
    assert rows["Conv"].domain == "ai.onnx"
    assert all(7 <= row.opsets[0] <= row.opsets[1] for row in rows.values())
    assert len(rows) > 100


def dequantised() -> bytes:
    """A product with weights of eight bits, whose activations onnxruntime's default optimisations round as well."""
    generator = np.random.default_rng(4)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"q": generator.integers(-128, 128, (16, 8)).astype(np.int8), "scale": np.asarray(0.02, F)}
    return model_of(nodes, {"x": [1, 16]}, ["y"], constants)


def test_approximating_optimisations_are_left_out() -> None:
    network = load(dequantised())
    x = np.random.default_rng(6).normal(size=(1, 16)).astype(F)
    (replayed,) = network.runtime.run(x)
    (ours,) = evaluate(network.graph, [x[None]])
    np.testing.assert_allclose(replayed, ours[0], atol=1e-4)
    usual, exact = (make_session(dequantised(), exact=exact) for exact in (False, True))
    np.testing.assert_allclose(reference_outputs(usual, exact, {"x": x})[0], ours[0], atol=1e-4)


def test_without_approximations_the_gate_is_as_strict() -> None:
    network = load(dequantised())
    wrong = network.graph.map_params(lambda array: array * F(1.001))
    with pytest.raises(LoadError, match="differs"):
        check_network(replace(network, built=wrong))
