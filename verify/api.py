"""The Python entry point of verification."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..specs.property import Property
from ..specs.read import read_property
from .budget import Deadline
from .loading.network import Network
from .options import Options
from .strategy import verify_property

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .result import Result


def verify(
    network: Network | Mapping[str, Network],
    query: str | os.PathLike[str] | Property,
    timeout: float = 116.0,
    options: Options | None = None,
) -> Result:
    """Decide whether a network satisfies a property.

    network   a loaded network, or networks by the names that a VNN-LIB 2.0 query declares (one that is
              declared equal to another may be left out).
    query     path of a VNN-LIB file, or a `Property` (for instance from `boundsmith.specs.robustness_property`).
    timeout   seconds from now.
    options   everything else; see `Options`.

    Returns the `Result` with its verdict, witness and figures. Raises `BoundsmithError` for input that cannot be read
    or does not fit.

    Example:
        >>> result = verify(load("net.onnx"), "query.vnnlib", timeout=60)  # doctest: +SKIP
        >>> result.verdict, result.witness, result.best_bound  # doctest: +SKIP
    """
    property = query if isinstance(query, Property) else read_property(query)
    networks = {"": network} if isinstance(network, Network) else network
    chosen = replace(options or Options(), timeout=timeout)
    return verify_property(property, networks, chosen, Deadline.after(timeout))
