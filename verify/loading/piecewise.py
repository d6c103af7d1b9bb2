"""Sums of ReLUs of one and the same number, as one function of it.

Networks that approximate a sine or a sigmoid by straight pieces (the linear variants of ML4ACOPF) copy every number 55
times, shift the copies, and add up their ReLUs with weights. Each ReLU relaxed for itself, the errors add up; as one
function of one variable the sum has an exact range and the best lines, with a fiftieth of the neurons (118 buses:
36,000 of 37,000).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from .precise import is_exact
from .rewrite import Rewriter, with_params
from .simplify_layers import scale_along

if TYPE_CHECKING:
    from ..graph import Graph, Node

LEAST_TERMS = 3
"""ReLUs that a sum must have: of fewer, splitting them is as good."""

MOST_TERMS = 1024
"""ReLUs that a sum may have: an entry's relaxation looks at all pieces."""


def fold_piecewise(graph: Graph) -> Graph:
    """The graph with weighted sums of ReLUs of one entry written as `Piecewise` nodes; parameters are numpy arrays.

    An identity in the reals: tables are computed in exact arithmetic, from exact parameters only, and rounded to
    float64 once, which the relaxation of a `Piecewise` allows for.
    """
    return Rewriter(graph, (_sum_of_relus,)).result()


def _sum_of_relus(work: Rewriter, node: Node) -> Node | None:
    """A dense layer of one output that reads ReLUs of shifted copies of an entry."""
    if node.op != "Linear" or node.params["weight"].shape[0] != 1:
        return None
    relu = work.producer(node, "Relu")
    scale = None if relu is None else work.producer(relu, "Scale")
    take = None if scale is None else work.producer(scale, "Take")
    if scale is None or take is None or not (is_exact(node) and is_exact(scale)):
        return None
    if not LEAST_TERMS <= take.shape[-1] <= MOST_TERMS:
        return None
    indices = take.params["indices"]
    along = scale_along(scale, len(scale.shape) - 1)
    if along is None or (indices != indices[..., :1]).any() or (indices < 0).any():
        return None
    weights = node.params["weight"][0].astype(np.float64)
    factors, shifts = (np.broadcast_to(x.high, weights.shape) for x in along)
    bias = float(node.params["bias"][0]) if "bias" in node.params else 0.0
    table = _table(weights, factors, shifts, bias)
    if table is None:
        return None
    once = with_params(take, take.inputs, {"indices": indices[..., :1]})
    source = work.append(replace(once, shape=(*take.shape[:-1], 1), input_shapes=()))
    names = ("knots", "values", "slopes")
    return replace(
        with_params(node, (source,), {}, **dict(zip(names, table, strict=True))), op="Piecewise", input_shapes=()
    )


def _table(
    weights: np.ndarray, factors: np.ndarray, shifts: np.ndarray, bias: float
) -> tuple[tuple[float, ...], ...] | None:
    """Knots, values and slopes of ``bias + sum_j weights_j relu(factors_j x + shifts_j)``; None for a sum without
    knots, or with terms that are not finite."""
    if not np.isfinite([*weights, *factors, *shifts, bias]).all():
        return None
    terms = [
        (Fraction(weight), Fraction(factor), Fraction(shift))
        for weight, factor, shift in zip(weights.tolist(), factors.tolist(), shifts.tolist(), strict=True)
    ]
    turns: dict[Fraction, Fraction] = {}
    for weight, factor, shift in terms:
        if factor:
            knot = -shift / factor
            turns[knot] = turns.get(knot, Fraction(0)) + weight * abs(factor)
    knots = sorted(turns)
    if not knots:
        return None
    slopes = [sum((weight * factor for weight, factor, _ in terms if factor < 0), Fraction(0))]
    for knot in knots:
        slopes.append(slopes[-1] + turns[knot])
    first = (weight * max(factor * knots[0] + shift, Fraction(0)) for weight, factor, shift in terms)
    values = [sum(first, Fraction(bias))]
    for slope, (left, right) in zip(slopes[1:], pairwise(knots), strict=False):
        values.append(values[-1] + slope * (right - left))
    return tuple(map(float, knots)), tuple(map(float, values)), tuple(map(float, slopes))
