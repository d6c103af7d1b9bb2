"""Verification of neural networks: loading, bounds, attack, search.

The public API; everything is imported on first use, so that importing the package costs nothing:

    load(source, example_input=None) -> Network        an ONNX file or a torch module, checked against its own runtime
    verify(network, query, timeout=...) -> Result      decide a VNN-LIB file or a `Property`
    bounds(network, center, radius, method="crown")    output bounds, differentiable on torch tensors
    Operator, unary_operator, check_operator           operators that a user adds, and the test of their soundness
    Verdict, Result, Witness, Options
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import verify
    from .bounding.api import bounds
    from .loading import Network, load
    from .ops.added import Operator, unary_operator
    from .ops.checking import check_operator
    from .options import Options
    from .result import Result, Verdict, Witness

_HOMES = {
    "Network": ".loading",
    "Operator": ".ops.added",
    "Options": ".options",
    "Result": ".result",
    "Verdict": ".result",
    "Witness": ".result",
    "bounds": ".bounding.api",
    "check_operator": ".ops.checking",
    "load": ".loading",
    "unary_operator": ".ops.added",
    "verify": ".api",
}

__all__ = [
    "Network",
    "Operator",
    "Options",
    "Result",
    "Verdict",
    "Witness",
    "bounds",
    "check_operator",
    "load",
    "unary_operator",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
