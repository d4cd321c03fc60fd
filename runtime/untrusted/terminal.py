"""What reaches a terminal: plain text in one line, whatever the names and files that it comes from hold."""

from __future__ import annotations

from typing import Any

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
