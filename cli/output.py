"""What a command says, and where: its answer alone on stdout, everything else on stderr, reports into files.

Libraries print what they like, from Python or from C; while a command runs, all of that goes to stderr.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STREAM = "boundsmith.answers"
_STDOUT, _STDERR = 1, 2
_UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]")

NOT_WRITTEN = 3
"""The process's status where the answer was given, but a file that was asked for could not be written."""


INTERRUPTED = 130
"""The process's status after Ctrl-C, as shells have it: 128 and the signal's number."""


class NotWrittenError(Exception):
    """A file could not be written after the answer was given."""


class Answering(click.Command):
    """A command whose stdout is its answer: `say` writes there, and nothing else does while the command runs."""

    def invoke(self, ctx: click.Context) -> Any:
        with reserved_stdout() as stream:
            ctx.meta[_STREAM] = stream
            return super().invoke(ctx)


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Keep stdout for what is written to the stream yielded; whatever else is printed meanwhile goes to stderr."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        stdout = sys.stdout
        # (A process may have been started without one or the other.)
        sys.stdout = sys.stderr or nowhere
        try:
            if stdout is None:
                yield nowhere
            elif _descriptor(stdout) == _STDOUT:
                with _duplicate(stdout) as stream:
                    yield stream
            else:
                yield stdout
        finally:
            sys.stdout = stdout


@contextlib.contextmanager
def _duplicate(stdout: TextIO) -> Iterator[TextIO]:
    """A stream to where the descriptor of `stdout` leads, while that descriptor leads to stderr."""
    stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    stream = open(kept, "w", encoding=stdout.encoding, errors="backslashreplace", newline="", closefd=False)  # noqa: SIM115
    try:
        yield stream
    finally:
        _flush_libraries()
        os.dup2(kept, _STDOUT)
        # What a closed pipe did not take is lost; the command that wrote it has ended for that.
        with contextlib.suppress(OSError):
            stream.close()
        os.close(kept)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
        return None


def _flush_libraries() -> None:
    """Bring out what libraries in C have printed into their own buffer, before stdout is stdout again."""
    if os.name != "posix":
        return
    import ctypes

    ctypes.CDLL(None).fflush(None)


def answers() -> TextIO:
    """The stream of the running command's answer."""
    stream: TextIO = click.get_current_context().meta[_STREAM]
    return stream


def say(text: str, stream: TextIO | None = None) -> None:
    """Write `text` and a line's end as (a part of) the answer, into the running command's stream or `stream`."""
    chosen = answers() if stream is None else stream
    chosen.write(printable(text) + "\n")
    chosen.flush()


def complain(text: str) -> None:
    """Write `text` and a line's end to stderr."""
    click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """`text` with escapes for characters that could steer a terminal: names come from files, and files from anywhere.

    Line ends and tabs stay.
    """
    return _UNUSUAL.sub(lambda match: match[0] if match[0].isprintable() else _escape(match[0]), text)


def one_line(text: str) -> str:
    """`printable` text with escapes for line ends and tabs, too."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t"))


def _escape(character: str) -> str:
    if character.isascii():
        return f"\\x{ord(character):02x}"
    return character.encode("ascii", "backslashreplace").decode()


def write_report(file: Path | None, content: Any) -> None:
    """Write a command's report as JSON, if `file` is given; NotWrittenError where that fails."""
    if file is None:
        return
    from ..verify.atomic import write_json

    with told(file):
        write_json(file, content)


@contextlib.contextmanager
def told(file: Path) -> Iterator[None]:
    """Turn a failure to write `file` into NotWrittenError."""
    try:
        yield
    except OSError as error:
        raise NotWrittenError(f"cannot write {file}: {error.strerror or error}") from error


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 domain``, ``2 domains``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
