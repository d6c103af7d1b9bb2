"""`bench --check-only`: every network loads and passes its cross-check, every query parses and fits its networks."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from ...specs.errors import BoundsmithError
from ...verify.lifeline import die_with_parent
from ..output import counted, say, write_report
from ..progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .suite import Instance

CHECK_SCHEMA = "boundsmith.check/1"


@dataclass(frozen=True)
class Checked:
    """What became of one file: the trouble with it (empty: none), and its numbers of inputs and outputs if it was read.

    For a query: of all its networks together.
    """

    trouble: str
    inputs: int = 0
    outputs: int = 0


def check_network_file(file: Path) -> Checked:
    """Load a network and compare it with onnxruntime."""
    from ...verify.loading import load

    try:
        network = load(file)
    except (BoundsmithError, MemoryError) as error:
        return Checked(str(error) or type(error).__name__)
    sizes = [sum(_size(tensor.shape) for tensor in side) for side in (network.inputs, network.outputs)]
    return Checked("", *sizes)


def check_query_file(file: Path) -> Checked:
    """Parse a query."""
    from ...specs import read_property

    try:
        asked = read_property(file)
    except (BoundsmithError, MemoryError) as error:
        return Checked(str(error) or type(error).__name__)
    return Checked("", asked.input_count, asked.output_count)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for dimension in shape:
        size *= dimension
    return size


def check_suite(instances: Sequence[Instance], jobs: int, json_file: Path | None) -> int:
    """Check every file of the instances, each kind once; print a table a set and name every failure.

    Returns the exit status: 0 if all is well, 1 if not.
    """
    networks = {file: instance.set for instance in instances for file in instance.networks.values()}
    queries = {instance.query: instance.set for instance in instances}
    with Progress("check", len(networks) + len(queries), jobs=jobs) as progress:
        found_networks = _each(check_network_file, networks, jobs, progress)
        found_queries = _each(check_query_file, queries, jobs, progress)
    failures = [
        f"{file}: {checked.trouble}"
        for found in (found_networks, found_queries)
        for file, checked in found.items()
        if checked.trouble
    ]
    failures += _misfits(instances, found_networks, found_queries)
    table = _table(instances, found_networks, found_queries)
    say(describe(table, failures))
    write_report(json_file, {"schema": CHECK_SCHEMA, "sets": table, "failures": failures})
    return 1 if failures else 0


def _each(work: Any, files: dict[Path, str], jobs: int, progress: Progress) -> dict[Path, Checked]:
    """Run `work` on every file in other processes, so that one that dies takes only its own file with it.

    When a process dies, all its pool's tasks are lost and nobody knows whose fault it was: the rest goes on one at a
    time, where it is known.
    """
    found: dict[Path, Checked] = {}
    died = Checked("the process that read it died (out of memory, or a crash)")
    while pending := [file for file in files if file not in found]:
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=die_with_parent) as pool:
            tasks: dict[Path, Future[Checked]] = {file: pool.submit(work, file) for file in pending[: 20 * jobs]}
            for file, task in tasks.items():
                error = task.exception()
                if isinstance(error, BrokenProcessPool) and jobs > 1:
                    jobs = 1
                    break
                if error is None:
                    found[file] = task.result()
                else:
                    # A fault of ours in reading a file is that file's trouble: the others are still to be read.
                    found[file] = died if isinstance(error, BrokenProcessPool) else Checked(_named(error))
                progress.step("failed" if found[file].trouble else "well", f"{file}: {found[file].trouble or 'well'}")
                if found[file] is died:
                    break
    return found


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _misfits(instances: Sequence[Instance], networks: dict[Path, Checked], queries: dict[Path, Checked]) -> list[str]:
    """Instances whose query speaks of other numbers of inputs or outputs than its networks have."""
    misfits = []
    for instance in instances:
        asked = queries[instance.query]
        given = [networks[file] for file in instance.networks.values()]
        if asked.trouble or any(network.trouble for network in given):
            continue
        sizes = sum(network.inputs for network in given), sum(network.outputs for network in given)
        if sizes != (asked.inputs, asked.outputs):
            misfits.append(
                f"{instance.query}: {counted(asked.inputs, 'input')} and {counted(asked.outputs, 'output')}, "
                f"but the network has {sizes[0]} and {sizes[1]}"
            )
    return misfits


def _table(
    instances: Sequence[Instance], networks: dict[Path, Checked], queries: dict[Path, Checked]
) -> dict[str, dict[str, int]]:
    """By set, and under "total": how many networks and queries there are, and how many of them are well."""
    table: dict[str, dict[str, int]] = {}
    for name in (*dict.fromkeys(instance.set for instance in instances), "total"):
        own = [instance for instance in instances if name in (instance.set, "total")]
        files = {file for instance in own for file in instance.networks.values()}
        asked = {instance.query for instance in own}
        table[name] = {
            "networks": len(files),
            "loaded": sum(not networks[file].trouble for file in files),
            "queries": len(asked),
            "parsed": sum(not queries[file].trouble for file in asked),
        }
    return table


def describe(table: dict[str, dict[str, int]], failures: Sequence[str]) -> str:
    """The table as text: failures first, the total with its percentage last."""
    width = max(len(name) for name in table)
    lines = [f"FAILED {failure}" for failure in failures]
    lines.append(f"{'set':{width}}  networks loaded and cross-checked  queries parsed")
    for name, row in table.items():
        loaded, parsed = f"{row['loaded']} of {row['networks']}", f"{row['parsed']} of {row['queries']}"
        lines.append(f"{name:{width}}  {loaded:>33}  {parsed:>14}")
    total = table["total"]
    share = (total["loaded"] + total["parsed"]) / max(total["networks"] + total["queries"], 1)
    lines.append(f"{100 * share:.1f} % of the files are well" if failures else "100 %")
    return "\n".join(lines)
