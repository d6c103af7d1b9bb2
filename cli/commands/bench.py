"""`boundsmith bench`: a folder of instances in VNN-COMP layout."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import InputPath, Seconds, check_folder, check_writable, debug_option, json_option, require_file
from ..output import Answering, complain, say, told, write_report
from .verify import METHODS

if TYPE_CHECKING:
    from types import FrameType

    from ..bench.judge import Expectation
    from ..bench.record import Journal, Key
    from ..bench.run import Settings
    from ..bench.suite import Instance
    from ..bench.summary import Summary


@click.command(cls=Answering)
@click.argument("folder", type=InputPath(), metavar="DIR")
@click.option("--out", type=InputPath(), metavar="RUN", help="Folder of the run [runs/NAME-TIME].")
@click.option("--resume", is_flag=True, help="Continue RUN (the latest of this DIR): run only what is missing.")
@click.option("--expected", type=InputPath(), metavar="FILE", help="Known answers [expected.csv in or beside DIR].")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Instances at a time.")
@click.option("--timeout", type=Seconds(min=0, min_open=True), metavar="SECONDS", help="Cap on each instance's limit.")
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
    with --resume. At the end: RUN/results.csv, summary.txt, summary.json and cactus.png.

    Every counterexample is replayed with onnxruntime, apart from the process that found it; a sat that cannot be
    replayed is unconfirmed. Ends with status 1 if an answer is wrong or every instance ended in an error; with
    --check-only, if any file fails.

    \b
    Example:
      boundsmith bench benchmarks/quickstart --jobs 2
    """
    from ..bench.suite import read_suite

    check_writable(json_file)
    instances = read_suite(folder, tuple(sets.split(",")) if sets else (), every, limit)
    if check_only:
        from ..bench.check import check_suite

        sys.exit(check_suite(instances, how["jobs"], json_file))
    known = _known(folder, expected, instances)
    place = _place(folder, out, resume)
    summary = _run(instances, _settings(how), place, resume, known)
    from ..bench.summary import describe, to_object, write_reports

    say(describe(summary))
    say(f"the run is in {place}")
    with told(place):
        write_reports(place, summary, known)
    write_report(json_file, to_object(summary))
    sys.exit(1 if summary.failed else 0)


def _known(folder: Path, expected: Path | None, instances: list[Instance]) -> dict[Key, Expectation]:
    """The expected answers; what the user should know of where they come from is said on stderr."""
    from ..bench.judge import expected_of, read_expected
    from ..bench.suite import find_expected

    file = require_file(expected, "table of expected answers") if expected is not None else find_expected(folder)
    if file is None:
        return {}
    known, remarks = expected_of(instances, read_expected(file), str(file))
    for remark in remarks:
        complain(f"warning: {remark}")
    return known


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

    check_folder(place)
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
        with contextlib.suppress(OSError):
            # (The terminal may be gone.)
            complain("interrupted; what has finished is recorded, and --resume runs the rest")
        raise SystemExit(128 + number)

    # What is ignored stays so: `nohup` asks for that.
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if _matters(number)]
    before = {number: signal.signal(number, interrupt) for number in wanted}
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


def _matters(number: int) -> bool:
    return signal.getsignal(number) != signal.SIG_IGN


def _same_settings(file: Path, settings: Settings, resume: bool) -> None:
    """Write down how the run is made; BoundsmithError if an earlier part of it was made otherwise."""
    from ...specs.errors import BoundsmithError
    from ...verify.atomic import write_json

    made = {"schema": "boundsmith.bench-run/1", "arguments": list(settings.arguments), "timeout_cap": settings.cap}
    if resume and file.exists() and _settings_in(file) != made:
        raise BoundsmithError(f"{file.parent} was started with other options; resume it with the same ones")
    write_json(file, made)


def _settings_in(file: Path) -> Any:
    import json

    from ...specs.errors import BoundsmithError

    try:
        return json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise BoundsmithError(f"{file} is damaged ({error}); remove it to resume with the options given now") from error
