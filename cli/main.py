"""The `boundsmith` command: a group whose subcommands are imported only when they are asked for."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from .output import INTERRUPTED, NOT_WRITTEN, NotWrittenError, complain

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "verify": "Decide one query about a network: unsat, sat with a witness, or unknown.",
    "bench": "Run a folder of instances in VNN-COMP layout, one process an instance.",
    "bounds": "Bound a network's outputs over a region.",
    "inspect": "Show a network's layers, shapes and parameters, and whether each is supported.",
    "supports": "Say what this solver supports, in the words of the VNN-LIB 2.0 standard.",
    "doctor": "Show versions, devices, threads and solvers of this installation.",
}
"""Every subcommand (the module of that name in `commands/`) with its line in `boundsmith --help`."""


class _InputError(click.ClickException):
    """A sentence for the user; the process ends with status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        complain(f"error: {' '.join(self.message.split())}")


class _OutputError(_InputError):
    """The answer was given, but a file that was asked for could not be written."""

    exit_code = NOT_WRITTEN


class LazyGroup(click.Group):
    """A group that reads `COMMANDS` and turns errors made for users into one line and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"boundsmith.cli.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except KeyboardInterrupt:
            complain("interrupted")
            ctx.exit(INTERRUPTED)

    def _invoke(self, ctx: click.Context) -> Any:
        from ..specs.errors import BoundsmithError

        try:
            return super().invoke(ctx)
        except (click.ClickException, BrokenPipeError):
            raise
        except (BoundsmithError, NotWrittenError, OSError, MemoryError) as error:
            if ctx.meta.get("boundsmith.debug"):
                traceback.print_exc()
            kind = _OutputError if isinstance(error, NotWrittenError) else _InputError
            raise kind(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    if isinstance(error, MemoryError):
        return "memory ran out while reading the input; use a machine with more"
    return str(error) or type(error).__name__


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(version("boundsmith"))
        ctx.exit()


def _show_name(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo("Boundsmith")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Version.")
@click.option("--name", is_flag=True, is_eager=True, expose_value=False, callback=_show_name, help="The solver's name.")
def cli() -> None:
    """Boundsmith verifies neural networks.

    \b
    Example:
      boundsmith verify query.vnnlib --network net.onnx --timeout 60
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with `arguments` (default: the process's own) and exit with its status.

    The process ends without the interpreter's tear-down: unloading the numerical libraries takes a tenth of a second,
    a fifth of an easy instance, and frees only what the operating system frees anyway.
    """
    _open_standard_streams()
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="boundsmith")
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                # (Where they lead may be gone; the status is still to be told.)
                with contextlib.suppress(OSError):
                    stream.flush()
        os._exit(end.code)


def _open_standard_streams() -> None:
    """Let the numbers 0 to 2 stand for no file where they are not open: the next file opened would get them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # (The lowest free number, which is this one.)
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    main()
