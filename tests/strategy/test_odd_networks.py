"""Networks of an unusual form: every method answers, and rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from boundsmith.specs import Box
from boundsmith.verify import Options, Verdict, bounds, verify
from boundsmith.verify.loading import load
from onnx import helper

from tests.loading.models import model_of
from tests.queries import query_of

if TYPE_CHECKING:
    from boundsmith.verify.loading import Network

F = np.float32
METHODS = ("auto", "input-split", "activation-split", "bounds", "milp")
UNIT = Box(np.zeros(2), np.ones(2))


def constant_output() -> Network:
    """A network that reads its input and answers 5 all the same."""
    return load(model_of([helper.make_node("Relu", ["x"], ["h"])], {"x": [1, 2]}, ["k"], {"k": np.asarray([5.0], F)}))


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_output(method: str) -> None:
    network = constant_output()
    for threshold, verdict in ((4.5, Verdict.UNSAT), (5.5, Verdict.SAT)):
        property = query_of(2, 1, [(UNIT, [[1.0]], [threshold])])
        found = verify(network, property, 10.0, Options(method=method, threads=1)).verdict
        assert found is verdict or (
            found is Verdict.UNKNOWN and method in ("bounds", "milp") and verdict is Verdict.SAT
        )


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown", "forward"])
def test_bounds_of_a_constant_output(method: str) -> None:
    lower, upper = bounds(constant_output(), np.zeros((3, 2), F), 0.5, method=method)
    assert lower.shape == upper.shape == (3, 1)
    np.testing.assert_allclose([lower, upper], 5.0)


def with_softmax(seed: int) -> Network:
    """A softmax of scores that scales set far apart, between dense layers."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"]),
        helper.make_node("Mul", ["a", "s"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"], axis=-1),
        helper.make_node("Gemm", ["c", "w2"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "w3"], ["y"]),
    ]
    shapes = {"w1": (2, 4), "s": (4,), "w2": (4, 4), "w3": (4, 1)}
    weights = {name: rng.normal(size=shape).astype(F) for name, shape in shapes.items()}
    return load(model_of(nodes, {"x": [1, 2]}, ["y"], weights))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("margin", [0.4, -0.02])
def test_a_softmax_while_activations_are_split(seed: int, margin: float) -> None:
    network = with_softmax(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 40)] * 2), axis=-1).reshape(-1, 2)
    least = min(float(network.runtime.run(point)[0].item()) for point in grid)
    property = query_of(2, 1, [(UNIT, [[1.0]], [least - margin])])
    found = verify(network, property, 4.0, Options(method="activation-split", threads=1)).verdict
    assert found in ((Verdict.UNSAT, Verdict.TIMEOUT) if margin > 0 else (Verdict.SAT,))
