"""Our bounds beside those recorded from auto_LiRPA 0.7.1 on the reference networks (``shared/reference``)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from boundsmith.verify.bounding.api import bounds_of
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.loading.network import load
from boundsmith.verify.problem import flatten

from tests.conftest import shared_dir

EPSILONS = ("0.02", "0.1", "0.3")
METHODS = {"ibp": "ibp", "crown_ibp": "crown-ibp", "crown": "crown"}
ALPHA = {"alpha_crown_20": "alpha-crown"}
EXACT = ("relu", "residual_bn")
FACTORS = {
    "leaky": 1.002,
    "tanh": 1.002,
    "arctan": 1.002,
    "bilinear": 0.999,
    "expdiv": 0.999,
    "sin": 1.005,
    "cos": 1.02,
    "conv_maxpool": 1.03,
    "sigmoid": 1.05,
    "power": 1.2,
    "attention": 1.17,
}
"""Largest measured ratio of mean widths, ours to the recorded, over all boxes sizes and CROWN methods, and a margin.

The widths of `sigmoid` and `cos` at 0.02 are of the size of float32's rounding. The recorded
CROWN bounds of `power` exclude values that the network takes (`test_recorded_bounds_of_powers_are_wrong`): ours cannot
be as narrow."""


@pytest.fixture(scope="module")
def recorded():
    return np.load(shared_dir() / "reference" / "bounds.npz")


def both(recorded, name, eps, method):
    """Our bounds and the recorded ones, each ``(lower, upper)`` ``[B, m]``."""
    network = load(shared_dir() / "reference" / "nets" / f"{name}.onnx")
    key = f"{name}/{eps}"
    # In float64: what is compared are relaxations, not what float32's rounding takes from them.
    lower, upper = (recorded[f"{key}/{end}"].reshape(4, -1).astype(np.float64) for end in ("lower_in", "upper_in"))
    ours = bounds_of(network, lower, upper, (METHODS | ALPHA)[method])
    theirs = [recorded[f"{key}/{method}/{end}"].reshape(ours.lower.shape) for end in ("lower", "upper")]
    return (ours.lower, ours.upper), theirs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", EXACT)
def test_relu_networks_agree_or_are_tighter(recorded, name, eps, method):
    """The same relaxations: every bound equals the recorded one to 1e-4 of its magnitude, or is tighter."""
    (lower, upper), (low, high) = both(recorded, name, eps, method)
    slack = 1e-4 * np.maximum(np.maximum(abs(low), abs(high)), high - low)
    assert (lower >= low - slack).all()
    assert (upper <= high + slack).all()
    assert (lower <= upper).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", FACTORS)
def test_mean_widths_are_within_a_factor(recorded, name, eps, method):
    """Other relaxations than the recorded ones; the factor is what was measured and a small margin."""
    (lower, upper), (low, high) = both(recorded, name, eps, method)
    factor = FACTORS[name] if method != "ibp" else 1.001
    assert (upper - lower).mean() <= factor * (high - low).mean()
    # Both contain the function's range, so neither may lie beside the other.
    assert (np.maximum(lower, low) <= np.minimum(upper, high)).all()


OPTIMISED = {
    "relu": 1.005,
    "residual_bn": 1.12,
    "leaky": 1.005,
    "conv_maxpool": 1.1,
    "tanh": 1.002,
    "arctan": 1.002,
    "sin": 1.005,
    "cos": 1.018,
    "sigmoid": 1.04,
    "bilinear": 1.002,
    "expdiv": 1.002,
    "power": 1.002,
    "attention": 1.002,
}
"""Largest measured ratio of mean widths after 20 steps of alpha-CROWN, and a margin."""


def test_recorded_bounds_of_powers_are_wrong(recorded):
    """At 0.02 the network takes values beyond the recorded CROWN bounds, at corners of the boxes."""
    network = load(shared_dir() / "reference" / "nets" / "power.onnx")
    lower, upper = (recorded[f"power/0.02/{end}"].reshape(4, 1, -1) for end in ("lower_in", "upper_in"))
    sides = np.array(list(itertools.product((0, 1), repeat=lower.shape[2])))[None]
    corners = np.where(sides == 1, upper, lower).reshape(-1, lower.shape[2])
    values = output_vector(flatten(network.graph), corners.astype(np.float64)).reshape(4, sides.shape[1], -1)
    low = recorded["power/0.02/crown/lower"].reshape(4, -1)
    assert (values.min(axis=1) < low - 1e-5).any()
    ours = bounds_of(network, lower[:, 0], upper[:, 0], "crown")
    assert (ours.lower <= values.min(axis=1)).all()
    assert (values.max(axis=1) <= ours.upper).all()


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("name", OPTIMISED)
def test_optimised_bounds_are_within_a_factor(recorded, name, eps):
    (lower, upper), (low, high) = both(recorded, name, eps, "alpha_crown_20")
    assert (upper - lower).mean() <= OPTIMISED[name] * (high - low).mean()
    assert (np.maximum(lower, low) <= np.minimum(upper, high) + 1e-5).all()
