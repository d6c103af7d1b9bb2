"""Clauses learnt from closed domains, and what follows from them in open ones.

A closed domain is a conflict: no unsafe point of its box satisfies all its splits. At a kink of a two-piece function a
split is a phase, so a conflict is a clause, "some of these phases does not hold", for every domain of the same box and
the same clause of the property. It prunes others only once it is shorter than the splits themselves:

- splits that the bound hardly feels are dropped, and the rest is bounded again (the conflicts of BICCOS, Zhou et al.
  2024, "Scalable Neural Network Verification with Branch-and-bound Inferred Cutting Planes");
- the conflicts of two siblings resolve to one of their parent, as in conflict-driven clause learning (Marques-Silva and
  Sakallah 1999, "GRASP").

A domain in which all phases of a clause hold is closed; where all but one hold, the last one's opposite is a split
that costs no branching (unit propagation). Phases are held by bounds, not only by splits: bounds are tightened from
splits and from the property alone, so no unsafe point of the domain is outside them.

Left out by default (`Options.cuts`), as measured on one thread, domains and processor seconds without and with cuts:
CIFAR base_kw, image 876: 14,009 in 13.3 s, 12,147 in 22.8 s; image 6767: 4,379 in 3.6 s, 4,242 in 4.2 s; deep_kw, image
4510: 4,438 in 9.9 s, 3,373 in 10.5 s; unsat_v37_c63 of sat_relu and MNIST 256x4, property 3: no difference. Where
intermediate bounds are renewed, hardly any conflict closes again from the root's bounds. Formulas gain: unsat_v30_c44
of sat_relu 3,011 in 2.1 s, 1,475 in 1.3 s; unsat_v58_c75 open after 11,187 in 22.7 s, 6,372 in 13.7 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import array_namespace, options_like, to_numpy
from ..bounding.alpha import Mixture
from .branches import Branches, join
from .branching import ascent_of, scores, trial_bounds

if TYPE_CHECKING:
    from ..budget import Deadline
    from ..graph import Array
    from .layout import Layout

LONGEST = 24
"""Phases up to which a clause is kept."""

MOST = 1000
"""Clauses kept for each box and clause of the property: the shortest."""

PASSES = 6
"""Rounds of propagation in a batch: each adds at most one split to a domain."""


@dataclass(frozen=True, eq=False)
class Phases:
    """Literals of a layout: number ``s`` says that slot ``s`` is at most its kink, ``width + s`` that it is at least
    that, and ``2 width`` is true always. `kink [slots]` is NaN for a slot without phases: one that has no kink or
    several, or steps there (its parts do not share the kink)."""

    kink: Array
    width: int

    def opposite(self, literals: Array) -> Array:
        """The other phases of the same slots."""
        return (literals + self.width) % (2 * self.width)

    def only(self, domains: Branches) -> Array:
        """Which domains have no splits but phases ``[N]``."""
        xp = array_namespace(domains.low)
        if self.kink.shape[0] == 0:
            return xp.all(domains.slot < 0, axis=1)
        phase = domains.point == self.kink[xp.clip(domains.slot, 0, None)]
        return xp.all((domains.slot < 0) | phase, axis=1)

    def all_phases(self, literals: frozenset[int]) -> bool:
        """Whether the literals' slots all have phases."""
        slots = [literal % self.width for literal in literals]
        return not slots or bool((self.kink[slots] == self.kink[slots]).all())

    def of_splits(self, domains: Branches) -> Array:
        """The literals ``[N, D]`` of the domains' splits; -1 where there is none."""
        xp = array_namespace(domains.low)
        return xp.where(domains.slot >= 0, domains.slot + self.width * xp.astype(domains.sign > 0, xp.int64), -1)

    def held(self, domains: Branches) -> Array:
        """Which literals are true everywhere in the domains ``[N, 2 width + 1]``."""
        xp = array_namespace(domains.low)
        true = xp.ones((len(domains), 1), dtype=xp.bool, **options_like(domains.low))
        return xp.concat([domains.high <= self.kink, domains.low >= self.kink, true], axis=1)


def make_phases(layout: Layout) -> Phases:
    """The phases of a layout's slots."""
    xp = array_namespace(layout.base.lower)
    options = {"dtype": layout.base.lower.dtype, **options_like(layout.base.lower)}
    kinks = []
    for block in layout.slots:
        kink = float("nan")
        if block.kinks is not None and len(block.kinks) == 1 and not any(block.opened):
            kink = block.kinks[0]
        kinks.append(xp.full(block.entries.shape, kink, **options))
    return Phases(xp.concat([*kinks, xp.zeros((0,), **options)]), layout.width)


# --- from closed domains to clauses -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conflicts:
    """Closed domains ``[N]``, and which of their splits ``kept [N, D]`` suffice to close them."""

    domains: Branches
    kept: Array


