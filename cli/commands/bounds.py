"""`boundsmith bounds`: what a network's outputs can be over a region."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import check_folder_of, debug_option, json_option, require_file

if TYPE_CHECKING:
    import numpy as np

    from ...verify.bounding.api import OutputBounds
    from ...verify.loading import Network

BOUNDS_SCHEMA = "boundsmith.bounds/1"

METHODS = ("crown", "alpha-crown", "crown-ibp", "ibp", "forward")

SHOWN = 10
"""Outputs that are printed for each box; the JSON report holds all."""


@click.command()
@click.argument("network", type=click.Path(path_type=Path), metavar="NET")
@click.option("--region", type=click.Path(path_type=Path), metavar="FILE.vnnlib", help="The boxes of a query.")
@click.option("--center", metavar="V,V,...|FILE.npy", help="Centre of a box; one value stands for all inputs.")
@click.option("--eps", type=click.FloatRange(min=0), help="Radius around --center, or around the points of --data.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Boxes `lower` and `upper`, or points `x` with --eps; the first axis counts them.",
)
@click.option("--method", type=click.Choice(METHODS), default="crown", show_default=True, help="How to bound.")
@click.option(
    "--engine",
    type=click.Choice(["boundsmith", "auto-lirpa"]),
    default="boundsmith",
    show_default=True,
    help="Whose bounds; auto-lirpa must be installed.",
)
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", help="Arithmetic.")
@json_option
@debug_option
def command(
    network: Path,
    region: Path | None,
    center: str | None,
    eps: float | None,
    data: Path | None,
    method: str,
    engine: str,
    dtype: str,
    json_file: Path | None,
) -> None:
    """Bound the outputs of NET, an ONNX file, over one or several boxes of inputs.

    \b
    Example:
      boundsmith bounds net.onnx --center 0.5 --eps 0.01
    """
    import numpy as np

    from ...verify.loading import load
    from ..regions import read_boxes

    check_folder_of(json_file)
    loaded = load(require_file(network, "network"))
    size = sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in loaded.inputs)
    lower, upper = read_boxes(size, region=region, center=center, eps=eps, data=data)
    start = time.monotonic()
    found = _bound(loaded, lower.astype(dtype), upper.astype(dtype), method, engine)
    report = to_object(loaded.source, method, engine, found, time.monotonic() - start)
    if json_file is not None:
        from ..atomic import write_json

        write_json(json_file, report)
    click.echo(describe(report))


def _bound(network: Network, lower: np.ndarray, upper: np.ndarray, method: str, engine: str) -> OutputBounds:
    if engine == "boundsmith":
        from ...verify.bounding.api import bounds_of

        return bounds_of(network, lower, upper, method)
    from ...verify.bounding.api import OutputBounds
    from ...verify.bounding.auto_lirpa import auto_lirpa_bounds

    name = method if method == "forward" else method.upper()
    return OutputBounds(*auto_lirpa_bounds(network, lower, upper, name), ())


def to_object(source: str, method: str, engine: str, found: OutputBounds, seconds: float) -> dict[str, Any]:
    """What the command shows, as one JSON object; `lower` and `upper` are ``[B, m]``."""
    from ..report.json import plain

    return {
        "schema": BOUNDS_SCHEMA,
        "file": source,
        "method": method,
        "engine": engine,
        "seconds": seconds,
        "lower": plain(found.lower),
        "upper": plain(found.upper),
        "mean_width": plain((found.upper - found.lower).mean()),
        "unstable": [{"layer": name, "unstable": count, "of": total} for name, count, total in found.unstable],
    }


def describe(report: dict[str, Any]) -> str:
    """The object as lines of text."""
    boxes = list(zip(report["lower"], report["upper"], strict=True))
    lines = [
        f"{report['file']}: {report['method']} by {report['engine']}, {len(boxes)} boxes, {report['seconds']:.3f} s",
        f"mean width {_short(report['mean_width'])}",
    ]
    for number, (lower, upper) in enumerate(boxes[:SHOWN]):
        if len(boxes) > 1:
            lines.append(f"box {number}")
        pairs = list(zip(lower, upper, strict=True))
        lines += [f"  Y_{index} in [{_short(low)}, {_short(high)}]" for index, (low, high) in enumerate(pairs[:SHOWN])]
        if len(pairs) > SHOWN:
            lines.append(f"  and {len(pairs) - SHOWN} outputs more")
    if len(boxes) > SHOWN:
        lines.append(f"and {len(boxes) - SHOWN} boxes more")
    lines += [f"{row['layer']}: {row['unstable']} of {row['of']} unstable" for row in report["unstable"]]
    return "\n".join(lines)


def _short(number: float | str) -> str:
    return number if isinstance(number, str) else f"{number:.7g}"
