"""Deciding one domain of a search over activation phases by a linear programme.

With every undecided entry's phase fixed the programme is the network itself, so its optimum is the domain's; otherwise
it is the triangle relaxation under the phases. The solver proposes multipliers, our own backward pass decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .certified import Weights, certified_bound, weights_of
from .encoding import Model, encode
from .highs import Solution, solve_linear
from .roles import EmptyDomain, NotEncodable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..budget import Deadline
    from ..graph import Graph
    from .roles import Bounds
    from .wiring import Wiring


@dataclass(frozen=True, eq=False)
class Leaf:
    """The answer about one domain and one clause.

    status    closed: `bound` > 0 is proved, no point of the domain is unsafe (``inf``: the domain is empty);
              point: the programme's optimum is not positive, `point` is a candidate to replay;
              open: nothing is decided (time, a failure, or a bound lost within tolerances; see `reason`).
    bound     a proved lower bound of ``max_s(rows_s y - offsets_s)`` on the domain, ``-inf`` if there is none.
    point     the programme's optimal inputs ``[n]``, inside the box, or None.
    weights   the multipliers that prove `bound`, or None.
    """

    status: str
    bound: float = -np.inf
    point: np.ndarray | None = None
    weights: Weights | None = None
    reason: str = ""


def leaf_bound(
    graph: Graph,
    lower: np.ndarray,
    upper: np.ndarray,
    intervals: Sequence[Bounds],
    rows: np.ndarray,
    offsets: np.ndarray,
    phases: Mapping[int, np.ndarray],
    deadline: Deadline,
    *,
    wiring: Wiring | None = None,
) -> Leaf:
    """Decide the part of a box where the phases hold, for one clause.

    graph           one flat input and output node, float64 parameters.
    lower, upper    the box, float64 ``[n]``;  intervals  bounds of every node on the domain, float64 ``[E]`` each.
    rows, offsets   the clause, ``[S, m]`` and ``[S]`` (unsafe iff all ``rows y <= offsets``).
    phases          by nonlinear node: ``[E]`` of -1, 0, +1: its pre-activation is <= 0, free, >= 0; `roles.HELD`:
                    within bounds that the domain demands.
    wiring          `wiring.wire` of a domain that contains this one; saves forming its rows again.
    """
    try:
        model = encode(graph, lower, upper, intervals, rows, offsets, relaxed=True, phases=phases, wiring=wiring)
    except EmptyDomain:
        return Leaf("closed", np.inf)
    except NotEncodable as error:
        return Leaf("open", reason=str(error))
    solution = solve_linear(model.program, deadline)
    if solution.status == "infeasible":
        return _empty(graph, model, lower, upper, rows, offsets, deadline)
    if solution.status != "optimal" or solution.row_duals is None or solution.values is None:
        return Leaf("open", reason=solution.message)
    weights, bound = _certify(graph, model, lower, upper, rows, offsets, solution, emptiness=False)
    point = np.clip(solution.values[: model.inputs], lower, upper)
    if bound > 0.0:
        return Leaf("closed", bound, point, weights)
    if solution.objective <= 0.0:
        return Leaf("point", bound, point, weights)
    return Leaf("open", bound, point, weights, "the optimum is positive only within rounding")


def _empty(
    graph: Graph,
    model: Model,
    lower: np.ndarray,
    upper: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
    deadline: Deadline,
) -> Leaf:
    """Prove that a domain whose programme is infeasible is empty, by the multipliers of its elastic form."""
    links = np.concatenate([node.links[node.links >= 0] for node in model.nodes.values()])
    solution = solve_linear(model.program.elastic(links), deadline)
    if solution.status != "optimal" or solution.row_duals is None:
        return Leaf("open", reason=f"infeasible, but not proved so: {solution.message}")
    weights, excess = _certify(graph, model, lower, upper, rows, offsets, solution, emptiness=True)
    if excess > 0.0:
        return Leaf("closed", np.inf, None, weights)
    return Leaf("open", reason="infeasible only within tolerances")


def _certify(
    graph: Graph,
    model: Model,
    lower: np.ndarray,
    upper: np.ndarray,
    rows: np.ndarray,
    offsets: np.ndarray,
    solution: Solution,
    *,
    emptiness: bool,
) -> tuple[Weights, float]:
    weights = weights_of(model, solution, emptiness=emptiness)
    return weights, certified_bound(graph, lower, upper, model.bounds, model.roles, rows, offsets, weights)
