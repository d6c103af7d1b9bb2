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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import array_namespace, options_like
from ..ops import rule
from ..ops.arrays import as_like, bound_by_constants, zeros_like_shape
from .families import Family, Side, make_family
from .interval import rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..graph import Array
    from ..ops.rule import Interval
    from .plan import Plan


AVERAGE = 0.2
"""Weight of a new minimiser in the average of those met, once a few are known."""

WORST_SHARE = 10.0
"""Weight of an undecided ReLU's largest cost beside its cost at the average of the minimisers (CIFAR base_kw, image
876: 17,000 domains with 10, 46,000 with 0.3 and more with 0)."""

PLAIN_STEPS = 4
"""Steps without momentum at first (measured on MNIST 256x4: 44 of 100 children closed after 2 of them, 25 by Adam)."""

CANCELLING = 0.25
"""The share of the rounding allowance (`interval.ROUNDING_STEPS`) for rows of a mixture that cancel."""

BETA = 2
"""The kind of parameter that is a multiplier (0 and 1 are weights of lines below and above)."""

BETA_UNIT = 3.0
"""Multipliers move this much, in units of bound per width of the interval, where a line's weight moves by one."""


class Splits(NamedTuple):
    """Constraints ``sign * (value - point) >= 0`` on entries of one node: arrays ``[K]``; `row` says which row of the
    batch each one binds."""

    row: Array
    entry: Array
    sign: Array
    point: Array


@dataclass(frozen=True, eq=False)
class Mixture:
    """Clauses of several rows: ``rows [R, S, m]``, ``offsets [R, S]`` (infinite for padding). The batch row is their
    weighted sum with weights >= 0 that sum to 1."""

    rows: Array
    offsets: Array


class Objective(NamedTuple):
    """Rows of another node's value to bound under the side constraint that the mixture's rows are <= 0: seeds ``[R,
    *shape]`` and constants ``[R]`` at `node`, and ``width [R]``, about how far the bound may move."""

    node: int
    seeds: Array
    constants: Array
    width: Array


@dataclass
class Parameters:
    """Weights of lines ``[R, n]`` by node (lower and upper, None where not free), multipliers ``[K]`` by split node,
    mixture weights ``[R, S]``, multipliers ``[R]`` of the side constraint of an `Objective`."""

    lines: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    betas: dict[int, Array] = field(default_factory=dict)
    mixture: Array = None
    side: Array = None

    @property
    def count(self) -> int:
        """Number of rows (of a mixture's parameters)."""
        return 0 if self.mixture is None else int(self.mixture.shape[0])

    def copy(self) -> Parameters:
        """The same values in arrays of their own."""
        lines = {node: (_copy(below), _copy(above)) for node, (below, above) in self.lines.items()}
        betas = {node: beta + 0 for node, beta in self.betas.items()}
        return Parameters(lines, betas, _copy(self.mixture), _copy(self.side))

    def rows(self, index: Array, kept: Mapping[int, Array]) -> Parameters:
        """The parameters of the rows at `index`; `kept` says which multipliers of each node are theirs."""

        def cut(x: Array) -> Array:
            return None if x is None else x[index]

        return Parameters(
            {node: (cut(below), cut(above)) for node, (below, above) in self.lines.items()},
            {node: beta[kept[node]] for node, beta in self.betas.items()},
            cut(self.mixture),
            cut(self.side),
        )


@dataclass(frozen=True, eq=False)
class Base:
    """What the optimiser takes as given: boxes ``[B, n]`` and bounds ``[B, *shape]`` of the inputs of nonlinear nodes
    by node index (others may be absent); B is 1 or the number of rows."""

    plan: Plan
    lower: Array
    upper: Array
    intervals: Mapping[int, Interval]

    def rows(self, index: Array) -> Base:
        """The base of the batch entries at `index`."""

        def cut(x: Array) -> Array:
            return x if x.shape[0] == 1 else x[index]

        intervals = {node: (cut(low), cut(high)) for node, (low, high) in self.intervals.items()}
        return Base(self.plan, cut(self.lower), cut(self.upper), intervals)

    def families(self, start: int) -> dict[int, Family]:
        """The families of the elementwise nonlinear ancestors of a node."""
        nodes = self.plan.graph.nodes
        return {
            index: make_family(nodes[index], [self.intervals[source] for source in nodes[index].inputs])
            for index in ancestors(self.plan, start)
            if index in self.plan.elementwise
        }


