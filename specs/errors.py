"""Errors a user can act on. The command line prints their message as one sentence and exits with code 2."""


class BoundsmithError(Exception):
    """Base of every error with a message made for users: what failed, where, what to do."""


class SpecError(BoundsmithError):
    """A specification file cannot be read or does not make sense; the message names file, line and column."""
