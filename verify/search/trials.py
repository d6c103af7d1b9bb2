"""Trial bounds of both children of a domain's best candidates ("filtered smart branching", De Palma et al. 2021), with
the parent's parameters and without optimisation. They order the candidates and prove nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import array_namespace, options_like
from ..bounding.alpha import Ascent, Mixture
from ..bounding.families import Family, Side
from ..ops import rule
from . import branching
from .box_slots import INPUT_WORTH, boxed
from .branches import split
from .branching import split_points
from .gains import touching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..bounding.alpha import Base
    from ..graph import Array, Node
    from ..ops.rule import Interval
    from .branches import Branches
    from .layout import Layout


@np.errstate(all="ignore")
def filtered(
    layout: Layout,
    domains: Branches,
    tried: Array,
    mixture: Mixture,
    lines: Mapping[int, Fixed] | None = None,
    renew: Callable[[Branches], Branches] | None = None,
) -> tuple[Array, float]:
    """Reorder candidate slots ``[N, k]`` by the worse of their two children's bounds, best first; also the seconds
    spent in bounds.

    lines   the domains' own lines (see `fixed`): children differ from them only where a split changed an interval,
            which is much cheaper than families of tangents for every child.
    renew   what gives children of split boxes the bounds that they would have.
    """
    known = None if lines is None else layout.bounds(domains)
    xp = array_namespace(domains.low)
    count = len(domains)
    worst = []
    seconds = 0.0
    for column in range(tried.shape[1]):
        slots = tried[:, column : column + 1]
        trial = replace(domains, next=xp.clip(slots, 0, None))
        first = trial.next[:, 0]
        children = split(trial, 0, split_points(layout, trial, first), layout.opened(first)).pick(slice(2 * count))
        if renew is not None:
            children = renew(children)
        both = _twice(mixture)
        if lines is None or known is None:
            bound, spent = branching.trial_bounds(layout, children, both)
        else:
            ascent = _with_lines(layout, children, both, known, lines)
            # What holds for the parent holds for the children; lines of their own may happen to be worse.
            bound = xp.maximum(ascent.evaluate(), xp.concat([domains.bound, domains.bound]))
            spent = ascent.seconds
        seconds += spent
        quality = xp.minimum(bound[:count], bound[count:]) + 1e-3 * xp.maximum(bound[:count], bound[count:])
        gained = xp.clip(quality - domains.bound, 0.0, None)
        quality = quality + xp.where(boxed(layout, slots[:, 0]), (INPUT_WORTH - 1.0) * gained, 0.0)
        # minus infinity minus infinity and the like
        quality = xp.where(xp.isnan(quality), -xp.inf, quality)
        worst.append(xp.where(slots[:, 0] >= 0, quality, -xp.inf))
    order = xp.argsort(-xp.stack(worst, axis=1), axis=1)
    return xp.take_along_axis(tried, order, axis=1), seconds


class Fixed(NamedTuple):
    """The lines of a node as a family without a choice, and what the minimisers take at its inputs ``[N, n]``."""

    family: Family
    inputs: list[Array]

    def rows(self, index: Array) -> Fixed:
        """The batch entries at `index`."""
        return Fixed(self.family.rows(index), [x[index] for x in self.inputs])


def fixed(ascent: Ascent, kept: Array) -> dict[int, Fixed]:
    """The lines that an evaluation chose for the rows `kept`, by node."""
    families = {}
    for position, own in ascent.observed().items():
        chosen = own.chosen.rows(kept)
        lower, upper = (Side(side.slopes, side.intercept) for side in (chosen.lower, chosen.upper))
        families[position] = Fixed(Family(lower, upper, False, None, (None, None)), [x[kept] for x in own.inputs])
    return families


def _twice(mixture: Mixture) -> Mixture:
    xp = array_namespace(mixture.rows)
    return Mixture(
        xp.concat([mixture.rows, mixture.rows], axis=0), xp.concat([mixture.offsets, mixture.offsets], axis=0)
    )


def _with_lines(
    layout: Layout, children: Branches, mixture: Mixture, known: Base, lines: Mapping[int, Fixed]
) -> Ascent:
    """The optimiser of both children of every domain with its lines, renewed where a child's interval is another."""
    nodes = layout.base.plan.graph.nodes
    base = layout.bounds(children)
    xp = array_namespace(children.low)
    parent = xp.arange(len(children), **options_like(children.low)) % (len(children) // 2)
    families = {}
    for position, own in lines.items():
        node = nodes[position]
        new = [_flat(base.intervals[source]) for source in node.inputs]
        old = [_flat(known.intervals[source]) for source in node.inputs]
        families[position] = _renewed(node, own.rows(parent), new, old, parent)
    parameters, splits = layout.parameters(children, families)
    return Ascent(base, base.plan.output, mixture=mixture, splits=splits, families=families, parameters=parameters)


def _flat(interval: Interval) -> Interval:
    return interval[0].reshape(interval[0].shape[0], -1), interval[1].reshape(interval[1].shape[0], -1)


def _renewed(node: Node, own: Fixed, new: list[Interval], old: list[Interval], parent: Array) -> Family:
    """Fixed lines with tangents near the minimisers where an input's interval changed."""
    family = own.family
    relax = rule(node.op).relax
    if relax is None:
        raise ValueError(f"{node.op} has no elementwise relaxation")
    xp = array_namespace(parent)
    changed = xp.zeros((1, node.size), dtype=xp.bool, **options_like(parent))
    for pair, former in zip(new, old, strict=True):
        for end, known in zip(pair, former, strict=True):
            changed = changed | (end != (known if known.shape[0] == 1 else known[parent]))
    rows = xp.nonzero(xp.any(changed, axis=1))[0]
    if rows.shape[0] == 0:
        return family
    changed = changed[rows] if changed.shape[0] > 1 else changed

    def cut(end: Array) -> Array:
        return (end if end.shape[0] == 1 else end[rows]).reshape(-1, *node.shape)

    intervals = [(cut(low), cut(high)) for low, high in new]
    lines = relax(node, intervals, touching(node, intervals, [x[rows] for x in own.inputs]))

    def put(known: Array | None, fresh: Array) -> Array:
        whole = xp.zeros_like(xp.astype(parent[:, None], fresh.dtype)) if known is None else known
        whole = xp.broadcast_to(whole, (parent.shape[0], node.size)) + 0
        whole[rows] = xp.where(changed, fresh.reshape(-1, node.size), whole[rows])
        return whole

    sides = [
        Side(tuple(put(k, x) for k, x in zip(side.slopes, slopes, strict=True)), put(side.intercept, intercept))
        for side, slopes, intercept in (
            (family.lower, lines.lower_slopes, lines.lower_intercept),
            (family.upper, lines.upper_slopes, lines.upper_intercept),
        )
    ]
    return Family(sides[0], sides[1], False, None, (None, None))
