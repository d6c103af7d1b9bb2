"""Queries in which every uncertain input is read through whole numbers only: branch-and-bound over their stairs.

Boxes run from one stair to another of every input, and the smallest are single points. Interval bounds in float64 are
tight there and cost a fraction of linear relaxations, and whole blocks often fall at once: where a patch lies outside
the image, say.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Backend, array_namespace, to_numpy
from .bounding.crown import output_rows
from .bounding.interval import interval_bounds
from .errors import UndefinedOnRegion
from .search.input_split import looks_unsafe
from .search.rounds import on_threads, pieces, threads
from .search.undefined import undefined_boxes
from .setting import Setting

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from .budget import Deadline
    from .graph import Array
    from .result import Witness
    from .setting import Job

POINTS_AT_MOST = 100_000
"""Combinations of whole numbers up to which each may be looked at."""

BATCH = 16
"""Boxes that a worker bounds together (more leave the cache)."""

PARTS = 8
"""Parts into which an open box is split. Where little is refuted but single points, the more parts, the fewer boxes are
bounded besides (cctsdb_yolo: 471 with 2 parts, 329 with 4, 493 with 8, 285 with 16), and wide ones cost more where they
write to uncertain positions: 8 and 16 take three quarters of the time of 4."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """Boxes of stairs.

    first, last  places ``[N, S]`` on the stairs of each input, both inclusive.
    group        ``[N]``: the group of each.
    margin       ``[N]``: a lower bound of what separates the box from every clause of its group; not positive: open.
    """

    first: np.ndarray
    last: np.ndarray
    group: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return self.group.shape[0]

    def pick(self, index: np.ndarray | slice) -> Blocks:
        """The boxes at `index`."""
        return Blocks(self.first[index], self.last[index], self.group[index], self.margin[index])

    def joined(self, *others: Blocks) -> Blocks:
        """These boxes, then the others."""
        columns = ([getattr(part, name) for part in (self, *others)] for name in ("first", "last", "group", "margin"))
        return Blocks(*(np.concatenate(column) for column in columns))

    def parts(self) -> Blocks:
        """Every box in `PARTS` or fewer, along the input with most stairs."""
        boxes = np.arange(len(self))
        axis = np.argmax(self.last - self.first, axis=1)
        start = self.first[boxes, axis]
        size = self.last[boxes, axis] - start + 1
        pieces = []
        for number in range(PARTS):
            first, last = self.first.copy(), self.last.copy()
            first[boxes, axis] = start + number * size // PARTS
            last[boxes, axis] = start + (number + 1) * size // PARTS - 1
            pieces.append(replace(self, first=first, last=last).pick(np.flatnonzero((first <= last).all(axis=1))))
        return pieces[0].joined(*pieces[1:])


def search_on_stairs(job: Job) -> tuple[bool, Witness | None]:
    """Whether every clause is refuted on every combination of stairs, and a witness if one was met.

    Neither where inputs vary that are not read through whole numbers only, where there are too many combinations, or
    where time runs out. The boxes nearest to a clause come first, and the middle of each open one is tried as a
    witness.
    """
    if len(job.setting.stairs) < len(job.setting.uncertain):
        return False, None
    setting = job.setting
    if setting.backend.dtype != "float64":
        setting = Setting.of(job.problem, Backend("float64", setting.backend.device))
    if len(setting.stairs) < len(setting.uncertain):
        return False, None
    every = _ranges(setting)
    if not 1 < max(math.prod(row) for row in (every.last - every.first + 1).tolist()) <= POINTS_AT_MOST:
        return False, None
    started = time.monotonic()
    # Other searches know only of real numbers what they see; with integer inputs they may be quicker all the same.
    deadline = job.deadline.sooner(0.5 * job.deadline.remaining) if setting.whole.any() else job.deadline
    with threads(job.threads) as executor:
        closed, witness, visited = _search(job, setting, every, deadline, executor)
    job.log.phase("whole numbers", started, visited)
    job.log.count("domains", visited)
    return closed, witness


def _ranges(setting: Setting) -> Blocks:
    """Every group's box, from its first stair of every input to its last."""
    lower, upper = to_numpy(setting.lower), to_numpy(setting.upper)
    groups = lower.shape[0]
    first, last = (np.zeros((groups, len(setting.stairs)), dtype=np.int64) for _ in range(2))
    for position, (entry, values) in enumerate(setting.stairs.items()):
        steps = to_numpy(values)
        if setting.whole[entry]:
            first[:, position] = np.searchsorted(steps, lower[:, entry], side="left")
            last[:, position] = np.searchsorted(steps, upper[:, entry], side="right") - 1
        else:
            last[:, position] = len(steps) - 1
    return Blocks(first, last, np.arange(groups), np.full(groups, -np.inf))


