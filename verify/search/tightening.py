"""Tighter bounds of a domain's undecided entries, from its splits and from what it would take to be unsafe.

A domain matters only where all its split constraints hold and its clause's rows are <= 0. Both enter the bound of an
entry with multipliers >= 0, like any other parameter (Kotha et al. 2023, "Provably Bounding Neural Network
Preimages", for the output constraint). Layers are tightened in order, each one with the bounds below it renewed. What
counts is how many entries become decided: each saves a split, and where bounds cross, the domain is empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace
from ..bounding.alpha import Ascent, Mixture, Objective, gain_to_zero
from ..bounding.intermediate import entry_rows
from .layout import Columns, Layout, undecided

if TYPE_CHECKING:
    from ..budget import Deadline
    from ..graph import Array
    from .branches import Branches

ITERATIONS = 4
"""Gradient steps for each entry's bounds (on MNIST 256x6, 20 decide hardly more entries than 4)."""

CURVED_AT_MOST = 100
"""Slots without kinks that are tightened in a domain. They are never decided, so all of them would be due each time."""


@np.errstate(all="ignore")
def tighten(
    layout: Layout, domains: Branches, mixture: Mixture, rows: int, deadline: Deadline, score: Array | None = None
) -> tuple[Branches, Array, float]:
    """Domains with tighter bounds of undecided slots, a mask ``[N]`` of those found empty (no input is both in the
    domain and unsafe), and the seconds spent in bounds. At most `rows` rows are bounded at once. Given a score ``[N,
    slots]``, of the slots without kinks only the `CURVED_AT_MOST` with the highest scores are tightened. Raises
    `TimeUp`."""
    xp = array_namespace(domains.low)
    worth = None if score is None else _worth(layout, score)
    empty = xp.any(domains.low > domains.high, axis=1)
    seconds = 0.0
    for block in layout.slots:
        here = slice(block.start, block.stop)
        low, high = domains.low[:, here] + 0, domains.high[:, here] + 0
        wanted = undecided(low, high, block.kinks, block.opened)
        box, column = xp.nonzero(wanted if worth is None else wanted & worth[:, here])
        step = max(1, rows // 2)
        for start in range(0, box.shape[0], step):
            b, c = box[start : start + step], column[start : start + step]
            ascent = _entry_bounds(layout, domains, mixture, block, (b, c), deadline)
            seconds += ascent.seconds
            below, above = ascent.best[: b.shape[0]], -ascent.best[b.shape[0] :]
            low[b, c] = xp.maximum(low[b, c], below)
            high[b, c] = xp.minimum(high[b, c], above)
        empty = empty | xp.any(low > high, axis=1)
        new_low, new_high = domains.low + 0, domains.high + 0
        new_low[:, here], new_high[:, here] = xp.minimum(low, high), xp.maximum(low, high)
        domains = replace(domains, low=new_low, high=new_high)
    return domains, empty, seconds


def _worth(layout: Layout, score: Array) -> Array | None:
    """Which slots deserve tighter bounds ``[N, slots]``; None for all."""
    xp = array_namespace(score)
    curved = [xp.zeros_like(score[:, :0])]
    for block in layout.slots:
        own = score[:, block.start : block.stop]
        curved.append(own if block.kinks is None and not block.box else xp.full_like(own, -1.0))
    ranked = xp.concat(curved, axis=1)
    if ranked.shape[1] <= CURVED_AT_MOST:
        return None
    least = xp.sort(ranked, axis=1)[:, -CURVED_AT_MOST]
    return (ranked < 0) | (ranked >= least[:, None])


def _entry_bounds(
    layout: Layout,
    domains: Branches,
    mixture: Mixture,
    block: Columns,
    pairs: tuple[Array, Array],
    deadline: Deadline,
) -> Ascent:
    """The optimised bounds of (domain, column) pairs of one block: ``2 P`` rows, first all lower bounds, then all
    (negated) upper ones."""
    xp = array_namespace(domains.low)
    plan = layout.base.plan
    box, column = pairs
    both = xp.concat([box, box])
    node, seeds, constants = entry_rows(plan, domains.low, block.node, block.entries[column])
    width = domains.high[box, block.start + column] - domains.low[box, block.start + column]
    objective = Objective(
        node, xp.concat([seeds, -seeds]), xp.concat([constants, -constants]), xp.concat([width, width])
    )
    # Families of tangents are dear, so they are made once a domain, not once a row.
    base = layout.bounds(domains)
    families = {node: family.rows(both) for node, family in base.families(plan.output).items()}
    base = base.rows(both)
    parameters, splits = layout.parameters(domains.pick(both), families)
    ascent = Ascent(
        base,
        plan.output,
        mixture=Mixture(mixture.rows[both], mixture.offsets[both]),
        splits=splits,
        families=families,
        parameters=parameters,
        objective=objective,
        bounds_only=True,
    )
    ascent.evaluate()
    for step in range(ITERATIONS):
        deadline.check()
        ascent.improve(*gain_to_zero(ascent.last, step))
        ascent.evaluate()
    return ascent
