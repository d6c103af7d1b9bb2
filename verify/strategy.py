"""Which method runs when, inside one budget; the only place that forms a verdict.

Cheap attempts of every kind come first, and each one's budget grows only while nothing has decided: a few sampled
points, a few gradient steps, then the search, interrupted by longer attacks at growing intervals. `unsat` is answered
only when the search closed every box and lost none, which also shows that every operator of the network has a value on
the whole region (no division by zero, no logarithm of a negative number); `sat` only for a witness that the reference
runtime confirms.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..specs.element_types import require_real
from ..specs.read import read_property
from .arrays import choose_backend, full_precision, out_of_memory_errors
from .attack.replay import Replay
from .errors import ArgumentError, CrossedBounds, UndefinedOnRegion
from .falsify import attack_between, attack_for, first_attacks
from .integers import exceeds_single, with_whole_numbers
from .loading.network import Network, check_network, load
from .loading.piecewise import fold_piecewise
from .log import Log
from .matching import assign, check_equal, in_declared_order, with_declared_extents
from .problem import join
from .result import Result, Verdict, Witness
from .rows import fit_single
from .setting import Job, Setting
from .trimmed import trimmed
from .turns import ActivationTurns, InputTurns
from .whole import search_on_stairs

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from ..specs.property import Property
    from .budget import Deadline
    from .options import Options

SPLIT_INPUTS_AT_MOST = 64
"""Uncertain inputs up to which splitting the input box is worth trying."""

SPLIT_INPUTS_ALONE = 8
"""Uncertain inputs up to which splitting the input box alone is best, unless there are few activations."""

FEW_ACTIVATIONS = 64
"""Entries that may be split, up to which splitting activations takes part all the same: where a query couples inputs,
halving boxes gains nothing on them (monotonicity of two ReLUs: 7 domains; 13 million boxes were not enough)."""

ASIDE = 0.15
"""Share of a turn for splitting activations beside few inputs that no row couples (with whole turns, lsnc's
quadrotor2d_state_17 took 28 CPU seconds instead of 12)."""

PROGRAMME_AFTER = 4.0
"""Seconds of search after which a small problem is handed to mixed-integer programming, for half of what is left."""

PROGRAMME_AT_MOST = 1000
"""Undecided entries up to which that is tried."""

PROGRAMME_INPUTS = 128
"""Uncertain inputs up to which that is tried (images only lose time: CIFAR base_kw, image 876, 47 s for nothing)."""

GROUPS_AT_MOST = 64
"""Boxes of a query up to which activations are split."""

UNDEFINED_ATTACK_SECONDS = 0.5
"""Time for a last attack where the network has no value somewhere on the region, so that `unsat` is out of reach."""


def verify_files(
    query: str | os.PathLike[str],
    networks: Mapping[str, Path],
    options: Options,
    deadline: Deadline,
    log: Log | None = None,
) -> Result:
    """Decide a VNN-LIB file about ONNX files given by declared network name (the empty name: the query's only network).

    log   where to note what happens, for a caller who may have to answer before the end.

    Raises `BoundsmithError` for bad input: an unreadable file, an unsupported operator, variables that do not match.
    """
    log = Log() if log is None else log
    started = time.monotonic()
    property = read_property(query)
    if not options.assume_real:
        require_real(property)
    log.phase("read query", started)
    started = time.monotonic()
    loaded = _load_networks(property, networks)
    log.phase("load network", started)
    return _decide(property, loaded, options, deadline, log)


def verify_property(
    property: Property, networks: Mapping[str, Network], options: Options, deadline: Deadline
) -> Result:
    """Decide a property about loaded networks, given by declared name. Raises `BoundsmithError` for input that does
    not fit."""
    assigned = assign(property, networks)
    check_equal(property, assigned)
    fixed = {name: with_declared_extents(property, name, network) for name, network in assigned.items()}
    ordered = {name: in_declared_order(property, name, network) for name, network in fixed.items()}
    return _decide(property, ordered, options, deadline, Log())


def _load_networks(property: Property, files: Mapping[str, Path]) -> dict[str, Network]:
    """The declared networks; each file is loaded once and checked against the runtime on the query's own region."""
    assigned = assign(property, files)
    by_file = {file: load(file, check=False) for file in dict.fromkeys(assigned.values())}
    check_equal(property, {name: by_file[file] for name, file in assigned.items()})
    fixed = {name: with_declared_extents(property, name, by_file[file]) for name, file in assigned.items()}
    networks = {name: in_declared_order(property, name, network) for name, network in fixed.items()}
    checked: dict[int, Network] = {}
    for name, network in networks.items():
        if id(network) not in checked:
            checked[id(network)] = check_network(network, *_region_of(property, name, network))
    return {name: checked[id(network)] for name, network in networks.items()}


def _region_of(property: Property, name: str, network: Network) -> tuple[Any, ...]:
    """The arguments of `check_network` that make it look at the query's region, where the sizes fit."""
    start = 0
    for declared in property.inputs:
        if declared.network == name:
            break
        start += declared.size
    size = sum(declared.size for declared in property.inputs if declared.network == name)
    if not property.clauses or size != sum(int(np.prod(info.shape, dtype=np.int64)) for info in network.inputs):
        return (None,)
    free = property.input_map[start : start + size]
    box = property.clauses[0].box
    return None, box.lower[free], box.upper[free]


def _decide(
    property: Property, networks: Mapping[str, Network], options: Options, deadline: Deadline, log: Log
) -> Result:
    if not property.clauses:
        return log.result(Verdict.UNSAT, None, "empty unsafe set")
    problem = join(property, {name: network.graph for name, network in networks.items()})
    problem = with_whole_numbers(problem, networks)
    if not problem.groups:
        log.warnings.append("an input of integer or boolean type has no whole number in its box")
        return log.result(Verdict.UNSAT, None, "empty unsafe set")
    replay = Replay(problem, networks)
    if not options.record and options.method != "milp":
        # Records and programmes are about the network's own neurons.
        problem = trimmed(replace(problem, graph=fold_piecewise(problem.graph)))
    double = any(_is_double(network) for network in networks.values())
    double = double or exceeds_single(problem) or not fit_single(problem.groups)
    dtype = "float64" if double else options.dtype
    setting = Setting.of(problem, choose_backend(options.device, dtype))
    job = Job(problem, setting, replay, options, deadline, log)
    log.count("clauses", sum(group.count for group in problem.groups))
    log.count("uncertain inputs", job.uncertain)
    run = _Run(job)
    try:
        with full_precision(setting.lower):
            verdict, witness = run.decide()
    except UndefinedOnRegion as error:
        log.undefined = str(error)
        verdict, witness = Verdict.UNKNOWN, None
    except CrossedBounds as error:
        log.warnings.append(str(error))
        verdict, witness = Verdict.UNKNOWN, None
    except out_of_memory_errors():
        log.warnings.append("memory ran out; try a smaller --memory, or a machine with more")
        verdict, witness = Verdict.UNKNOWN, None
    if witness is not None and witness.over_reals is False:
        log.warnings.append(
            "the witness violates the property in onnxruntime's floating-point arithmetic alone: over the reals, with "
            "the stored weights, it does not"
        )
    if log.undefined is not None and verdict not in (Verdict.SAT, Verdict.UNSAT):
        log.warnings.append(log.undefined)
    return log.result(verdict, witness, run.method or options.method, setting.backend)


def _is_double(network: Network) -> bool:
    return any(np.dtype(info.dtype) == np.float64 for info in network.inputs)


@dataclass
class _Run:
    """The methods of one decision, in order; `method` names those that took part."""

    job: Job
    method: str = ""

    def decide(self) -> tuple[Verdict, Witness | None]:
        """Run the methods in order; see the module's text."""
        used = []
        options, deadline = self.job.options, self.job.deadline
        if options.attack and options.method in ("auto", "attack"):
            used.append("attack")
            witness = first_attacks(self.job)
            if witness is not None:
                self.method = "attack"
                return Verdict.SAT, witness
        if options.method in ("auto", "attack"):
            closed, witness = search_on_stairs(self.job)
            # (What an attack shows is `sat` alone, and a record must be of another search.)
            if witness is not None or (closed and options.method == "auto" and not options.record):
                self.method = "+".join([*used, "whole numbers"])
                return (Verdict.UNSAT if witness is None else Verdict.SAT), witness
        if options.method == "attack":
            self.method = "attack"
            witness = attack_for(self.job, deadline.remaining)
            return (Verdict.TIMEOUT, None) if witness is None else (Verdict.SAT, witness)
        if options.method == "milp":
            self.method = "milp"
            return self._milp(deadline)
        searches = self._searches()
        self.method = "+".join([*used, *(searches or ["bounds"])])
        return self._search(searches)

    def _searches(self) -> list[str]:
        """Which searches take part, first one first; none for bounds alone.

        Splitting the input wins while few inputs vary, splitting activations while many do, or where there are few of
        them and the query couples inputs; between, both take turns.
        """
        method = self.job.options.method
        if method == "bounds":
            return []
        if method in ("input-split", "activation-split"):
            return [method]
        if method != "auto":
            raise ArgumentError(f"unknown method {method!r}")
        job, plan = self.job, self.job.setting.plan
        few = job.uncertain <= SPLIT_INPUTS_AT_MOST
        entries = sum(plan.graph.nodes[index].size for index in plan.sources)
        small = 0 < entries <= FEW_ACTIVATIONS and all(target.kinks is not None for target in plan.sources.values())
        activations = len(job.problem.groups) <= GROUPS_AT_MOST and bool(plan.sources)
        alone = job.uncertain <= SPLIT_INPUTS_ALONE and not small
        searches = [
            *(["input-split"] if few else []),
            *(["activation-split"] if activations and not alone else []),
        ]
        return searches[::-1] if small and job.problem.couples_inputs else searches

    def _search(self, searches: list[str]) -> tuple[Verdict, Witness | None]:
        """The searches in turns of growing length, with attacks between them.

        Every search is complete on its own: the first that closes everything, or meets a witness, decides.
        """
        job, deadline, options = self.job, self.job.deadline, self.job.options
        inputs = InputTurns(job, one_pass=not searches) if not searches or "input-split" in searches else None
        activations = ActivationTurns(job) if "activation-split" in searches else None
        turns = [turn for turn in (inputs, activations) if turn is not None]
        stretch = 0.3
        if searches == ["activation-split", "input-split"]:
            turns.reverse()
            # (The first leaves take as long to prepare.)
            stretch = 1.0
        attacking = job.options.attack and job.options.method == "auto"
        while True:
            for turn in turns:
                if deadline.passed:
                    break
                alone = not attacking and len(turns) == 1
                share = ASIDE if turn is activations and self._aside() else 1.0
                witness = turn.run(deadline if alone else deadline.sooner(share * stretch))
                if witness is not None:
                    return Verdict.SAT, witness
                if turn.closed:
                    job.log.record = turn.record if job.options.record else None
                    return Verdict.UNSAT, None
            if deadline.passed:
                return Verdict.TIMEOUT, None
            if inputs is None and activations is not None and activations.search.undefined and options.method == "auto":
                # Smaller boxes may show that the operator is defined.
                inputs = InputTurns(job)
                turns.append(inputs)
            if all(turn.finished for turn in turns):
                break
            if self._small(activations) and job.log.seconds("split") > PROGRAMME_AFTER:
                verdict, witness = self._milp(deadline.sooner(0.5 * deadline.remaining))
                if verdict in (Verdict.SAT, Verdict.UNSAT):
                    self.method += "+milp"
                    return verdict, witness
            if attacking:
                starts = activations.search.promising(32) if activations is not None else None
                witness = attack_between(job, 0.25 * stretch, starts)
                if witness is not None:
                    return Verdict.SAT, witness
            stretch *= 2
        return self._undecided(attacking)

    def _aside(self) -> bool:
        """Whether activation splitting is tried beside input splitting, which is likelier to decide."""
        return self.job.uncertain <= SPLIT_INPUTS_ALONE and not self.job.problem.couples_inputs

    def _small(self, activations: ActivationTurns | None) -> bool:
        """Whether mixed-integer programming is worth a try, once."""
        options = self.job.options
        if options.method != "auto" or options.record or self.job.uncertain > PROGRAMME_INPUTS or self._aside():
            return False
        layout = activations.layout if activations is not None else None
        tried = any(phase.name == "milp" for phase in self.job.log.phases)
        return not tried and layout is not None and layout.width <= PROGRAMME_AT_MOST

    def _undecided(self, attacking: bool) -> tuple[Verdict, Witness | None]:
        """All searches ended without deciding: where bounds alone were wanted or possible, a longer attack follows."""
        deadline = self.job.deadline
        longest = deadline.remaining if self.job.log.undefined is None else UNDEFINED_ATTACK_SECONDS
        witness = attack_for(self.job, min(longest, 0.25 * deadline.remaining)) if attacking else None
        if witness is not None:
            return Verdict.SAT, witness
        return (Verdict.TIMEOUT if deadline.passed else Verdict.UNKNOWN), None

    def _milp(self, deadline: Deadline) -> tuple[Verdict, Witness | None]:
        """Mixed-integer programming in a child process."""
        from .programs.milp import solve_by_milp

        job, log = self.job, self.job.log
        started = time.monotonic()
        report = solve_by_milp(job.problem, deadline, job.check, memory=job.memory)
        log.phase("milp", started, report.nodes)
        log.warnings += report.warnings
        if job.options.method == "milp":
            log.best_bound = report.bound
            if report.reason:
                log.warnings.append(report.reason)
        verdicts = {"sat": Verdict.SAT, "unsat": Verdict.UNSAT, "timeout": Verdict.TIMEOUT}
        return verdicts.get(report.status, Verdict.UNKNOWN), report.witness
