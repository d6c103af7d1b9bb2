"""A linear programme's dual solution as a bound that trusts nobody: one backward pass over the graph in float64.

Every multiplier is only a hint: a row of the clause or a facet may be used with any weight >= 0, and a link ``z =
(earlier columns)`` with any weight at all; what the weights leave over of a coefficient is bounded by the column's own
bounds (Neumaier & Shcherbina 2004, "Safe bounds in linear and mixed-integer linear programming"). The pass reads the
graph, not the programme, so that neither the solver nor the encoding can make it wrong. Weights on phases need no
place of their own: a phase is a bound of z, and what is left over at z is its beta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ops import rule
from ..ops.arrays import product
from .wiring import is_variable, step_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..graph import Graph, Node
    from .encoding import Model
    from .facets import Facet
    from .highs import Solution
    from .roles import Bounds, Role

ALLOWANCE = 2e-13
"""Rounding errors given away, relative to the sum of all terms' magnitudes: about a thousand unit roundoffs."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Multipliers of one backward pass.

    clause         ``[S]``, >= 0, of the clause's rows (sum 1 for a bound of their maximum, all 0 to show emptiness).
    links          by nonlinear node, ``[K, E]``: the coefficient of its inputs z that goes on backwards.
    lower, upper   by nonlinear node: its facets, each with weights ``[E]`` >= 0.
    """

    clause: np.ndarray
    links: Mapping[int, np.ndarray]
    lower: Mapping[int, Sequence[tuple[Facet, np.ndarray]]]
    upper: Mapping[int, Sequence[tuple[Facet, np.ndarray]]]


def weights_of(model: Model, solution: Solution, *, emptiness: bool = False) -> Weights:
    """The weights in a linear programme's row duals; `emptiness`: of its elastic form, without the clause."""
    duals = solution.row_duals
    assert duals is not None
    clause = np.maximum(duals[model.clause], 0.0)
    if emptiness or clause.sum() <= 0.0:
        clause = np.zeros_like(clause)
    else:
        clause = clause / clause.sum()
    nodes = model.nodes.items()
    return Weights(
        clause,
        {index: np.where(node.links >= 0, duals[node.links], 0.0) for index, node in nodes},
        {index: [(f, np.where(row >= 0, duals[row], 0.0).clip(0)) for f, row in node.lower] for index, node in nodes},
        {index: [(f, np.where(row >= 0, -duals[row], 0.0).clip(0)) for f, row in node.upper] for index, node in nodes},
    )


def certified_bound(
    graph: Graph,
    lower: np.ndarray,
    upper: np.ndarray,
    bounds: Sequence[Bounds],
    roles: Mapping[int, Role],
    rows: np.ndarray,
    offsets: np.ndarray,
    weights: Weights,
) -> float:
    """A lower bound of ``<weights.clause, rows y - offsets>`` on the box where all `bounds` hold.

    rows ``[S, m]``, offsets ``[S]``; bounds, roles as `encoding.roles_of` gives them. With all clause weights 0 the
    value bounded is 0, so a positive answer shows that no point of the box satisfies the bounds. ``-inf`` where the
    hints are unusable (not finite).
    """
    total = _Sum()
    total.add(-weights.clause * offsets)
    pending = {graph.outputs[0]: (weights.clause @ rows)[None]}
    for position in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[position]
        if position in roles:
            a = pending.pop(position, np.zeros((1, node.size)))[0]
            for source, piece in zip(node.inputs, _through(roles[position], a, weights, total), strict=True):
                pending[source] = pending[source] + piece[None] if source in pending else piece[None]
        elif not is_variable(node) and position in pending:
            a = pending.pop(position)
            _give_away(node, a[0], bounds, total)
            total.value += float(step_back(node, a, pending)[0])
    a = pending.get(graph.inputs[0], np.zeros((1, len(lower))))[0]
    total.least(a, lower, upper)
    return total.lower()


class _Sum:
    """A running sum of terms, of their magnitudes, and of what errors of parameters may add to them."""

    def __init__(self) -> None:
        self.value = 0.0
        self.magnitude = 0.0
        self.error = 0.0

    def add(self, terms: np.ndarray) -> None:
        self.value += float(terms.sum())
        self.magnitude += float(abs(terms).sum())

    def least(self, a: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Add the least value of ``a x`` for ``low <= x <= high``."""
        self.add(np.minimum(product(a, low), product(a, high)))

    def lower(self) -> float:
        """The sum, less what rounding and errors of parameters may have added to it."""
        bound = self.value - ALLOWANCE * (self.magnitude + self.error) - self.error
        return bound if np.isfinite(bound) else -np.inf


def _give_away(node: Node, a: np.ndarray, bounds: Sequence[Bounds], total: _Sum) -> None:
    """Count how large the terms of ``<a, M x + b>`` are in all, to which their rounding is relative, and what errors of
    M and b that merging has left may add."""
    linear = rule(node.op).linear
    assert linear is not None
    largest = [
        _largest(*bounds[source]).reshape(1, *shape)
        for source, shape in zip(node.inputs, node.input_shapes, strict=True)
    ]
    reach = np.zeros(node.size) if not node.inputs else linear.magnitude(node, largest).reshape(-1)
    bias = linear.bias(node)
    if bias is not None:
        reach = reach + abs(np.broadcast_to(bias, node.shape)).reshape(-1)
    total.magnitude += float(product(abs(a), reach).sum())
    error = linear.parameter_error(node, largest)
    if error is not None:
        total.error += float(product(abs(a), error.reshape(-1)).sum())


def _through(role: Role, a: np.ndarray, weights: Weights, total: _Sum) -> np.ndarray:
    """Coefficients ``[E]`` on a nonlinear node's outputs to coefficients ``[K, E]`` on its inputs."""
    slopes = a * role.slopes
    total.add(a * role.shift)
    left = np.where(role.undecided, a, 0.0)
    size = abs(left)
    for sign, facets in ((1.0, weights.lower[role.index]), (-1.0, weights.upper[role.index])):
        for facet, weight in facets:
            total.add(sign * weight * facet.intercept)
            slopes = slopes + sign * weight * facet.slopes
            left = left - sign * weight
            size = size + weight
    total.least(np.where(role.undecided, left, 0.0), role.least, role.most)
    total.magnitude += float(product(size, _largest(role.least, role.most)).sum())
    links = np.where(role.used, weights.links[role.index], 0.0)
    total.least(np.where(role.used, slopes - links, 0.0), role.low, role.high)
    size = np.where(role.used, abs(slopes) + abs(links), 0.0)
    total.magnitude += float(product(size, _largest(role.low, role.high)).sum())
    return links


def _largest(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(abs(low), abs(high))
