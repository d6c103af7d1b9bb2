"""Which method runs when, inside one budget; the only place that forms a verdict.

Cheap attempts of every kind come first, and each one's budget grows only while nothing has decided: a few sampled
points, a few gradient steps, then the search, interrupted by longer attacks at growing intervals. `unsat` is answered
only when the search closed every box and lost none; `sat` only for a witness that the reference runtime confirms.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..specs.element_types import require_real
from ..specs.read import read_property
from .arrays import Backend, choose_backend, out_of_memory_errors, to_numpy
from .attack.pgd import AttackOptions, attack
from .attack.replay import Replay
from .bounding.plan import Plan, make_plan
from .budget import Deadline, MemoryBudget
from .errors import UndefinedOnRegion
from .loading.network import Network, check_network, load
from .matching import assign, in_declared_order
from .problem import Problem, join
from .result import Phase, Result, Verdict, Witness
from .rows import Rows, prepare_rows
from .search.activation_search import ActivationSearch
from .search.domains import Domains, Pool
from .search.input_split import SplitOptions, SplitReport, search

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..specs.property import Property
    from .graph import Array

SPLIT_INPUTS_AT_MOST = 64
"""Uncertain inputs up to which splitting the input box is worth trying."""

SPLIT_INPUTS_ALONE = 8
"""Uncertain inputs up to which splitting the input box alone is best."""

PROGRAMME_AFTER = 4.0
"""Seconds of search after which a small problem is handed to mixed-integer programming, for half of what is left."""

PROGRAMME_AT_MOST = 1000
"""Undecided entries up to which that is tried."""

PROGRAMME_INPUTS = 128
"""Uncertain inputs up to which that is tried (images only lose time: CIFAR base_kw, image 876, 47 s for nothing)."""

GROUPS_AT_MOST = 64
"""Boxes of a query up to which activations are split."""

FIRST_ATTACK_SECONDS = 0.15
"""Time for each of the two attacks that come before any bound."""


@dataclass(frozen=True)
class Options:
    """How to decide a query.

    timeout   seconds, counted by the command line from the start of the process.
    device    auto, cpu or cuda;  dtype  float32 or float64: the arithmetic of the bounds.
    method    auto; attack (search a witness only); bounds (no search); input-split; activation-split; milp.
    attack    False: never sample or follow gradients (witnesses then come only from the search's own points).
    memory    bytes of temporaries a step may use; None: an eighth of what is free.
    threads   worker threads; None: one a core.
    assume_real  take a VNN-LIB 2.0 query's floating-point types for the reals; False: refuse such a file.
    """

    timeout: float = 116.0
    device: str = "auto"
    method: str = "auto"
    attack: bool = True
    memory: int | None = None
    seed: int = 0
    dtype: str = "float32"
    threads: int | None = None
    assume_real: bool = True


@dataclass
class _Log:
    """What happened on the way to the answer."""

    phases: list[Phase] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    best_bound: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def count(self, name: str, amount: int) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount

    def seconds(self, name: str) -> float:
        """Time booked so far on phases whose name contains `name`."""
        return sum(phase.seconds for phase in self.phases if name in phase.name)

    def phase(self, name: str, started: float, domains: int = 0) -> None:
        """Book the time since `started` on a phase (several stretches of one phase add up)."""
        seconds = time.monotonic() - started
        for position, known in enumerate(self.phases):
            if known.name == name:
                self.phases[position] = Phase(name, known.seconds + seconds, known.domains + domains)
                return
        self.phases.append(Phase(name, seconds, domains))


def verify_files(
    query: str | os.PathLike[str], networks: Mapping[str, Path], options: Options, deadline: Deadline
) -> Result:
    """Decide a VNN-LIB file about ONNX files given by declared network name (the empty name: the query's only network).

    Raises `BoundsmithError` for bad input: an unreadable file, an unsupported operator, variables that do not match.
    """
    log = _Log()
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
    ordered = {name: in_declared_order(property, name, network) for name, network in assign(property, networks).items()}
    return _decide(property, ordered, options, deadline, _Log())


def _load_networks(property: Property, files: Mapping[str, Path]) -> dict[str, Network]:
    """The declared networks; each file is loaded once and checked against the runtime on the query's own region."""
    assigned = assign(property, files)
    by_file = {file: load(file, check=False) for file in dict.fromkeys(assigned.values())}
    networks = {name: in_declared_order(property, name, by_file[file]) for name, file in assigned.items()}
    for name, network in {id(network): (name, network) for name, network in networks.items()}.values():
        check_network(network, *_region_of(property, name, network))
    return networks


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


@dataclass(frozen=True, eq=False)
class _Setting:
    """A problem prepared for one backend."""

    backend: Backend
    plan: Plan
    rows: Rows
    lower: Array
    upper: Array

    @classmethod
    def of(cls, problem: Problem, backend: Backend) -> _Setting:
        graph = backend.graph(problem.graph)
        lower, upper = backend.box(
            np.stack([group.lower for group in problem.groups]), np.stack([group.upper for group in problem.groups])
        )
        return cls(backend, make_plan(graph), prepare_rows(problem.groups, lower), lower, upper)

    def root(self) -> Domains:
        """Every group's box as an open domain."""
        groups = self.backend.array(np.arange(self.lower.shape[0]))
        unknown = self.backend.array(np.full(self.lower.shape[0], -np.inf))
        return Domains(self.lower, self.upper, groups, self.rows.clauses, unknown, {})


def _decide(
    property: Property, networks: Mapping[str, Network], options: Options, deadline: Deadline, log: _Log
) -> Result:
    if not property.clauses:
        return _result(Verdict.UNSAT, None, options, log, "empty unsafe set")
    problem = join(property, {name: network.graph for name, network in networks.items()})
    dtype = "float64" if any(_is_double(network) for network in networks.values()) else options.dtype
    setting = _Setting.of(problem, choose_backend(options.device, dtype))
    run = _Run(problem, setting, Replay(problem, networks), options, deadline, log)
    log.count("clauses", sum(group.count for group in problem.groups))
    log.count("uncertain inputs", run.uncertain)
    try:
        verdict, witness = run.decide()
    except UndefinedOnRegion as error:
        log.warnings.append(str(error))
        verdict, witness = Verdict.UNKNOWN, None
    except out_of_memory_errors():
        log.warnings.append("memory ran out; try a smaller --memory, or a machine with more")
        verdict, witness = Verdict.UNKNOWN, None
    return _result(verdict, witness, options, log, run.method, setting.backend)


def _is_double(network: Network) -> bool:
    return any(np.dtype(info.dtype) == np.float64 for info in network.inputs)


def _result(
    verdict: Verdict, witness: Witness | None, options: Options, log: _Log, method: str, backend: Backend | None = None
) -> Result:
    counters = dict(log.counters)
    counters["peak memory"] = _peak_memory()
    device = (backend.device if backend is not None else None) or "cpu"
    return Result(
        verdict,
        witness,
        log.best_bound,
        tuple(log.phases),
        counters,
        method or options.method,
        device,
        tuple(log.warnings),
        log.details,
    )


def _peak_memory() -> int:
    """The largest resident size of this process so far, in bytes; 0 where the platform does not say."""
    try:
        import resource
    except ImportError:
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass
class _Run:
    """One decision under way."""

    problem: Problem
    setting: _Setting
    replay: Replay
    options: Options
    deadline: Deadline
    log: _Log
    method: str = ""

    @property
    def uncertain(self) -> int:
        """The largest number of inputs that are not fixed in a group."""
        return max(int((group.upper > group.lower).sum()) for group in self.problem.groups)

    @property
    def memory(self) -> MemoryBudget:
        return MemoryBudget(self.options.memory) if self.options.memory else MemoryBudget.default()

    def decide(self) -> tuple[Verdict, Witness | None]:
        """Run the methods in order; see the module's text."""
        used = []
        if self.options.attack and self.options.method in ("auto", "attack"):
            used.append("attack")
            witness = self._first_attacks()
            if witness is not None:
                self.method = "attack"
                return Verdict.SAT, witness
        if self.options.method == "attack":
            self.method = "attack"
            return self._attack_until_deadline()
        if self.options.method == "milp":
            self.method = "milp"
            return self._milp(self.deadline)
        searches = self._searches()
        self.method = "+".join([*used, *(searches or ["bounds"])])
        return self._search(searches)

    def _searches(self) -> list[str]:
        """Which searches take part, first one first; none for bounds alone.

        Splitting the input wins while few inputs vary, splitting activations while many do; between, both take turns.
        """
        method = self.options.method
        if method == "bounds":
            return []
        if method != "auto":
            return [method]
        few = self.uncertain <= SPLIT_INPUTS_AT_MOST
        activations = len(self.problem.groups) <= GROUPS_AT_MOST and bool(self.setting.plan.sources)
        alone = self.uncertain <= SPLIT_INPUTS_ALONE
        return [
            *(["input-split"] if few else []),
            *(["activation-split"] if activations and not alone else []),
        ]

    def _first_attacks(self) -> Witness | None:
        """A few sampled points, then a few gradient steps: most violated properties fall here, and the others lose
        little time."""
        for attack_options in (AttackOptions(restarts=24, steps=0), AttackOptions(restarts=4, steps=16)):
            witness = self._attack(attack_options, self.deadline.sooner(FIRST_ATTACK_SECONDS))
            if witness is not None:
                return witness
        return None

    def _attack(
        self,
        attack_options: AttackOptions,
        deadline: Deadline | None = None,
        starts: tuple[Array, Array, Array] | None = None,
    ) -> Witness | None:
        started = time.monotonic()
        witness: Witness | None = attack(
            self.setting.plan.graph,
            self.setting.rows,
            self.setting.lower,
            self.setting.upper,
            attack_options,
            self.options.seed + self.log.counters.get("attacks", 0),
            deadline or self.deadline,
            self._check,
            chunk=self.memory.rows(self.setting.plan.largest * 64, 4096),
            starts=starts,
        )
        self.log.phase("attack", started)
        self.log.count("attacks", 1)
        return witness

    def _attack_for(self, seconds: float) -> Witness | None:
        """Attacks with ever more restarts for that many seconds, at least one."""
        until = self.deadline.sooner(seconds)
        options = AttackOptions(restarts=8, steps=40)
        while True:
            witness = self._attack(options, until)
            if witness is not None or until.passed:
                return witness
            options = AttackOptions(min(512, 2 * options.restarts), steps=min(200, options.steps + 20))

    def _attack_until_deadline(self) -> tuple[Verdict, Witness | None]:
        """Ever longer attacks until a witness is found or time is up."""
        witness = self._attack_for(self.deadline.remaining)
        return (Verdict.TIMEOUT, None) if witness is None else (Verdict.SAT, witness)

    def _check(self, points: Array, groups: Array) -> Witness | None:
        return self.replay.check(to_numpy(points), to_numpy(groups))

    def _split_options(self) -> SplitOptions:
        """Batches that keep a step's working set near the cache, in one worker a core."""
        threads = self.options.threads or os.cpu_count() or 1
        batch = max(1, min(4096, 150_000 // max(1, self.setting.plan.target_size)))
        on_device = self.setting.backend.device is not None
        return SplitOptions(batch=16 * batch if on_device else batch, workers=1 if on_device else threads)

    def _search(self, searches: list[str]) -> tuple[Verdict, Witness | None]:
        """The searches in turns of growing length, with attacks between them.

        Every search is complete on its own: the first that closes everything, or meets a witness, decides.
        """
        inputs = _InputSearch(self, one_pass=not searches) if searches != ["activation-split"] else None
        activations = self._activations() if "activation-split" in searches else None
        turns: list[_InputSearch | ActivationSearch] = [turn for turn in (inputs, activations) if turn is not None]
        stretch = 0.3
        attacking = self.options.attack and self.options.method == "auto"
        while True:
            for turn in turns:
                if self.deadline.passed:
                    break
                alone = not attacking and len(turns) == 1
                until = self.deadline if alone else self.deadline.sooner(stretch)
                if isinstance(turn, ActivationSearch):
                    witness = self._activation_turn(turn, until)
                else:
                    witness = turn.run(until)
                if witness is not None:
                    return Verdict.SAT, witness
                if turn.closed:
                    return Verdict.UNSAT, None
            if self.deadline.passed:
                return Verdict.TIMEOUT, None
            if all(turn.finished for turn in turns):
                break
            if self._small(activations) and self.log.seconds("split") > PROGRAMME_AFTER:
                verdict, witness = self._milp(self.deadline.sooner(0.5 * self.deadline.remaining))
                if verdict in (Verdict.SAT, Verdict.UNSAT):
                    self.method += "+milp"
                    return verdict, witness
            witness = self._attack_between(0.25 * stretch, activations) if attacking else None
            if witness is not None:
                return Verdict.SAT, witness
            stretch *= 2
        return self._undecided(inputs, attacking)

    def _small(self, activations: ActivationSearch | None) -> bool:
        """Whether mixed-integer programming is worth a try, once."""
        if self.options.method != "auto" or activations is None or activations.root is None:
            return False
        layout = activations.root.layout
        if self.uncertain > PROGRAMME_INPUTS:
            return False
        tried = any(phase.name == "milp" for phase in self.log.phases)
        return not tried and layout is not None and layout.width <= PROGRAMME_AT_MOST

    def _activations(self) -> ActivationSearch:
        setting = self.setting
        threads = self.options.threads or os.cpu_count() or 1
        return ActivationSearch(setting.plan, setting.rows, setting.lower, setting.upper, self.memory, threads)

    def _activation_turn(self, search: ActivationSearch, deadline: Deadline) -> Witness | None:
        """Search by activation splits for a while and book what was done."""
        started = time.monotonic()
        report = search.run(deadline, self._check)
        self.log.phase("activation split", started, report.visited)
        for name, amount in (("domains", report.visited), ("splits", report.splits), ("halvings", report.halvings)):
            self.log.count(name, amount)
        self.log.count("kernel milliseconds", round(1000 * report.kernel_seconds))
        spent = self.log.seconds("activation split") * search.workers
        if report.visited and spent > 0:
            share = self.log.counters["kernel milliseconds"] / 1000 / spent
            self.log.details["share outside kernels"] = round(max(0.0, 1.0 - share), 3)
        self.log.counters["linear programmes"] = search.programmes
        if report.exhausted:
            search.abandon()
        if np.isfinite(search.bound):
            self.log.best_bound = search.bound
        witness: Witness | None = report.witness
        return witness

    def _attack_between(self, seconds: float, activations: ActivationSearch | None) -> Witness | None:
        """An attack from the search's most promising points, then from random ones."""
        starts = activations.promising(32) if activations is not None else None
        if starts is not None:
            witness = self._attack(AttackOptions(steps=40, step=0.1), self.deadline.sooner(0.5 * seconds), starts)
            if witness is not None:
                return witness
        return self._attack_for(seconds if starts is None else 0.5 * seconds)

    def _undecided(self, inputs: _InputSearch | None, attacking: bool) -> tuple[Verdict, Witness | None]:
        """All searches ended without deciding: boxes too small for float32 are searched in float64; where bounds alone
        were wanted or possible, a longer attack follows."""
        if inputs is not None and inputs.stuck and not inputs.one_pass:
            verdict, witness = self._in_double(inputs.stuck)
            # Boxes that memory ran out on are open still.
            return (Verdict.UNKNOWN if verdict is Verdict.UNSAT and inputs.left else verdict), witness
        witness = self._attack_for(0.25 * self.deadline.remaining) if attacking else None
        if witness is not None:
            return Verdict.SAT, witness
        return (Verdict.TIMEOUT if self.deadline.passed else Verdict.UNKNOWN), None

    def _milp(self, deadline: Deadline) -> tuple[Verdict, Witness | None]:
        """Mixed-integer programming in a child process."""
        from .programs.milp import solve_by_milp

        started = time.monotonic()
        report = solve_by_milp(self.problem, deadline, self._check, memory=self.memory)
        self.log.phase("milp", started, report.nodes)
        self.log.warnings += report.warnings
        if self.options.method == "milp":
            self.log.best_bound = report.bound
            if report.reason:
                self.log.warnings.append(report.reason)
        verdicts = {"sat": Verdict.SAT, "unsat": Verdict.UNSAT, "timeout": Verdict.TIMEOUT}
        return verdicts.get(report.status, Verdict.UNKNOWN), report.witness

    def _in_double(self, stuck: list[Domains]) -> tuple[Verdict, Witness | None]:
        """Boxes too small to split in float32 are searched again in float64."""
        if self.setting.backend.dtype == "float64" or not stuck:
            return Verdict.UNKNOWN, None
        self.log.warnings.append(
            f"{sum(len(part) for part in stuck)} boxes reached float32's resolution and were searched in float64"
        )
        double = _Setting.of(self.problem, Backend("float64", self.setting.backend.device))
        pool = Pool()
        for part in stuck:
            lower, upper = (double.backend.array(to_numpy(end).astype(np.float64)) for end in (part.lower, part.upper))
            pool.push(Domains(lower, upper, part.group, part.active, double.backend.array(to_numpy(part.margin)), {}))
        report = self._stretch(double, pool, self.deadline)
        if report.witness is not None:
            return Verdict.SAT, report.witness
        if report.closed:
            return Verdict.UNSAT, None
        return (Verdict.TIMEOUT if self.deadline.passed else Verdict.UNKNOWN), None

    def _stretch(self, setting: _Setting, pool: Pool, deadline: Deadline, one_pass: bool = False) -> SplitReport:
        """Search the pool for a while and book what was done."""
        started = time.monotonic()
        report = search(
            setting.plan,
            setting.rows,
            pool,
            self._split_options(),
            deadline,
            self.memory,
            self._check,
            one_pass=one_pass,
        )
        self.log.phase("bounds" if one_pass else "input split", started, report.visited)
        for name, amount in (("domains", report.visited), ("splits", report.splits), ("halvings", report.halvings)):
            self.log.count(name, amount)
        left = min([pool.margin, *(float(part.margin.min()) for part in report.stuck)])
        self.log.best_bound = left if np.isfinite(left) else None
        return report


class _InputSearch:
    """Branch-and-bound on the input box, in turns."""

    def __init__(self, run: _Run, one_pass: bool) -> None:
        self._run = run
        self.one_pass = one_pass
        self.stuck: list[Domains] = []
        self._pool = Pool([run.setting.root()])
        self._exhausted = False
        self._patience = 1.0

    @property
    def closed(self) -> bool:
        """Whether no box is open, and none was lost."""
        return not len(self._pool) and not self.stuck

    @property
    def left(self) -> int:
        """How many boxes are open, besides those that are too small to split."""
        return len(self._pool)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return not len(self._pool) or self._exhausted

    def run(self, deadline: Deadline) -> Witness | None:
        """Search until the deadline; a witness if one was found."""
        if self.finished:
            return None
        # Work on a batch that a turn cut short is lost, so after a turn too short for any batch the next is longer.
        report = self._run._stretch(
            self._run.setting,
            self._pool,
            self._run.deadline.sooner(self._patience * deadline.remaining),
            self.one_pass,
        )
        self._patience = 1.0 if report.visited else 2.0 * self._patience
        self.stuck += report.stuck
        self._exhausted = report.exhausted
        witness: Witness | None = report.witness
        return witness
