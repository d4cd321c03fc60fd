"""Whole files: nothing half-written gets a name, and no two runs write one log."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import DiskFullError, InputError, ShowfaceError, UsageError, system_errors
from .untrusted.read import read_file

Ours = Callable[[bytes], bool]  # whether the bytes of a file are of an earlier run
_SEAL = b"\nshowface "  # stands, with a digest of all before it, behind a picture; decoders stop before it
_FULL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


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
                text = f"{folder}: {error.strerror}; make room and run the same again"
                raise DiskFullError(text) from error
            raise


Write = Callable[[Path, bytes], None]


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


Append = Callable[[IO[bytes], bytes], None]


def append_whole(file: IO[bytes], data: bytes) -> None:
    """Append to a file that is open without a buffer.

    Raises:
        OSError: it cannot be written, or only a piece of it fits on the disk.
    """
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; at the end of the block the file is flushed to disk and gets its name.

    A block that raises leaves what stood at ``path`` as it was, and nothing else behind.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.showface.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; at the end of the block its files are flushed to disk and it gets its name.

    ``path`` must be missing or an empty folder. A block that raises leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_file(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``, all of it or nothing."""
    with atomic_file(Path(path)) as temporary:
        temporary.write_bytes(data)


def sealed(data: bytes) -> bytes:
    """Return the bytes of a picture with a mark by which a later run knows that it may replace the file."""
    return data + _SEAL + hashlib.sha256(data).hexdigest().encode()


def check_replaceable(path: Path, overwrite: bool, ours: Ours | None = None) -> None:
    """Refuse to replace a file that somebody else wrote, or changed.

    Args:
        path: that is to be written.
        overwrite: replace it all the same.
        ours: tells whether the bytes of a file that is there are of an earlier run; a sealed picture is anyway.

    Raises:
        UsageError: it exists, and is not of an earlier run.
    """
    if overwrite or not os.path.lexists(path):
        return
    data = read_file(path, error=UsageError)
    head, mark, _ = data.rpartition(_SEAL)
    if not (mark and data == sealed(head)) and not (ours and ours(data)):
        raise UsageError(f"{path}: exists, and is not as showface wrote it; pass overwrite=True, or use another name")


def write_side(path: Path, data: bytes, overwrite: bool, ours: Ours | None = None) -> None:
    """Write a file beside the outputs of a run, all of it or nothing; see :func:`check_replaceable`.

    Raises:
        ShowfaceError: it cannot be written, or was written by somebody else meanwhile; the run itself is done.
    """
    try:
        check_replaceable(path, overwrite, ours)
    except UsageError as error:
        raise ShowfaceError(str(error)) from error
    try:
        write_file(path, data)
    except OSError as error:
        raise ShowfaceError(f"{path}: cannot be written: {error.strerror or error}") from error


def lock_file(file: IO[Any]) -> bool:
    """Take the exclusive lock on an open file, for as long as it stays open.

    The operating system drops the lock when its holder ends, however it ends: a killed run leaves nothing locked.

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
