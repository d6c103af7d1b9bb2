"""The look at boxes in rational arithmetic ends: with its budget, and at the deadline."""

from __future__ import annotations

import numpy as np
from boundsmith.verify.budget import NEVER, Deadline
from boundsmith.verify.graph import Graph
from boundsmith.verify.problem import Group
from boundsmith.verify.search.exact import NODE_COSTS, PRODUCTS_IN_ALL, Ties

from tests.networks import node

COUNT = 30_000


def settled(deadline: Deadline) -> np.ndarray:
    """Many boxes, each a point where ``y = x > 0`` refutes ``y <= 0``."""
    weight = {"weight": np.ones((1, 1))}
    graph = Graph((node("x", "Input", (), (1,)), node("y", "Linear", (0,), (1,), weight)), (0,), (1,))
    group = Group(
        np.ones(1), np.ones(1), np.ones((1, 1)), np.zeros(1), np.zeros(1, dtype=bool), np.zeros(1, dtype=int), 1
    )
    points = np.ones((COUNT, 1))
    every = np.ones(COUNT, dtype=bool)
    return Ties(graph, [group]).settled(points, points, np.zeros(COUNT, dtype=int), every[:, None], every, deadline)


def test_a_tiny_network_has_its_price_too() -> None:
    """(A node's own costs are what counts in tiny networks: half a million boxes took a minute.)"""
    assert 0 < settled(NEVER).sum() <= PRODUCTS_IN_ALL / NODE_COSTS < COUNT


def test_nothing_is_looked_at_after_the_deadline() -> None:
    assert not settled(Deadline.after(0.0)).any()
