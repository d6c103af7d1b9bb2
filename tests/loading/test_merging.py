"""Merging parameters says nothing else about the stored numbers: loaded graphs against their files, exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from boundsmith.verify.loading import load

from tests.exact import run_file, run_graph
from tests.merging import FAMILIES, NUMBERS, WIDTH, merged_model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_graph_is_its_file_but_for_the_errors_it_carries(family, numbers, dtype):
    for seed in range(4):
        content = merged_model(family, numbers, seed, dtype)
        graph = load(content, check=False).graph
        point = np.random.default_rng(seed).uniform(-1, 1, (1, WIDTH)).astype(dtype)
        value, error = run_graph(graph, point)
        exact = run_file(content, point)
        assert value.size == exact.size == 1
        gap = abs(value.reshape(-1)[0] - exact.reshape(-1)[0])
        assert gap <= error.reshape(-1)[0] + Fraction(1, 10**60)
