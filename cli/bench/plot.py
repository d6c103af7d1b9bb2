"""The cactus plot: how many instances are solved within how many seconds each."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...verify.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LEAST = 1e-2
"""Seconds below which times are drawn alike."""


@dataclass(frozen=True)
class Curve:
    """A solver's name, the seconds it took for each instance that it solved, and how many instances it was given."""

    name: str
    seconds: Sequence[float]
    total: int


def write_cactus(file: Path, curves: Sequence[Curve], title: str) -> None:
    """Draw each curve's seconds in ascending order, on a logarithmic axis. All curves must be of the same instances."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    total = max((curve.total for curve in curves), default=0)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        ordered = sorted(max(value, _LEAST) for value in curve.seconds)
        # The last step, too, is one instance wide.
        heights = [*ordered[:1], *ordered]
        label = f"{curve.name} ({len(ordered)} of {curve.total})"
        axes.step(range(len(heights)), heights, where="pre", label=label)
    axes.set_yscale("log")
    times = [max(value, _LEAST) for curve in curves for value in curve.seconds] or [1.0]
    # Whole decades: within one, the axis would have no number on it.
    axes.set_ylim(10.0 ** math.floor(math.log10(min(times))), 10.0 ** (math.floor(math.log10(max(times))) + 1))
    axes.set_xlim(0, max(1.02 * total, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, parse_math=False)
    axes.set_xlabel(f"instances solved, of {total}")
    axes.set_ylabel("seconds an instance")
    axes.grid(visible=True, which="both", alpha=0.3)
    if curves:
        axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(file, picture.getvalue())
