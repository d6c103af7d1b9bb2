"""Convolutions backwards on windows and between chosen entries, against the plain transpose."""

from __future__ import annotations

import numpy as np
from boundsmith.verify.kernels import blocks, patches
from boundsmith.verify.kernels.convolution import Window, convolve, convolve_adjoint
from boundsmith.verify.kernels.patches import Patches
from hypothesis import assume, given, settings
from hypothesis import strategies as st

GEOMETRY = st.tuples(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),  # strides
    st.tuples(*[st.integers(0, 2)] * 4),  # pads
    st.tuples(st.integers(1, 2), st.integers(1, 2)),  # dilations
    st.tuples(st.integers(1, 4), st.integers(1, 3)),  # kernel
    st.tuples(st.integers(3, 9), st.integers(3, 9)),  # spatial
)


def make(geometry, seed, channels=2, outputs=3, groups=1):
    strides, pads, dilations, kernel, spatial = geometry
    window = Window(strides, pads, dilations, groups)
    assume(min(window.output(spatial, kernel)) >= 1)
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, channels // groups, *kernel))
    return window, weight, spatial, window.output(spatial, kernel), rng


@settings(max_examples=150, deadline=None)
@given(GEOMETRY, st.integers(0, 1000))
def test_adjoint_is_the_transpose(geometry, seed):
    window, weight, spatial, out, rng = make(geometry, seed)
    x, a = rng.normal(size=(4, 2, *spatial)), rng.normal(size=(4, 3, *out))
    forwards = (convolve(x, weight, window) * a).sum()
    np.testing.assert_allclose((convolve_adjoint(a, weight, spatial, window) * x).sum(), forwards, rtol=1e-9, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(GEOMETRY, st.integers(0, 1000))
def test_chosen_entries_of_the_transpose(geometry, seed):
    window, weight, spatial, out, rng = make(geometry, seed)
    to, of = (
        np.flatnonzero(rng.random(int(np.prod(shape))) < rng.choice([0.0, 0.4, 1.0]))
        for shape in ((2, *spatial), (3, *out))
    )
    template = blocks.make_template(weight, spatial, window)
    parts = blocks.choose(template, to, of, ((2, *spatial), (3, *out)))
    values = rng.normal(size=(len(of), 5))
    full = np.zeros((3 * out[0] * out[1], 5))
    full[of] = values
    expected = convolve_adjoint(full.T.reshape(5, 3, *out), weight, spatial, window).reshape(5, -1).T[to]
    np.testing.assert_allclose(blocks.apply(parts, values, len(to)), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.sort(np.concatenate([part.to for part in parts] or [to])), np.arange(len(to)))


@settings(max_examples=150, deadline=None)
@given(GEOMETRY, st.integers(0, 1000))
def test_chosen_entries_of_a_transposed_convolution(geometry, seed):
    window, weight, out, spatial, rng = make(geometry, seed)
    to, of = (
        np.flatnonzero(rng.random(int(np.prod(shape))) < rng.choice([0.0, 0.4, 1.0]))
        for shape in ((3, *spatial), (2, *out))
    )
    template = blocks.make_enlarging_template(weight, spatial, window)
    parts = blocks.choose(template, to, of, ((3, *spatial), (2, *out)))
    values = rng.normal(size=(len(of), 5))
    full = np.zeros((2 * out[0] * out[1], 5))
    full[of] = values
    expected = convolve(full.T.reshape(5, 2, *out), weight, window).reshape(5, -1).T[to]
    np.testing.assert_allclose(blocks.apply(parts, values, len(to)), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(GEOMETRY, st.integers(0, 1000), st.integers(1, 3), st.integers(1, 3))
def test_windows_through_a_convolution(geometry, seed, height, width):
    window, weight, spatial, out, rng = make(geometry, seed)
    rows = 6
    top, left = (np.sort(rng.integers(-1, limit, rows)) for limit in out)
    piece = Patches(rng.normal(size=(height, width, 3, rows)), top, left, True)
    full = patches.spread_out(piece, out)
    expected = convolve_adjoint(full.transpose(3, 2, 0, 1), weight, spatial, window)
    inside = piece.within(out)
    np.testing.assert_array_equal(patches.spread_out(inside, out), full)
    below = patches.through_convolution(inside, patches.kernel_matrix(weight), weight.shape[2:], window)
    np.testing.assert_allclose(patches.spread_out(below, spatial).transpose(3, 2, 0, 1), expected, rtol=1e-9, atol=1e-9)
    table = rng.normal(size=(2, *spatial, 2))
    for found, wanted in zip(patches.look_up(table, below), table, strict=True):
        ours = (found * below.values).sum(axis=(0, 1, 2))
        np.testing.assert_allclose(ours, np.einsum("rchw,hwc->r", expected, wanted), rtol=1e-8, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(GEOMETRY, st.integers(0, 1000), st.sampled_from([(2, 4, 6), (3, 3, 3), (2, 2, 4)]))
def test_windows_through_a_convolution_in_groups(geometry, seed, sizes):
    groups, channels, outputs = sizes
    window, weight, spatial, out, rng = make(geometry, seed, channels, outputs, groups)
    values = rng.normal(size=(*out, outputs, 5))
    whole = Patches(values, np.zeros(5, dtype=int), np.zeros(5, dtype=int), False)
    expected = convolve_adjoint(values.transpose(3, 2, 0, 1), weight, spatial, window)
    below = patches.through_convolution(whole, patches.kernel_matrix(weight, groups), weight.shape[2:], window)
    np.testing.assert_allclose(patches.spread_out(below, spatial).transpose(3, 2, 0, 1), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(-3, 3), st.integers(-3, 3))
def test_sum_of_windows(seed, down, right):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, 4)
    top, left = rng.integers(-1, 6, 5), rng.integers(-1, 6, 5)
    first = Patches(rng.normal(size=(sizes[0], sizes[1], 2, 5)), top, left, False)
    second = Patches(rng.normal(size=(sizes[2], sizes[3], 2, 5)), top + down, left + right, True)
    total = patches.joined(first, second)
    expected = patches.spread_out(first, (7, 7)) + patches.spread_out(second, (7, 7))
    np.testing.assert_allclose(patches.spread_out(total, (7, 7)), expected)
    assert total.overhangs


def test_windows_at_uneven_distances():
    """A few different distances are evened out by larger windows; many are not worth it."""
    rng = np.random.default_rng(0)
    for count, spread in ((12, 3), (40, 40)):
        tops = rng.integers(0, 5, count), rng.integers(0, spread, count)
        first, second = (Patches(rng.normal(size=(2, 3, 2, count)), top, np.arange(count) % 4, False) for top in tops)
        total = patches.joined(first, second)
        if spread > 16:
            assert total is None
        else:
            expected = patches.spread_out(first, (9, 9)) + patches.spread_out(second, (9, 9))
            np.testing.assert_allclose(patches.spread_out(total, (9, 9)), expected)


@settings(max_examples=150, deadline=None)
@given(GEOMETRY, st.integers(0, 1000), st.integers(1, 4), st.integers(1, 3))
def test_windows_through_a_transposed_convolution(geometry, seed, height, width):
    """Backwards, a transposed convolution is the convolution with the same weight, on its output."""
    window, weight, spatial, out, rng = make(geometry, seed)
    top, left = (rng.integers(-1, limit, 6) for limit in spatial)
    piece = Patches(rng.normal(size=(height, width, 2, 6)), top, left, True).within(spatial)
    full = patches.spread_out(piece, spatial)
    expected = convolve(full.transpose(3, 2, 0, 1), weight, window)
    below = patches.through_transposed(piece, patches.enlarging_matrix(weight), weight.shape[2:], window)
    assert below.overhangs
    np.testing.assert_allclose(patches.spread_out(below, out).transpose(3, 2, 0, 1), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 4))
def test_windows_through_repeated_pixels(seed, down, right):
    rng = np.random.default_rng(seed)
    spatial = (4 * down, 3 * right)
    top, left = (rng.integers(-1, limit, 5) for limit in spatial)
    piece = Patches(rng.normal(size=(2, 3, 2, 5)), top, left, True).within(spatial)
    full = patches.spread_out(piece, spatial)
    below = patches.spread_out(patches.through_repeated(piece, (down, right)), (4, 3))
    np.testing.assert_allclose(below, full.reshape(4, down, 3, right, 2, 5).sum(axis=(1, 3)), rtol=1e-9, atol=1e-9)
