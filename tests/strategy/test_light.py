"""Searches do with light bounds only where many boxes are asked about."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify import turns
from boundsmith.verify.api import verify
from boundsmith.verify.loading.network import load
from boundsmith.verify.options import Options

from tests.onnx_files import random_layers, save_dense
from tests.queries import query_of


@pytest.mark.parametrize(("count", "light"), [(1, False), (turns.LIGHT_FROM, True)])
def test_one_box_is_bounded_well_and_many_lightly(tmp_path, monkeypatch, count, light):
    seen = []
    search = turns.search

    def watched(plan, rows, pool, options, *given, **settings):
        seen.append(options.light)
        return search(plan, rows, pool, options, *given, **settings)

    monkeypatch.setattr(turns, "search", watched)
    boxes = [Box(np.array([-1.0, place]), np.array([1.0, place + 1.0])) for place in range(count)]
    query = query_of(2, 1, [(box, np.ones((1, 1)), [-1e3]) for box in boxes])
    network = load(save_dense(tmp_path / "net.onnx", random_layers((2, 8, 1), 0)))
    verify(network, query, 10.0, Options(method="input-split", attack=False))
    assert seen
    assert set(seen) == {light}
