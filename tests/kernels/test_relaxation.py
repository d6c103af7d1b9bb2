"""The backward step: a valid bound for every function between the lines, alike in numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boundsmith.verify.kernels.relaxation import Step, backward_step
from hypothesis import given, settings
from hypothesis import strategies as st


def random_step(rng, batch, size, inputs, lower_intercept=True, upper_intercept=True):
    return Step(
        tuple(rng.normal(size=(batch, size)) for _ in range(inputs)),
        tuple(rng.normal(size=(batch, size)) for _ in range(inputs)),
        rng.normal(size=(batch, size)) if lower_intercept else None,
        rng.normal(size=(batch, size)) if upper_intercept else None,
    )


CASES = given(
    seed=st.integers(0, 10_000),
    inputs=st.integers(1, 3),
    below=st.booleans(),
    above=st.booleans(),
)


def by_definition(a, step):
    """``A+ dl + A- du`` and ``<A+, bl> + <A-, bu>``, entry by entry."""
    positive, negative = np.maximum(a, 0), np.minimum(a, 0)
    carried = [
        positive * low[:, None] + negative * (low + spread)[:, None]
        for low, spread in zip(step.lower_slopes, step.spread, strict=True)
    ]
    constant = np.zeros(a.shape[:2])
    if step.lower_intercept is not None:
        constant += (positive * step.lower_intercept[:, None]).sum(-1)
    if step.upper_intercept is not None:
        constant += (negative * step.upper_intercept[:, None]).sum(-1)
    return carried, constant


@settings(max_examples=60, deadline=None)
@CASES
def test_agrees_with_its_definition(seed, inputs, below, above):
    rng = np.random.default_rng(seed)
    step = random_step(rng, 3, 5, inputs, below, above)
    a = rng.normal(size=(3, 4, 5))
    kept = a.copy()
    carried, constant = backward_step(a, step)
    np.testing.assert_array_equal(a, kept)
    expected, total = by_definition(a, step)
    assert len(carried) == inputs
    for one, other in zip(carried, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    if constant is None:
        assert not below
        assert not above
    else:
        np.testing.assert_allclose(constant, total, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@CASES
def test_torch_agrees_with_numpy(seed, inputs, below, above):
    rng = np.random.default_rng(seed)
    step = random_step(rng, 2, 6, inputs, below, above)
    a = rng.normal(size=(2, 3, 6))
    tensors = Step(
        *(tuple(map(torch.as_tensor, part)) for part in (step.lower_slopes, step.spread)),
        *(None if part is None else torch.as_tensor(part) for part in (step.lower_intercept, step.upper_intercept)),
    )
    ours, constant = backward_step(a, step)
    theirs, other = backward_step(torch.as_tensor(a), tensors)
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(two.numpy(), one, rtol=1e-12, atol=1e-12)
    assert (constant is None) == (other is None)
    if constant is not None:
        np.testing.assert_allclose(other.numpy(), constant, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), mix=st.floats(0, 1))
def test_bounds_every_function_between_the_lines(seed, mix):
    """For any value between the two lines at x, ``<A, value>`` is at least the carried row at x."""
    rng = np.random.default_rng(seed)
    step = random_step(rng, 2, 5, 2)
    a = rng.normal(size=(2, 3, 5))
    x = rng.normal(size=(2, 2, 5))
    low = sum(s * v for s, v in zip(step.lower_slopes, x, strict=True)) + step.lower_intercept
    high = sum((s + d) * v for s, d, v in zip(step.lower_slopes, step.spread, x, strict=True)) + step.upper_intercept
    low, high = np.minimum(low, high), np.maximum(low, high)
    # Only where the lines are in order does the relaxation say anything.
    ordered = (sum(d * v for d, v in zip(step.spread, x, strict=True)) + step.upper_intercept) >= step.lower_intercept
    a = a * ordered[:, None]
    value = low + mix * (high - low)
    carried, constant = backward_step(a, step)
    row = sum((piece * v[:, None]).sum(-1) for piece, v in zip(carried, x, strict=True))
    masked = by_definition(a, step)[1]
    np.testing.assert_allclose(constant, masked, rtol=1e-12, atol=1e-12)
    assert (row + constant <= (a * value[:, None]).sum(-1) + 1e-9).all()


@pytest.mark.parametrize("index", [[0, 0, 2], [1], []])
def test_rows_picks_batch_entries(index):
    rng = np.random.default_rng(0)
    step = random_step(rng, 3, 4, 2, upper_intercept=False)
    picked = step.rows(np.array(index, dtype=int))
    a = rng.normal(size=(len(index), 2, 4))
    carried, constant = backward_step(a, picked)
    assert picked.upper_intercept is None
    for position, entry in enumerate(index):
        alone = Step(
            tuple(part[entry][None] for part in step.lower_slopes),
            tuple(part[entry][None] for part in step.spread),
            step.lower_intercept[entry][None],
            None,
        )
        one, total = backward_step(a[position : position + 1], alone)
        np.testing.assert_allclose([part[position] for part in carried], [part[0] for part in one])
        np.testing.assert_allclose(constant[position], total[0])


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_nan_stays_nan(make):
    """A coefficient or a line that is not a number must not turn into one."""
    lines = make(np.ones((1, 2)))
    step = Step((lines,), (lines,), lines, lines)
    carried, constant = backward_step(make(np.array([[[np.nan, 1.0]]])), step)
    assert np.isnan(np.asarray(carried[0]))[0, 0, 0]
    assert np.isnan(np.asarray(constant))[0, 0]
