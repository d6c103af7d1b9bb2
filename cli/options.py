"""Pieces that several commands' options share."""

from __future__ import annotations

import ast
import math
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..specs.errors import BoundsmithError, SpecError
from ..verify.atomic import descriptor_of

Command = TypeVar("Command", bound=Callable[..., Any])

_NAMED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<file>.+)", re.DOTALL)
_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]?)(i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def debug_option(command: Command) -> Command:
    """Add `--debug`, which shows the traceback of an error made for users."""
    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=_note_debug, help="Show tracebacks of errors."
    )(command)


def _note_debug(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.meta["boundsmith.debug"] = wanted


def json_option(command: Command) -> Command:
    """Add `--json FILE`."""
    return click.option("--json", "json_file", type=OutputPath(), metavar="FILE", help="Write the report as JSON.")(
        command
    )


class InputPath(click.Path):
    """A path as a `pathlib.Path`; whether it can be opened is said by whoever opens it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if "\0" in str(value):
            self.fail("a path cannot hold a null character", param, ctx)
        return Path(str(super().convert(value, param, ctx)))


class OutputPath(InputPath):
    """A path to write to. This process's stdout stands under a number of its own, since the command occupies it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        number = descriptor_of(path)
        if number is None:
            return path
        try:
            return Path(f"/dev/fd/{os.dup(number)}")
        except OSError:
            self.fail(f"{path} is not open", param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds; ``inf`` is one, NaN is not."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class MemorySize(click.ParamType[Any]):
    """A number of bytes with an optional unit of 1024: ``512M``, ``2G``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        size = float(match["number"]) * 1024 ** _UNITS[match["unit"].upper()] if match is not None else 0.0
        if not 1 <= size < math.inf:
            self.fail(f"{value!r} is no size; write for example 512M or 2G", param, ctx)
        return int(size)


def require_file(path: Path, what: str) -> Path:
    """`path`, or ``PATH.gz`` if only that exists; SpecError where there is no such file.

    `what` is the file's role in the message.
    """
    from ..specs.read import packed_path

    found = packed_path(path)
    if not found.exists():
        raise SpecError(f"{what} {path} does not exist; check the path")
    if not found.is_file():
        raise SpecError(f"{what} {path} is not a file")
    return found


def check_writable(file: Path | None) -> None:
    """Raise BoundsmithError if `file` cannot be written, before any work is done.

    Nothing is opened or made: whoever reads a FIFO would take that for the end.
    """
    if file is None or descriptor_of(file) is not None:
        return
    status = _status(file)
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise BoundsmithError(f"cannot write {file}: it is a folder")
    if status is not None and not os.access(file, os.W_OK):
        raise BoundsmithError(f"cannot write {file}: it may not be written to")
    if status is None or stat.S_ISREG(status.st_mode):
        folder = Path(os.path.realpath(file)).parent
        if not folder.is_dir():
            raise BoundsmithError(f"cannot write {file}: the folder {folder} does not exist")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BoundsmithError(f"cannot write {file}: the folder {folder} takes no new files")


def check_folder(folder: Path | None) -> None:
    """Raise BoundsmithError if `folder` is no folder that files can be written into, and cannot be made one."""
    if folder is None:
        return
    place = folder
    while _status(place) is None and place.parent != place:
        place = place.parent
    if not place.is_dir():
        raise BoundsmithError(f"cannot write into {folder}: {place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise BoundsmithError(f"cannot write into {folder}: the folder {place} takes no new files")


def is_replaceable(file: Path) -> bool:
    """Whether `file` is a regular file, or will be one: what is written to anything else cannot be taken back."""
    if descriptor_of(file) is not None:
        return False
    status = _status(file)
    return status is None or stat.S_ISREG(status.st_mode)


def _status(path: Path) -> os.stat_result | None:
    """What the system says of a path; None where there is nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BoundsmithError(f"cannot write {path}: {error.strerror}") from error


def parse_networks(values: Sequence[str]) -> dict[str, Path]:
    """Network files by declared name, from ``FILE``, ``NAME=FILE`` or the competition's ``[('NAME', 'FILE'), ...]``.

    A file without a name gets the empty name: it stands for the only network that the query declares. Raises
    BoundsmithError for a name given twice, several files without a name, or a missing file.
    """
    networks: dict[str, Path] = {}
    for value in values:
        for name, file in named_files(value):
            if name in networks:
                raise BoundsmithError(
                    f"network {name} is given twice"
                    if name
                    else "several networks are given without a name; write --network NAME=FILE"
                )
            networks[name] = require_file(Path(file), "network")
    return networks


def named_files(value: str) -> list[tuple[str, str]]:
    """The ``(name, file)`` pairs that one network argument stands for; the name is empty where none is given."""
    if value.lstrip().startswith("["):
        try:
            pairs = ast.literal_eval(value.strip())
            return [(str(name), str(file)) for name, file in pairs]
        except (ValueError, SyntaxError, TypeError) as error:
            raise BoundsmithError(f"{value!r} is no list of (name, file) pairs") from error
    match = _NAMED.fullmatch(value)
    if match is not None and not Path(value).exists():
        return [(match["name"], match["file"])]
    return [("", value)]
