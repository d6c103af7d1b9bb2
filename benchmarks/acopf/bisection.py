"""The smallest bound on the violation that verifies, by bisection."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from boundsmith.specs import Box, Clause, NetworkDeclaration, Property, TensorDeclaration
from boundsmith.verify import Options, Verdict, bounds, verify

if TYPE_CHECKING:
    from boundsmith.verify import Network
    from torch import nn


ROUNDING = 1e-5
"""What float32 may add to an imbalance: a few roundings of products with admittances of up to forty."""


@dataclass(frozen=True)
class Found:
    """What a bisection ended with.

    crown      the bound that CROWN proves alone;  proved  the smallest bound that was verified (`crown` if none).
    violation  the largest imbalance at any point met, by sampling, by gradients or as a witness.
    seconds, domains  of the query that proved it; queries: how many were asked; total: seconds of all of them.
    """

    crown: float
    proved: float
    violation: float
    seconds: float
    domains: int
    queries: int
    total: float


def at_most(bound: float, rows: int, outputs: int, middle: np.ndarray, reach: np.ndarray) -> Property:
    """The property that the first `rows` of all outputs stay below `bound` in magnitude on a box; reaching it is a
    violation."""
    box = Box(middle - reach, middle + reach)
    units = np.eye(outputs)[:rows]
    clauses = [
        Clause(box, -sign * units[row : row + 1], np.array([-bound]), np.array([False]))
        for row in range(rows)
        for sign in (1.0, -1.0)
    ]
    size = len(middle)
    return Property(
        clauses=tuple(clauses),
        input_count=size,
        output_count=outputs,
        input_map=np.arange(size),
        networks=(NetworkDeclaration("N"),),
        inputs=(TensorDeclaration("X", "N", "real", (1, size), size),),
        outputs=(TensorDeclaration("Y", "N", "real", (1, outputs), outputs),),
        version="2.0",
        source=f"violation of at most {bound:.6g}",
    )


def largest_violation(
    network: nn.Module, rows: int, middle: np.ndarray, reach: np.ndarray, *, points: int = 20000, steps: int = 50
) -> float:
    """The largest magnitude of the first `rows` outputs at random points of a box, and after signed gradient steps of
    each output, up and down, from the points where it was largest; in float64."""
    network = copy.deepcopy(network).double()
    random = torch.Generator().manual_seed(1)
    centre, radius = torch.from_numpy(middle), torch.from_numpy(reach)
    with torch.no_grad():
        cube = 2 * torch.rand(points, len(middle), generator=random, dtype=torch.float64) - 1
        values = network(centre + radius * cube)[:, :rows]
    best = float(values.abs().max())
    signed = torch.cat([values, -values], dim=1)
    signs = torch.cat([torch.eye(rows), -torch.eye(rows)]).double()
    count = min(8, points)
    own = signed.topk(count, dim=0).indices.T.reshape(-1)
    x, wanted = cube[own], signs.repeat_interleave(count, dim=0)
    for step in range(steps):
        x.requires_grad_(True)
        values = network(centre + radius * x)[:, :rows]
        (gradient,) = torch.autograd.grad((values * wanted).sum(), x)
        best = max(best, float(values.detach().abs().max()))
        x = (x.detach() + 0.2 * (1 - step / steps) * gradient.sign()).clip(-1, 1)
    return best


def smallest_bound(
    network: Network,
    rows: int,
    middle: np.ndarray,
    reach: np.ndarray,
    violation: float,
    *,
    timeout: float = 20.0,
    gap: float = 0.01,
    dtype: str = "float64",
) -> Found:
    """Halve the interval between the largest violation known and the smallest bound proved, until the bound is within
    a share `gap` of what is left open.

    violation  the largest one found so far;  timeout  seconds a query, after which a bound counts as not provable.
    dtype  the arithmetic of the searches.

    Raises RuntimeError if a violation is met that exceeds a bound proved, which means that one of the two is wrong.
    """
    options = Options(threads=1, dtype=dtype)
    outputs = network.graph.nodes[network.graph.outputs[0]].size
    began = time.monotonic()
    lower, upper = bounds(network, middle.astype(np.float32)[None], reach.astype(np.float32)[None])
    crown = proved = float(np.maximum(upper, -lower)[0, :rows].max())
    seconds, domains, queries = time.monotonic() - began, 1, 0
    open_below = violation
    while proved > (1 + gap) * open_below:
        bound = 0.5 * (open_below + proved)
        asked = time.monotonic()
        result = verify(network, at_most(bound, rows, outputs, middle, reach), timeout, options)
        queries += 1
        if result.verdict is Verdict.UNSAT:
            proved, seconds = bound, time.monotonic() - asked
            domains = sum(phase.domains for phase in result.phases)
            continue
        open_below = bound
        if result.witness is not None:
            (_, values), *_ = result.witness.outputs
            violation = max(violation, float(np.abs(values.reshape(-1)[:rows]).max()))
            open_below = max(bound, violation)
    if violation > proved + ROUNDING:
        raise RuntimeError(f"a violation of {violation} was found where {proved} was proved to be the most")
    return Found(crown, proved, violation, seconds, domains, queries, time.monotonic() - began)
