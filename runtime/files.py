"""Read and write whole files: nothing that blocks or floods is read, nothing half-written gets a name."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DiskFullError, InputError, system_errors

MAX_FILE = 2**30  # bytes; 100 megapixels of 16-bit RGBA are 800 MB uncompressed
_FULL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        InputError: it cannot be read, is a FIFO, a device or a folder, or holds more than 1 GiB.
    """
    with system_errors(InputError, path, "cannot be read"), open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is no regular file; showface does not read from pipes and devices")
        data = file.read(MAX_FILE + 1) if status.st_size <= MAX_FILE else None  # it may also grow meanwhile
    if data is None or len(data) > MAX_FILE:
        raise InputError(f"{path}: is larger than {MAX_FILE // 2**20} MiB")
    return data


@contextmanager
def write_errors(folder: Path, path: Path) -> Iterator[None]:
    """Tell what one file brings about from what no other file will fare better with.

    Args:
        folder: is named where its disk is full.
        path: is named where the operating system names no file.

    Raises:
        DiskFullError: the disk or the quota is full, or was made read-only.
        InputError: any other :class:`OSError` of the block.
    """
    with system_errors(InputError, path, "cannot be written"):
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                text = f"{folder}: {error.strerror}; make room and run the same command again"
                raise DiskFullError(text) from error
            raise


def write_flushed(path: Path, data: bytes) -> None:
    """Write a file and flush it to the disk; one that cannot be written whole is removed."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def write_file(path: str | Path, data: bytes) -> None:
    """Write ``data`` to a temporary name beside ``path``, flush it to disk and rename it."""
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.showface.tmp")
    try:
        write_flushed(temporary, data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
