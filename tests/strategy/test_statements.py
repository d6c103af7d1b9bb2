"""Which statement a verdict makes: `unsat` is one over the reals, `sat` one of a runtime's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs import Box
from boundsmith.verify import load, verify
from boundsmith.verify.options import Options
from boundsmith.verify.result import Result, Verdict

from tests.onnx_files import random_layers, save_dense
from tests.queries import query_of

LARGE = 2.0**24


@pytest.fixture
def absorbing(tmp_path):
    """``relu(x + 2^24) - 2^24``, which is x over the reals, and 0 for small x in float32."""
    one = np.ones((1, 1), np.float32)
    layers = [(one, np.array([LARGE], np.float32)), (one, np.array([-LARGE], np.float32))]
    return load(save_dense(tmp_path / "net.onnx", layers))


def small(threshold=0.05):
    return query_of(1, 1, [(Box(np.array([0.1]), np.array([0.2])), [[1.0]], [threshold])])


def test_a_witness_of_rounding_alone_is_told(absorbing):
    result = verify(absorbing, small(), timeout=10)
    assert result.verdict is Verdict.SAT
    assert result.witness.over_reals is False
    assert "over the reals it does not" in result.statement
    assert any("over the reals, with the stored weights, it does not" in warning for warning in result.warnings)


def test_what_holds_over_the_reals_says_so(absorbing):
    result = verify(absorbing, small(), timeout=10, options=Options(attack=False))
    if result.verdict is Verdict.UNSAT:
        assert result.statement.startswith("over the reals")
    else:
        assert result.verdict is not Verdict.SAT or result.witness.over_reals is False


def test_a_witness_over_the_reals_is_told(tmp_path):
    network = load(save_dense(tmp_path / "net.onnx", random_layers((2, 8, 8, 1), 3)))
    box = Box(np.zeros(2), np.ones(2))
    result = verify(network, query_of(2, 1, [(box, [[1.0]], [100.0])]), timeout=10)
    assert result.verdict is Verdict.SAT
    assert result.witness.over_reals is True
    assert "over the reals it does, too" in result.statement
    assert not result.warnings


def test_ties_are_told_in_rational_arithmetic(tmp_path):
    """``relu(x)`` at 0 is 0 exactly, which intervals that are rounded outwards cannot tell from less."""
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    network = load(save_dense(tmp_path / "net.onnx", [(one, zero), (one, zero)]))
    box = Box(np.array([-1.0]), np.array([0.0]))
    result = verify(network, query_of(1, 1, [(box, [[1.0]], [0.0])]), timeout=10)
    assert result.verdict is Verdict.SAT
    assert result.witness.over_reals is not False


def test_nothing_is_claimed_without_an_answer():
    assert Result(Verdict.UNKNOWN).statement == "nothing is claimed"
