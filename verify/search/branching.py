"""Where to split next: scores from the last bounding pass, then trial bounds of the best candidates.

The score of an entry is what its relaxation costs the bound at the point where the bound is attained: the coefficient
times the distance between the chosen line and the function there (in the spirit of BaBSR, Bunel et al. 2020, and of
BBPS, Shi et al. 2024). Of the entries with the highest scores a few are tried for real ("filtered smart branching",
De Palma et al. 2021), with the parent's parameters and without optimisation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Ascent, Mixture
from ..ops import rule
from ..ops.arrays import zeros_like_shape
from .branches import Branches, Layout, kink_inside, split, undecided

if TYPE_CHECKING:
    from ..graph import Array


@np.errstate(all="ignore")
def scores(layout: Layout, domains: Branches, ascent: Ascent) -> Array:
    """How much splitting each slot promises ``[N, slots]``; 0 for decided ones."""
    nodes = layout.base.plan.graph.nodes
    by_root: dict[int, Array] = {}
    xp = array_namespace(domains.low)
    for node, cost in ascent.costs().items():
        sources = nodes[node].inputs
        for source in sources:
            root, share = _to_root(layout, source, cost / len(sources))
            known = by_root.get(root)
            by_root[root] = share if known is None else known + share
    count = len(domains)
    parts = [xp.zeros((count, 0), dtype=domains.low.dtype, **options_like(domains.low))]
    for block in layout.slots:
        part = by_root.get(block.node)
        found = 0.0 * domains.low[:, block.start : block.stop] if part is None else part[:, block.entries]
        # The tiny term keeps entries apart from decided ones even where the bound does not feel them.
        parts.append(xp.where(xp.isfinite(found), found, 0.0) + 1e-20)
    return xp.where(still_open(layout, domains), xp.concat(parts, axis=1), 0.0)


def still_open(layout: Layout, domains: Branches) -> Array:
    """Which slots of the domains can be split ``[N, slots]``."""
    xp = array_namespace(domains.low)
    parts = [xp.zeros((len(domains), 0), dtype=xp.bool, **options_like(domains.low))]
    for block in layout.slots:
        here = slice(block.start, block.stop)
        parts.append(undecided(domains.low[:, here], domains.high[:, here], block.kinks, block.opened))
    return xp.concat(parts, axis=1)


def _to_root(layout: Layout, source: int, cost: Array) -> tuple[int, Array]:
    """Costs ``[N, n]`` at a node's input carried back through moves to the entry that is split."""
    nodes = layout.base.plan.graph.nodes
    flat = cost
    while source not in layout.base.plan.sources and nodes[source].inputs:
        operator = rule(nodes[source].op)
        if operator.linear is None:
            break
        flat = operator.linear.adjoint(nodes[source], flat.reshape(flat.shape[0], *nodes[source].shape))[0]
        source = nodes[source].inputs[0]
        flat = abs(flat.reshape(flat.shape[0], -1))
    return source, flat


def split_points(layout: Layout, domains: Branches, slots: Array) -> Array:
    """The points ``[N]`` at which the given slots ``[N]`` are split: the kink nearest to the middle, else the
    middle."""
    xp = array_namespace(domains.low)
    if domains.low.shape[1] == 0:
        return zeros_like_shape((len(domains),), domains.low)
    row = xp.arange(slots.shape[0], **options_like(domains.low))
    slots = xp.clip(slots, 0, None)
    low, high = domains.low[row, slots], domains.high[row, slots]
    middle = 0.5 * low + 0.5 * high
    points = middle
    for block in layout.slots:
        here = (slots >= block.start) & (slots < block.stop)
        distance = xp.full_like(middle, xp.inf)
        for kink in block.kinks or ():
            nearer = here & kink_inside(low, high, kink, block.opened) & (abs(kink - middle) < distance)
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


@np.errstate(all="ignore")
def filtered(layout: Layout, domains: Branches, tried: Array, mixture: Mixture) -> tuple[Array, float]:
    """Reorder candidate slots ``[N, k]`` by the worse of their two children's bounds, best first; also the seconds
    spent in bounds."""
    xp = array_namespace(domains.low)
    count = len(domains)
    worst = []
    seconds = 0.0
    for column in range(tried.shape[1]):
        slots = tried[:, column : column + 1]
        trial = replace(domains, next=xp.clip(slots, 0, None))
        first = trial.next[:, 0]
        children = split(trial, 0, split_points(layout, trial, first), layout.opened(first)).pick(slice(2 * count))
        bound, spent = trial_bounds(layout, children, _twice(mixture))
        seconds += spent
        quality = xp.minimum(bound[:count], bound[count:]) + 1e-3 * xp.maximum(bound[:count], bound[count:])
        # minus infinity minus infinity and the like
        quality = xp.where(xp.isnan(quality), -xp.inf, quality)
        worst.append(xp.where(slots[:, 0] >= 0, quality, -xp.inf))
    order = xp.argsort(-xp.stack(worst, axis=1), axis=1)
    return xp.take_along_axis(tried, order, axis=1), seconds


def _twice(mixture: Mixture) -> Mixture:
    xp = array_namespace(mixture.rows)
    return Mixture(
        xp.concat([mixture.rows, mixture.rows], axis=0), xp.concat([mixture.offsets, mixture.offsets], axis=0)
    )


def trial_bounds(layout: Layout, domains: Branches, mixture: Mixture) -> tuple[Array, float]:
    """Bounds ``[N]`` at the stored parameters, and the seconds they took."""
    ascent = ascent_of(layout, domains, mixture)
    ascent.evaluate()
    return ascent.best, ascent.seconds


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
