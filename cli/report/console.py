"""A result as lines of text: the answer for stdout, the story for stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...verify.result import Result, Verdict, Witness
from ..output import counted, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator


def answer(result: Result) -> str:
    """What goes to stdout: the verdict's word and, after `sat`, the assignment."""
    lines = [result.verdict.value]
    if result.verdict is Verdict.SAT and result.witness is not None:
        lines.extend(assignment_lines(result.witness))
    return "\n".join(lines)


def assignment_lines(witness: Witness) -> Iterator[str]:
    """``NAME TYPE [SHAPE]`` and then one value a line, row-major, for every input and then every output tensor.

    Values carry just enough digits that reading them in the tensor's own type gives them back exactly.
    """
    for name, values in (*witness.inputs, *witness.outputs):
        array = np.asarray(values)
        yield f"{one_line(name)} {array.dtype.name} [{','.join(map(str, array.shape))}]"
        for value in array.ravel():
            yield str(value)


def story(result: dict[str, Any]) -> str:
    """The lines a person reads, drawn from the JSON object of a result alone."""
    lines = [f"{result['verdict']}: {result['sentence']} ({result['seconds']:.2f} s, {result['device']})"]
    if result["verdict"] in ("sat", "unsat"):
        lines.append(f"  {result['statement']}")
    if result["best_bound"] is not None:
        lines.append(f"  best bound {result['best_bound']}")
    lines.extend(f"  {phase['name']}: {phase['seconds']:.2f} s{_pace(phase)}" for phase in result["phases"])
    share = result["details"].get("share outside kernels")
    if share is not None:
        lines.append(f"  outside the bound kernels: {100 * share:.0f} % of the threads' time in activation splits")
    lines.extend(f"  warning: {warning}" for warning in result["warnings"])
    return "\n".join(lines)


def _pace(phase: dict[str, Any]) -> str:
    """How many domains a phase visited, and how many a second where that says something."""
    if not phase["domains"]:
        return ""
    rate = f" ({phase['domains'] / phase['seconds']:.0f} a second)" if phase["seconds"] >= 0.1 else ""
    return f", {counted(phase['domains'], 'domain')}{rate}"
