"""Points of splits: inside their intervals whatever those are, and better than the middle where a table says so."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.bounding.plan import make_plan
from boundsmith.verify.graph import Graph
from boundsmith.verify.search import points
from boundsmith.verify.search.points import CURVED, PointTable, best_shares, point_table
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import dense, node

ENDS = st.one_of(
    st.floats(-20, 20), st.floats(width=32, allow_nan=False), st.sampled_from([-np.inf, np.inf, 0.0, 1e30, -1e-30])
)


def table_of(op):
    found = point_table(make_plan(dense((2, 3, 1), 0, op)), 1)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_strictly_inside_wherever_something_is_inside(dtype, data):
    op = data.draw(st.sampled_from(sorted(CURVED)))
    first, second = data.draw(ENDS), data.draw(ENDS)
    steps = data.draw(st.integers(0, 3))
    with np.errstate(all="ignore"):
        low = np.asarray([min(first, second)]).astype(dtype)
        high = np.asarray([max(first, second)]).astype(dtype)
        if steps:
            # Neighbouring numbers of the dtype.
            high = low
            for _ in range(steps):
                high = np.nextafter(high, dtype(np.inf))
        point = table_of(op).points(low, high)
        middle = 0.5 * low + 0.5 * high
    assert point.dtype == dtype
    if not low < point < high:
        # Only where there is nothing better: the ends are neighbours or the middle is none.
        assert not low < middle < high
        np.testing.assert_array_equal(point, middle)


@pytest.mark.parametrize("op", sorted(CURVED))
def test_no_more_area_than_the_middle_leaves(op):
    inner = node("f", op, (0,), (1,), **({"alpha": 1.0} if op == "Elu" else {}))
    rng = np.random.default_rng(0)
    low = rng.uniform(-6, 3, 400)
    high = low + rng.uniform(0.5, 7, 400)
    chosen = PointTable(best_shares([inner]), op in points.PERIODIC).points(low, high)

    def area(point):
        return points._area(inner, low, point) + points._area(inner, point, high)

    at_chosen, at_middle = area(chosen), area(0.5 * (low + high))
    assert at_chosen.sum() <= 1.005 * at_middle.sum()
    assert np.quantile(at_chosen / (at_middle + 1e-9), 0.9) <= 1.02


def test_s_shaped_functions_are_split_off_centre():
    """The steep part of a sigmoid is where the lines are far apart."""
    table = table_of("Sigmoid")
    low, high = np.array([-6.0, -4.0, -1.0]), np.array([1.0, 4.0, 6.0])
    point = table.points(low, high)
    assert -3 < point[0] < -1
    assert point[1] == pytest.approx(0, abs=0.2)
    assert point[2] == pytest.approx(-point[0], abs=0.2)


def test_sine_repeats():
    table = table_of("Sin")
    low, high = np.array([-1.0]), np.array([2.5])
    for turns in (-7, 1, 100):
        moved = table.points(low + 2 * np.pi * turns, high + 2 * np.pi * turns)
        np.testing.assert_allclose(moved - 2 * np.pi * turns, table.points(low, high), atol=1e-9)


def test_readers_of_one_entry_share_a_point():
    nodes = (
        node("x", "Input", (), (2,)),
        node("s", "Sigmoid", (0,), (2,)),
        node("t", "Reshape", (0,), (2,)),
        node("e", "Exp", (2,), (2,)),
        node("m", "Mul", (1, 3), (2,)),
    )
    plan = make_plan(Graph(nodes, (0,), (4,)))
    both, low, high = point_table(plan, 0), np.array([-5.0]), np.array([5.0])
    assert both is not None
    apart = [PointTable(best_shares([nodes[k]]), False).points(low, high) for k in (1, 3)]
    assert min(apart) <= both.points(low, high) <= max(apart)
    # Products alone have none.
    assert point_table(plan, 1) is None


def test_a_second_table_comes_from_the_cache(monkeypatch):
    first = table_of("Tanh")

    def never(nodes):
        raise AssertionError("built again")

    monkeypatch.setattr(points, "best_shares", never)
    np.testing.assert_array_equal(table_of("Tanh").shares, first.shares)


def test_versions_tell_functions_apart():
    exact = node("f", "Gelu", (0,), (1,), approximate="none")
    bent = node("f", "Gelu", (0,), (1,), approximate="tanh")
    assert len({points._version([exact]), points._version([bent]), points._version([exact, bent])}) == 3
