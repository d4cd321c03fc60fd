"""The errors that showface raises on purpose; each message is one sentence that says what mends it."""

from __future__ import annotations


class ShowfaceError(Exception):
    """Something that ran did not work out (exit code 1)."""


class InputError(ShowfaceError):
    """One input file cannot be processed; the others can (exit code 1)."""


class UsageError(ShowfaceError):
    """The command, the set-up or a bundle is wrong, and nothing was run (exit code 2)."""
