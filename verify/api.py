"""The Python entry point of verification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..specs.property import Property
from ..specs.read import read_property
from .budget import Deadline
from .errors import ArgumentError
from .loading.network import Network
from .options import Options
from .strategy import verify_property

if TYPE_CHECKING:
    from .result import Result


def verify(
    network: Network | Mapping[str, Network],
    query: str | os.PathLike[str] | Property,
    timeout: float | None = None,
    options: Options | None = None,
) -> Result:
    """Decide whether a network satisfies a property.

    network   a loaded network, or networks by the names that a VNN-LIB 2.0 query declares (one that is
              declared equal to another may be left out).
    query     path of a VNN-LIB file, or a `Property` (for instance from `boundsmith.specs.robustness_property`).
    timeout   seconds from now; None: those of the options.
    options   see `Options`.

    Returns the `Result` with its verdict, witness and figures. Raises `BoundsmithError` for input that cannot be read
    or does not fit, and for arguments of other kinds.

    Example:
        >>> result = verify(load("net.onnx"), "query.vnnlib", timeout=60)  # doctest: +SKIP
        >>> result.verdict, result.witness, result.best_bound  # doctest: +SKIP
    """
    networks = {"": network} if isinstance(network, Network) else network
    if not isinstance(networks, Mapping) or not all(isinstance(one, Network) for one in networks.values()):
        raise ArgumentError(
            f"verify takes a loaded network, or a dict of them by name, not {_kind(network)}; load it first: "
            "load(path), or load(module, example_input)"
        )
    if not isinstance(query, Property | str | os.PathLike):
        raise ArgumentError(f"verify takes the path of a query, or a Property, not {_kind(query)}")
    chosen = options or Options()
    if not isinstance(chosen, Options):
        raise ArgumentError(f"options must be Options(...), not {_kind(options)}")
    chosen = chosen if timeout is None else replace(chosen, timeout=timeout)
    property = query if isinstance(query, Property) else read_property(query)
    return verify_property(property, networks, chosen, Deadline.after(chosen.timeout))


def _kind(value: object) -> str:
    """What an argument is, to name it in a message."""
    return f"a {type(value).__name__}"
