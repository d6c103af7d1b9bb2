"""`boundsmith bench`: a folder of instances in VNN-COMP layout."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import check_folder_of, debug_option, json_option, require_file
from .verify import METHODS

if TYPE_CHECKING:
    from types import FrameType

    from ..bench.judge import Expectation
    from ..bench.record import Journal, Key
    from ..bench.run import Settings
    from ..bench.suite import Instance
    from ..bench.summary import Summary


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--out", type=click.Path(path_type=Path), metavar="RUN", help="Folder of the run [runs/NAME-TIME].")
@click.option("--resume", is_flag=True, help="Continue RUN (the latest of this DIR): run only what is missing.")
@click.option(
    "--expected", type=click.Path(path_type=Path), metavar="FILE", help="Known answers [expected.csv in or beside DIR]."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Instances at a time.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Cap on each instance's seconds.")
@click.option("--sets", metavar="A,B", help="Only these sets.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Only every K-th instance of a set.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many instances of a set.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="As in verify.")
@click.option("--method", type=click.Choice(METHODS), default="auto", help="As in verify.")
@click.option("--no-attack", is_flag=True, help="As in verify.")
@click.option("--check-only", is_flag=True, help="Solve nothing: load every network, parse every query, report.")
@json_option
@debug_option
def command(
    folder: Path,
    out: Path | None,
    resume: bool,
    expected: Path | None,
    sets: str | None,
    every: int,
    limit: int | None,
    check_only: bool,
    json_file: Path | None,
    **how: Any,
) -> None:
    """Run every row of DIR/instances.csv, or of every set in DIR, one process an instance.

    Each finished instance is appended to RUN/results.jsonl at once, so a run may be killed at any moment and continued
    with --resume. At the end: RUN/results.csv, summary.txt, summary.json and cactus.png. Ends with status 1 if an
    answer is wrong.

    \b
    Example:
      boundsmith bench benchmarks/quickstart --jobs 2
    """
    from ..bench.suite import read_suite

    check_folder_of(json_file)
    instances = read_suite(folder, tuple(sets.split(",")) if sets else (), every, limit)
    if check_only:
        from ..bench.check import check_suite

        sys.exit(check_suite(instances, how["jobs"], json_file))
    known = _known(folder, expected)
    place = _place(folder, out, resume)
    summary = _run(instances, _settings(how), place, resume, known)
    from ..bench.summary import describe, to_object, write_reports

    write_reports(place, summary, known)
    if json_file is not None:
        from ..atomic import write_json

        write_json(json_file, to_object(summary))
    click.echo(describe(summary))
    click.echo(f"the run is in {place}")
    sys.exit(1 if summary.wrong else 0)


def _known(folder: Path, expected: Path | None) -> dict[Key, Expectation]:
    from ..bench.judge import read_expected
    from ..bench.suite import find_expected

    file = require_file(expected, "table of expected answers") if expected is not None else find_expected(folder)
    return {} if file is None else read_expected(file)


def _place(folder: Path, out: Path | None, resume: bool) -> Path:
    """The run's folder: as asked, else the latest of this name to resume, else a new one."""
    from ...specs.errors import BoundsmithError

    if out is not None:
        return out
    name = folder.resolve().name
    if not resume:
        return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    earlier = sorted(Path("runs").glob(f"{name}-[0-9]*-[0-9]*"))
    if not earlier:
        raise BoundsmithError(f"there is no earlier run of {name} in runs/ to resume; name it with --out")
    return earlier[-1]


def _settings(how: dict[str, Any]) -> Settings:
    from ..bench.run import Settings

    arguments = ["--device", how["device"], "--method", how["method"], "--assume-real"]
    if how["no_attack"]:
        arguments.append("--no-attack")
    return Settings(tuple(arguments), how["timeout"], how["jobs"])


def _run(
    instances: list[Instance], settings: Settings, place: Path, resume: bool, known: dict[Key, Expectation]
) -> Summary:
    """Run what is missing, recording each instance as it ends; what was recorded stands after an interrupt too."""
    from ...specs.errors import BoundsmithError
    from ..bench.record import Journal
    from ..bench.summary import summarise

    (place / "instances").mkdir(parents=True, exist_ok=True)
    with Journal(place / "results.jsonl") as journal:
        if journal.records and not resume:
            raise BoundsmithError(f"{place} holds results of an earlier run; add --resume or choose another --out")
        _same_settings(place / "run.json", settings, resume=bool(journal.records))
        finished = {record.key for record in journal.records}
        missing = [instance for instance in instances if instance.key not in finished]
        _run_missing(missing, settings, place, journal, known, total=len(instances))
        wanted = {instance.key for instance in instances}
        return summarise([record for record in journal.records if record.key in wanted], known, len(instances))


def _run_missing(
    missing: list[Instance],
    settings: Settings,
    place: Path,
    journal: Journal,
    known: dict[Key, Expectation],
    total: int,
) -> None:
    from ..bench.judge import Expectation, judge
    from ..bench.process import Processes
    from ..bench.run import run_all
    from ..progress import Progress

    processes = Processes()

    def interrupt(number: int, _: FrameType | None) -> None:
        processes.stop()
        click.echo("interrupted; what has finished is recorded, and --resume runs the rest", err=True)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Progress(place.name, total, total - len(missing), settings.jobs) as progress:
            for instance, record in run_all(missing, settings, place / "instances", processes):
                journal.append(record)
                judgement = judge(record, known.get(instance.key, Expectation("unknown")).verdict)
                progress.step(
                    record.verdict,
                    f"{record.set} {record.onnx} {record.vnnlib}: {record.verdict} {record.seconds:.1f} s "
                    f"({judgement.value})",
                )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _same_settings(file: Path, settings: Settings, resume: bool) -> None:
    """Write down how the run is made; BoundsmithError if an earlier part of it was made otherwise."""
    import json

    from ...specs.errors import BoundsmithError
    from ..atomic import write_json

    made = {"schema": "boundsmith.bench-run/1", "arguments": list(settings.arguments), "timeout_cap": settings.cap}
    if resume and file.exists() and json.loads(file.read_text()) != made:
        raise BoundsmithError(f"{file.parent} was started with other options; resume it with the same ones")
    write_json(file, made)
