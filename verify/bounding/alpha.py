"""Optimised bounds: alpha-CROWN, beta-CROWN and mixtures of a clause's rows, many rows at once.

Every free line of a relaxation (`families`), every multiplier of a split constraint and every weight of a clause's
rows is a parameter; any value in range gives a sound bound, and projected gradient ascent looks for good ones (Xu et
al. 2021, "Fast and Complete"; Wang et al. 2021, "Beta-CROWN").

The gradient needs no automatic differentiation. With intermediate bounds fixed, the bound of a row is

    min over the box of <A0, x> + constant,      A0 linear in every single parameter,

so its derivative follows from one *forward* pass of the minimising corner x* through the lines that the row's own
signs chose: where z* is the value that reaches a neuron and A its coefficient, d/d(slope below) = max(A, 0) z*,
d/d(beta) = -s (z* - point), d/d(lambda of row s) = <C_s, y*> - d_s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like
from ..ops import rule
from ..ops.arrays import as_like, bound_by_constants, zeros_like_shape
from ..rounding import rounding, unit_roundoff
from .averages import Averages
from .backward import constants_rounding
from .charges import underflow
from .mixtures import mixed_margin, mixed_rows, reweighted
from .parameters import (
    Base,
    Mixture,
    Objective,
    Parameters,
    Reached,
    Splits,
    ancestors,
    required,
    squared_unit,
    starting,
)
from .relaxed import Chosen, Observed, carry, cost_of, follow, gradients_of
from .scaled import gain_to_zero
from .updates import add_at, put, row_squares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..graph import Array
    from .families import Family

__all__ = ["Ascent", "Base", "Mixture", "Objective", "Parameters", "Splits", "ancestors", "gain_to_zero"]

BETA = 2
"""The kind of parameter that is a multiplier (0 and 1 are weights of lines below and above)."""


class Ascent:
    """Rows of one node's value, bounded from below again and again with better parameters.

    seeds ``[R, *shape of start]`` and constants ``[R]``, or a `Mixture` over the flat value of `start` instead.
    `evaluate` bounds all rows at the present parameters; `improve` moves the parameters along the gradient of the
    last evaluation; `keep` drops rows. With `bounds_only`, nothing but `best` is kept on the way: no `costs`, no
    `best_parameters`, and of a relaxation's lines none but those that the coefficients' signs choose.
    """

    def __init__(
        self,
        base: Base,
        start: int,
        seeds: Array | None = None,
        constants: Array | None = None,
        *,
        mixture: Mixture | None = None,
        splits: Mapping[int, Splits] | None = None,
        families: Mapping[int, Family] | None = None,
        parameters: Parameters | None = None,
        objective: Objective | None = None,
        bounds_only: bool = False,
    ) -> None:
        self.base = base
        self.start = start
        self.order = ancestors(base.plan, start)
        self.seeds = seeds
        self.constants = constants
        self.mixture = mixture
        self.objective = objective
        self.splits = {node: split for node, split in (splits or {}).items() if node in set(self.order)}
        self.families = dict(families if families is not None else base.families(start))
        like = seeds if seeds is not None else mixture.rows if mixture is not None else None
        if like is None:
            raise ValueError("an ascent needs seeds or a mixture")
        self.count = int(like.shape[0])
        self.like = like
        self.parameters = starting(
            parameters or Parameters(), like, self.families, self.splits, mixture, sided=objective is not None
        )
        self.moments: dict[tuple[int, int], Array] = {}
        self.steps = 0
        self._chosen: dict[int, Chosen] = {}
        self._corner: Array | None = None
        self._lost: Array | None = None
        self._averages = None if bounds_only else Averages()
        self._followed = self._what_is_followed()
        self._reached: Reached | None = None
        self.seconds = 0.0
        self.last: Array = zeros_like_shape((self.count,), like)
        self.best: Array = self.last - float("inf")
        self.best_parameters = self.parameters
        self._evaluated = False

    # --- bounding --------------------------------------------------------------------------------------------------

    @np.errstate(all="ignore")
    def evaluate(self) -> Array:
        """Lower bounds ``[R]`` of the rows at the present parameters."""
        started = time.perf_counter()
        nodes = self.base.plan.graph.nodes
        at = self._reached or Reached(0, *self._begin())
        pending, total, sizes, lost = dict(at.pending), at.total, at.sizes, at.lost
        charges, share = self.base.charges, constants_rounding(self.base.plan, self.like)
        starts = (self.start,) if self.objective is None else (self.start, self.objective.node)
        result: Array | None = None
        for number in range(at.number, len(self.order)):
            position = self.order[number]
            if self._reached is None and self.mixture is None and position in {*self.families, *self.splits}:
                self._reached = Reached(number, dict(pending), total, sizes, lost)
            a = pending.pop(position, None)
            if self.objective is not None and position == self.objective.node:
                seeds = self.objective.seeds.reshape(self.count, *nodes[position].shape)
                a = seeds if a is None else a.reshape(seeds.shape) + seeds
            if a is None:
                continue
            node = nodes[position]
            if position in self.splits:
                a, part, size = self._bind(position, a)
                total, sizes = total + part, sizes + size
            if node.op == "Input":
                result = a.reshape(self.count, -1)
                continue
            charge = charges.at(position, start=position in starts)
            if charge is not None:
                lost = lost + charge.of_rows(a)
            carried, constant, size = self._through(position, a)
            if constant is not None:
                total, sizes = total + constant, sizes + (abs(constant) if size is None else size)
            leaving = charges.leaving(position) if position in self.families else None
            if leaving is not None:
                for leave, piece in zip(leaving, carried, strict=True):
                    lost = lost + leave.of_rows(piece)
            for source, piece in zip(node.inputs, carried, strict=True):
                known = pending.get(source)
                pending[source] = piece if known is None else known + piece
        if result is None:
            result = zeros_like_shape((self.count, self.base.lower.shape[1]), self.like)
        bound = self._concretize(result, total, lost + share * sizes)
        self._remember(bound)
        self.seconds += time.perf_counter() - started
        return bound

    def _begin(self) -> tuple[dict[int, Array], Array, Array, Array]:
        seeds, total, lost = self._seed()
        return {self.start: seeds}, total, abs(total), lost

    def _what_is_followed(self) -> list[int]:
        """The nodes, first to last, whose values `forward` gives: where parameters or averages ask for them."""
        nodes = self.base.plan.graph.nodes
        wanted = {*self.splits, *(source for node in self.families for source in nodes[node].inputs)}
        wanted |= set() if self._averages is None else set(self.families)
        wanted |= set() if self.mixture is None else {self.start}
        return sorted({source for node in wanted for source in ancestors(self.base.plan, node)})

    def _remember(self, bound: Array) -> None:
        """Keep every row's largest bound so far and the parameters that gave it."""
        own = self.parameters
        xp = array_namespace(bound)
        # An overflow must not look like a proof: neither NaN nor an infinity is ever a bound.
        bound = xp.where(xp.isfinite(bound), bound, -xp.inf)
        self.last = bound
        if self._averages is None:
            self.best = xp.maximum(self.best, bound)
            return
        if not self._evaluated:
            self._evaluated = True
            self.best = bound + 0
            self.best_parameters = own.copy()
            return
        better = bound > self.best
        if not bool(better.any()):
            return
        put(self.best, bound, better)
        self.best_parameters.adopt(own, better, self.splits)

    def _seed(self) -> tuple[Array, Array, Array]:
        """The coefficients at `start`, the constants ``[R]``, and what rounding may have taken from them ``[R]``."""
        if self.mixture is None:
            constants = self.constants
            if constants is None:
                constants = zeros_like_shape((self.count,), self.like)
            return required(self.seeds, "seeds"), constants, 0.0 * constants
        weights = required(self.parameters.mixture, "weights of the mixture")
        rows, constants, lost = mixed_rows(self.mixture, weights, self.base.charges.joint_reach(self.start))
        if self.objective is not None:
            # For every multiplier >= 0: min z >= min (z + multiplier * margin) where margin <= 0.
            side = required(self.parameters.side, "multipliers of its side constraint")
            rows, constants = rows * side[:, None], constants * side + self.objective.constants
            lost = lost * side + unit_roundoff(self.like) * abs(self.objective.constants)
        return rows.reshape(self.count, *self.base.plan.graph.nodes[self.start].shape), constants, lost

    def _bind(self, position: int, a: Array) -> tuple[Array, Array, Array]:
        """Subtract multiplier times constraint: for all beta >= 0, min f >= min (f - beta s (z - point)) where the
        constraint holds. Also the constants ``[R]`` to add and the sum ``[R]`` of the terms' magnitudes."""
        split, beta = self.splits[position], self.parameters.betas[position]
        size = self.base.plan.graph.nodes[position].size
        flat = a.reshape(-1) + 0
        force = beta * split.sign
        # An entry may be bound more than once.
        add_at(flat, split.row * size + split.entry, -force)
        part, terms = zeros_like_shape((self.count,), flat), zeros_like_shape((self.count,), flat)
        add_at(part, split.row, force * split.point)
        # Constraints on both sides of an entry may cancel; each multiplies a value as large as the entry's reach.
        reach = self.base.charges.joint_reach(position)[split.entry]
        add_at(terms, split.row, beta * (abs(split.point) + reach))
        return flat.reshape(a.shape), part, terms

    def _through(self, position: int, a: Array) -> tuple[tuple[Array, ...], Array | None, Array | None]:
        """The coefficients carried to a node's inputs, the constants ``[R]`` to add (None for zero), and the sum
        ``[R]`` of their terms' magnitudes where the node is not charged for it."""
        node = self.base.plan.graph.nodes[position]
        operator = rule(node.op)
        if operator.linear is not None:
            bias = operator.linear.bias(node)
            part = None if bias is None else a.reshape(self.count, -1) @ as_like(bias, a).reshape(-1)
            pieces = operator.linear.adjoint(node, a.reshape(self.count, *node.shape)) if node.inputs else ()
            return pieces, part, None
        family = self.families.get(position)
        if family is None:
            intervals = [self.base.intervals[source] for source in node.inputs]
            if operator.backward is None:
                constant = bound_by_constants(a.reshape(self.count, 1, *node.shape), self.base.intervals[position])
                zeros = tuple(zeros_like_shape((self.count, *shape), a) for shape in node.input_shapes)
                return zeros, constant[:, 0], None
            pieces, constant = operator.backward(node, intervals, a.reshape(self.count, 1, *node.shape))
            return tuple(piece[:, 0] for piece in pieces), constant[:, 0], None
        flat = a.reshape(self.count, -1)
        below, above = self.parameters.lines[position]
        if self._averages is None:
            lines = family.met(flat, below, above)
        else:
            lines = family.lower.at(below), family.upper.at(above)
        chosen = self._chosen[position] = Chosen(flat, *lines)
        pieces, constant, size = carry(family, chosen)
        return tuple(piece.reshape(self.count, *node.shape) for piece in pieces), constant, size

    def _concretize(self, a: Array, constant: Array, lost: Array) -> Array:
        xp = array_namespace(a)
        lower, upper = self.base.lower, self.base.upper
        centre, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
        extent = abs(centre) + radius
        reach = radius + rounding(a, a.shape[1]) * extent
        self._corner = a
        if lower.shape[0] == 1:
            value = a @ centre[0] - abs(a) @ reach[0]
        else:
            value = xp.sum(a * centre, axis=1) - xp.sum(abs(a) * reach, axis=1)
        lost = 1.01 * lost + unit_roundoff(a) * (abs(value) + 2.0 * abs(constant)) + underflow(extent)
        self._lost = lost
        minimum = value + (constant - lost)
        # A sum that overflowed says nothing, even where it came out as plus infinity.
        return xp.where(abs(minimum) < xp.inf, minimum, -xp.inf)

    def best_of(self, index: Array) -> Parameters:
        """The best parameters of the rows at `index` (integers, ascending)."""
        xp = array_namespace(self.like)
        chosen = xp.zeros((self.count,), dtype=xp.bool, **options_like(self.like))
        chosen[index] = True
        kept = {node: xp.nonzero(chosen[split.row])[0] for node, split in self.splits.items()}
        return self.best_parameters.rows(index, kept)

    def keep(self, index: Array) -> None:
        """Drop all rows but those at `index` (integers, ascending)."""
        xp = array_namespace(self.like)

        def cut(x: Array | None) -> Array | None:
            return x if x is None else x[index]

        place = xp.full((self.count,), -1, dtype=index.dtype, **options_like(self.like))
        place[index] = xp.arange(index.shape[0], dtype=index.dtype, **options_like(self.like))
        self.base = self.base.rows(index)
        self.families = {node: family.rows(index) for node, family in self.families.items()}
        self.seeds, self.constants = cut(self.seeds), cut(self.constants)
        if self.mixture is not None:
            self.mixture = Mixture(self.mixture.rows[index], self.mixture.offsets[index])
        self.best, self.last = cut(self.best), cut(self.last)
        kept_of = {}
        for node, split in self.splits.items():
            kept = xp.nonzero(place[split.row] >= 0)[0]
            self.splits[node] = Splits(place[split.row][kept], split.entry[kept], split.sign[kept], split.point[kept])
            kept_of[node] = kept
            known = self.moments.get((node, BETA))
            if known is not None:
                self.moments[node, BETA] = known[kept]
        for key, known in list(self.moments.items()):
            if key[1] != BETA:
                self.moments[key] = known[index]
        self.parameters = self.parameters.rows(index, kept_of)
        self.best_parameters = self.best_parameters.rows(index, kept_of)
        self._chosen = {node: chosen.rows(index) for node, chosen in self._chosen.items()}
        if self._averages is not None:
            self._averages.keep(index)
        if self._reached is not None:
            self._reached = self._reached.rows(index)
        self._corner, self._lost = cut(self._corner), cut(self._lost)
        self.like = self.like[index]
        self.count = int(index.shape[0])

    # --- improving -------------------------------------------------------------------------------------------------

    @property
    def coefficients(self) -> Array:
        """The coefficients ``[R, n]`` of the input in the last bounds."""
        return required(self._corner, "an evaluation before this")

    def allowance(self) -> Array:
        """What the last bounds ``[R]`` gave away for rounding."""
        reach = array_namespace(self.like).maximum(abs(self.base.lower), abs(self.base.upper))
        lost = required(self._lost, "an evaluation before this")
        return lost + rounding(self.like, reach.shape[1]) * (abs(self.coefficients) * reach).sum(1)

    def minimiser(self) -> Array:
        """The corners ``[R, n]`` at which the last bounds are attained (up to rounding)."""
        a = self.coefficients
        # Arithmetic on the mask takes a sixth of the time of a `where` that broadcasts.
        corner = array_namespace(a).astype(a <= 0, a.dtype)
        corner *= self.base.upper - self.base.lower
        corner += self.base.lower
        return corner

    @np.errstate(all="ignore")
    def forward(self) -> dict[int, Array]:
        """Values ``[R, *shape]`` that the minimisers take in the nodes that gradients need, through the lines chosen
        by the signs of the last evaluation."""
        nodes = self.base.plan.graph.nodes
        started = time.perf_counter()
        values: dict[int, Array] = {}
        for position in self._followed:
            node = nodes[position]
            if node.op == "Input":
                values[position] = self.minimiser().reshape(self.count, *node.shape)
                continue
            operator = rule(node.op)
            inputs = [values[source] for source in node.inputs]
            if operator.linear is not None:
                values[position] = operator.linear.apply(node, inputs)
            elif position in self._chosen:
                flat = [x.reshape(x.shape[0], -1) for x in inputs]
                output = follow(self.families[position], self._chosen[position], flat)
                if self._averages is not None:
                    self._averages.add(position, flat, output)
                values[position] = output.reshape(self.count, *node.shape)
            else:
                values[position] = operator.evaluate(node, inputs)
        self.seconds += time.perf_counter() - started
        return values

    @np.errstate(all="ignore")
    def costs(self, positions: Iterable[int] | None = None) -> dict[int, Array]:
        """What each elementwise relaxation (or those given) costs the bound ``[R, n]``, by node: the coefficient's size
        times the distance of relaxed and true value, at the average of the minimisers met, and for a ReLU a share of
        its intercept (what BaBSR scores: Bunel et al. 2020), which is its cost where the two lines are
        farthest apart."""
        nodes = self.base.plan.graph.nodes
        averages = required(self._averages, "averages")
        found: dict[int, Array] = {}
        for position in self._chosen if positions is None else positions:
            inputs, output = averages.of(position)
            a = self._chosen[position].coefficients
            found[position] = cost_of(nodes[position], self.families[position], a, inputs, output)
        return found

    def observed(self) -> dict[int, Observed]:
        """Every elementwise relaxation in the last evaluation, by node."""
        averages = required(self._averages, "averages")
        return {position: Observed(chosen, *averages.of(position)) for position, chosen in self._chosen.items()}

    @np.errstate(all="ignore")
    def improve(self, gain: Array, momentum: float = 0.0, values: Mapping[int, Array] | None = None) -> None:
        """One projected ascent step on all parameters, from the last evaluation, long enough to gain ``gain [R]`` if
        the bound were linear (Polyak 1969: with the gap to the wanted value as gain, the step needs no tuning).

        `momentum` is the share of the former direction that is kept. Multipliers are measured in bound per width of
        the entry's interval, so that one step length suits all parameters.
        """
        xp = array_namespace(self.like)
        values = self.forward() if values is None else values
        self.steps += 1
        directions = {}
        squares = zeros_like_shape((self.count,), self.like)
        for (position, kind), gradient in self.gradients(values).items():
            gradient = xp.where(xp.isfinite(gradient), gradient, 0.0)
            known = self.moments.get((position, kind))
            if momentum and known is not None:
                gradient += momentum * known
            self.moments[position, kind] = gradient
            if kind == BETA:
                split, beta = self.splits[position], self.parameters.betas[position]
                # A parameter that is pushed against its end does not move and must not shorten the step.
                gradient = xp.where((beta <= 0) & (gradient < 0), 0.0, gradient)
                weighted = gradient * squared_unit(split, self.base.intervals[position])
                add_at(squares, split.row, gradient * weighted)
                directions[position, kind] = weighted
            else:
                weight = required(self.parameters.lines[position][kind], "weights of free lines")
                held = ((weight <= 0) & (gradient < 0)) | ((weight >= 1) & (gradient > 0))
                gradient = xp.where(held, 0.0, gradient)
                squares += row_squares(gradient)
                directions[position, kind] = gradient
        if self.objective is not None:
            margin = mixed_margin(*self._mixed(values))
            side = required(self.parameters.side, "multipliers of its side constraint")
            held = (side <= 0) & (margin < 0)
            unit = self.objective.width / xp.where(margin != 0, abs(margin), 1.0)
            margin = xp.where(held, 0.0, margin)
            sideways = margin * unit * unit
            squares += margin * sideways
        length = xp.where(squares > 0, gain / xp.where(squares > 0, squares, 1.0), 0.0)
        for (position, kind), direction in directions.items():
            if kind == BETA:
                moved = self.parameters.betas[position] + length[self.splits[position].row] * direction
                self.parameters.betas[position] = xp.clip(moved, 0.0, None)
            else:
                pair = list(self.parameters.lines[position])
                pair[kind] = xp.clip(pair[kind] + length[:, None] * direction, 0.0, 1.0)
                self.parameters.lines[position] = (pair[0], pair[1])
        if self.objective is not None:
            side = required(self.parameters.side, "multipliers of its side constraint")
            self.parameters.side = xp.clip(side + length * sideways, 0.0, None)
        elif self.mixture is not None and self.mixture.rows.shape[1] > 1:
            self.parameters.mixture = reweighted(*self._mixed(values), self.steps)

    def gradients(self, values: Mapping[int, Array]) -> dict[tuple[int, int], Array]:
        """Derivatives of the bounds: of lines' weights ``[R, n]`` (kind 0 below, 1 above), of multipliers ``[K]``."""
        nodes = self.base.plan.graph.nodes
        found: dict[tuple[int, int], Array] = {}
        for position, chosen in self._chosen.items():
            inputs = [values[source].reshape(-1, nodes[position].size) for source in nodes[position].inputs]
            below, above = self.parameters.lines[position]
            free = below is not None, above is not None
            for kind, gradient in enumerate(gradients_of(self.families[position], chosen, inputs, free)):
                if gradient is not None:
                    found[position, kind] = gradient
        for position, split in self.splits.items():
            value = values[position].reshape(self.count, -1)[split.row, split.entry]
            found[position, BETA] = -split.sign * (value - split.point)
        return found

    def _mixed(self, values: Mapping[int, Array]) -> tuple[Mixture, Array, Array]:
        """The mixture, its weights, and the values ``[R, m]`` that it mixes."""
        weights = required(self.parameters.mixture, "weights of the mixture")
        return required(self.mixture, "a mixture"), weights, values[self.start].reshape(self.count, -1)
