"""The innermost step of backward bounds: carrying coefficients through an elementwise relaxation.

With ``A+ = max(A, 0)`` and ``A- = min(A, 0)`` the step is (Zhang et al. 2018, "Efficient Neural Network Robustness
Certification with General Activation Functions", Theorem 3.2)

    A'  = A+ dl + A- du = A dl + A- (du - dl),        constant += <A+, bl> + <A-, bu>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import array_namespace

if TYPE_CHECKING:
    from ..graph import Array


class Step(NamedTuple):
    """An elementwise relaxation prepared for the backward step; each array ``[B, size]``, intercepts None where all
    zero.

    lower_slopes  one array an input.    spread  ``upper slope - lower slope``, one array an input.
    """

    lower_slopes: tuple[Array, ...]
    spread: tuple[Array, ...]
    lower_intercept: Array | None
    upper_intercept: Array | None

    def rows(self, index: Array | slice) -> Step:
        """The step for the batch entries in `index` (integers ``[R]``, or a slice)."""
        return Step(
            tuple(_entries(x, index) for x in self.lower_slopes),
            tuple(_entries(x, index) for x in self.spread),
            None if self.lower_intercept is None else _entries(self.lower_intercept, index),
            None if self.upper_intercept is None else _entries(self.upper_intercept, index),
        )


def _entries(x: Array, index: Array | slice) -> Array:
    """``x[index]`` along the first axis (numpy's `take` does it in two thirds of the time)."""
    return x.take(index, axis=0) if isinstance(x, np.ndarray) and isinstance(index, np.ndarray) else x[index]


def backward_step(coefficients: Array, step: Step) -> tuple[tuple[Array, ...], Array | None]:
    """Carry ``coefficients`` ``[B, S, size]`` from an operator's output to its inputs.

    Returns one ``[B, S, size]`` an input and the constants ``[B, S]`` to add (None for zero). The argument is not
    changed.
    """
    if isinstance(coefficients, np.ndarray):
        return _backward_step_numpy(coefficients, step)
    xp = array_namespace(coefficients)
    negative = xp.clip(coefficients, None, 0)
    constant = None
    if step.upper_intercept is not None:
        constant = xp.sum(negative * step.upper_intercept[:, None], axis=-1)
    if step.lower_intercept is not None:
        below = xp.sum((coefficients - negative) * step.lower_intercept[:, None], axis=-1)
        constant = below if constant is None else constant + below
    carried = tuple(
        coefficients * slope[:, None] + negative * spread[:, None]
        for slope, spread in zip(step.lower_slopes, step.spread, strict=True)
    )
    return carried, constant


def _backward_step_numpy(coefficients: np.ndarray, step: Step) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """The same with few passes over memory, which is what this step costs on a CPU."""
    negative = np.minimum(coefficients, 0)
    constant = None
    if step.upper_intercept is not None:
        constant = np.einsum("bsn,bn->bs", negative, step.upper_intercept)
    if step.lower_intercept is not None:
        below = np.einsum("bsn,bn->bs", coefficients - negative, step.lower_intercept)
        constant = below if constant is None else constant + below
    carried = []
    last = len(step.lower_slopes) - 1
    for position, (slope, spread) in enumerate(zip(step.lower_slopes, step.spread, strict=True)):
        correction = np.multiply(negative, spread[:, None], out=negative if position == last else None)
        result = coefficients * slope[:, None]
        result += correction
        carried.append(result)
    return tuple(carried), constant
