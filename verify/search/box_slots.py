"""Entries of the input as slots beside those of nonlinear nodes, so that a search splits whichever gains more.

A split of an input narrows its domain's box. Its worth lies in the bounds of intermediate values, which a smaller box
makes tighter all over the network; they are renewed by one CROWN pass within what the domain knew, in trials as in the
search itself, so that the trial bounds of all candidates are about what each split would really bring.

Measured on a shared core with `--method activation-split`, without and with splits of inputs (domains, seconds; "open":
not decided then). Two to five inputs: cersyve pendulum_finetune_con open after 60,439 in 20 s, 79 in 0.5 s;
point_mass_finetune_con open after 29,381 in 12 s, 289 in 0.5 s; lane_keep_finetune_inv open after 735 in 6 s, 13,075 in
11 s. Open in both: ACAS Xu 1_1, property 6, bound -123 after 504 in 15 s, -3.6 after 14,820 in 16 s; lsnc
quadrotor2d_state_0, bound -2.7, -0.2 in 10 s. Thirty inputs: safenlp ruarobot hyperrectangle_992 2,063 in 4 s, open
after 42,495 in 8 s with `INPUT_WORTH` 30, 3,199 in 7 s with 1: hence `INPUTS_AT_MOST`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.crown import relax
from ..errors import UndefinedOnRegion
from .layout import Columns, derived_from, undecided

if TYPE_CHECKING:
    from ..bounding.alpha import Ascent
    from ..budget import Deadline, MemoryBudget
    from ..graph import Array
    from .branches import Branches
    from .layout import Layout

INPUTS_AT_MOST = 8
"""Varying inputs up to which they are split: halving one of many changes few bounds, and covering a box with smaller
ones takes exponentially many."""

INPUTS_TRIED = 2
"""Inputs tried for real at each choice, beside the other candidates."""

INPUT_WORTH = 100.0
"""By what a gain of an input's trial counts more than that of another candidate. Its bounds are all it needs, while
other splits live by parameters that trials do not optimise and by renewed bounds at ten times the cost."""

FEW_KINKS = 8
"""Open entries of a piecewise linear network down to which its inputs are split: splits at the kinks end after a few,
with domains that linear programmes decide, where halving boxes around a point of small margin goes on for long (two
inputs, six ReLUs, margin 1e-3: 39 domains, over 20,000 with inputs)."""

EVEN_SHARE = 1e-2
"""Share of the inputs' mean coefficient that every input counts at least: one that the bound does not feel at the
moment may still widen what is relaxed."""


def with_inputs(layout: Layout, at_most: int = INPUTS_AT_MOST) -> Layout:
    """The layout with the varying entries of the input as slots, if there are no more than `at_most`.

    Left out where steps are split at open ends (``z > 0`` is known by the next floating-point number there, of which
    bounds through linear nodes must not be made) or where the input itself has kinks.
    """
    base, plan = layout.base, layout.base.plan
    low, high = (end.reshape(end.shape[0], -1) for end in base.intervals[plan.input])
    xp = array_namespace(low)
    entries = xp.nonzero(xp.any(undecided(low, high, None), axis=0))[0]
    known = next((block for block in layout.slots if block.node == plan.input), None)
    hindered = any(any(block.opened) for block in layout.slots) or (known is not None and known.kinks is not None)
    if not layout.slots or hindered or not 0 < entries.shape[0] <= at_most:
        return layout
    slots = [Columns(plan.input, entries, 0, table=None if known is None else known.table, box=True)]
    for block in layout.slots:
        if block is not known:
            slots.append(replace(block, start=slots[-1].stop))
    return replace(layout, slots=tuple(slots), derived=derived_from(plan, {block.node for block in slots}))


def boxed(layout: Layout, slots: Array) -> Array:
    """Which of the slots ``[N]`` are entries of the input."""
    box = layout.box
    return slots < -1 if box is None else (slots >= box.start) & (slots < box.stop)


def promised_by_inputs(domains: Branches, block: Columns, ascent: Ascent) -> Array:
    """How the inputs of a block rank ``[N, C]``: by the variation of the bound over each one's interval."""
    xp = array_namespace(domains.low)
    slope = abs(ascent.coefficients[:, block.entries])
    here = slice(block.start, block.stop)
    return (slope + EVEN_SHARE * xp.mean(slope, axis=1)[:, None]) * (domains.high[:, here] - domains.low[:, here])


@np.errstate(all="ignore")
def renewed(layout: Layout, deadline: Deadline, memory: MemoryBudget | None, domains: Branches) -> Branches:
    """The domains, those of them whose last split (at ``next[:, 0]``) was of an input with bounds renewed by CROWN on
    their boxes, within the bounds known. Raises `TimeUp`."""
    box = layout.box
    if box is None:
        return domains
    xp = array_namespace(domains.low)
    due = xp.nonzero(boxed(layout, domains.next[:, 0]))[0]
    if due.shape[0] == 0:
        return domains
    base = layout.bounds(domains.pick(due))
    plan = base.plan
    inherited = {
        index: (base.intervals[index][0].reshape(-1, node.size), base.intervals[index][1].reshape(-1, node.size))
        for index, node in ((target, plan.graph.nodes[target]) for target in plan.targets)
        if index in base.intervals
    }
    try:
        state = relax(
            plan, base.lower, base.upper, inherited=inherited, deadline=deadline, memory=memory, constrained=True
        )
    except UndefinedOnRegion:
        # Bounds of a domain without unsafe points may contradict each other.
        return domains
    low, high = domains.low + 0, domains.high + 0
    for block in layout.bound:
        below, above = (end.reshape(end.shape[0], -1)[:, block.entries] for end in state.intervals[block.node])
        here = xp.arange(block.start, block.stop, **options_like(domains.low))
        place = (due[:, None], here[None])
        # Contradicting bounds leave an end of the known ones.
        low[place] = xp.minimum(xp.maximum(low[place], below), high[place])
        high[place] = xp.maximum(xp.minimum(high[place], above), low[place])
    return replace(domains, low=low, high=high)
