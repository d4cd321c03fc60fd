"""What reaches a terminal: plain text in one line, whatever the names and files that it comes from hold."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console
from rich.text import Text

LONGEST = 4000  # characters of one message


def printable(text: str) -> str:
    r"""Return ``text`` in one line: control characters and bytes that are no UTF-8 are written as escapes.

    >>> print(printable("a\x1b[31mb\n\ud800"))
    a\x1b[31mb\n\ud800
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LONGEST])
    return f"{shown}…" if len(text) > LONGEST else shown


def printable_value(value: object) -> object:
    """Return a text as :func:`printable` does, and all else, finished markup too, as it is: for pages of templates."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


class Terminal(Console):
    """A console that takes every text, in tables too, as it is: no markup, no emoji names, no escapes of a terminal.

    Args:
        stderr: print to standard error instead of standard output.
        soft_wrap: leave long lines to the terminal; not for tables.
        quiet: print nothing.
    """

    def __init__(self, stderr: bool = False, soft_wrap: bool = True, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, quiet=quiet, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """See :class:`rich.console.Console`, which renders every text by this."""
        return super().render_str(printable(text), **options)

    def print_lines(self, text: str) -> None:
        """Print a text of several lines."""
        for line in text.splitlines():
            self.print(line)


class _Unfailing:
    """A standard error that may be closed, full or broken: what was to be said is lost, and the work goes on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def guard_streams() -> None:
    """Let no standard stream end the process: neither by its state, nor by letters that its encoding lacks.

    A closed one is opened on nothing, or the next file that is opened would get its number, and all that libraries
    print with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _Unfailing):
        broken = sys.stderr is None or sys.stderr.closed
        sys.stderr = _Unfailing(open(os.devnull, "w", encoding="utf-8") if broken else sys.stderr)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
