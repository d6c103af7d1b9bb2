"""Where to split next: scores from the last bounding pass.

An undecided ReLU's score is what its relaxation costs the bound at the point where the bound is attained: the
coefficient times the distance between the chosen line and the function there (in the spirit of BaBSR, Bunel et al.
2020); that of other entries is the gain that `gains` estimates. Of those with the highest scores `trials` tries some.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Ascent
from ..bounding.plan import MOVES
from ..ops import rule
from ..ops.arrays import zeros_like_shape
from .box_slots import FEW_KINKS, INPUTS_TRIED, promised_by_inputs
from .gains import gain
from .layout import kink_inside, undecided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bounding.alpha import Mixture
    from ..graph import Array
    from .branches import Branches
    from .layout import Columns, Layout


@np.errstate(all="ignore")
def scores(layout: Layout, domains: Branches, ascent: Ascent, score: str = "bbps") -> Array:
    """How much splitting each slot promises ``[N, slots]``; 0 for decided ones.

    score   "bbps": the gain at the point of the split, see `gains` (an undecided ReLU's is its cost); "cost": what
            every relaxation costs at the minimiser, wherever it would be split.
    """
    by_root: dict[int, Array] = {}
    xp = array_namespace(domains.low)
    for root, share in _promises(layout, ascent, score):
        known = by_root.get(root)
        by_root[root] = share if known is None else known + share
    count = len(domains)
    parts = [xp.zeros((count, 0), dtype=domains.low.dtype, **options_like(domains.low))]
    for block in layout.slots:
        part = by_root.get(block.node)
        if block.box:
            found = promised_by_inputs(domains, block, ascent)
        else:
            found = 0.0 * domains.low[:, block.start : block.stop] if part is None else part[:, block.entries]
        # The tiny term keeps entries apart from decided ones even where the bound does not feel them.
        parts.append(xp.where(xp.isfinite(found), found, 0.0) + 1e-20)
    return xp.where(still_open(layout, domains), xp.concat(parts, axis=1), 0.0)


def _promises(layout: Layout, ascent: Ascent, score: str) -> Iterator[tuple[int, Array]]:
    """Every node that may be split with what its readers, one after the other, promise for its entries ``[N, n]``."""
    nodes = layout.base.plan.graph.nodes
    blocks = {block.node: block for block in layout.slots}
    observed = ascent.observed()
    by_cost = [position for position in observed if score == "cost" or nodes[position].op == "Relu"]
    for position, cost in ascent.costs(by_cost).items():
        for source in nodes[position].inputs:
            root, moves = _moves(layout, source)
            yield root, _back(layout, moves, cost / len(nodes[position].inputs))
    for position in observed.keys() - set(by_cost):
        for which, source in enumerate(nodes[position].inputs):
            root, moves = _moves(layout, source)
            if root not in blocks:
                continue
            low, high = ascent.base.intervals[root]
            point = points_in(blocks[root], low.reshape(low.shape[0], -1), high.reshape(high.shape[0], -1))
            point = point.reshape(-1, *nodes[root].shape)
            for move in reversed(moves):
                operator = rule(nodes[move].op).linear
                if operator is not None:
                    point = operator.apply(nodes[move], [point])
            point = array_namespace(point).broadcast_to(
                point.reshape(point.shape[0], -1), (ascent.count, nodes[source].size)
            )
            yield root, _back(layout, moves, gain(ascent, position, observed[position], which, point))


def still_open(layout: Layout, domains: Branches) -> Array:
    """Which slots of the domains can be split ``[N, slots]``. Entries of a network's input that is affine but for kinks
    can while more than `FEW_KINKS` others can."""
    xp = array_namespace(domains.low)
    parts = [xp.zeros((len(domains), 0), dtype=xp.bool, **options_like(domains.low))]
    for block in layout.slots:
        here = slice(block.start, block.stop)
        parts.append(undecided(domains.low[:, here], domains.high[:, here], block.kinks, block.opened))
    found = xp.concat(parts, axis=1)
    box = layout.box
    if box is not None and box.node not in layout.base.plan.sources:
        here = slice(box.start, box.stop)
        own = found[:, here] + False
        found[:, here] = False
        few = 0 if layout.curved else FEW_KINKS
        found[:, here] = own & (xp.sum(xp.astype(found, xp.int64), axis=1) > few)[:, None]
    return found


def _moves(layout: Layout, source: int) -> tuple[int, list[int]]:
    """The node that is split where a nonlinear node reads `source`, and the moves between, last first."""
    nodes = layout.base.plan.graph.nodes
    moves = []
    while source not in layout.base.plan.sources and nodes[source].op in MOVES:
        moves.append(source)
        source = nodes[source].inputs[0]
    return source, moves


def _back(layout: Layout, moves: list[int], share: Array) -> Array:
    """Shares ``[N, n]`` of a node's input carried back through moves to the entries that are split."""
    nodes = layout.base.plan.graph.nodes
    for move in moves:
        operator = rule(nodes[move].op).linear
        if operator is not None:
            share = operator.adjoint(nodes[move], share.reshape(share.shape[0], *nodes[move].shape))[0]
            share = abs(share.reshape(share.shape[0], -1))
    return share


def split_points(layout: Layout, domains: Branches, slots: Array) -> Array:
    """The points ``[N]`` at which the given slots ``[N]`` are split, see `points_in`."""
    xp = array_namespace(domains.low)
    if domains.low.shape[1] == 0:
        return zeros_like_shape((len(domains),), domains.low)
    row = xp.arange(slots.shape[0], **options_like(domains.low))
    slots = xp.clip(slots, 0, None)
    low, high = domains.low[row, slots], domains.high[row, slots]
    points = 0.5 * low + 0.5 * high
    for block in layout.slots:
        here = (slots >= block.start) & (slots < block.stop)
        points = xp.where(here, points_in(block, low, high), points)
    return points


def points_in(block: Columns, low: Array, high: Array) -> Array:
    """Where entries of a block with these bounds are split: at the kink nearest to the middle; an entry without kinks
    where its readers' table says, else in the middle."""
    xp = array_namespace(low)
    middle = 0.5 * low + 0.5 * high
    if block.table is not None:
        return block.table.points(low, high)
    points = middle
    distance = xp.full_like(middle, xp.inf)
    for kink in block.kinks or ():
        nearer = kink_inside(low, high, kink, block.opened) & (abs(kink - middle) < distance)
        points = xp.where(nearer, kink, points)
        distance = xp.where(nearer, abs(kink - middle), distance)
    return points


def candidates(score: Array, count: int) -> Array:
    """The slots with the `count` highest scores ``[N, count]``, best first; -1 where there are no more."""
    xp = array_namespace(score)
    count = min(count, score.shape[1])
    if count == 0:
        return xp.full((score.shape[0], 1), -1, dtype=xp.int64, **options_like(score))
    if isinstance(score, np.ndarray) and score.shape[1] > 4 * count:
        top = np.argpartition(-score, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(score, top, axis=1), axis=1)
        top = np.take_along_axis(top, order, axis=1)
    else:
        top = xp.argsort(-score, axis=1)[:, :count]
    return xp.where(xp.take_along_axis(score, top, axis=1) > 0, top, -1)


def contenders(layout: Layout, score: Array, count: int) -> Array:
    """The slots to try ``[N, ...]``: the `candidates`, and where inputs are split as well, the best of these. Their
    scores do not compete: what a smaller box gains, no coefficient says, so that trials must decide."""
    box = layout.box
    if box is None:
        return candidates(score, count)
    xp = array_namespace(score)
    own = candidates(score[:, box.start : box.stop], INPUTS_TRIED)
    others = score + 0
    others[:, box.start : box.stop] = 0.0
    # First, so that of candidates that gain nothing by themselves inputs are taken: a smaller box gains in the end.
    tried = xp.concat([xp.where(own >= 0, own + box.start, -1), candidates(others, count)], axis=1)
    return xp.take_along_axis(tried, xp.argsort(xp.astype(tried < 0, xp.int64), axis=1), axis=1)


def ascent_of(layout: Layout, domains: Branches, mixture: Mixture) -> Ascent:
    """The optimiser of a batch of domains, at their stored parameters."""
    base = layout.bounds(domains)
    families = base.families(base.plan.output)
    parameters, splits = layout.parameters(domains, families)
    return Ascent(
        base,
        base.plan.output,
        mixture=mixture,
        splits=splits,
        families=families,
        parameters=parameters,
    )


def trial_bounds(layout: Layout, domains: Branches, mixture: Mixture) -> tuple[Array, float]:
    """Bounds ``[N]`` at the stored parameters, and the seconds they took."""
    ascent = ascent_of(layout, domains, mixture)
    ascent.evaluate()
    return ascent.best, ascent.seconds
