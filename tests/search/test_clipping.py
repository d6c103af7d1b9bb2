"""Clipping never cuts off a point that can still be unsafe."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.search.clipping import clip
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import samples


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e4]))
def test_points_below_zero_stay(dtype, seed, scale):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(3, 4))
    radius = scale * rng.random((3, 4)) * (rng.random((3, 4)) > 0.2)
    lower, upper = (centre - radius).astype(dtype), (centre + radius).astype(dtype)
    a = (rng.normal(size=(3, 2, 4)) * 10.0 ** rng.integers(-6, 3, (3, 2, 4))).astype(dtype)
    c = -np.einsum("bsn,bn->bs", a, centre).astype(dtype) * rng.choice([0.9, 1.0, 1.1], (3, 2)).astype(dtype)
    low, high = clip(lower, upper, a, c)
    assert (low >= lower[:, None]).all()
    assert (high <= upper[:, None]).all()
    for points in samples(lower, upper, 200, seed):
        wide = points.astype(np.float64)
        value = np.einsum("bsn,bn->bs", a.astype(np.float64), wide) + c.astype(np.float64)
        inside = (wide[:, None] >= low) & (wide[:, None] <= high)
        assert inside[value <= 0].all()


def test_a_half_space_is_cut_off():
    low, high = clip(np.zeros((1, 2)), np.ones((1, 2)), np.array([[[2.0, 0.0]]]), np.array([[-1.0]]))
    np.testing.assert_allclose(low[0, 0], [0.0, 0.0])
    np.testing.assert_allclose(high[0, 0], [0.5, 1.0], atol=1e-9)


def test_an_impossible_row_empties_the_box():
    low, high = clip(np.zeros((1, 2)), np.ones((1, 2)), np.array([[[1.0, 1.0]]]), np.array([[0.5]]))
    assert (low > high).any()
