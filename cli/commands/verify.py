"""`boundsmith verify`: one query, one answer."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import MemorySize, check_folder_of, debug_option, json_option, parse_networks, require_file

if TYPE_CHECKING:
    from ...verify.result import Result

EXIT_STATUS = {"unsat": 0, "sat": 10, "unknown": 20, "timed-out": 30}
"""The process's status with `--exit-status`, by verdict."""

METHODS = ("auto", "attack", "bounds", "input-split", "activation-split", "milp")


@click.command()
@click.argument("query", type=click.Path(path_type=Path))
@click.option(
    "--network", "networks", multiple=True, required=True, metavar="[NAME=]FILE", help="ONNX file; once a network."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=116.0,
    show_default=True,
    help="Seconds, counted from the start of the process.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True, help="How to decide.")
@click.option("--no-attack", "attack", is_flag=True, flag_value=False, default=True, help="Search no counterexample.")
@json_option
@click.option(
    "--serialise-assignments",
    "assignments",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a witness's tensors as ONNX TensorProto files too.",
)
@click.option(
    "--record",
    "record_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="After unsat, write what a proof needs (.npz); the search is slower.",
)
@click.option("--results", type=click.Path(path_type=Path), metavar="FILE", help="Write a VNN-COMP results file.")
@click.option("--exit-status", is_flag=True, help="Exit with 0 unsat, 10 sat, 20 unknown, 30 timed-out, 2 error.")
@click.option("--assume-real", is_flag=True, help="Read a VNN-LIB 2.0 query's floating-point types as the reals.")
@click.option("--memory", type=MemorySize(), metavar="SIZE", help="Largest temporaries, for example 512M or 2G.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the attack.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the bounds.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Worker threads [one a core].")
@debug_option
def command(
    query: Path,
    networks: tuple[str, ...],
    json_file: Path | None,
    assignments: Path | None,
    record_file: Path | None,
    results: Path | None,
    exit_status: bool,
    **settings: Any,
) -> None:
    """Decide QUERY, a VNN-LIB 1.0 or 2.0 file (plain or .gz), about the given networks.

    The first line of stdout is the verdict: unsat (no input violates the property), sat (followed by an input that
    does, and the outputs it gives), unknown or timed-out. Everything else goes to stderr.

    \b
    Example:
      boundsmith verify query.vnnlib --network net.onnx --timeout 60 --json result.json
    """
    from ..process import prepare_process

    prepare_process()
    from ...verify.budget import process_start

    start = process_start()
    report = _Report(json_file, results, assignments, record_file)
    settings["record"] = record_file is not None
    report.announce()
    try:
        run = _Run(require_file(query, "query"), parse_networks(networks), settings, start)
        verdict = run.decide(report, EXIT_STATUS["timed-out"] if exit_status else 0)
    except BaseException:
        report.fail()
        raise
    sys.exit(EXIT_STATUS[verdict] if exit_status else 0)


@dataclass(frozen=True)
class _Run:
    """One query to decide, and when it started (`time.monotonic`)."""

    query: Path
    networks: dict[str, Path]
    settings: dict[str, Any]
    start: float

    def decide(self, report: _Report, status_in_time_out: int) -> str:
        """Answer and report within the deadline, whatever the main thread is doing; returns the verdict's word."""
        from ...verify.budget import Deadline
        from ..watchdog import Watchdog

        timeout = self.settings["timeout"]
        deadline = Deadline.after(timeout, self.start)
        grace = min(1.0, 0.02 * timeout)
        with Watchdog(deadline, grace, lambda: self._expire(report), status_in_time_out) as watchdog:
            from ...verify.options import Options
            from ...verify.strategy import verify_files

            result = verify_files(self.query, self.networks, Options(**self.settings), deadline)
            watchdog.claim()
            report.write(result, self)
        return result.verdict.value

    def _expire(self, report: _Report) -> None:
        """Report a time-out from the watchdog's thread."""
        from ...verify.result import Result, Verdict

        stuck = "The deadline passed while one step was still running, and the step was abandoned."
        report.write(Result(Verdict.TIMEOUT, method=self.settings["method"], warnings=(stuck,)), self)


@dataclass(frozen=True)
class _Report:
    """Where the answer goes besides stdout and stderr."""

    json_file: Path | None
    results: Path | None
    assignments: Path | None
    record: Path | None

    def announce(self) -> None:
        """Fail early where a file cannot be written, and write `timeout` for a process that may be killed."""
        check_folder_of(self.json_file)
        check_folder_of(self.results)
        check_folder_of(self.record)
        self._write_word("timeout")

    def fail(self) -> None:
        """Leave `error` in the competition's results file."""
        self._write_word("error")

    def _write_word(self, word: str) -> None:
        if self.results is not None:
            from ..report.vnncomp import write_word

            write_word(self.results, word)

    def write(self, result: Result, run: _Run) -> None:
        """Print the answer and write every file that was asked for."""
        from ..report.console import answer, story
        from ..report.json import result_object

        sys.stdout.write(answer(result))
        sys.stdout.flush()
        if self.results is not None:
            from ..report.vnncomp import write_results

            write_results(self.results, result)
        if self.assignments is not None and result.witness is not None:
            from ..report.tensors import write_assignments

            write_assignments(self.assignments, result.witness)
        if self.record is not None and result.record is not None:
            from ..atomic import write_arrays

            write_arrays(self.record, result.record.arrays())
        whole = result_object(result, run.settings, time.monotonic() - run.start)
        if self.json_file is not None:
            from ..atomic import write_json
            from ..report.json import provenance

            write_json(self.json_file, whole | provenance(run.query, run.networks))
        sys.stderr.write(story(whole) + "\n")
