"""The property test of a row: whether its intervals and lines contain the operator's values, by dense sampling."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BoundsmithError
from ..graph import Node
from .table import rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .added import Operator
    from .rule import Interval, Lines, OpRule

_INTERVALS = 48
_POINTS = 65
_UNITS = 16
"""How many units of roundoff of the terms compared a row may be wrong by."""


class UnsoundOperator(BoundsmithError):
    """A row does not contain its operator's values, or answers arrays of the wrong kind."""


def check_operator(
    operator: Operator,
    low: float = -10.0,
    high: float = 10.0,
    inputs: int = 1,
    attributes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> int:
    """Compare an elementwise operator's interval, lines and gradient with its value at many points.

    low, high    the range of arguments tested; the operator must have a value on all of it.
    inputs       how many inputs it has.
    attributes   of the node, where the operator reads some.
    seed         of the random intervals: points, tiny, narrow and wide ones, to either side of zero and at the ends.

    Returns the number of values compared, in float32 and float64. Raises `UnsoundOperator` with the interval and the
    point where a bound fails first. That none fails is no proof: the row's own reasoning must be right between the
    points.
    """
    shape = (_INTERVALS,)
    node = Node("tested", operator.op, tuple(range(inputs)), shape, MappingProxyType({}), dict(attributes or {}))
    row, compared = rule(operator.op), 0
    for dtype in (np.float32, np.float64):
        random = np.random.default_rng(seed)
        intervals = [_intervals(random, low, high, dtype) for _ in range(inputs)]
        points = _points(random, intervals)
        exact = np.stack([_evaluated(row, node, [x[:, k][None] for x in points], dtype)[0] for k in range(_POINTS)], 1)
        boxed = [(lower[None], upper[None]) for lower, upper in intervals]
        bounds = row.interval(node, boxed)
        _check_arrays(operator, "interval", bounds, dtype)
        # Values are sums of terms about as large as their arguments (a gated function's tail), which float32 rounds.
        size = abs(exact).max(axis=1, keepdims=True) + sum(abs(x) for x in points)
        _compare(operator, "interval", intervals, points, exact, bounds[0][0][:, None], bounds[1][0][:, None], size)
        compared += 2 * exact.size
        for position in (None, *(np.full((1, *shape), t, dtype) for t in (0.0, 0.5, 1.0)), random.random((1, *shape))):
            slope = None if position is None else position.astype(dtype)
            if row.relax is None:
                break
            lines = row.relax(node, boxed, slope)
            _check_arrays(operator, "lines", _arrays_of(lines), dtype)
            below, above, terms = _values(lines, points)
            _compare(operator, "lines", intervals, points, exact, below, above, abs(exact) + terms)
            compared += 2 * exact.size
        if row.vjp is not None and dtype is np.float64:
            compared += _check_gradient(operator, row, node, intervals)
    return compared


def _intervals(random: np.random.Generator, low: float, high: float, dtype: Any) -> Interval:
    """Intervals of all widths within the range; some end at its ends, at zero, or are points."""
    width = (high - low) * random.choice([0.0, 1e-6, 1e-3, 0.05, 0.5, 1.0], _INTERVALS)
    start = random.uniform(low, high, _INTERVALS) - width * random.random(_INTERVALS)
    lower, upper = np.clip(start, low, high), np.clip(start + width, low, high)
    kind = random.integers(0, 6, _INTERVALS)
    zero = min(max(0.0, low), high)
    lower, upper = (
        np.where(kind == 0, np.minimum(lower, zero), lower),
        np.where(kind == 1, np.maximum(upper, zero), upper),
    )
    lower, upper = np.where(kind == 2, np.clip(zero, lower, upper), lower), np.where(kind == 3, high, upper)
    # Rounding to float32 must not leave the range.
    inside = [
        np.clip(end.astype(dtype), _inward(low, dtype, np.inf), _inward(high, dtype, -np.inf)) for end in (lower, upper)
    ]
    return np.minimum(*inside), np.maximum(*inside)


def _inward(edge: float, dtype: Any, towards: float) -> Any:
    """The edge of the range, rounded into it."""
    rounded = dtype(edge)
    outside = rounded < edge if towards > 0 else rounded > edge
    return np.nextafter(rounded, dtype(towards)) if outside else rounded


def _points(random: np.random.Generator, intervals: Sequence[Interval]) -> list[np.ndarray]:
    """Points ``[intervals, points]`` of every input: a grid for a single one, else random ones with all corners."""
    weights = np.linspace(0.0, 1.0, _POINTS)
    made = []
    for lower, upper in intervals:
        low, high = lower.astype(float)[:, None], upper.astype(float)[:, None]
        mix = weights[None] if len(intervals) == 1 else random.random((_INTERVALS, _POINTS))
        if len(intervals) > 1:
            mix[:, : _POINTS // 2] = random.integers(0, 2, (_INTERVALS, _POINTS // 2))
        made.append(np.clip(low + mix * (high - low), low, high))
    return made


def _evaluated(row: OpRule, node: Node, xs: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """The value in float64; the row must answer the dtype that it is given."""
    given = row.evaluate(node, [x.astype(dtype) for x in xs])
    if given.dtype != dtype or given.shape != xs[0].shape:
        raise UnsoundOperator(
            f"{node.op}: evaluate answers {given.dtype} {given.shape} for {np.dtype(dtype)} {xs[0].shape}."
        )
    return np.asarray(row.evaluate(node, xs), dtype=float)


def _arrays_of(lines: Lines) -> tuple[np.ndarray, ...]:
    return (*lines.lower_slopes, lines.lower_intercept, *lines.upper_slopes, lines.upper_intercept)


def _check_arrays(operator: Operator, what: str, arrays: Sequence[np.ndarray], dtype: Any) -> None:
    for array in arrays:
        if array.dtype != dtype or array.shape != (1, _INTERVALS):
            raise UnsoundOperator(
                f"{operator.names[0]}: its {what} answer {array.dtype} {list(array.shape)} "
                f"for intervals of {np.dtype(dtype)} {[1, _INTERVALS]}."
            )
        if np.isnan(array).any():
            raise UnsoundOperator(f"{operator.names[0]}: its {what} have NaN.")


def _values(lines: Lines, points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lines at the points, and how large the terms are that they add up."""
    sides, terms = [], np.zeros_like(points[0])
    for slopes, intercept in (
        (lines.lower_slopes, lines.lower_intercept),
        (lines.upper_slopes, lines.upper_intercept),
    ):
        total = np.broadcast_to(intercept[0].astype(float)[:, None], points[0].shape)
        terms = terms + abs(total)
        for slope, x in zip(slopes, points, strict=True):
            part = slope[0].astype(float)[:, None] * x
            total, terms = total + part, terms + abs(part)
        sides.append(total)
    return sides[0], sides[1], terms


def _compare(
    operator: Operator,
    what: str,
    intervals: Sequence[Interval],
    points: Sequence[np.ndarray],
    exact: np.ndarray,
    below: np.ndarray,
    above: np.ndarray,
    size: np.ndarray,
) -> None:
    """Raise at the first value that lies below its lower or above its upper bound by more than rounding."""
    slack = _UNITS * float(np.finfo(intervals[0][0].dtype).eps) * size + 1e-30
    wrong = ~((below - slack <= exact) & (exact <= above + slack))
    if not wrong.any():
        return
    k, point = np.argwhere(wrong)[0]
    box = " and ".join(f"[{lower[k]:.9g}, {upper[k]:.9g}]" for lower, upper in intervals)
    at = ", ".join(f"{x[k, point]:.9g}" for x in points)
    low, high = (float(np.broadcast_to(side, exact.shape)[k, point]) for side in (below, above))
    raise UnsoundOperator(
        f"{operator.names[0]}: on {box} its {what} bound the value at {at} by [{low:.9g}, {high:.9g}], "
        f"but it is {exact[k, point]:.9g}."
    )


def _check_gradient(operator: Operator, row: OpRule, node: Node, intervals: Sequence[Interval]) -> int:
    """Compare the gradient with differences of the value, at the middle of intervals that are not points."""
    middles = [(0.5 * (lower + upper))[None] for lower, upper in intervals]
    made = row.vjp(node, middles, row.evaluate(node, middles), np.ones((1, _INTERVALS))) if row.vjp else ()
    for k, gradient in enumerate(made):
        lower, upper = intervals[k]
        step = np.minimum(1e-5 * np.maximum(1.0, abs(middles[k])), 0.25 * (upper - lower)[None])
        moved = [[x + sign * step if j == k else x for j, x in enumerate(middles)] for sign in (1, -1)]
        ahead, behind = (row.evaluate(node, xs) for xs in moved)
        wide = step > 1e-7
        slope = (ahead - behind)[wide] / (2 * step)[wide]
        here = row.evaluate(node, middles)[wide]
        # A kink within the step leaves the gradient between the slopes to both sides.
        left, right = (here - behind[wide]) / step[wide], (ahead[wide] - here) / step[wide]
        slack = 1e-4 * (1.0 + abs(slope)) + 1e-9 * abs(here) / step[wide]
        given = gradient[wide]
        wrong = (given < np.minimum(left, right) - slack) | (given > np.maximum(left, right) + slack)
        if wrong.any():
            at = float(middles[k][wide][wrong][0])
            raise UnsoundOperator(
                f"{operator.names[0]}: its gradient at {at:.9g} is {given[wrong][0]:.9g}, "
                f"but the value changes by {slope[wrong][0]:.9g}."
            )
    return int(sum(np.size(gradient) for gradient in made))
