"""Forward linear bounds for inputs of few dimensions: every node between two linear functions of the input.

Through an affine operator, ``L' = W+ L + W- U = (W (L + U) + |W| (L - U)) / 2`` and ``U' = (W (L + U) + |W| (U - L))
/ 2``, for coefficients and constants alike, so one pass costs about ``2 n`` evaluations of the network, whatever its
width; backward bounds cost one a neuron. (Known as forward-mode LiRPA: Xu et al. 2020, "Automatic Perturbation
Analysis for Scalable Certified Robustness and Beyond".) The result is looser than CROWN's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..arrays import array_namespace, options_like
from ..ops import rule
from ..ops.arrays import as_like, product, quiet, surely_finite, zeros_like_shape
from ..rounding import FEW, element_type, roundings, smallest
from .interval import intersect, node_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..graph import Array, Node
    from ..ops.rule import Interval, Lines
    from .backward import Relaxed
    from .plan import Plan


@dataclass(frozen=True, eq=False)
class Affine:
    """Lines around a node's value: ``lower_coefficients . x + lower_constant <= value <= upper_coefficients . x +
    upper_constant``.

    Coefficients are ``[B, n, *shape]`` (n inputs), constants ``[B, *shape]``; `terms` ``[B, *shape]`` bounds the
    magnitudes summed so far, `rounded` is by how many unit roundoffs of that the lines may be off, and `floor` ``[B]``
    is what one product that underflows adds to the terms (0.0 for constant lines).
    """

    lower_coefficients: Array
    lower_constant: Array
    upper_coefficients: Array
    upper_constant: Array
    terms: Array
    rounded: float = 0.0
    floor: Array = 0.0


def forward_bounds(plan: Plan, lower: Array, upper: Array) -> list[Interval]:
    """Bounds of every node for boxes ``[B, n]``: forward lines, intersected with interval bounds; differentiable on
    torch.

    Raises `UndefinedOnRegion` where an operator has no finite meaning on a box.
    """
    nodes = plan.graph.nodes
    intervals: list[Interval] = []
    lines: list[Affine] = []
    for node in nodes:
        inputs = [lines[source] for source in node.inputs]
        ranges = [intervals[source] for source in node.inputs]
        if node.op == "Input":
            intervals.append((lower.reshape(-1, *node.shape), upper.reshape(-1, *node.shape)))
            lines.append(_identity(lower, upper, node))
            continue
        interval = node_interval(node, rule(node.op), ranges)
        here = _through(node, inputs, ranges, interval, lower)
        lines.append(here)
        intervals.append(intersect(interval, _range(here, lower, upper), node))
    return intervals


class ForwardLines:
    """Forward lines of the nodes of a relaxation under way, made as far as they are asked for.

    Lines are about the inputs that vary on their box (by more than rounding), which may be others on each: the k-th
    coefficient is that of the box's k-th varying input, and the others count as constants. What backward bounds have
    found (`state.intervals`) goes into them.

    useful   for the caller to note that further lines are not worth their time.
    """

    def __init__(self, state: Relaxed) -> None:
        xp = array_namespace(state.lower)
        self._state = state
        # Numbers that the dtype does not have, of inputs that are fixed, make no input vary.
        width = abs(state.lower) + abs(state.upper)
        self._varies = varies = state.upper - state.lower > FEW * element_type(state.lower.dtype).unit * width
        count = int(xp.max(xp.sum(xp.astype(varies, xp.int64), axis=1)))
        # Stable, so that varying inputs come first and in order; where there are fewer, fixed ones fill up.
        self._slots = xp.argsort(xp.astype(~varies, xp.int64), axis=1, stable=True)[:, :count]
        self._lines: list[Affine] = []
        self.useful = True

    @property
    def inputs(self) -> int:
        """How many inputs vary at most on a box."""
        return int(self._slots.shape[1])

    def range(self, index: int) -> Interval:
        """Bounds ``[B, *shape]`` of a node whose interval is known, by its lines alone; never NaN."""
        xp = array_namespace(self._state.lower)
        state, nodes = self._state, self._state.plan.graph.nodes
        lower, upper = (xp.take_along_axis(end, self._slots, axis=1) for end in (state.lower, state.upper))
        for position in range(len(self._lines), index + 1):
            node = nodes[position]
            if node.op == "Input":
                self._lines.append(self._start(node))
                continue
            inputs = [self._lines[source] for source in node.inputs]
            ranges = [state.intervals[source] for source in node.inputs]
            self._lines.append(_through(node, inputs, ranges, state.intervals[position], lower))
        return _range(self._lines[index], lower, upper)

    def _start(self, node: Node) -> Affine:
        """The input itself: lines of slope one in what varies, constants elsewhere."""
        lower, upper = self._state.lower, self._state.upper
        xp = array_namespace(lower)
        varies = self._varies
        places = xp.arange(lower.shape[1], **options_like(lower))
        own = (places == self._slots[:, :, None]) & varies[:, None, :]
        coefficients = xp.astype(own, lower.dtype).reshape(*own.shape[:2], *node.shape)
        low, high = (xp.where(varies, 0.0, end).reshape(-1, *node.shape) for end in (lower, upper))
        terms = xp.maximum(abs(lower), abs(upper)).reshape(-1, *node.shape)
        return Affine(coefficients, low, coefficients, high, terms, floor=_floor(lower, upper))


def _floor(lower: Array, upper: Array) -> Array:
    """A product that underflows is off by less than the smallest normal number; a coefficient multiplies an input."""
    xp = array_namespace(lower)
    reach = xp.sum(xp.maximum(abs(lower), abs(upper)), axis=1)
    return smallest(lower) / element_type(lower.dtype).unit * (2.0 + 2.0 * reach)


def _floored(terms: Array, inputs: Sequence[Affine], products: int) -> Array:
    """The terms with what so many products for each entry may have lost by underflow."""
    for line in inputs:
        if not isinstance(line.floor, float):
            return terms + products * line.floor.reshape(-1, *(1,) * (terms.ndim - 1))
    return terms


def _floor_of(inputs: Sequence[Affine]) -> Array:
    return next((line.floor for line in inputs if not isinstance(line.floor, float)), 0.0)


@quiet
def _through(node: Node, inputs: list[Affine], ranges: Sequence[Interval], interval: Interval, like: Array) -> Affine:
    """Lines around a node's value from those of its inputs, their bounds and its own; `like` is ``[B, n]``."""
    operator = rule(node.op)
    if operator.linear is not None and node.inputs:
        return _settled(_through_linear(node, inputs, ranges), interval)
    if operator.linear is None and operator.relax is not None:
        return _settled(_through_lines(operator.relax(node, ranges), inputs), interval)
    return _constant(like, interval)


