"""Arithmetic on parameters: never farther from the exact result than it says, and exact wherever it says nothing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from boundsmith.verify.errors import LoadError
from boundsmith.verify.graph import Node
from boundsmith.verify.loading.precise import Precise, is_exact, one_over, parameter_of, parameters, settled
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exact import fractions, root

SMALLEST = 2.0**-1022


def numbers(seed, *shape):
    """Numbers of very different sizes, float32 ones in some rows."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 7, shape)
    return np.where(rng.random(shape) < 0.5, values.astype(np.float32), values)


def assert_holds(found, exact, relative=1e-29):
    """The number is within its error of `exact`, and the error is small beside the terms, whose size is `relative`."""
    assert found.shape == exact.shape
    parts = [fractions(np.broadcast_to(part, found.shape)) for part in (found.high, found.low, found.error)]
    gaps = abs(parts[0] + parts[1] - exact)
    assert (gaps <= parts[2]).all()
    assert (found.high == np.array([float(value) for value in exact.reshape(-1)]).reshape(exact.shape)).all()
    assert (parts[2] <= fractions(np.full(found.shape, relative))).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_sums_products_quotients_and_matrices(seed):
    a, b, c = numbers(seed, 3, 4), numbers(seed + 1, 3, 4), numbers(seed + 2, 4, 2)
    x, y, z = map(Precise.of, (a, b, c))
    p, q, r = map(fractions, (a, b, c))
    size = float(max(abs(a).max(), abs(b).max(), abs(c).max()))
    assert_holds(x + y, p + q, 1e-29 * size)
    assert_holds(x * y, p * q, 1e-29 * size**2)
    assert_holds(x @ z, p @ r, 1e-29 * size**2)
    assert_holds((x * y - x).sum(0), (p * q - p).sum(axis=0), 1e-29 * size**2)
    assert_holds(x / y, p / q, 1e-29 * float(abs(p / q).max()))
    assert_holds((x * y) @ z, (p * q) @ r, 1e-28 * size**3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_square_roots(seed):
    values = abs(numbers(seed, 5))
    found = Precise.of(values).sqrt()
    exact = np.array([root(value) for value in fractions(values)])
    gaps = abs(fractions(found.high) + fractions(found.low) - exact)
    assert (gaps <= fractions(found.error) + Fraction(1, 10**70)).all()
    assert (found.error <= 1e-29 * values.max() ** 0.5).all()


def test_exact_results_carry_no_error():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 6)).astype(np.float32)
    for made in (Precise.of(a) * Precise.of(b), Precise.of(a) @ Precise.of(b), one_over(np.array([4.0, 0.5]))):
        assert not np.any(made.error)


def test_sums_that_cancel_completely_are_zero():
    a = np.float32([[0.1, -0.3]])
    found = Precise.of(a) @ Precise.of(np.float32([[0.3], [0.1]]))
    assert found.high == 0
    assert not np.any(found.distance)


def test_integers_that_float64_does_not_hold():
    found = Precise.of(np.array([2**63 - 1, -(2**62) - 1, 7]))
    assert [int(h) + int(low) for h, low in zip(found.high, found.low, strict=True)] == [2**63 - 1, -(2**62) - 1, 7]


def test_rational_numbers():
    rows = [[Fraction(1, 3), Fraction(1, 2)]]
    assert_holds(Precise.of_fractions(rows), np.array(rows))


def test_parameters_are_stored_in_the_smallest_form_that_says_the_same():
    third = one_over(3.0)
    assert parameters(scale=Precise.of(np.array(0.5)))["scale"].dtype == np.float32
    product = parameters(scale=Precise.of(np.float32(0.1)) * Precise.of(np.float32(0.3)))
    assert product.keys() == {"scale"}
    assert product["scale"].dtype == np.float64
    kept = parameter_of(parameters(scale=third), "scale")
    assert (kept.high, kept.low) == (third.high, third.low)


def test_errors_within_a_few_roundoffs_go_and_others_stay():
    third = one_over(3.0)
    node = settled(Node("n", "Scale", (), (), parameters(scale=third)))
    assert node.params.keys() == {"scale"}
    assert not is_exact(node)
    far = Precise.of(np.array(1.0), error=np.array(1e-14))
    node = settled(Node("n", "Scale", (), (), parameters(scale=far)))
    assert node.params["scale_error"] >= 1e-14
    assert not is_exact(node)
    constant = settled(Node("n", "Constant", (), (), parameters(value=third)))
    assert constant.params["value_error"] >= abs(third.low)
    with pytest.raises(LoadError, match="node n: a parameter of LeakyRelu"):
        settled(Node("n", "LeakyRelu", (), (), parameters(slope=far)))
