"""When and how long witnesses are sought outside the searches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .attack.pgd import AttackOptions, attack

if TYPE_CHECKING:
    from .budget import Deadline
    from .graph import Array
    from .result import Witness
    from .setting import Job

FIRST_SECONDS = 0.15
"""Time for each of the two attacks that come before any bound."""


def first_attacks(job: Job) -> Witness | None:
    """A few sampled points, then a few gradient steps: most violated properties fall here, and the others lose little
    time."""
    for options in (AttackOptions(restarts=24, steps=0), AttackOptions(restarts=4, steps=16)):
        witness = _attack(job, options, job.deadline.sooner(FIRST_SECONDS))
        if witness is not None:
            return witness
    return None


def attack_for(job: Job, seconds: float) -> Witness | None:
    """Attacks with ever more restarts for that many seconds, at least one."""
    until = job.deadline.sooner(seconds)
    options = AttackOptions(restarts=8, steps=40)
    while True:
        witness = _attack(job, options, until)
        if witness is not None or until.passed:
            return witness
        options = AttackOptions(min(512, 2 * options.restarts), steps=min(200, options.steps + 20))


def attack_between(job: Job, seconds: float, starts: tuple[Array, Array, Array] | None) -> Witness | None:
    """An attack from the given points ``[P, n]`` with their groups and clauses ``[P]``, then from random ones."""
    if starts is not None:
        witness = _attack(job, AttackOptions(steps=40, step=0.1), job.deadline.sooner(0.5 * seconds), starts)
        if witness is not None:
            return witness
    return attack_for(job, seconds if starts is None else 0.5 * seconds)


def _attack(
    job: Job, options: AttackOptions, deadline: Deadline, starts: tuple[Array, Array, Array] | None = None
) -> Witness | None:
    started = time.monotonic()
    setting = job.setting
    witness: Witness | None = attack(
        setting.plan.graph,
        setting.rows,
        setting.lower,
        setting.upper,
        options,
        job.options.seed + job.log.counters.get("attacks", 0),
        deadline,
        job.check,
        chunk=job.memory.rows(setting.plan.largest * 64, 4096),
        starts=starts,
    )
    job.log.phase("attack", started)
    job.log.count("attacks", 1)
    return witness