def _search(
    job: Job, setting: Setting, left: Blocks, deadline: Deadline, executor: ThreadPoolExecutor | None
) -> tuple[bool, Witness | None, int]:
    """Best first over the boxes `left`; also the number of those bounded."""
    size = sum(node.size for node in setting.plan.graph.nodes)
    batch = job.threads * job.memory.rows(size * 64, BATCH)
    visited, lost = 0, False
    while len(left):
        if deadline.passed:
            return False, None, visited
        order = np.argsort(left.margin, kind="stable")
        taken, left = left.pick(order[:batch]), left.pick(order[batch:])
        parts = on_threads(executor, lambda part: _bounded(setting, part), pieces(taken, job.threads, BATCH))
        visited += len(taken)
        bounded = Blocks(taken.first, taken.last, taken.group, np.concatenate(parts))
        # NaN compares false, so that it refutes nothing.
        left_open = bounded.pick(~(bounded.margin > 0))
        if not len(left_open):
            continue
        middle = (left_open.first + left_open.last) // 2
        points, _, group = _boxes(setting, middle, middle, left_open.group)
        unsafe = looks_unsafe(setting.plan.graph, setting.rows, points, group)
        witness = job.check(points[unsafe], group[unsafe])
        if witness is not None:
            return False, witness, visited
        single = (left_open.first == left_open.last).all(axis=1)
        lost |= bool(single.any())
        left = left.joined(left_open.pick(~single).parts())
    return not lost, None, visited


def _boxes(setting: Setting, first: np.ndarray, last: np.ndarray, group: np.ndarray) -> tuple[Array, Array, Array]:
    """The ends ``[N, n]`` of boxes from some stairs to others, and their groups in the setting's library."""
    own = setting.backend.array(group)
    lower, upper = setting.lower[own] + 0, setting.upper[own] + 0
    for position, (entry, values) in enumerate(setting.stairs.items()):
        lower[:, entry] = values[setting.backend.array(first[:, position])]
        upper[:, entry] = values[setting.backend.array(last[:, position])]
    return lower, upper, own


@np.errstate(all="ignore")
def _bounded(setting: Setting, blocks: Blocks) -> np.ndarray:
    """A lower bound ``[N]`` of what separates each box from every clause of its group."""
    return to_numpy(_margins(setting, *_boxes(setting, blocks.first, blocks.last, blocks.group)))


def _margins(setting: Setting, lower: Array, upper: Array, group: Array) -> Array:
    """The same for boxes ``[N, n]``; minus infinity where an operator may have no value."""
    xp = array_namespace(lower)
    graph, rows = setting.plan.graph, setting.rows.of(group)
    shape = graph.nodes[graph.inputs[0]].shape
    try:
        low, high = interval_bounds(graph, lower.reshape(-1, *shape), upper.reshape(-1, *shape))[graph.outputs[0]]
    except UndefinedOnRegion as error:
        margins = xp.full_like(lower[:, 0], -xp.inf)
        defined = xp.nonzero(~undefined_boxes(error, group))[0]
        if defined.shape[0]:
            margins[defined] = _margins(setting, lower[defined], upper[defined], group[defined])
        return margins
    strongest = rows.strongest(output_rows(low, high, rows.rows, rows.offsets))
    return xp.min(xp.where(rows.clauses, strongest, xp.inf), axis=1)