def _settled(line: Affine, interval: Interval) -> Affine:
    """The lines where they are finite, elsewhere the constant bounds: what overflowed in one entry must not make
    numbers that are none of those which only multiply it by zero."""
    low, low_constant = line.lower_coefficients, line.lower_constant
    high, high_constant = line.upper_coefficients, line.upper_constant
    if surely_finite(low, low_constant, high, high_constant, line.terms):
        return line
    xp = array_namespace(low)
    sides = []
    for coefficients, constant, end in ((low, low_constant, interval[0]), (high, high_constant, interval[1])):
        usable = xp.isfinite(constant) & xp.isfinite(line.terms) & xp.all(xp.isfinite(coefficients), axis=1)
        sides.append((xp.where(usable[:, None], coefficients, 0.0), xp.where(usable, constant, end)))
    extent = xp.maximum(abs(interval[0]), abs(interval[1]))
    terms = xp.where(xp.isfinite(line.terms), line.terms, xp.where(xp.isfinite(extent), extent, 0.0))
    return Affine(sides[0][0], sides[0][1], sides[1][0], sides[1][1], terms, line.rounded, line.floor)


def _identity(lower: Array, upper: Array, node: Node) -> Affine:
    """Slope one in each input."""
    xp = array_namespace(lower)
    batch, size = lower.shape
    unit = zeros_like_shape((size, size), lower)
    places = xp.arange(size, **options_like(lower))
    unit[places, places] = 1
    coefficients = xp.broadcast_to(unit[None], (batch, size, size)).reshape(batch, size, *node.shape)
    zero = zeros_like_shape((batch, *node.shape), lower)
    terms = xp.maximum(abs(lower), abs(upper)).reshape(batch, *node.shape)
    return Affine(coefficients, zero, coefficients, zero, terms, floor=_floor(lower, upper))


def _constant(like: Array, interval: Interval) -> Affine:
    """An operator bounded by its interval alone."""
    xp = array_namespace(like)
    batch, size = like.shape
    low, high = (xp.broadcast_to(end, (batch, *end.shape[1:])) for end in interval)
    zeros = zeros_like_shape((batch, size, *low.shape[1:]), like)
    return Affine(zeros, low, zeros, high, xp.maximum(abs(low), abs(high)))


