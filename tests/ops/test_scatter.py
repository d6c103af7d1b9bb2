"""Bounds of ScatterND are those of its updates made one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import to_numpy
from boundsmith.verify.graph import Node
from boundsmith.verify.ops import rule
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

EXTENTS, REST, BOXES, PLACES = (4, 5), 2, 4, 6
SHAPES = ((*EXTENTS, REST), (PLACES, 2), (PLACES, REST))


def in_turn(ends):
    """Update by update and position by position."""
    low, high, first, last, low_update, high_update = (end.copy() for end in ends)
    for box in range(BOXES):
        for place in range(PLACES):
            known = (first[box, place] == last[box, place]).all()
            for position in np.ndindex(*EXTENTS):
                here = zip(position, EXTENTS, first[box, place], last[box, place], strict=True)
                if not all(a <= p <= b or a <= p - extent <= b for p, extent, a, b in here):
                    continue
                where = (box, *position)
                low[where] = low_update[box, place] if known else np.minimum(low[where], low_update[box, place])
                high[where] = high_update[box, place] if known else np.maximum(high[where], high_update[box, place])
    return low, high


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_known_positions_replace_and_several_widen(library, share, seed):
    random = np.random.default_rng(seed)
    data, updates = (random.normal(size=(BOXES, *shape)) for shape in (SHAPES[0], SHAPES[2]))
    first = random.integers(-4, 7, (BOXES, *SHAPES[1])).astype(float)
    if library is torch.as_tensor:
        # torch does not say which of several values for one position counts.
        distinct = np.stack([random.permutation(20)[:PLACES] for _ in range(BOXES)])
        first = np.stack([distinct // 5, distinct % 5], axis=2).astype(float)
    known = random.random((BOXES, PLACES, 1)) < share
    known[0] = True
    last = np.where(known, first, first + random.integers(0, 4, first.shape))
    ends = [data, data + random.random(data.shape), first, last, updates, updates + random.random(updates.shape)]
    pairs = [(library(a), library(b)) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    made = rule("ScatterND").interval(Node("s", "ScatterND", (0, 1, 2), SHAPES[0], {}, {"spare": True}, SHAPES), pairs)
    for end, expected in zip(made, in_turn(ends), strict=True):
        np.testing.assert_array_equal(to_numpy(end), expected)
    np.testing.assert_array_equal(to_numpy(pairs[0][0]), data)


def test_gradients_flow_to_data_and_updates():
    """Bounds are trained through: each lower bound is an entry of the data or of an update."""
    tensors = [torch.rand(BOXES, *shape, dtype=torch.float64) for shape in SHAPES]
    tensors[1] = torch.zeros(BOXES, *SHAPES[1], dtype=torch.float64)
    data, update = (tensor.requires_grad_() for tensor in tensors[::2])
    pairs = [(data, data), (tensors[1], tensors[1] + 2.0), (update, update)]
    low, _ = rule("ScatterND").interval(
        Node("s", "ScatterND", (0, 1, 2), SHAPES[0], {}, {"spare": True}, SHAPES), pairs
    )
    low.sum().backward()
    assert float(data.grad.sum() + update.grad.sum()) == pytest.approx(low.numel())
    assert float(update.grad.sum()) > 0
