"""The errors that showface raises on purpose; each message is one sentence that says what mends it.

An argument that mends it stands there as ``pass overwrite=True``; the command line says it as its option. What another
verb mends stands there as its whole command, since an option alone would be taken for one of the verb that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """How the command line ends; a signal adds its number to 128."""

    GOOD = 0
    FAILED = 1
    USAGE = 2


class ShowfaceError(Exception):
    """Something that ran did not work out."""

    exit_code: int = ExitCode.FAILED


class InputError(ShowfaceError):
    """One input file cannot be processed; the others can."""


class DiskFullError(ShowfaceError):
    """Nothing can be written any more; the run ends, and goes on when it is started again."""


class DeviceLostError(ShowfaceError):
    """The GPU answers every further call with an error; the run ends, and goes on when it is started again (exit 1)."""


class UsageError(ShowfaceError):
    """The command, the set-up or a bundle is wrong, and nothing was run.

    Attributes:
        argument: the argument that is wrong, where it is one; the message begins with it.
        text: the message without it; the command line puts the option of the argument before.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, text: str, argument: str | None = None) -> None:
        super().__init__(text if argument is None else f"{argument}: {text}")
        self.argument, self.text = argument, text


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Answer an import in the block that lacks a package of an optional extra with the command that installs it.

    ``name`` is that of an extra, such as ``export``, or of several, joined by commas.

    Raises:
        UsageError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("showface"):
            raise
        raise UsageError(f"this needs {error.name}; install it with: pip install 'showface[{name}]'") from error


@contextmanager
def system_errors(kind: type[ShowfaceError], path: Path, failed: str) -> Iterator[None]:
    """Turn an error of the operating system into ``kind``, with what failed and the path that it names, else ``path``.

    Raises:
        ShowfaceError: of ``kind``, for any :class:`OSError` in the block.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{error.filename or path}: {failed}: {error.strerror or error}") from error
