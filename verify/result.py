"""What a verification run answers: verdict, witness, figures."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from .search.record import Record


class Verdict(enum.Enum):
    """The answer; each member's value is the word printed, `sentence` what a reader is told."""

    UNSAT = "unsat"
    SAT = "sat"
    UNKNOWN = "unknown"
    TIMEOUT = "timed-out"

    @property
    def sentence(self) -> str:
        """What this verdict means, in one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Verdict.UNSAT: "The property holds: no input in the region violates it.",
    Verdict.SAT: "The property is violated: the witness was replayed with onnxruntime.",
    Verdict.UNKNOWN: "Undecided: the methods that apply were exhausted before an answer was found.",
    Verdict.TIMEOUT: "Undecided: the time limit was reached. Try a larger --timeout.",
}


@dataclass(frozen=True, eq=False)
class Witness:
    """A counterexample: one array per declared input and output tensor, as replayed on onnxruntime.

    `inputs` and `outputs` are tuples of ``(name, array)``; inputs have the dtype of the network, and lie in the box.
    `over_reals` says whether the inputs violate the property over the reals, too, which the runtime's rounding may
    hide or feign; None where that could not be told.
    """

    inputs: tuple[tuple[str, np.ndarray], ...]
    outputs: tuple[tuple[str, np.ndarray], ...]
    over_reals: bool | None = None


@dataclass(frozen=True)
class Phase:
    """A stretch of work: its name, seconds spent and domains bounded."""

    name: str
    seconds: float
    domains: int = 0


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of one query.

    best_bound   the largest proven lower bound, over the clauses not refuted, of the clause's violation margin
                 ``max_s (C_s y - d_s)``; None if no bound was computed.
    record       with `Options.record`, for `unsat`: what a proof needs; None where nothing had to be searched.
    counters     domains visited, splits, clauses, peak memory in bytes, batch halvings ...
    """

    verdict: Verdict
    witness: Witness | None = None
    best_bound: float | None = None
    phases: tuple[Phase, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    method: str = ""
    device: str = "cpu"
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None

    @property
    def statement(self) -> str:
        """What the verdict says, of which arithmetic: `unsat` is a statement over the reals, `sat` one of a runtime."""
        if self.verdict is Verdict.UNSAT:
            return "over the reals, with the stored weights, no input in the region violates the property"
        if self.verdict is not Verdict.SAT:
            return "nothing is claimed"
        exactly = None if self.witness is None else self.witness.over_reals
        said = "in onnxruntime's floating-point arithmetic, the witness violates the property"
        if exactly is None:
            return f"{said}; whether it does over the reals was not told"
        return f"{said}; over the reals it {'does, too' if exactly else 'does not'}"
