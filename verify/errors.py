"""Errors a user can act on. The command line prints their message as one sentence and exits with code 2."""

from ..specs.errors import BoundsmithError

__all__ = ["BoundsmithError", "LoadError", "UndefinedOnRegion", "UnsupportedError"]


class LoadError(BoundsmithError):
    """A network file cannot be read, is unsupported, or disagrees with the reference runtime."""


class UnsupportedError(BoundsmithError):
    """The input is understood but this version cannot solve it."""


class UndefinedOnRegion(BoundsmithError):
    """An operator has no finite value somewhere on the region it is bounded over (log of a negative, division by
    zero)."""
