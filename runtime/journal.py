"""The write-ahead journal: what a killed run had renamed into place before its line was in ``results.jsonl``.

Every process that writes outputs keeps a journal of its own in ``OUTPUT/.showface/``, beside its temporary files. A
line says, before an output gets its name, which bytes it will hold and which result will be reported. The next run
takes over those whose file has these bytes, so that nothing needs ``--overwrite`` and nothing is done twice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from .errors import DiskFullError, InputError
from .files import write_flushed
from .results import Result, parse_result

WORK_FOLDER = ".showface"  # in OUTPUT
_JOURNAL, _TEMPORARY = ".journal", ".tmp"
_FULL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


class Journal:
    """Writes the outputs of one process into an output folder; usable from several threads."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / WORK_FOLDER
        self._root = os.path.realpath(output)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self.folder.mkdir(exist_ok=True)
        self._file = (self.folder / (self._name + _JOURNAL)).open("ab")

    def publish(self, path: Path, data: bytes, result: Result, replace: bool) -> None:
        """Give ``data`` its name in the output folder: all of it or nothing, whenever the process dies.

        Args:
            path: of the output, below the output folder.
            data: what it shall hold.
            result: what the run is going to report of it.
            replace: whether an existing file may be replaced.

        Raises:
            InputError: it cannot be written, would lie outside the output folder, or exists meanwhile.
            DiskFullError: the disk or the quota is full, or was made read-only.
        """
        temporary = self.folder / f"{self._name}-{threading.get_ident()}{_TEMPORARY}"
        try:
            self._make_parent(path.parent)
            write_flushed(temporary, data)
            if not replace and os.path.lexists(path):
                raise InputError(f"{path}: appeared while the run went on, and is not of it; it was kept")
            self._announce(result, data)
            os.replace(temporary, path)
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFullError(
                    f"{self.output}: {error.strerror}; make room and run the same command again"
                ) from error
            raise InputError(f"{error.filename or path}: cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _make_parent(self, parent: Path) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.output}: the output folder is gone")
        if not Path(os.path.realpath(parent)).is_relative_to(self._root):
            raise InputError(f"{parent}: is a link that leads out of the output folder {self.output}")
        parent.mkdir(parents=True, exist_ok=True)

    def _announce(self, result: Result, data: bytes) -> None:
        line = json.dumps({**asdict(result), "sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self, keep: bool) -> None:
        """End the journal; ``keep`` it where not every result has its line."""
        self._file.close()
        if not keep:
            (self.folder / (self._name + _JOURNAL)).unlink(missing_ok=True)
            remove_folder(self.output)


def recover(output: Path, wanted: Callable[[Result], bool] = lambda _: True) -> Iterator[Result]:
    """Yield the results of journals whose output has the bytes that were announced.

    Args:
        output: the output folder.
        wanted: which of them; the files of the others are not read.
    """
    for path in sorted((output / WORK_FOLDER).glob(f"*{_JOURNAL}")):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                digest, result = _announced(line)
                if result is not None and wanted(result) and _sha256(output / result.output) == digest:
                    yield result


def discard(output: Path) -> None:
    """Remove the journals and temporary files of earlier runs."""
    for pattern in (f"*{_JOURNAL}", f"*{_TEMPORARY}"):
        for path in (output / WORK_FOLDER).glob(pattern):
            path.unlink(missing_ok=True)
    remove_folder(output)


def remove_folder(output: Path) -> None:
    """Remove the work folder where nothing is left in it."""
    with contextlib.suppress(OSError):
        (output / WORK_FOLDER).rmdir()


def _announced(line: str) -> tuple[str | None, Result | None]:
    try:
        values = json.loads(line)
        digest = values.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None, None
    return digest, parse_result(json.dumps(values))


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
