"""Normalisation by mean and variance of the data, in its parts: bounds by every method hold on boxes of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.loading.network import load
from hypothesis import given, settings
from hypothesis import strategies as st
from loading.models import model_of
from onnx import helper

SIZE, EPSILON = 4, 2.0**-10


def exact(x, scale, shift):
    """The value in float64 at points ``[..., SIZE]``."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON) * scale + shift


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["ibp", "forward", "crown", "alpha-crown"])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_bounds_contain_the_values(dtype, method, seed):
    """Points, tiny, moderate and huge boxes, some to one side; a variance that may be zero is no division by zero."""
    random = np.random.default_rng(seed)
    scale, shift = (random.normal(size=SIZE).astype(np.float32) for _ in range(2))
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=-1, epsilon=EPSILON)
    network = load(model_of([node], {"x": [1, SIZE]}, ["y"], {"scale": scale, "shift": shift}, opset=17))
    size = (10, SIZE)
    centre = random.normal(size=size) * random.choice([0.0, 1.0, 10.0], size=(10, 1))
    radius = random.random(size) * random.choice([0.0, 1e-6, 1e-2, 0.5, 3.0, 100.0], size=(10, 1))
    side = random.integers(0, 4, size)
    lower = np.where(side == 0, centre, centre - radius).astype(dtype)
    upper = np.where(side == 1, centre, centre + radius).astype(dtype)
    found = bounds_of(network, lower, upper, method)
    assert np.isfinite(found.lower).all()
    assert np.isfinite(found.upper).all()
    mix = random.random((300, *size))
    mix[:150] = mix[:150].round()
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    value = exact(np.clip(low + mix * (high - low), low, high), scale.astype(np.float64), shift.astype(np.float64))
    # Interval ends of roots and quotients are those of the dtype; the mean is of values this large.
    slack = 32 * np.finfo(dtype).eps * (1 + abs(high).max(axis=1, keepdims=True) / np.sqrt(EPSILON))
    assert (found.lower <= value + slack).all()
    assert (value <= found.upper + slack).all()
