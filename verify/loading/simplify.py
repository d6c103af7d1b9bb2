"""Rewriting a freshly imported graph into fewer, larger nodes with the same meaning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from . import simplify_lattice, simplify_layers, simplify_moves
from .precise import settled
from .rewrite import Rewriter

if TYPE_CHECKING:
    from ..graph import Graph


def simplify(graph: Graph, fold_parameters: bool = True) -> Graph:
    """An equivalent graph with the same inputs and outputs.

    Batch normalisation, biases and scalings go into the layers beside them, adjacent dense layers and sums merge,
    values that are only moved are moved once, minima and maxima spelt as dense layers become such, and what no output
    depends on is dropped. `fold_parameters` false leaves every parameter array as it is (they may be live and
    trained) and only removes and joins nodes that move or add values.
    """
    if not fold_parameters:
        return _settled(Rewriter(graph, simplify_moves.RULES).result())
    with np.errstate(all="ignore"):
        recognised = Rewriter(graph, simplify_lattice.RULES).result()
        return _settled(Rewriter(recognised, (*simplify_moves.RULES, *simplify_layers.RULES)).result())


def _settled(graph: Graph) -> Graph:
    return replace(graph, nodes=tuple(settled(node) for node in graph.nodes))
