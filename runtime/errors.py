"""The errors that showface raises on purpose; each message is one sentence that says what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ShowfaceError(Exception):
    """Something that ran did not work out (exit code 1)."""


class InputError(ShowfaceError):
    """One input file cannot be processed; the others can (exit code 1)."""


class DiskFullError(ShowfaceError):
    """Nothing can be written any more; the run ends, and goes on when it is started again (exit code 1)."""


class DeviceLostError(ShowfaceError):
    """The GPU answers every further call with an error; the run ends, and goes on when it is started again (exit 1)."""


class UsageError(ShowfaceError):
    """The command, the set-up or a bundle is wrong, and nothing was run (exit code 2)."""


@contextmanager
def system_errors(kind: type[ShowfaceError], path: Path, failed: str) -> Iterator[None]:
    """Turn an error of the operating system into ``kind``, with the path and what failed.

    Args:
        kind: of the error to raise.
        path: stands in the message where the operating system names none.
        failed: such as ``cannot be read``.

    Raises:
        ShowfaceError: of ``kind``, for any :class:`OSError` in the block.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{error.filename or path}: {failed}: {error.strerror or error}") from error
