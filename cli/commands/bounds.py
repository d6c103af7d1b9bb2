"""`boundsmith bounds`: what a network's outputs can be over a region."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..options import InputPath, Seconds, check_writable, debug_option, json_option, require_file
from ..output import (
    INTERRUPTED,
    NOT_WRITTEN,
    Answering,
    NotWrittenError,
    answers,
    complain,
    counted,
    say,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TextIO

    import numpy as np

    from ...verify.bounding.api import OutputBounds
    from ...verify.budget import Deadline
    from ...verify.loading import Network

BOUNDS_SCHEMA = "boundsmith.bounds/1"

METHODS = ("crown", "alpha-crown", "crown-ibp", "ibp", "forward")

SHOWN = 10
"""Outputs that are printed for each box; the JSON report holds all."""


@click.command(cls=Answering)
@click.argument("network", type=InputPath(), metavar="NET")
@click.option("--region", type=InputPath(), metavar="FILE.vnnlib", help="The boxes of a query.")
@click.option("--center", metavar="V,V,...|FILE.npy", help="Centre of a box; one value stands for all inputs.")
@click.option("--eps", type=click.FloatRange(min=0), help="Radius around --center, or around the points of --data.")
@click.option(
    "--data",
    type=InputPath(),
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
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Arithmetic [the network's own].")
@click.option(
    "--timeout",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Limit, counted from the start of the process; when it passes, the best bounds so far are given.",
)
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
    dtype: str | None,
    timeout: float | None,
    json_file: Path | None,
) -> None:
    """Bound the outputs of NET, an ONNX file, over one or several boxes of inputs.

    \b
    Example:
      boundsmith bounds net.onnx --center 0.5 --eps 0.01
    """
    from ...verify.budget import NEVER, Deadline, process_start
    from ..watchdog import Watchdog

    check_writable(json_file)
    deadline = NEVER if timeout is None else Deadline.after(timeout, process_start())
    answer = _Answer(answers(), json_file, method, engine, timeout)
    grace = 0.0 if timeout is None else min(1.0, 0.02 * timeout)
    with Watchdog(deadline, grace, answer.expire, _interrupted) as watchdog:
        from ...verify.budget import TimeUp
        from ...verify.loading import load
        from ..regions import read_boxes, rounded_outward

        loaded = load(require_file(network, "network"))
        sizes = [_size(tensor.shape) for tensor in loaded.inputs]
        boxes = read_boxes(sum(sizes), region=region, center=center, eps=eps, data=data)
        lower, upper = rounded_outward(*boxes, _dtype(loaded, dtype))
        answer.begin(loaded.source)
        try:
            if timeout is not None and method != "ibp":
                answer.fallback = _intervals(loaded, lower, upper)
            found = _bound(loaded, lower, upper, method, engine, deadline)
        except TimeUp:
            watchdog.claim()
            sys.exit(answer.expire())
        watchdog.claim()
        answer.give(found)


def _interrupted() -> int:
    complain("interrupted")
    return INTERRUPTED


def _size(shape: Sequence[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _dtype(network: Network, asked: str | None) -> str:
    """The arithmetic to bound a network in; BoundsmithError where the one asked for would round its weights."""
    from ...specs.errors import BoundsmithError

    if not any(str(tensor.dtype) == "float64" for tensor in (*network.inputs, *network.outputs)):
        return asked or "float32"
    if asked == "float32":
        raise BoundsmithError("--dtype float32 would round the weights of this network of float64; leave it out")
    return "float64"


def _intervals(network: Network, lower: np.ndarray, upper: np.ndarray) -> OutputBounds | None:
    """Interval bounds, which take no longer than running the network; None where they say nothing."""
    from ...verify.bounding.api import bounds_of
    from ...verify.errors import UndefinedOnRegion

    try:
        return bounds_of(network, lower, upper, "ibp")
    except UndefinedOnRegion:
        return None


def _bound(
    network: Network, lower: np.ndarray, upper: np.ndarray, method: str, engine: str, deadline: Deadline
) -> OutputBounds:
    if engine == "boundsmith":
        from ...verify.bounding.api import bounds_of

        return bounds_of(network, lower, upper, method, deadline=deadline)
    from ...verify.bounding.api import OutputBounds
    from ...verify.bounding.auto_lirpa import auto_lirpa_bounds

    name = method if method == "forward" else method.upper()
    return OutputBounds(*auto_lirpa_bounds(network, lower, upper, name), ())


@dataclass
class _Answer:
    """Where the bounds go; `fallback` are bounds to answer with if the time passes before better ones are there."""

    stream: TextIO
    json_file: Path | None
    method: str
    engine: str
    timeout: float | None
    source: str = ""
    start: float = 0.0
    fallback: OutputBounds | None = None

    def begin(self, source: str) -> None:
        """From here on, bounding takes the time."""
        self.source, self.start = source, time.monotonic()

    def give(self, found: OutputBounds) -> None:
        """Print and write the bounds that were asked for."""
        self._write(to_object(self.source, self.method, self.engine, found, time.monotonic() - self.start))

    def expire(self) -> int:
        """Answer with the fallback, or say that there is none; the process's status."""
        late = f"--timeout {self.timeout:g} passed before {self.method} gave bounds"
        if self.fallback is None:
            complain(f"error: {late}; give more time, or try --method ibp")
            return 2
        complain(f"warning: {late}; these are ibp's")
        seconds = time.monotonic() - self.start
        try:
            self._write(to_object(self.source, "ibp", "boundsmith", self.fallback, seconds) | {"warnings": [late]})
        except NotWrittenError as error:
            complain(f"error: {error}")
            return NOT_WRITTEN
        return 0

    def _write(self, report: dict[str, Any]) -> None:
        say(describe(report), self.stream)
        write_report(self.json_file, report)


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
        "warnings": [],
    }


def describe(report: dict[str, Any]) -> str:
    """The object as lines of text."""
    boxes = list(zip(report["lower"], report["upper"], strict=True))
    lines = [
        f"{report['file']}: {report['method']} by {report['engine']}, "
        f"{counted(len(boxes), 'box', 'boxes')}, {report['seconds']:.3f} s",
        f"mean width {_short(report['mean_width'])}",
    ]
    for number, (lower, upper) in enumerate(boxes[:SHOWN]):
        if len(boxes) > 1:
            lines.append(f"box {number}")
        pairs = list(zip(lower, upper, strict=True))
        lines += [f"  Y_{index} in [{_short(low)}, {_short(high)}]" for index, (low, high) in enumerate(pairs[:SHOWN])]
        if len(pairs) > SHOWN:
            lines.append(f"  and {counted(len(pairs) - SHOWN, 'output')} more")
    if len(boxes) > SHOWN:
        lines.append(f"and {counted(len(boxes) - SHOWN, 'box', 'boxes')} more")
    lines += [f"{row['layer']}: {row['unstable']} of {row['of']} unstable" for row in report["unstable"]]
    return "\n".join(lines)


def _short(number: float | str) -> str:
    return number if isinstance(number, str) else f"{number:.7g}"
