"""How to decide a query."""

from __future__ import annotations

from dataclasses import dataclass

from .arguments import require_choice, require_number
from .errors import ArgumentError

METHODS = ("auto", "attack", "bounds", "input-split", "activation-split", "milp")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Options:
    """How to decide a query. Values that are not among these raise `ArgumentError`.

    timeout   seconds, counted by the command line from the start of the process.
    device    auto, cpu or cuda;  dtype  float32 or float64: the arithmetic of the bounds.
    method    auto; attack (search a witness only); bounds (no search); input-split; activation-split; milp.
    attack    False: never sample or follow gradients (witnesses then come only from the search's own points).
    memory    bytes of temporaries a step may use; None: an eighth of what is free.
    threads   worker threads; None: one a core.
    record    keep what a proof of `unsat` needs (`Result.record`); the search is slower then: boxes are not cut,
              intermediate bounds not renewed, and mixed-integer programming is left out.
    cuts      learn clauses over phases from domains that activation splits closed, and apply them to open ones (not
              while recording). They save domains, but on most networks not as much time as they cost, see
              `search.cuts`; so they are left out by default.
    assume_real  take a VNN-LIB 2.0 query's floating-point types for the reals; False: refuse such a file.
    """

    timeout: float = 116.0
    device: str = "auto"
    method: str = "auto"
    attack: bool = True
    memory: int | None = None
    seed: int = 0
    dtype: str = "float32"
    threads: int | None = None
    record: bool = False
    cuts: bool = False
    assume_real: bool = True

    def __post_init__(self) -> None:
        require_choice("method", self.method, METHODS)
        require_choice("device", self.device, DEVICES)
        require_choice("dtype", self.dtype, DTYPES)
        require_number("timeout", self.timeout, 0.0)
        require_number("seed", self.seed, 0, whole=True)
        if self.memory is not None:
            require_number("memory", self.memory, 1, whole=True)
        if self.threads is not None:
            require_number("threads", self.threads, 1, whole=True)
        for name in ("attack", "record", "cuts", "assume_real"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(f"{name} must be True or False, not {getattr(self, name)!r}")
