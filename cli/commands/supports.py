"""`boundsmith supports`: the answers that the VNN-LIB 2.0 standard asks of every solver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..options import debug_option
from ..output import Answering, say

if TYPE_CHECKING:
    from collections.abc import Callable


def _operators() -> list[str]:
    from ...verify.loading import supported_onnx_operators

    rows = supported_onnx_operators()
    return [f"{row.op_type} * {row.note}" if row.note else row.op_type for row in rows]


def _opsets() -> list[str]:
    from ...verify.loading import supported_onnx_operators

    versions = [row.opsets for row in supported_onnx_operators()]
    return [str(min(oldest for oldest, _ in versions)), str(max(newest for _, newest in versions))]


_REAL = "real"
_FLOATS = ("float32", "float64")

ANSWERS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "onnx-opset-versions": ("Oldest and newest version of ONNX's operator set.", _opsets),
    "onnx-element-types": (
        "Element types of networks.",
        lambda: [_REAL, *(f"{name} * decided over the reals, with --assume-real" for name in _FLOATS)],
    ),
    "onnx-operators": ("ONNX operators; * and a note where something is not covered.", _operators),
    "vnnlib-versions": ("Oldest and newest version of VNN-LIB.", lambda: ["1.0", "2.0"]),
    "hidden-node-theories": ("NH: no hidden nodes in queries.", lambda: ["NH"]),
    "multiple-input-output-theories": ("Single and multiple inputs and outputs.", lambda: ["SIO", "MIO"]),
    "multiple-network-theories": (
        "One network; several: equal, isomorphic, any.",
        lambda: ["SNET", "MENET", "MINET", "MNET"],
    ),
    "multiple-node-comparison-theories": ("Comparisons of one node and of several.", lambda: ["SNC", "MNC"]),
    "arithmetic-complexity-theories": (
        "Bounds, output comparisons, linear and polynomial terms.",
        lambda: ["BND", "OUTC", "LIN", "POLY"],
    ),
    "optimised-disjunctive-reasoning": ("Whether disjunctions are solved together.", lambda: ["true"]),
    "serialise-assignments": ("Whether assignments can be written as TensorProto files.", lambda: ["true"]),
}
"""For each flag its help line, and the lines it prints."""


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    for name, (help_text, _) in reversed(ANSWERS.items()):
        command = click.option(f"--{name}", "question", flag_value=name, help=help_text)(command)
    return command


@click.command(cls=Answering)
@_flags
@debug_option
def command(question: str | None) -> None:
    """Print what this solver supports: one of the standard's questions, one answer a line.

    \b
    Example:
      boundsmith supports --onnx-operators
    """
    if question is None:
        raise click.UsageError("choose what to print, for example --onnx-operators")
    _, answer = ANSWERS[question]
    say("\n".join(answer()))