def ancestors(plan: Plan, start: int) -> list[int]:
    """The node and everything that it is computed from, last first."""
    wanted = {start}
    for index in range(start, -1, -1):
        if index in wanted:
            wanted.update(plan.graph.nodes[index].inputs)
    return sorted(wanted, reverse=True)


class Ascent:
    """Rows of one node's value, bounded from below again and again with better parameters.

    seeds ``[R, *shape of start]`` and constants ``[R]``, or a `Mixture` over the flat value of `start` instead.
    `evaluate` bounds all rows at the present parameters; `improve` moves the parameters along the gradient of the
    last evaluation; `keep` drops rows.
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
        self.parameters = self._initial(parameters)
        self.moments: dict[tuple[int, int], Array] = {}
        self.steps = 0
        self._chosen: dict[int, Array] = {}
        self._corner: Array = None
        self._average: dict[int, tuple[list[Array], Array]] = {}
        self._seen = 0
        self.seconds = 0.0
        self.last: Array = zeros_like_shape((self.count,), like)
        self.best: Array = self.last - float("inf")
        self.best_parameters = Parameters()
        self._evaluated = False

    @property
    def _mixed(self) -> Mixture:
        """The clauses that are mixed; ValueError for an ascent of plain rows."""
        if self.mixture is None:
            raise ValueError("the ascent has no mixture")
        return self.mixture

    def _initial(self, given: Parameters | None) -> Parameters:
        xp = array_namespace(self.like)
        own = given or Parameters()
        lines: dict[int, tuple[Array, Array]] = {}
        for node, family in self.families.items():
            pair = []
            for known, start in zip(own.lines.get(node, (None, None)), family.start, strict=True):
                # A line that is not free on these bounds has no weight, even if it has been free on wider ones.
                if known is not None and family.through_origin:
                    known = xp.where(family.free > 0, known, start)
                if start is not None and known is None:
                    known = xp.broadcast_to(start, (self.count, start.shape[1])) + 0
                pair.append(None if start is None else known)
            lines[node] = (pair[0], pair[1])
        betas = {
            node: own.betas.get(node, zeros_like_shape(split.row.shape, self.like))
            for node, split in self.splits.items()
        }
        weights = own.mixture
        if self.mixture is not None and weights is None:
            present = xp.astype(xp.isfinite(self._mixed.offsets), self.like.dtype)
            weights = present / xp.sum(present, axis=1, keepdims=True)
        side = own.side
        if self.objective is not None and side is None:
            side = zeros_like_shape((self.count,), self.like)
        return Parameters(lines, betas, weights, side)

    # --- bounding --------------------------------------------------------------------------------------------------

    @np.errstate(all="ignore")
    def evaluate(self) -> Array:
        """Lower bounds ``[R]`` of the rows at the present parameters."""
        started = time.perf_counter()
        nodes = self.base.plan.graph.nodes
        seeds, total, magnitude = self._seed()
        slack = rounding(seeds)
        pending: dict[int, Array] = {self.start: seeds}
        result: Array | None = None
        for position in self.order:
            a = pending.pop(position, None)
            if self.objective is not None and position == self.objective.node:
                seeds = self.objective.seeds.reshape(self.count, *nodes[position].shape)
                a = seeds if a is None else a.reshape(seeds.shape) + seeds
            if a is None:
                continue
            node = nodes[position]
            if position in self.splits:
                a, part = self._bind(position, a)
                total = total + part
                magnitude = magnitude + abs(part)
            if node.op == "Input":
                result = a.reshape(self.count, -1)
                continue
            carried, constant = self._through(position, a)
            if constant is not None:
                total = total + constant
                magnitude = magnitude + abs(constant)
            for source, piece in zip(node.inputs, carried, strict=True):
                known = pending.get(source)
                pending[source] = piece if known is None else known + piece
        if result is None:
            result = zeros_like_shape((self.count, self.base.lower.shape[1]), seeds)
        bound = self._concretize(result, total - slack * magnitude)
        self._remember(bound)
        self.seconds += time.perf_counter() - started
        return bound

    def _remember(self, bound: Array) -> None:
        """Keep every row's largest bound so far and the parameters that gave it."""
        own = self.parameters
        xp = array_namespace(bound)
        # An overflow must not look like a proof: neither NaN nor an infinity is ever a bound.
        bound = xp.where(xp.isfinite(bound), bound, -xp.inf)
        self.last = bound
        if not self._evaluated:
            self._evaluated = True
            self.best = bound + 0
            self.best_parameters = own.copy()
            return
        better = bound > self.best
        if not bool(better.any()):
            return
        kept = self.best_parameters
        _put(self.best, bound, better)
        for node, pair in own.lines.items():
            for side in (0, 1):
                if pair[side] is not None:
                    _put(kept.lines[node][side], pair[side], better[:, None])
        for node, beta in own.betas.items():
            _put(kept.betas[node], beta, better[self.splits[node].row])
        if own.mixture is not None:
            _put(kept.mixture, own.mixture, better[:, None])
        if own.side is not None:
            _put(kept.side, own.side, better)

    def _seed(self) -> tuple[Array, Array, Array]:
        """The coefficients at `start`, the constants ``[R]``, and the magnitudes ``[R]`` of what they sum up."""
        xp = array_namespace(self.like)
        if self.mixture is None:
            constants = self.constants
            if constants is None:
                constants = zeros_like_shape((self.count,), self.like)
            return self.seeds, constants, abs(constants)
        weights = self.parameters.mixture
        rows = (weights[:, None, :] @ self._mixed.rows)[:, 0]
        offsets = xp.where(weights > 0, self._mixed.offsets, 0.0)
        shape = self.base.plan.graph.nodes[self.start].shape
        constants = -xp.sum(weights * offsets, axis=1)
        size = abs(constants)
        if weights.shape[1] > 1:
            # Rows may cancel in a mixture, their rounding does not.
            size = xp.maximum(size, CANCELLING * xp.sum(weights * (abs(offsets) + self._row_sizes()), axis=1))
        if self.objective is not None:
            # For every multiplier >= 0: min z >= min (z + multiplier * margin) where margin <= 0.
            side = self.parameters.side
            rows, constants = rows * side[:, None], constants * side + self.objective.constants
            size = size * side + abs(self.objective.constants)
        return rows.reshape(self.count, *shape), constants, size

    def _row_sizes(self) -> Array:
        """How large the mixture's rows ``[R, S]`` can be on the boxes, summed term by term; 0 where that is unknown."""
        xp = array_namespace(self.like)
        known = self.base.intervals.get(self.start)
        if known is None:
            return xp.zeros_like(self._mixed.offsets)
        largest = xp.maximum(*(abs(end.reshape(end.shape[0], -1, 1)) for end in known))
        return (abs(self._mixed.rows) @ xp.where(xp.isfinite(largest), largest, 0.0))[:, :, 0]

    def _bind(self, position: int, a: Array) -> tuple[Array, Array]:
        """Subtract multiplier times constraint: for all beta >= 0, min f >= min (f - beta s (z - point)) where the
        constraint holds."""
        split, beta = self.splits[position], self.parameters.betas[position]
        size = self.base.plan.graph.nodes[position].size
        flat = a.reshape(-1) + 0
        force = beta * split.sign
        # An entry may be bound more than once.
        _add_at(flat, split.row * size + split.entry, -force)
        part = zeros_like_shape((self.count,), flat)
        _add_at(part, split.row, force * split.point)
        return flat.reshape(a.shape), part

    def _through(self, position: int, a: Array) -> tuple[tuple[Array, ...], Array | None]:
        node = self.base.plan.graph.nodes[position]
        operator = rule(node.op)
        if operator.linear is not None:
            bias = operator.linear.bias(node)
            part = None if bias is None else a.reshape(self.count, -1) @ as_like(bias, a).reshape(-1)
            return (operator.linear.adjoint(node, a.reshape(self.count, *node.shape)) if node.inputs else ()), part
        family = self.families.get(position)
        if family is None:
            intervals = [self.base.intervals[source] for source in node.inputs]
            if operator.backward is None:
                constant = bound_by_constants(a.reshape(self.count, 1, *node.shape), self.base.intervals[position])
                zeros = tuple(zeros_like_shape((self.count, *shape), a) for shape in node.input_shapes)
                return zeros, constant[:, 0]
            pieces, constant = operator.backward(node, intervals, a.reshape(self.count, 1, *node.shape))
            return tuple(piece[:, 0] for piece in pieces), constant[:, 0]
        flat = a.reshape(self.count, -1)
        below, above = self.parameters.lines[position]
        self._chosen[position] = flat
        if family.through_origin:
            return self._through_relu(family, flat, below)
        xp = array_namespace(flat)
        negative = xp.clip(flat, None, 0)
        positive = flat - negative
        total: Array | None = None
        for part, side, weight in ((positive, family.lower, below), (negative, family.upper, above)):
            intercept = _at(side.intercept, side.intercept_change, weight)
            if intercept is not None:
                term = xp.sum(part * intercept, axis=1)
                total = term if total is None else total + term
        pieces = tuple(
            positive * slope_below + negative * slope_above
            for slope_below, slope_above in zip(_slopes(family.lower, below), _slopes(family.upper, above), strict=True)
        )
        return tuple(piece.reshape(self.count, *node.shape) for piece in pieces), total

    def _through_relu(self, family: Family, a: Array, slope: Array) -> tuple[tuple[Array, ...], Array]:
        above, intercept = family.upper.slopes[0], family.upper.intercept
        xp = array_namespace(a)
        if isinstance(a, np.ndarray):
            negative = np.minimum(a, 0)
            constant = (
                negative @ intercept[0] if intercept.shape[0] == 1 else np.einsum("rn,rn->r", negative, intercept)
            )
            carried = a - negative
            carried *= slope
            negative *= above
            carried += negative
            return (carried,), constant
        negative = xp.clip(a, None, 0)
        return ((a - negative) * slope + negative * above,), xp.sum(negative * intercept, axis=1)

    def _concretize(self, a: Array, constant: Array) -> Array:
        xp = array_namespace(a)
        lower, upper = self.base.lower, self.base.upper
        centre, radius = 0.5 * (lower + upper), 0.5 * (upper - lower)
        reach = radius + rounding(a) * (abs(centre) + radius)
        self._corner = a
        if lower.shape[0] == 1:
            return a @ centre[0] - abs(a) @ reach[0] + constant
        return xp.sum(a * centre, axis=1) - xp.sum(abs(a) * reach, axis=1) + constant

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
            self.mixture = Mixture(self._mixed.rows[index], self._mixed.offsets[index])
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
        self._chosen = {node: a[index] for node, a in self._chosen.items()}
        self._average = {node: ([x[index] for x in xs], y[index]) for node, (xs, y) in self._average.items()}
        self._corner = cut(self._corner)
        self.like = self.like[index]
        self.count = int(index.shape[0])

    # --- improving -------------------------------------------------------------------------------------------------

    def minimiser(self) -> Array:
        """The corners ``[R, n]`` at which the last bounds are attained."""
        xp = array_namespace(self._corner)
        return xp.where(self._corner > 0, self.base.lower, self.base.upper)

    @np.errstate(all="ignore")
    def forward(self) -> dict[int, Array]:
        """Values ``[R, *shape]`` that the minimisers take in every ancestor, through the lines chosen by the signs of
        the last evaluation."""
        nodes = self.base.plan.graph.nodes
        started = time.perf_counter()
        values: dict[int, Array] = {}
        self._seen += 1
        for position in reversed(self.order):
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
                output = self._follow(position, flat)
                self._observe(position, flat, output)
                values[position] = output.reshape(self.count, *node.shape)
            else:
                values[position] = operator.evaluate(node, inputs)
        self.seconds += time.perf_counter() - started
        return values

    def _follow(self, position: int, inputs: list[Array]) -> Array:
        """The value of a relaxed node on the lines that the coefficients' signs chose."""
        family, a = self.families[position], self._chosen[position]
        below, above = self.parameters.lines[position]
        xp = array_namespace(a)
        low = high = 0.0
        sides = zip(inputs, _slopes(family.lower, below), _slopes(family.upper, above), strict=True)
        for x, slope_below, slope_above in sides:
            low = low + slope_below * x
            high = high + slope_above * x
        for_low = _at(family.lower.intercept, family.lower.intercept_change, below)
        for_high = _at(family.upper.intercept, family.upper.intercept_change, above)
        low = low if for_low is None else low + for_low
        high = high if for_high is None else high + for_high
        return xp.where(a > 0, low, high)

    @np.errstate(all="ignore")
    def costs(self) -> dict[int, Array]:
        """What each elementwise relaxation costs the bound ``[R, n]``, by node: the coefficient's size times the
        distance of relaxed and true value, at the average of the minimisers met, and for a ReLU a share of its
        intercept (what BaBSR scores: Bunel et al. 2020), which is its cost where the two lines are farthest apart."""
        nodes = self.base.plan.graph.nodes
        found: dict[int, Array] = {}
        for position, a in self._chosen.items():
            node = nodes[position]
            inputs, output = self._average[position]
            shaped = [x.reshape(self.count, *node.shape) for x in inputs]
            true = rule(node.op).evaluate(node, shaped).reshape(self.count, -1)
            cost = abs(a * (output - true))
            family = self.families[position]
            if family.through_origin:
                worst = array_namespace(a).clip(-a, 0, None) * family.upper.intercept
                cost = (cost + WORST_SHARE * worst) * family.free
            found[position] = cost
        return found

    def _observe(self, position: int, inputs: list[Array], output: Array) -> None:
        """Average what the minimisers take at a relaxed node: the averages of a subgradient method tend to the
        solution of the linear programme (Barahona and Anbil 2000, "The volume algorithm"), single ones jump."""
        known = self._average.get(position)
        if known is None:
            self._average[position] = (inputs, output)
            return
        w = max(1.0 / (self._seen + 1), AVERAGE)
        self._average[position] = (
            [old + w * (new - old) for old, new in zip(known[0], inputs, strict=True)],
            known[1] + w * (output - known[1]),
        )

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
        for (position, kind), gradient in self._gradients(values).items():
            gradient = xp.where(xp.isfinite(gradient), gradient, 0.0)
            known = self.moments.get((position, kind))
            if momentum and known is not None:
                gradient += momentum * known
            self.moments[position, kind] = gradient
            if kind == BETA:
                split, beta = self.splits[position], self.parameters.betas[position]
                # A parameter that is pushed against its end does not move and must not shorten the step.
                gradient = xp.where((beta <= 0) & (gradient < 0), 0.0, gradient)
                weighted = gradient * self._unit(position)
                _add_at(squares, split.row, gradient * weighted)
                directions[position, kind] = weighted
            else:
                weight = self.parameters.lines[position][kind]
                held = ((weight <= 0) & (gradient < 0)) | ((weight >= 1) & (gradient > 0))
                gradient = xp.where(held, 0.0, gradient)
                squares += _row_squares(gradient)
                directions[position, kind] = gradient
        if self.objective is not None:
            margin = self._margin(values)
            side = self.parameters.side
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
            self.parameters.side = xp.clip(side + length * sideways, 0.0, None)
        elif self.mixture is not None and self._mixed.rows.shape[1] > 1:
            self._mix(values)

    def _gradients(self, values: Mapping[int, Array]) -> dict[tuple[int, int], Array]:
        """Derivatives of the bounds: of lines' weights ``[R, n]`` (kind 0 below, 1 above), of multipliers ``[K]``."""
        xp = array_namespace(self.like)
        nodes = self.base.plan.graph.nodes
        found: dict[tuple[int, int], Array] = {}
        for position, a in self._chosen.items():
            family = self.families[position]
            inputs = [values[source].reshape(-1, nodes[position].size) for source in nodes[position].inputs]
            below, above = self.parameters.lines[position]
            if below is not None:
                found[position, 0] = xp.clip(a, 0, None) * _change(family.lower, inputs, family)
            if above is not None:
                found[position, 1] = xp.clip(a, None, 0) * _change(family.upper, inputs, family)
        for position, split in self.splits.items():
            value = values[position].reshape(self.count, -1)[split.row, split.entry]
            found[position, BETA] = -split.sign * (value - split.point)
        return found

    def _unit(self, position: int) -> Array:
        """The squared unit ``[K]`` of a node's multipliers."""
        split = self.splits[position]
        low, high = (end.reshape(end.shape[0], -1) for end in self.base.intervals[position])
        place = split.row if low.shape[0] > 1 else 0 * split.row
        width = (high - low)[place, split.entry]
        return (BETA_UNIT / array_namespace(width).where(width > 0, width, 1.0)) ** 2

    def _margin(self, values: Mapping[int, Array]) -> Array:
        """The side constraint's mixed rows ``[R]`` at the minimisers."""
        xp = array_namespace(self.like)
        output = values[self.start].reshape(self.count, -1, 1)
        margins = (self._mixed.rows @ output)[:, :, 0] - xp.where(self.parameters.mixture > 0, self._mixed.offsets, 0.0)
        return xp.sum(self.parameters.mixture * margins, axis=1)

    def _mix(self, values: Mapping[int, Array]) -> None:
        """An exponentiated-gradient step on the weights of a clause's rows."""
        xp = array_namespace(self.like)
        output = values[self.start].reshape(self.count, -1, 1)
        margins = (self._mixed.rows @ output)[:, :, 0] - self._mixed.offsets
        finite = xp.where(xp.isfinite(margins), margins, 0.0)
        largest = xp.max(abs(finite), axis=1, keepdims=True)
        exponent = 0.9**self.steps * margins / xp.where(largest > 0, largest, 1.0)
        weights = self.parameters.mixture * xp.exp(exponent)
        self.parameters.mixture = weights / xp.sum(weights, axis=1, keepdims=True)


