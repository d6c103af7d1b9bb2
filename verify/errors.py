"""Errors a user can act on. The command line prints their message as one sentence and exits with code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..specs.errors import BoundsmithError

if TYPE_CHECKING:
    from .bounding.backward import Relaxed
    from .graph import Array

__all__ = ["ArgumentError", "BoundsmithError", "CrossedBounds", "LoadError", "UndefinedOnRegion", "UnsupportedError"]


class ArgumentError(BoundsmithError, ValueError):
    """A function was given a value that it does not take; the message says which ones it does."""


class LoadError(BoundsmithError):
    """A network file cannot be read, is unsupported, or disagrees with the reference runtime.

    Names in a file may hold anything, also line breaks and what terminals obey: those are written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class UnsupportedError(BoundsmithError):
    """The input is understood but this version cannot solve it."""


class CrossedBounds(BoundsmithError):
    """A lower bound exceeds an upper one: an internal error, after which nothing is claimed."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"internal error: bounds of node {name!r} exclude every value (lower above upper), so that nothing is "
            "claimed; please report it with the network"
        )


class UndefinedOnRegion(BoundsmithError):
    """An operator has no value somewhere on the region it is bounded over (log of a negative, division by zero), or
    may have none as far as the bounds of its input tell.

    valid    bool ``[B, *shape]``, B boxes or 1: the entries of the operator's input `about` for which it surely has a
             value; None: not known.
    partial  the relaxation of all nodes before the operator, where a relaxation was under way.
    """

    def __init__(self, message: str, valid: Array | None = None, about: int = -1) -> None:
        super().__init__(message)
        self.valid = valid
        self.about = about
        self.partial: Relaxed | None = None
