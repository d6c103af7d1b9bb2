"""Averages of what an ascent's minimisers take at relaxed nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph import Array

NEWEST = 0.2
"""Weight of a new minimiser in the average of those met, once a few are known."""


class Averages:
    """Inputs and outputs ``[R, n]`` of relaxed nodes, averaged over the minimisers met: the averages of a subgradient
    method tend to the solution of the linear programme (Barahona and Anbil 2000, "The volume algorithm"), single ones
    jump."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[list[Array], Array]] = {}
        self._met: dict[int, int] = {}

    def add(self, node: int, inputs: list[Array], output: Array) -> None:
        """Count in what the newest minimisers take at a node."""
        met = self._met[node] = self._met.get(node, 0) + 1
        if met == 1:
            self._known[node] = (inputs, output)
            return
        known = self._known[node]
        weight = max(1.0 / (met + 1), NEWEST)
        self._known[node] = (
            [old + weight * (new - old) for old, new in zip(known[0], inputs, strict=True)],
            known[1] + weight * (output - known[1]),
        )

    def of(self, node: int) -> tuple[list[Array], Array]:
        """The averages of a node's inputs and output."""
        return self._known[node]

    def keep(self, index: Array) -> None:
        """Drop all rows but those at `index`."""
        self._known = {node: ([x[index] for x in xs], y[index]) for node, (xs, y) in self._known.items()}
