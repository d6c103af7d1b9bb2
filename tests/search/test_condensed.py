"""Searches on condensed networks decide as enumeration of pieces does."""

from __future__ import annotations

import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import condense
from boundsmith.verify.search import activation_root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.networks import dense, residual
from tests.search.activation_cases import decide
from tests.search.test_activation import assert_agrees, random_problem

GRAPHS = {"dense": lambda seed: dense((2, 4, 4, 2), seed), "residual": lambda seed: residual(seed, width=3)}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100_000), shift=st.sampled_from([-0.1, -1e-3, 1e-3, 0.1]))
def test_agrees_with_enumeration_of_pieces(monkeypatch, kind, dtype, seed, shift):
    """The network is condensed wherever one group of boxes is left open after the first steps."""
    monkeypatch.setattr(condense, "_cost_as_is", lambda *_: 1e300)
    monkeypatch.setattr(activation_root, "FIRST_STEPS", 0)
    problem = random_problem(GRAPHS[kind](seed), seed, shift, rows=(1, 2), boxes=1 + seed % 2)
    search, witness = decide(problem, backend=Backend(dtype))
    assert_agrees(problem, shift, search, witness)
