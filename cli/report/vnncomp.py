"""The results file of the VNN-COMP competition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...verify.atomic import write_text
from ...verify.result import Result, Verdict, Witness

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = {Verdict.UNSAT: "unsat", Verdict.SAT: "sat", Verdict.UNKNOWN: "unknown", Verdict.TIMEOUT: "timeout"}


def results_text(result: Result) -> str:
    """The file's content: the competition's word and, after `sat`, the assignment as ``((X_0 0.5) ... (Y_0 1.75))``.

    Inputs are numbered through in order of declaration, and so are outputs.
    """
    word = _WORDS[result.verdict]
    if result.verdict is not Verdict.SAT or result.witness is None:
        return f"{word}\n"
    return f"{word}\n{_assignment(result.witness)}\n"


def _assignment(witness: Witness) -> str:
    pairs = [
        f"({letter}_{position} {int(value) if isinstance(value, np.bool_) else value})"
        for letter, tensors in (("X", witness.inputs), ("Y", witness.outputs))
        for position, value in enumerate(value for _, values in tensors for value in np.asarray(values).ravel())
    ]
    return "(" + "\n ".join(pairs) + ")"


def write_results(file: Path, result: Result) -> None:
    """Write the results file in one step."""
    write_text(file, results_text(result))


def write_word(file: Path, word: str) -> None:
    """Write a results file that holds one word only: `timeout` before the start, `error` after a failure."""
    write_text(file, f"{word}\n")