@np.errstate(all="ignore")
def shortened(layout: Layout, domains: Branches, mixture: Mixture, deadline: Deadline) -> Conflicts:
    """The conflicts of closed domains whose splits are phases, with as many splits dropped as bounds allow: by
    bisection, in the order of what the bound would lose. Where any is dropped, the bound from the root's bounds and the
    kept splits alone is above zero. Raises `TimeUp`."""
    xp = array_namespace(domains.low)
    present = domains.slot >= 0
    order = xp.argsort(xp.where(present, _influence(layout, domains, mixture), xp.inf), axis=1)
    place = xp.argsort(order, axis=1)
    depth = xp.sum(xp.astype(present, xp.int64), axis=1)
    least, most = 0 * depth, depth + 0
    kept = present & True
    while bool(xp.any(least < most)):
        deadline.check()
        some = xp.nonzero(least < most)[0]
        dropped = (least[some] + most[some] + 1) // 2
        trial = present[some] & (place[some] >= dropped[:, None])
        part = Mixture(mixture.rows[some], mixture.offsets[some])
        closes = trial_bounds(layout, _only(layout, domains.pick(some), trial), part)[0] > 0
        good = some[closes]
        least[good], kept[good] = dropped[closes], trial[closes]
        most[some[~closes]] = dropped[~closes] - 1
    return Conflicts(domains, kept)


def _influence(layout: Layout, domains: Branches, mixture: Mixture) -> Array:
    """What the bound would about lose without each split ``[N, D]``: its multiplier's part, and what the relaxation
    of its entry costs once it is undecided again."""
    xp = array_namespace(domains.low)
    free = _only(layout, domains, domains.slot < -1)
    ascent = ascent_of(layout, free, mixture)
    ascent.evaluate()
    ascent.forward()
    cost = scores(layout, free, ascent)
    slots = xp.clip(domains.slot, 0, None)
    width = xp.take_along_axis(free.high - free.low, slots, axis=1)
    return domains.beta * width + xp.take_along_axis(cost, slots, axis=1)


def _only(layout: Layout, domains: Branches, kept: Array) -> Branches:
    """The domains from the root's bounds with the kept splits ``[N, D]`` alone, their parameters as they are."""
    xp = array_namespace(domains.low)
    root = layout.root(domains.base, domains.clause, domains.mixture, domains.weights)
    low, high = root.low + 0, root.high + 0
    row, place = xp.nonzero(kept & (domains.slot >= 0))
    slot, point = domains.slot[row, place], domains.point[row, place]
    upper = domains.sign[row, place] > 0
    # A slot is split once where its splits are phases.
    low[row, slot] = xp.where(upper, xp.maximum(low[row, slot], point), low[row, slot])
    high[row, slot] = xp.where(upper, high[row, slot], xp.minimum(high[row, slot], point))
    return replace(
        domains,
        low=low,
        high=high,
        slot=xp.where(kept, domains.slot, -1),
        beta=xp.where(kept, domains.beta, 0.0),
    )


