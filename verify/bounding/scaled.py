"""How far an ascent goes: to a bound above zero, or, scaled entry by entry, to bounds that are wanted as such.

Every weight moves about the same way, whatever the size of its derivative (its root mean square over the last steps is
divided out: Tieleman and Hinton 2012, "RMSProp"). The optimum of most weights is an end of their range, which steps
along the gradient reach late where it is small: after 6 of these steps intermediate bounds are as tight as after 10 of
`Ascent.improve` (mean over entries, on ACAS Xu, MNIST and CIFAR networks). Where a bound only has to become positive,
`Ascent.improve` gets there in fewer steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace

if TYPE_CHECKING:
    from ..graph import Array
    from .alpha import Ascent

PLAIN_STEPS = 4
"""Steps without momentum at first (measured on MNIST 256x4: 44 of 100 children closed after 2 of them, 25 by Adam)."""

MEMORY = 0.9
"""Share of the mean square that is kept from step to step."""


class ScaledSteps:
    """Steps of one ascent without splits and mixture."""

    def __init__(self, ascent: Ascent) -> None:
        """Raises ValueError for an ascent whose parameters are not weights of lines alone."""
        if ascent.splits or ascent.mixture is not None:
            raise ValueError("scaled steps are for weights of lines alone")
        self._ascent = ascent
        self._squares: dict[tuple[int, int], Array] = {}
        self._share = 1.0

    @np.errstate(all="ignore")
    def step(self, length: float) -> None:
        """Move every free weight by about `length` (weights are in [0, 1]) from the last evaluation."""
        lines = self._ascent.parameters.lines
        self._share *= MEMORY
        for (node, kind), gradient in self._ascent.gradients(self._ascent.forward()).items():
            xp = array_namespace(gradient)
            squares = gradient * gradient
            squares *= 1.0 - MEMORY
            known = self._squares.get((node, kind))
            if known is not None:
                squares += MEMORY * known
            self._squares[node, kind] = squares
            scale = xp.sqrt(squares)
            moved = gradient * (length * (1.0 - self._share) ** 0.5)
            moved /= xp.where(scale > 0, scale, 1.0)
            pair = list(lines[node])
            moved += pair[kind]
            # An overflow moves nothing.
            pair[kind] = xp.where(xp.isfinite(moved), xp.clip(moved, 0.0, 1.0), pair[kind])
            lines[node] = (pair[0], pair[1])


def gain_to_zero(bound: Array, step: int) -> tuple[Array, float]:
    """Gain and momentum of `Ascent.improve` where what counts is a bound above zero: at first steps exactly as long as
    the way to zero asks, which closes most rows that can be closed; later longer ones with momentum, for the rest."""
    gain = array_namespace(bound).clip(-bound, 0, None) + 0.1 * abs(bound)
    return (gain, 0.0) if step < PLAIN_STEPS else (2.0 * gain, 0.7)
