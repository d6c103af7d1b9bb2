"""A fault anywhere in a search by activation splits never closes a violated property, whatever becomes of it."""

from __future__ import annotations

import numpy as np
import pytest
from boundsmith.verify.arrays import Backend
from boundsmith.verify.bounding import alpha, parameters
from boundsmith.verify.budget import Deadline
from boundsmith.verify.programs import leaf
from boundsmith.verify.search import (
    activation_root,
    activation_search,
    activation_split,
    branching,
    doubled,
    layout,
    leaves,
    pieces,
    tightening,
)

from tests.faults import FAULTS, Faulty, method_of
from tests.networks import samples
from tests.programs.piecewise import outputs, tiny
from tests.search.activation_cases import problem_of, search_of

PLACES = {
    "bounds of the root": (activation_root, "relax"),
    "rows of the root": (activation_root, "row_bounds"),
    "ascent of the root": (activation_root, "_ascend"),
    "intermediate bounds": (activation_root, "tighten"),
    "pieces": (activation_root, "with_exact_pieces"),
    "bounds of the pieces": (pieces, "relax"),
    "layout": (activation_root, "make_layout"),
    "children": (activation_split, "split"),
    "bounds of a domain": (layout.Layout, "bounds"),
    "parameters of a domain": (layout.Layout, "parameters"),
    "families": (parameters.Base, "families"),
    "evaluate": (alpha.Ascent, "evaluate"),
    "gradients": (alpha.Ascent, "gradients"),
    "improve": (alpha.Ascent, "improve"),
    "scores": (activation_split, "scores"),
    "trial": (branching, "trial_bounds"),
    "tightening": (tightening, "_entry_bounds"),
    "step": (activation_split, "_step"),
    "programme": (leaf, "encode"),
    "solver": (leaf, "solve_linear"),
    "certified": (leaf, "certified_bound"),
    "closed ends": (leaves, "closed_ends"),
    "double": (activation_search, "in_double"),
    "bounds in double": (doubled, "relax"),
}

KINDS = ("Relu", "Max", "Sign")

ONLY = {"bounds of the pieces": "Max", "pieces": "Max", "closed ends": "Sign"}
"""Places that matter to one kind of network; the others take turns."""


def violated(op, seed=3):
    """A problem that some of the samples violate."""
    graph = tiny(op, seed, width=2).map_params(lambda x: x.astype(np.float32).astype(np.float64))
    points = samples(-np.ones((1, 2)), np.ones((1, 2)), 500, seed)[:, 0]
    matrix = np.random.default_rng(seed).normal(size=(2, 2))
    level = np.quantile((outputs(graph, points) @ matrix.T).max(axis=1), 0.02)
    return problem_of(graph, (-np.ones(2), np.ones(2), [(matrix, np.full(2, level))]))


def run(problem):
    """A search in which no witness is ever confirmed, as far as it goes."""
    search = search_of(problem, backend=Backend("float32"))
    for _ in range(3):
        report = search.run(Deadline.after(20.0), lambda *_: None)
        if report.exhausted:
            search.abandon()
        if search.finished:
            break
    return search


@pytest.mark.parametrize("op", KINDS)
def test_the_whole_search_is_walked(monkeypatch, op):
    """Every place is met, so that the faults below are."""
    met = set()

    def noting(place, genuine):
        def noted(*args, **kwargs):
            met.add(place)
            return genuine(*args, **kwargs)

        return noted

    for place, (module, name) in PLACES.items():
        monkeypatch.setattr(module, name, noting(place, getattr(module, name)))
    search = run(violated(op))
    assert search.finished
    assert search.lost
    assert set(PLACES) - met <= {place for place, kind in ONLY.items() if kind != op}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_never_closes_a_violated_property(monkeypatch, place, fault):
    """Whenever it comes and however long it lasts."""
    problem = violated(ONLY.get(place, KINDS[list(PLACES).index(place) % len(KINDS)]))
    module, name = PLACES[place]
    for first, count in ((0, None), (1, 1), (3, None)):
        with monkeypatch.context() as patch:
            faulty = Faulty(getattr(module, name), FAULTS[fault], first=first, count=count)
            patch.setattr(module, name, method_of(module, name, faulty))
            try:
                search = run(problem)
            except (MemoryError, RuntimeError, ValueError):
                continue
        assert not search.closed
