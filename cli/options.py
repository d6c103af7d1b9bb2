"""Pieces that several commands' options share."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..specs.errors import BoundsmithError, SpecError

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
    return click.option(
        "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the report as JSON."
    )(command)


class MemorySize(click.ParamType[Any]):
    """A number of bytes with an optional unit of 1024: ``512M``, ``2G``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or float(match["number"]) <= 0:
            self.fail(f"{value!r} is no size; write for example 512M or 2G", param, ctx)
        return int(float(match["number"]) * 1024 ** _UNITS[match["unit"].upper()])


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


def check_folder_of(file: Path | None) -> None:
    """Raise BoundsmithError if the folder that `file` is to be written into does not exist, before any work is done."""
    if file is not None and not file.resolve().parent.is_dir():
        raise BoundsmithError(f"cannot write {file}: the folder {file.resolve().parent} does not exist")


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
