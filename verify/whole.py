"""Queries in which every uncertain input is read through whole numbers only: each combination on its own."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Backend
from .search.domains import Domains, Pool
from .search.input_split import SplitOptions, looks_unsafe, search
from .search.stairs import every_point
from .setting import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .result import Witness
    from .setting import Job

POINTS_AT_MOST = 100_000
"""Combinations of whole numbers up to which each is looked at."""


def attack_on_stairs(job: Job) -> Witness | None:
    """Try each combination as a witness, as long as there is time."""
    started = time.monotonic()
    witness: Witness | None = None
    for block in _points(job, job.setting):
        if job.deadline.passed or witness is not None:
            break
        unsafe = looks_unsafe(job.setting.plan.graph, job.setting.rows, block.lower, block.group)
        if block.lower[unsafe].shape[0]:
            witness = job.check(block.lower[unsafe], block.group[unsafe])
    job.log.phase("attack", started)
    return witness


def closed_on_stairs(job: Job) -> bool:
    """Whether interval bounds in float64 refute every combination, one at a time."""
    if not job.setting.stairs:
        return False
    double = Setting.of(job.problem, Backend("float64", job.setting.backend.device))
    options = SplitOptions(batch=16, workers=1 if job.setting.backend.device else job.threads, refine=False)
    started, visited, closed = time.monotonic(), 0, False
    for block in _points(job, double):
        report = search(
            double.plan, double.rows, Pool([block]), options, job.deadline, job.memory, job.check, one_pass=True
        )
        visited, closed = visited + report.visited, report.closed
        if not closed:
            break
    if visited:
        job.log.phase("whole numbers", started, visited)
        job.log.count("domains", visited)
    return closed


def _points(job: Job, setting: Setting) -> Iterator[Domains]:
    """Where the values of a few points stand for the whole region: each of them as a box, in blocks."""
    stairs = setting.stairs
    count = math.prod(values.shape[0] for values in stairs.values())
    if len(stairs) < len(setting.uncertain) or not 1 < count <= POINTS_AT_MOST:
        return
    root = setting.root()
    step = job.memory.rows(setting.plan.largest * 128, 64)
    for group in range(len(root)):
        for start in range(0, count, step):
            numbers = start, min(count, start + step)
            lower, upper = (every_point(stairs, end[group], *numbers) for end in (root.lower, root.upper))
            block = root.pick(setting.backend.array(np.full(numbers[1] - numbers[0], group)))
            yield replace(block, lower=lower, upper=upper)
