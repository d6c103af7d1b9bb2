"""When and how long witnesses are sought outside the searches."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from .attack.pgd import AttackOptions, attack
from .ops import steps

if TYPE_CHECKING:
    from .budget import Deadline
    from .graph import Array
    from .result import Witness
    from .setting import Job

FIRST_SECONDS = 0.15
"""Time for each of the two attacks that come before any bound."""

STEP_SECONDS = 4.0
"""Time for the second of them on networks with many steps: relaxations of steps are so loose that a search seldom ends,
while gradients beside the steps often lead to a witness (traffic signs: all ten within half a second)."""

MANY_STEPS = 256
"""Entries of step functions from which a network has many."""

SPEED = 2e9
"""Multiplications a second of a gradient step on one core, on the small side."""

LEAST_POINTS = 4
"""Points that are attacked together, however little time there is."""


def first_attacks(job: Job) -> Witness | None:
    """A few sampled points, then a few gradient steps: most violated properties fall here, and the others lose little
    time."""
    stepped = sum(node.size for node in job.setting.attacked.nodes if node.op in steps.ROWS) >= MANY_STEPS
    seconds = STEP_SECONDS if stepped and not job.setting.stairs else FIRST_SECONDS
    for options, longest in (
        (AttackOptions(restarts=24, steps=0), FIRST_SECONDS),
        (AttackOptions(restarts=4, steps=16), seconds),
    ):
        witness = _attack(job, options, job.deadline.sooner(longest))
        if witness is not None:
            return witness
    return None


def attack_for(job: Job, seconds: float) -> Witness | None:
    """Attacks with ever more restarts for that many seconds, at least one."""
    until = job.deadline.sooner(seconds)
    options = AttackOptions(restarts=8, steps=40)
    each = False
    while True:
        witness = _attack(job, options, until, each_clause=each)
        if witness is not None or until.passed:
            return witness
        options = AttackOptions(min(512, 2 * options.restarts), steps=min(200, options.steps + 20))
        each = not each


def attack_between(job: Job, seconds: float, starts: tuple[Array, Array, Array] | None) -> Witness | None:
    """An attack from the given points ``[P, n]`` with their groups and clauses ``[P]``, then from random ones."""
    if starts is not None:
        witness = _attack(job, AttackOptions(steps=40, step=0.1), job.deadline.sooner(0.5 * seconds), starts)
        if witness is not None:
            return witness
    return attack_for(job, seconds if starts is None else 0.5 * seconds)


def _attack(
    job: Job,
    options: AttackOptions,
    deadline: Deadline,
    starts: tuple[Array, Array, Array] | None = None,
    each_clause: bool = False,
) -> Witness | None:
    """One attack, from the given points or from random ones; unless `each_clause` is to be attacked, only the nearest
    ones are where there is not time for all."""
    started = time.monotonic()
    setting = job.setting
    affordable = _affordable(job, deadline.remaining, options.steps)
    if not each_clause and options.restarts * int(setting.rows.clauses.sum()) > affordable:
        options = replace(options, nearest=True)
    witness: Witness | None = attack(
        setting.attacked,
        setting.rows,
        setting.lower,
        setting.upper,
        options,
        job.options.seed + job.log.counters.get("attacks", 0),
        deadline,
        job.check,
        chunk=min(max(LEAST_POINTS, affordable // 4 * 2), job.memory.rows(setting.plan.largest * 64, 4096)),
        starts=starts,
        whole=setting.whole_inputs,
    )
    job.log.phase("attack", started)
    job.log.count("attacks", 1)
    return witness


def _affordable(job: Job, seconds: float, steps: int) -> int:
    """How many points can make that many gradient steps in the time; on a device, time is no matter."""
    if job.setting.backend.device is not None:
        return 1 << 30
    work = 0
    for node in job.setting.attacked.nodes:
        weight = node.params.get("weight")
        work += node.size * (4 if weight is None else weight.size // max(1, weight.shape[0]))
    return int(min(1 << 30, max(0.0, seconds) * SPEED / ((steps + 1) * max(1, work))))
