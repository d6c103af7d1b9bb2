"""Ranges of gated units in float32, against values computed without cancellation in float64."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.ops import rule
from scipy.special import expit, ndtr

from tests.networks import node

EXACT = {"Gelu": lambda x: x * ndtr(x), "Silu": lambda x: x * expit(x)}


@pytest.mark.parametrize("op", EXACT)
@pytest.mark.parametrize("width", [0.0, 1e-4, 1.0])
def test_float32_ranges_hold_exactly(op, width):
    """Also on the left tail, where a gate computed as 1 minus almost 1 has few digits or none."""
    lower = np.linspace(-9, 9, 200_001, dtype=np.float32)[:, None]
    upper = lower + np.float32(width)
    low, high = rule(op).interval(node("y", op, (0,), (1,)), [(lower, upper)])
    for share in (0.0, 0.3, 1.0):
        value = EXACT[op](lower + share * (upper.astype(np.float64) - lower))
        assert (low <= value).all()
        assert (value <= high).all()
    # A roundoff of the input, not more.
    point = EXACT[op](lower.astype(np.float64))
    assert (abs(low - np.minimum(point, EXACT[op](upper.astype(np.float64))))[lower > 0] < 2e-5).all()
