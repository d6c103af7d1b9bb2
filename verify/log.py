"""What happens on the way to an answer: phases, counters, warnings."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .result import Phase, Result

if TYPE_CHECKING:
    from .arrays import Backend
    from .result import Verdict, Witness
    from .search.record import Record


@dataclass
class Log:
    """What happened on the way to the answer."""

    phases: list[Phase] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    best_bound: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    record: Record | None = None
    undefined: str | None = None

    def count(self, name: str, amount: int) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + amount

    def booked(self, domains: int, splits: int, halvings: int) -> None:
        """Count what a stretch of search did."""
        for name, amount in (("domains", domains), ("splits", splits), ("halvings", halvings)):
            self.count(name, amount)

    def seconds(self, name: str) -> float:
        """Time booked so far on phases whose name contains `name`."""
        return sum(phase.seconds for phase in self.phases if name in phase.name)

    def phase(self, name: str, started: float, domains: int = 0) -> None:
        """Book the time since `started` on a phase (several stretches of one phase add up)."""
        seconds = time.monotonic() - started
        for position, known in enumerate(self.phases):
            if known.name == name:
                self.phases[position] = Phase(name, known.seconds + seconds, known.domains + domains)
                return
        self.phases.append(Phase(name, seconds, domains))

    def result(self, verdict: Verdict, witness: Witness | None, method: str, backend: Backend | None = None) -> Result:
        """The answer with everything that was booked."""
        return Result(
            verdict,
            witness,
            self.best_bound,
            tuple(self.phases),
            self.counters | {"peak memory": _peak_memory()},
            method,
            (backend.device if backend is not None else None) or "cpu",
            tuple(self.warnings),
            self.details,
            self.record,
        )


def _peak_memory() -> int:
    """The largest resident size of this process so far, in bytes; 0 where the platform does not say."""
    try:
        import resource
    except ImportError:
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
