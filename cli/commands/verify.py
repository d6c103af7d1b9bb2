"""`boundsmith verify`: one query, one answer."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..options import (
    InputPath,
    MemorySize,
    OutputPath,
    Seconds,
    check_folder,
    check_writable,
    debug_option,
    is_replaceable,
    json_option,
    parse_networks,
    require_file,
)
from ..output import INTERRUPTED, NOT_WRITTEN, Answering, NotWrittenError, answers, complain, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from ...verify.log import Log
    from ...verify.result import Result, Verdict

EXIT_STATUS = {"unsat": 0, "sat": 10, "unknown": 20, "timed-out": 30}
"""The process's status with `--exit-status`, by verdict."""

METHODS = ("auto", "attack", "bounds", "input-split", "activation-split", "milp")


@click.command(cls=Answering)
@click.argument("query", type=InputPath())
@click.option(
    "--network", "networks", multiple=True, required=True, metavar="[NAME=]FILE", help="ONNX file; once a network."
)
@click.option(
    "--timeout",
    type=Seconds(min=0),
    metavar="SECONDS",
    default=116.0,
    show_default=True,
    help="Limit, counted from the start of the process; inf for none.",
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
    type=InputPath(),
    metavar="DIR",
    help="Write a witness's tensors as ONNX TensorProto files too.",
)
@click.option(
    "--record",
    "record_file",
    type=OutputPath(),
    metavar="FILE",
    help="After unsat, write what a proof needs (.npz); the search is slower.",
)
@click.option("--results", type=OutputPath(), metavar="FILE", help="Write a VNN-COMP results file.")
@click.option("--exit-status", is_flag=True, help="Exit with 0 unsat, 10 sat, 20 unknown, 30 timed-out.")
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

    The first line of stdout is the verdict: unsat (over the reals, no input violates the property), sat (followed by
    an input that does in onnxruntime, and the outputs it gives there), unknown or timed-out. Everything else goes to
    stderr, also whether the input violates the property over the reals, too.

    Ends with status 0 (or as --exit-status says); 2 without a verdict, after bad input; 3 if the verdict was given, but
    a file that was asked for could not be written; 130 after Ctrl-C, with the verdict unknown and the best bound so
    far.

    \b
    Example:
      boundsmith verify query.vnnlib --network net.onnx --timeout 60 --json result.json
    """
    from ..process import prepare_process

    prepare_process()
    from ...verify.budget import process_start

    start = process_start()
    report = _Report(answers(), json_file, results, assignments, record_file)
    settings["record"] = record_file is not None
    report.announce()
    try:
        run = _Run(require_file(query, "query"), parse_networks(networks), settings, start, exit_status)
        verdict = run.decide(report)
    except NotWrittenError:
        raise
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
    exit_status: bool

    def decide(self, report: _Report) -> str:
        """Answer and report within the deadline, whatever the main thread is doing; returns the verdict's word."""
        from ...verify.budget import Deadline
        from ...verify.log import Log
        from ..watchdog import Watchdog

        timeout = self.settings["timeout"]
        deadline = Deadline.after(timeout, self.start)
        grace = min(1.0, 0.02 * timeout)
        log = Log()
        with Watchdog(
            deadline, grace, lambda: self._expire(report, log), lambda: self._interrupt(report, log)
        ) as watchdog:
            from ...verify.options import Options
            from ...verify.strategy import verify_files

            result = verify_files(self.query, self.networks, Options(**self.settings), deadline, log)
            watchdog.claim()
            report.write(result, self)
        return result.verdict.value

    def _expire(self, report: _Report, log: Log) -> int:
        """Report a time-out from the watchdog's thread; the process's status."""
        from ...verify.result import Verdict

        stuck = "The deadline passed while one step was still running, and the step was abandoned."
        status = EXIT_STATUS["timed-out"] if self.exit_status else 0
        return report.write_early(self._so_far(Verdict.TIMEOUT, log, stuck), self, status)

    def _interrupt(self, report: _Report, log: Log) -> int:
        """Report what is known so far after Ctrl-C, from the watchdog's thread; the process's status."""
        from ...verify.result import Verdict

        result = self._so_far(Verdict.UNKNOWN, log, "The search was interrupted.")
        return report.write_early(result, self, INTERRUPTED, "Undecided: interrupted.")

    def _so_far(self, verdict: Verdict, log: Log, warning: str) -> Result:
        result = log.result(verdict, None, self.settings["method"])
        return replace(result, warnings=(*result.warnings, warning))


@dataclass(frozen=True)
class _Report:
    """Where the answer goes: its stream, and files besides."""

    stream: TextIO
    json_file: Path | None
    results: Path | None
    assignments: Path | None
    record: Path | None

    def announce(self) -> None:
        """Fail early where a file cannot be written, and write `timeout` for a process that may be killed."""
        for file in (self.json_file, self.results, self.record):
            check_writable(file)
        check_folder(self.assignments)
        if self.results is not None and is_replaceable(self.results):
            self._write_word("timeout")

    def fail(self) -> None:
        """Leave `error` in the competition's results file."""
        with contextlib.suppress(OSError):
            self._write_word("error")

    def _write_word(self, word: str) -> None:
        if self.results is not None:
            from ..report.vnncomp import write_word

            write_word(self.results, word)

    def write_early(self, result: Result, run: _Run, status: int, sentence: str | None = None) -> int:
        """`write` for a process that ends here; its status, which is `status` unless a file could not be written."""
        try:
            self.write(result, run, sentence)
        except NotWrittenError as error:
            complain(f"error: {error}")
            return NOT_WRITTEN
        return status

    def write(self, result: Result, run: _Run, sentence: str | None = None) -> None:
        """Print the answer and write every file that was asked for, with `sentence` for the verdict's own, if given.

        Raises NotWrittenError for what could not be written, after everything else was.
        """
        failures = []
        for where, step in self._steps(result, run, sentence):
            try:
                step()
            except OSError as error:
                failures.append(f"cannot write {where}: {error.strerror or error}")
        if failures:
            raise NotWrittenError("; ".join(failures))

    def _steps(self, result: Result, run: _Run, sentence: str | None) -> Iterator[tuple[str | Path, Callable[[], Any]]]:
        """What is to be written where, in order."""
        from ..report.console import answer, story
        from ..report.json import result_object

        yield "stdout", lambda: say(answer(result), self.stream)
        if self.results is not None:
            from ..report.vnncomp import write_results

            yield self.results, partial(write_results, self.results, result)
        if self.assignments is not None and result.witness is not None:
            from ..report.tensors import write_assignments

            yield self.assignments, partial(write_assignments, self.assignments, result.witness)
        if self.record is not None and result.record is not None:
            from ...verify.atomic import write_arrays

            yield self.record, partial(write_arrays, self.record, result.record.arrays())
        whole = result_object(result, run.settings, time.monotonic() - run.start)
        if sentence is not None:
            whole["sentence"] = sentence
        if self.json_file is not None:
            yield self.json_file, partial(self._write_json, whole, run)
        yield "stderr", lambda: complain(story(whole))

    def _write_json(self, whole: dict[str, Any], run: _Run) -> None:
        from ...verify.atomic import write_json
        from ..report.json import provenance

        assert self.json_file is not None
        write_json(self.json_file, whole | provenance(run.query, run.networks))
