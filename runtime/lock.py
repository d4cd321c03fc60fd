"""A lock on an open file: two runs never write to one output folder, and a killed one leaves nothing locked.

The operating system drops the lock when its holder ends, however it ends.
"""

from __future__ import annotations

import sys
from typing import IO, Any


def lock_file(file: IO[Any]) -> bool:
    """Take the exclusive lock on an open file, for as long as it stays open.

    Returns:
        False where another process holds it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        _lock(file)
    except (BlockingIOError, PermissionError):
        return False
    return True


if sys.platform == "win32":
    import msvcrt

    _FAR_BYTE = 2**62  # beyond any content: a locked byte of Windows cannot be read by others

    def _lock(file: IO[Any]) -> None:
        place = file.tell()
        file.seek(_FAR_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(place)

else:
    import fcntl

    def _lock(file: IO[Any]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
