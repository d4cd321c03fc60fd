"""The write-ahead journal: what a killed run had renamed into place before its line was in ``results.jsonl``.

Every process that writes outputs keeps a journal of its own in a folder of its run, ``OUTPUT/.showface/run-*/``, beside
its temporary files. A line says, before an output gets its name, which bytes it will hold and which result will be
reported. The next run takes over those whose file has these bytes, so that nothing needs to be overwritten and nothing
is done twice. It renames the folder first: a process of an ended run that still lives, such as a worker that a
cluster could not stop, finds its temporary files no more, and publishes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..errors import InputError, UsageError, system_errors
from ..files import Append, Write, append_whole, write_errors, write_flushed
from ..untrusted.read import file_digest, parse_json, read_lines
from .results_log import Result, parse_result

WORK_FOLDER = ".showface"  # in OUTPUT
_JOURNAL, _TEMPORARY = ".journal", ".tmp"
_RUNNING, _ENDED = "run-", "ended-"  # how the folders of runs begin


def start_run(output: Path) -> Path:
    """Make the folder for the journals and temporary files of a new run, and return it.

    Raises:
        UsageError: it cannot be made.
    """
    with system_errors(UsageError, output, "cannot be written"):
        folder = _work_folder(output) / f"{_RUNNING}{secrets.token_hex(8)}"
        folder.mkdir(parents=True)
    return folder


def _work_folder(output: Path) -> Path:
    folder = output / WORK_FOLDER
    if folder.is_symlink():
        raise UsageError(f"{folder}: is a link; showface works in a folder of that name, so remove it")
    return folder


class Journal:
    """Writes the outputs of one process into an output folder; usable from several threads.

    ``folder`` is that of the run, from :func:`start_run`; ``write`` writes a whole file to the disk, ``append`` a line
    to the journal.
    """

    def __init__(self, output: Path, folder: Path, write: Write = write_flushed, append: Append = append_whole) -> None:
        self.output, self.folder, self.write = output, folder, write
        self._append = append
        self._root = os.path.realpath(output)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._file = (self.folder / (self._name + _JOURNAL)).open("ab", buffering=0)

    def publish(self, path: Path, data: bytes, result: Result, replace: bool) -> None:
        """Give ``data`` its name in the output folder: all of it or nothing, whenever the process dies.

        Args:
            path: path of the output, below the output folder.
            data: what it shall hold.
            result: what the run is going to report of it.
            replace: whether an existing file may be replaced.

        Raises:
            InputError: it cannot be written, would lie outside the output folder, or exists meanwhile.
            DiskFullError: the disk or the quota is full, or was made read-only.
        """
        temporary = self.folder / f"{self._name}-{threading.get_ident()}{_TEMPORARY}"
        try:
            with write_errors(self.output, path):
                self._make_parent(path.parent)
                self.write(temporary, data)
                self._announce(result, data)
                # As late as can be: rename asks nobody, and hard links are not to be had on every file system.
                if not replace and os.path.lexists(path):
                    raise InputError(f"{path}: appeared while the run went on, and is not of it; it was kept")
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _make_parent(self, parent: Path) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.output}: the output folder is gone, or another run has taken it over")
        if not Path(os.path.realpath(parent)).is_relative_to(self._root):
            raise InputError(f"{parent}: is a link that leads out of the output folder {self.output}")
        parent.mkdir(parents=True, exist_ok=True)

    def _announce(self, result: Result, data: bytes) -> None:
        # It begins anew: a full disk may have left a piece of the line before.
        line = b"\n" + json.dumps({**asdict(result), "sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n"
        with self._lock:
            self._append(self._file, line)
            os.fsync(self._file.fileno())

    def close(self, keep: bool) -> None:
        """End the journal; ``keep`` it where not every result has its line."""
        self._file.close()
        if not keep:
            (self.folder / (self._name + _JOURNAL)).unlink(missing_ok=True)
            _remove_empty(self.folder, self.folder.parent)


def end_runs(output: Path) -> None:
    """Take the folders of all runs from their processes, so that those that still live publish nothing more.

    Raises:
        UsageError: a folder cannot be renamed, or the work folder is a link.
    """
    with system_errors(UsageError, output, "cannot be written"):
        for folder in _run_folders(output, _RUNNING):
            folder.rename(folder.with_name(_ENDED + folder.name.removeprefix(_RUNNING)))


def _run_folders(output: Path, beginning: str = "") -> list[Path]:
    """Return the folders of runs whose names begin so, in order; a link is none, wherever it leads."""
    return sorted(f for f in _work_folder(output).glob(f"{beginning}*") if f.is_dir() and not f.is_symlink())


def recover(output: Path, wanted: Callable[[Result], bool] = lambda _: True) -> Iterator[Result]:
    """Yield the ``wanted`` results of journals whose output has the bytes that were announced; no other file is read.

    Raises:
        UsageError: a journal cannot be read, or is no file.
    """
    for path in (path for folder in _run_folders(output) for path in sorted(folder.glob(f"*{_JOURNAL}"))):
        for line in read_lines(path, UsageError):
            digest, result = _announced(line)
            if result is not None and wanted(result) and _sha256(output / result.output) == digest:
                yield result


def discard(output: Path) -> None:
    """Remove the journals and temporary files of ended runs; see :func:`end_runs`.

    Raises:
        UsageError: one of them cannot be removed.
    """
    folders = _run_folders(output, _ENDED)
    with system_errors(UsageError, output, "cannot be removed, and is in the way of a new run"):
        for folder in folders:
            for pattern in (f"*{_JOURNAL}", f"*{_TEMPORARY}"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
    _remove_empty(*folders, output / WORK_FOLDER)


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _announced(line: str) -> tuple[str | None, Result | None]:
    try:
        values = parse_json(line)
        digest = values.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None, None
    return digest, parse_result(json.dumps(values))


def _sha256(path: Path) -> str | None:
    try:
        return file_digest(path)
    except InputError:
        return None
