"""Queries about whole numbers: decided like by looking at every combination, but not at as many."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from boundsmith.specs.property import Box
from boundsmith.verify.arrays import Backend
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.loading.evaluate import output_vector
from boundsmith.verify.log import Log
from boundsmith.verify.options import Options
from boundsmith.verify.problem import join
from boundsmith.verify.setting import Job, Setting
from boundsmith.verify.whole import search_on_stairs
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.networks import node
from tests.queries import query_of

WIDTH = 12


@dataclass
class Believing:
    """A replay that takes every candidate for a witness, and remembers them."""

    believes: bool = True

    def check(self, points, groups):
        return (points[0], int(groups[0])) if self.believes and len(points) else None


def floored(seed, last=()):
    """A random network of the floors of two inputs and of the third input itself, then the nodes `last`."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(8, 3)) * [0.4, 0.4, 1.0]
    nodes = (
        node("x", "Input", (), (3,)),
        node("both", "Take", (0,), (2,), {"indices": np.array([0, 1])}, fill=0.0),
        node("rest", "Take", (0,), (1,), {"indices": np.array([2])}, fill=0.0),
        node("whole", "Floor", (1,), (2,)),
        node("all", "Concat", (3, 2), (3,), axis=0),
        node("z", "Linear", (4,), (8,), {"weight": weight, "bias": random.normal(size=8)}),
        node("h", "Relu", (5,), (8,)),
        node("y", "Linear", (6,), (2,), {"weight": random.normal(size=(2, 8))}),
        *last,
    )
    return Graph(nodes, (0,), (len(nodes) - 1,))


def decided(graph, clauses, believes=True, dtype="float32", deadline=NEVER, threads=1):
    """What the search answers, and its log."""
    problem = join(query_of(3, graph.nodes[graph.outputs[0]].size, clauses), {"N": graph})
    log = Log()
    options = Options(threads=threads)
    job = Job(problem, Setting.of(problem, Backend(dtype)), Believing(believes), options, deadline, log)
    return *search_on_stairs(job), log


def cells(third):
    """All points of the grid with this third input."""
    return np.array([[a, b, third] for a, b in itertools.product(range(WIDTH + 1), repeat=2)], dtype=float)


def box_with(third):
    return Box(np.array([0.0, 0.0, third]), np.array([WIDTH, WIDTH, third], dtype=float))


@pytest.mark.parametrize("threads", [1, 2])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), gap=st.sampled_from([-1e-6, -0.1, 1e-6, 0.1]))
def test_the_least_cell_decides(threads, seed, gap):
    """Two boxes with two clauses each, of which one row each counts; the least value over all cells, and a gap."""
    graph = floored(seed)
    thirds, rows = (0.25, -0.5), np.array([[1.0, -0.5], [0.3, 1.0]])
    values = np.stack([output_vector(graph, cells(third)) @ rows.T for third in thirds])
    offsets = values.min(axis=1) - 1.0
    offsets[1, 0] += 1.0 + gap
    boxes = [box_with(third) for third in thirds]
    clauses = [
        (boxes[g], rows[[k, k]], [offsets[g, k], offsets[g, k] + 5.0]) for g, k in itertools.product((0, 1), repeat=2)
    ]
    closed, witness, log = decided(graph, clauses, threads=threads)
    assert closed is (gap < 0)
    assert (witness is None) is (gap < 0)
    if witness is not None:
        point, group = witness
        assert group == 1
        assert rows[0] @ output_vector(graph, point[None])[0] <= offsets[1, 0] + 1e-9
    if gap < 0:
        assert decided(graph, clauses, dtype="float64")[0]
    assert log.counters["domains"] <= 2 * 2 * (WIDTH + 1) ** 2


def test_blocks_fall_at_once():
    """``floor(x0) + floor(x1) <= -1`` is refuted on the whole grid by one box; a little above 0, near the corner."""
    nodes = (
        node("x", "Input", (), (3,)),
        node("both", "Take", (0,), (2,), {"indices": np.array([0, 1])}, fill=0.0),
        node("whole", "Floor", (1,), (2,)),
        node("y", "Linear", (2,), (1,), {"weight": np.ones((1, 2))}),
    )
    graph = Graph(nodes, (0,), (3,))
    closed, _, log = decided(graph, [(box_with(0.0), [[1.0]], [-1.0])])
    assert closed
    assert log.counters["domains"] == 1
    closed, _, log = decided(graph, [(box_with(0.0), [[1.0]], [0.5])], believes=False)
    assert not closed
    assert log.counters["domains"] < 40


@pytest.mark.parametrize(("pole", "closed"), [(5.0, False), (5.5, True)])
def test_a_cell_where_an_operator_has_no_value_stays_open(pole, closed):
    """A quotient by ``floor(x0) - pole``; the other cells are refuted all the same."""
    nodes = (
        node("x", "Input", (), (3,)),
        node("both", "Take", (0,), (2,), {"indices": np.array([0, 1])}, fill=0.0),
        node("whole", "Floor", (1,), (2,)),
        node("first", "Take", (2,), (1,), {"indices": np.array([0])}, fill=0.0),
        node("second", "Take", (2,), (1,), {"indices": np.array([1])}, fill=0.0),
        node("below", "Scale", (3,), (1,), {"shift": np.array([-pole])}),
        node("y", "Div", (4, 5), (1,)),
    )
    clauses = [(box_with(0.0), [[1.0]], [-100.0])]
    found, witness, log = decided(Graph(nodes, (0,), (6,)), clauses)
    assert found is closed
    assert witness is None
    assert log.counters["domains"] > 1


def test_a_passed_deadline_closes_nothing():
    graph = floored(0)
    assert decided(graph, [(box_with(0.0), [[1.0, 0.0]], [-1e6])], deadline=Deadline.after(-1))[:2] == (False, None)


def test_inputs_read_otherwise_are_left_to_other_searches():
    box = Box(np.zeros(3), np.array([3.0, 3.0, 0.5]))
    closed, witness, log = decided(floored(0), [(box, [[1.0, 0.0]], [-1e6])])
    assert not closed
    assert witness is None
    assert not log.phases
