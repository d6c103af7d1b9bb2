"""Expansion of nested conditions into conjunctions of bounds, with pruning.

The method is a tableau: a branch holds the bounds collected so far and the disjunctions still to be expanded. Bounds
are collected before any disjunction is split, a branch dies as soon as two bounds on one form contradict, and a
disjunction that the branch already satisfies is not split at all. There is no recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .formula import And, Atom, Formula, Key, Or
from .interval import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Bounds by form, over those of `base`.
BoundsByKey = dict[Key, Interval]
#: Pending disjunctions as a linked list, so that branches share their tails.
_Pending = tuple[Any, Any] | None


class TooManyBranchesError(Exception):
    """The expansion has more branches than allowed."""


def conjuncts(formula: Formula) -> Iterator[Atom | Or]:
    """The parts of nested `and`s, in order."""
    stack = [formula]
    while stack:
        part = stack.pop()
        if isinstance(part, And):
            stack.extend(reversed(part.children))
        else:
            yield part


def _disjuncts(formula: Or) -> Iterator[Atom | And]:
    """The parts of nested `or`s, in order."""
    stack: list[Formula] = list(reversed(formula.children))
    while stack:
        part = stack.pop()
        if isinstance(part, Or):
            stack.extend(reversed(part.children))
        else:
            yield part


def expand(
    disjunctions: list[Or], base: Callable[[Key], Interval], rename: Callable[[Atom], Formula], limit: int
) -> Iterator[BoundsByKey]:
    """The branches of the conjunction of `disjunctions`, in order, each as the bounds it adds to `base`.

    Args:
        base: bounds that hold in every branch.
        rename: applied to every atom before use.
        limit: most branches to visit, dead ones included.

    Raises:
        TooManyBranchesError: if `limit` is exceeded.
    """
    visited = 0
    pending: _Pending = None
    for disjunction in reversed(disjunctions):
        pending = (disjunction, pending)
    branches: list[tuple[BoundsByKey, Formula, _Pending]] = [({}, And(()), pending)]
    while branches:
        visited += 1
        if visited > limit:
            raise TooManyBranchesError
        branch = _Branch(base, rename, *branches.pop())
        options = branch.split()
        if options is None:
            if not branch.dead:
                yield branch.bounds
            continue
        branches.extend((dict(branch.bounds), option, branch.pending) for option in reversed(options))


class _Branch:
    """One branch of the tableau while its conjunction is being collected."""

    def __init__(
        self,
        base: Callable[[Key], Interval],
        rename: Callable[[Atom], Formula],
        bounds: BoundsByKey,
        assumed: Formula,
        pending: _Pending,
    ) -> None:
        self.base = base
        self.rename = rename
        self.bounds = bounds
        self.pending = pending
        self.dead = False
        self._assume(assumed)

    def split(self) -> list[Formula] | None:
        """The options of the first disjunction that is open; None when the branch is complete or dead."""
        while self.pending is not None and not self.dead:
            disjunction, self.pending = self.pending
            options = self._open_options(disjunction)
            if options is None:
                continue
            if len(options) > 1:
                return options
            if options:
                self._assume(options[0])
            else:
                self.dead = True
        return None

    def _assume(self, formula: Formula) -> None:
        """Collect the bounds of a conjunction and queue its disjunctions before those already pending."""
        queued: list[Or] = []
        for part in conjuncts(formula):
            renamed = self.rename(part) if isinstance(part, Atom) else part
            if not isinstance(renamed, Atom):
                queued.extend(conjunct for conjunct in conjuncts(renamed) if isinstance(conjunct, Or))
                continue
            before = self._interval(renamed.key)
            after = before.meet(renamed.relation, renamed.bound)
            if after.is_empty:
                self.dead = True
                return
            if after != before:
                self.bounds[renamed.key] = after
        for disjunction in reversed(queued):
            self.pending = (disjunction, self.pending)

    def _interval(self, key: Key) -> Interval:
        known = self.bounds.get(key)
        return self.base(key) if known is None else known

    def _open_options(self, disjunction: Or) -> list[Formula] | None:
        """The disjuncts that do not contradict the branch at once; None if one of them holds already."""
        options: list[Formula] = []
        for part in _disjuncts(disjunction):
            status = self._status(part)
            if status is True:
                return None
            if status is None:
                options.append(part)
        return options

    def _status(self, formula: Atom | And) -> bool | None:
        """Whether a disjunct holds (True) or fails (False) throughout the branch, as far as each atom alone tells."""
        if isinstance(formula, Atom):
            renamed = self.rename(formula)
            if not isinstance(renamed, Atom):
                return bool(isinstance(renamed, And))
            before = self._interval(renamed.key)
            after = before.meet(renamed.relation, renamed.bound)
            return True if after == before else False if after.is_empty else None
        holds = True
        for part in formula.children:
            if not isinstance(part, Atom):
                holds = holds and isinstance(part, And) and not part.children
                continue
            status = self._status(part)
            if status is False:
                return False
            holds = holds and status is True
        return True if holds else None