def _through_linear(node: Node, inputs: list[Affine], ranges: Sequence[Interval]) -> Affine:
    operator = rule(node.op).linear
    if operator is None:
        raise ValueError(f"{node.op} is not linear")
    batch, size = inputs[0].lower_coefficients.shape[:2]

    def mapped(lows: list[Array], highs: list[Array]) -> tuple[Array, Array]:
        middle = operator.apply_linear(node, [low + high for low, high in zip(lows, highs, strict=True)])
        spread = operator.magnitude(node, [high - low for low, high in zip(lows, highs, strict=True)])
        return 0.5 * (middle - spread), 0.5 * (middle + spread)

    def folded(x: Array) -> Array:
        return x.reshape(batch * size, *x.shape[2:])

    low, high = mapped(
        [folded(line.lower_coefficients) for line in inputs], [folded(line.upper_coefficients) for line in inputs]
    )
    low_constant, high_constant = mapped(
        [line.lower_constant for line in inputs], [line.upper_constant for line in inputs]
    )
    terms = operator.magnitude(node, [line.terms for line in inputs])
    fan_in = operator.sums(node)[0]
    if fan_in > 1 or "scale" in node.params:
        terms = _floored(terms, inputs, fan_in)
    bias = operator.bias(node)
    if bias is not None:
        shift = as_like(bias, low_constant)
        low_constant, high_constant, terms = low_constant + shift, high_constant + shift, terms + abs(shift)
    if node.has_errors:
        xp = array_namespace(low)
        error = operator.parameter_error(node, [xp.maximum(abs(least), abs(most)) for least, most in ranges])
        low_constant, high_constant = low_constant - error, high_constant + error
    shape = (batch, size, *node.shape)
    # Lower and upper lines are added up and taken apart again: three times the sum's own allowance.
    rounded = max(line.rounded for line in inputs) + 3.0 * roundings(fan_in)
    return Affine(
        low.reshape(shape), low_constant, high.reshape(shape), high_constant, terms, rounded, _floor_of(inputs)
    )


def _through_lines(lines: Lines, inputs: list[Affine]) -> Affine:
    """Substitute the inputs' lines into an elementwise relaxation, each on the side that its slope's sign asks for."""
    xp = array_namespace(lines.lower_intercept)
    low_constant, high_constant = lines.lower_intercept, lines.upper_intercept
    terms = xp.maximum(abs(low_constant), abs(high_constant))
    low = high = 0.0
    for low_slope, high_slope, line in zip(lines.lower_slopes, lines.upper_slopes, inputs, strict=True):
        rising, falling = xp.clip(low_slope, 0, None), xp.clip(low_slope, None, 0)
        low = low + rising[:, None] * line.lower_coefficients + falling[:, None] * line.upper_coefficients
        low_constant = low_constant + product(rising, line.lower_constant) + product(falling, line.upper_constant)
        rising, falling = xp.clip(high_slope, 0, None), xp.clip(high_slope, None, 0)
        high = high + rising[:, None] * line.upper_coefficients + falling[:, None] * line.lower_coefficients
        high_constant = high_constant + product(rising, line.upper_constant) + product(falling, line.lower_constant)
        terms = terms + xp.maximum(abs(low_slope), abs(high_slope)) * line.terms
    terms = _floored(terms, inputs, 2 * len(inputs))
    rounded = max(line.rounded for line in inputs) + FEW * len(inputs)
    return Affine(low, low_constant, high, high_constant, terms, rounded, _floor_of(inputs))


@quiet
def _range(line: Affine, lower: Array, upper: Array) -> Interval:
    """The lines' least and largest values on the box ``[B, n]``, less the rounding allowance; never NaN."""
    batch, size = lower.shape
    shape = (batch, size, *(1,) * (line.lower_coefficients.ndim - 2))
    centre, radius = (0.5 * (lower + upper)).reshape(shape), (0.5 * (upper - lower)).reshape(shape)
    xp = array_namespace(lower)
    slack = element_type(lower.dtype).unit * (line.rounded + roundings(size)) * line.terms + size * smallest(lower)
    low = xp.sum(line.lower_coefficients * centre - abs(line.lower_coefficients) * radius, axis=1)
    high = xp.sum(line.upper_coefficients * centre + abs(line.upper_coefficients) * radius, axis=1)
    low, high = low + line.lower_constant - slack, high + line.upper_constant + slack
    # A sum that overflowed says nothing, even where it came out as an infinity of the other sign.
    return xp.where(abs(low) < xp.inf, low, -xp.inf), xp.where(abs(high) < xp.inf, high, xp.inf)
