"""The frame of the command line: the app and its global options."""

from __future__ import annotations

from typing import Annotated

import typer

from showface.runtime.version import __version__

from .printing import print_messages

app = typer.Typer(
    help="Complete the hidden parts of aligned faces with MDRNets.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more, and show tracebacks.")] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; default: all. Stands before the verb.")
    ] = None,
) -> None:
    print_messages(verbose)
    context.obj = threads


def threads_of(context: typer.Context) -> int | None:
    """Return the CPU threads that ``--threads`` asks for; None takes all."""
    threads: int | None = context.obj
    return threads