def gain_to_zero(bound: Array, step: int) -> tuple[Array, float]:
    """Gain and momentum of `Ascent.improve` where what counts is a bound above zero: at first steps exactly as long as
    the way to zero asks, which closes most rows that can be closed; later longer ones with momentum, for the rest."""
    gain = array_namespace(bound).clip(-bound, 0, None) + 0.1 * abs(bound)
    return (gain, 0.0) if step < PLAIN_STEPS else (2.0 * gain, 0.7)


def _row_squares(x: Array) -> Array:
    return np.einsum("rn,rn->r", x, x) if isinstance(x, np.ndarray) else (x * x).sum(dim=1)


def _change(side: Side, inputs: list[Array], family: Family) -> Array:
    """How the line's value at the inputs changes with its weight."""
    if family.through_origin:
        return inputs[0] * family.free
    if side.changes is None:
        raise ValueError("the line is not free")
    total = side.intercept_change
    for change, x in zip(side.changes, inputs, strict=True):
        total = change * x if total is None else total + change * x
    return total


def _slopes(side: Side, weight: Array | None) -> tuple[Array, ...]:
    if weight is None:
        return side.slopes
    if side.changes is None:
        return (weight,)
    return tuple(slope + weight * change for slope, change in zip(side.slopes, side.changes, strict=True))


def _at(start: Array | None, change: Array | None, weight: Array | None) -> Array | None:
    if weight is None or change is None:
        return start
    return weight * change if start is None else start + weight * change


def _copy(x: Array) -> Array:
    return None if x is None else x + 0


def _put(target: Array, source: Array, where: Array) -> None:
    """Overwrite the target's entries where the (broadcast) mask says so."""
    if isinstance(target, np.ndarray):
        np.copyto(target, source, where=where)
    else:
        target.copy_(source.where(where, target))


def _add_at(target: Array, index: Array, amount: Array) -> None:
    if isinstance(target, np.ndarray):
        np.add.at(target, index, amount)
    else:
        target.index_add_(0, index, amount)
