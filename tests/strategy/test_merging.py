"""No verdict is about another network than the one stored: violated queries are never `unsat`.

Thresholds lie a hair on the violated side of the exact value at a point of the box, so that a parameter that is rounded
while loading shows. (What bounds in float32 give away is tested elsewhere: these run in float64.)
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify import Options, Verdict, load, verify

from tests.exact import run_file
from tests.merging import FAMILIES, NUMBERS, WIDTH, merged_model
from tests.queries import query_of

METHODS = ("input-split", "activation-split", "milp", "auto")
"""Of which each network is tried with one, besides bounds alone."""


def violated(content, seed, dtype, radius):
    """A query that a point violates over the reals: ``y >= t``, t the largest float64 number below the value there."""
    rng = np.random.default_rng(seed)
    point = rng.uniform(-1, 1, WIDTH).astype(dtype)
    value = run_file(content, point[None]).reshape(-1)[0]
    threshold = float(value)
    if threshold > value:
        threshold = math.nextafter(threshold, -math.inf)
    wide = point.astype(np.float64)
    box = Box(wide - radius, wide + radius)
    return query_of(WIDTH, 1, [(box, [[-1.0]], [-threshold])])


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_stored_numbers_violate_is_not_unsat(family, numbers):
    for seed, dtype in ((0, np.float32), (1, np.float64)):
        content = merged_model(family, numbers, seed, dtype)
        network = load(content, check=False)
        search = METHODS[(FAMILIES.index(family) + NUMBERS.index(numbers) + seed) % len(METHODS)]
        for radius in (0.0, 2.0**-6):
            query = violated(content, seed, dtype, radius)
            for method in ("bounds", search):
                result = verify(network, query, 0.2, Options(method=method, dtype="float64", attack=False))
                assert result.verdict is not Verdict.UNSAT, (seed, radius, method)