# --- the store --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Clauses:
    """Clauses for one box and one clause of the property: literals ``[K, L]``, padded with the one that is true."""

    true: int
    sets: list[frozenset[int]] = field(default_factory=list)
    table: np.ndarray | None = None

    def add(self, clause: frozenset[int]) -> bool:
        """Keep a clause unless one of its parts is kept already; those that it makes superfluous go."""
        if len(clause) > LONGEST or any(known <= clause for known in self.sets):
            return False
        self.sets = [known for known in self.sets if not clause <= known]
        self.sets.append(clause)
        if len(self.sets) > MOST:
            self.sets = sorted(self.sets, key=len)[: MOST // 2]
        self.table = None
        return True

    def literals(self) -> np.ndarray:
        """The table of all clauses."""
        if self.table is None:
            longest = max([1, *(len(clause) for clause in self.sets)])
            self.table = np.full((len(self.sets), longest), self.true, dtype=np.int64)
            for row, clause in zip(self.table, self.sets, strict=True):
                row[: len(clause)] = sorted(clause)
        return self.table


Key = tuple[int, int]


@dataclass(eq=False)
class Cuts:
    """What a search has learnt. `clauses` by base and clause; `halves` the conflicts of closed domains whose sibling is
    still open, by the splits above both; `learnt`, `closed`, `implied`: how many clauses were kept, how often one
    closed a domain or added a split."""

    phases: Phases
    clauses: dict[Key, Clauses] = field(default_factory=dict)
    halves: dict[tuple[Key, tuple[int, ...]], tuple[int, frozenset[int]]] = field(default_factory=dict)
    learnt: int = 0
    closed: int = 0
    implied: int = 0

    def learn(self, conflicts: Conflicts) -> None:
        """Add the conflicts of closed domains and what follows from them and from those of their siblings."""
        literals = to_numpy(self.phases.of_splits(conflicts.domains))
        kept = to_numpy(conflicts.kept)
        keys = zip(to_numpy(conflicts.domains.base).tolist(), to_numpy(conflicts.domains.clause).tolist(), strict=True)
        for key, own, some in zip(keys, literals, kept, strict=True):
            path = own[own >= 0].tolist()
            clause = frozenset(own[some & (own >= 0)].tolist())
            if len(clause) < len(path):
                self._add(key, clause)
            self._resolve(key, path, clause)

    def _add(self, key: Key, clause: frozenset[int]) -> None:
        self.learnt += self.clauses.setdefault(key, Clauses(2 * self.phases.width)).add(clause)

    def _resolve(self, key: Key, path: list[int], clause: frozenset[int]) -> None:
        """Carry a conflict upwards: past splits that it does not name, and together with the sibling's. One that names
        splits that are no phases teaches nothing: their points are not in their literals."""
        if not self.phases.all_phases(clause):
            return
        width = self.phases.width
        while path:
            last, path = path[-1], path[:-1]
            if last not in clause:
                continue
            place = (key, tuple(path))
            known = self.halves.get(place)
            if known is None or known[0] == last:
                if known is None or len(clause) < len(known[1]):
                    self.halves[place] = (last, clause)
                return
            del self.halves[place]
            clause = (clause - {last}) | (known[1] - {(last + width) % (2 * width)})
            if len(clause) < len(path):
                self._add(key, clause)

    def propagate(self, domains: Branches) -> Branches:
        """The domains that no clause closes, with the splits that clauses imply."""
        xp = array_namespace(domains.low)
        keys = sorted(set(zip(to_numpy(domains.base).tolist(), to_numpy(domains.clause).tolist(), strict=True)))
        parts = []
        for key in keys:
            part = domains
            if len(keys) > 1:
                part = domains.pick(xp.nonzero((domains.base == key[0]) & (domains.clause == key[1]))[0])
            store = self.clauses.get(key)
            parts.append(part if store is None or not store.sets else self._propagated(key, part, store.literals()))
        return join(parts)

    def _propagated(self, key: Key, domains: Branches, table: np.ndarray) -> Branches:
        xp = array_namespace(domains.low)
        literals = xp.asarray(table, **options_like(domains.low))
        done: list[Branches] = []
        for _ in range(PASSES):
            held = self.phases.held(domains)
            true = held[:, literals]
            missing = literals.shape[1] - xp.sum(xp.astype(true, xp.int32), axis=2)
            conflict = xp.any(missing == 0, axis=1)
            if bool(xp.any(conflict)):
                gone = xp.nonzero(conflict)[0]
                self.closed += int(gone.shape[0])
                which = xp.argmax(xp.astype(missing[gone] == 0, xp.int32), axis=1)
                self._explain(key, domains.pick(gone), literals, which)
                rest = xp.nonzero(~conflict)[0]
                domains, missing, true, held = domains.pick(rest), missing[rest], true[rest], held[rest]
            row, which = xp.nonzero(missing == 1)
            # The literal that is not held, unless its opposite is: then the clause has nothing to say.
            place = xp.argmin(xp.astype(true[row, which], xp.int32), axis=1)
            open_ = literals[which, place]
            opposite = self.phases.opposite(open_)
            useful = ~held[row, opposite]
            row, which, opposite = row[useful], which[useful], opposite[useful]
            if row.shape[0] == 0:
                break
            first = xp.concat([row[:1] >= 0, row[1:] != row[:-1]])
            row, which, opposite = row[first], which[first], opposite[first]
            quiet = xp.ones((len(domains),), dtype=xp.bool, **options_like(domains.low))
            quiet[row] = False
            done.append(domains.pick(xp.nonzero(quiet)[0]))
            domains = domains.pick(row)
            self.implied += int(row.shape[0])
            self._explain(key, self._with(domains, self.phases.opposite(opposite)), literals, which)
            domains = self._with(domains, opposite)
        return join([*done, domains])

    def _with(self, domains: Branches, literals: Array) -> Branches:
        """The domains with one more split each."""
        xp = array_namespace(domains.low)
        slot, upper = literals % self.phases.width, literals >= self.phases.width
        row = xp.arange(len(domains), **options_like(domains.low))
        point = self.phases.kink[slot]
        low, high = domains.low + 0, domains.high + 0
        low[row, slot] = xp.where(upper, xp.maximum(low[row, slot], point), low[row, slot])
        high[row, slot] = xp.where(upper, high[row, slot], xp.minimum(high[row, slot], point))
        sign = xp.where(upper, 1.0, -1.0)
        return replace(
            domains,
            low=low,
            high=high,
            slot=xp.concat([domains.slot, slot[:, None]], axis=1),
            sign=xp.concat([domains.sign, xp.astype(sign, domains.sign.dtype)[:, None]], axis=1),
            point=xp.concat([domains.point, point[:, None]], axis=1),
            beta=xp.concat([domains.beta, 0 * point[:, None]], axis=1),
        )

    def _explain(self, key: Key, domains: Branches, literals: Array, which: Array) -> None:
        """Note why clauses closed these domains: by the clause itself where splits alone satisfy it."""
        true = 2 * self.phases.width
        splits = to_numpy(self.phases.of_splits(domains))
        for own, clause in zip(splits, to_numpy(literals[which]), strict=True):
            path = own[own >= 0].tolist()
            reason = frozenset(clause[clause != true].tolist())
            self._resolve(key, path, reason if reason <= set(path) else frozenset(path))
