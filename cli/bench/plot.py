"""The cactus plot: how many instances are solved within how many seconds each."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def write_cactus(file: Path, solved: Mapping[str, Sequence[float]], total: int) -> None:
    """Draw one curve a solver: its solved instances' seconds in ascending order, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, seconds in solved.items():
        ordered = sorted(max(value, 1e-2) for value in seconds)
        axes.step(range(1, len(ordered) + 1), ordered, where="post", label=f"{name} ({len(ordered)})")
    axes.set_yscale("log")
    axes.set_xlim(0, max(total, 1))
    axes.set_xlabel(f"instances solved, of {total}")
    axes.set_ylabel("seconds an instance")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(file, picture.getvalue())
