"""``results.jsonl``: one line for every input of every run; the last line of an input wins.

A line names its input relative to INPUT and its output relative to OUTPUT, with forward slashes. So it
holds wherever the command is run from, and goes on to hold when both folders are moved. OUTPUT mirrors
INPUT, so that the two names of a line are equal but for the suffix, which the format may change; a line where they
differ otherwise is passed over like a torn one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..errors import InputError, ShowfaceError, UsageError, system_errors
from ..files import Append, append_whole, lock_file
from ..untrusted.read import parse_json, read_lines

RESULTS_FILE = "results.jsonl"
Status = Literal["done", "skipped", "failed"]
_STATUS: dict[str, Status] = {"done": "done", "skipped": "skipped", "failed": "failed"}
_KINDS: dict[str, Any] = {  # what is in a line, its status aside
    "input": str, "output": str, "error": str | None, "hole_ratio": float | int | None, "seconds": float | int,
    "key": str | None, "mask": dict | None, "stamp": str | None,
}  # fmt: skip
SETTLED = 2.0  # seconds; the coarsest clock of a file system, FAT's


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input.

    Attributes:
        input: path of the image, relative to INPUT (of a single image: its name).
        output: path of the completed image, relative to OUTPUT (of a named output: its name).
        status: ``done``, ``skipped`` (done by an earlier run) or ``failed``.
        error: one sentence, where it failed.
        hole_ratio: share of the image that is hole, in [0, 1].
        seconds: spent on this input; its share of the batch included.
        key: digest of image, mask, bundle and options; decides what is already done.
        mask: where the hole comes from (``from``); of a hole that the networks found, see
            :class:`~showface.runtime.faces.found_masks.MaskNote`.
        stamp: see :func:`stamp_of`; as long as it stays the same, image and mask are not read again.
    """

    input: str
    output: str
    status: Status
    error: str | None = None
    hole_ratio: float | None = None
    seconds: float = 0.0
    key: str | None = None
    mask: dict[str, Any] | None = None
    stamp: str | None = None


def result_key(image: bytes, mask: bytes | None, bundle_digest: str, options: str) -> str:
    """Return the digest that decides whether an input is done already."""
    digest = hashlib.sha256()
    for part in (image, mask or b"", bundle_digest.encode(), options.encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def stamp_of(files: Sequence[Path], bundle_digest: str, options: str) -> str | None:
    """Return a digest of what decides a result, of ``files`` without their bytes: size, inode, times of change.

    The inode's own time is among them, since tools can set the other one back. A file that was changed just now may
    change once more in the same tick of its file system's clock, and has no stamp.

    Raises:
        InputError: a file is not there, or cannot be looked at.
    """
    digest = hashlib.sha256(f"{bundle_digest} {options}".encode())
    latest = time.time() - SETTLED
    for path in files:
        with system_errors(InputError, path, "cannot be read"):
            status = path.stat()
        if max(status.st_mtime, status.st_ctime) > latest:
            return None
        digest.update(f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode())
    return digest.hexdigest()[:32]


def parse_result(line: str) -> Result | None:
    """Return the result that a line holds; None for a torn or foreign one."""
    try:
        values = parse_json(line)
        # One text for both names and for all equal statuses: a run holds the last result of every input.
        if values["output"] == values["input"]:
            values["output"] = values["input"]
        values["status"] = _STATUS[values["status"]]
        result = Result(**values)
    except (ValueError, TypeError, KeyError):
        return None
    known = all(isinstance(getattr(result, name), kind) for name, kind in _KINDS.items())
    renamed = result.output is not result.input
    if not known or (renamed and _without_suffix(result.input) != _without_suffix(result.output)):
        return None
    return result


def _without_suffix(name: str) -> PurePosixPath:
    path = PurePosixPath(name)  # knows the same suffixes as what makes the names of outputs, also that of "..png"
    return path.parent / path.stem


def read_results(path: Path) -> Iterator[Result]:
    """Yield the results in the file, line by line; none where there is no file.

    Raises:
        ShowfaceError: it cannot be read.
    """
    if not path.exists():
        return
    yield from (result for result in map(parse_result, read_lines(path, ShowfaceError)) if result is not None)


class ResultLog:
    """``results.jsonl``, held open and locked for one run.

    Attributes:
        last: the last result of each input, without the text of its error.
        written: every output that some line explains, also where its input failed later on.
    """

    def __init__(self, path: Path, append: Append = append_whole) -> None:
        """Open the file, make its folder where there is none, and end a torn last line of an earlier run.

        ``append`` writes a line to it.

        Raises:
            UsageError: it cannot be opened or read, or another run holds it.
        """
        self.path, self._append = path, append
        self.last: dict[str, Result] = {}
        self.written: set[str] = set()
        with system_errors(UsageError, path, "cannot be written"):
            if path.is_symlink():
                raise UsageError(f"{path}: is a link; the lines would go elsewhere, so remove it")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
        try:
            self._set_up()
        except BaseException:
            self._file.close()
            raise

    def _set_up(self) -> None:
        with system_errors(UsageError, self.path, "cannot be locked; choose an output folder on another file system"):
            if not lock_file(self._file):
                raise UsageError(f"{self.path.parent}: another run writes to this folder; wait for its end")
        with system_errors(UsageError, self.path, "cannot be written"):
            if self._file.seek(0, os.SEEK_END):
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")
        for result in read_results(self.path):
            self._remember(result)

    def _remember(self, result: Result) -> None:
        self.last[result.input] = result if result.error is None else replace(result, error=None)  # nobody asks for it
        if result.status != "failed":
            self.written.add(result.output)

    def owes(self, result: Result) -> bool:
        """Return whether the line of a killed run's result is missing."""
        last = self.last.get(result.input)
        return last is None or (last.key, last.status) != (result.key, result.status)

    def adopt(self, result: Result) -> None:
        """Append the line that a killed run still :meth:`owes`."""
        self.append(result)
        self._remember(result)

    def append(self, result: Result) -> None:
        """Append one line.

        Raises:
            ShowfaceError: the line cannot be written, or the file is gone; the run cannot be accounted for then.
        """
        with system_errors(ShowfaceError, self.path, "cannot be written"):
            self.check()
            line = json.dumps(asdict(result)).encode() + b"\n"
            self._append(self._file, line)

    def check(self) -> None:
        """Refuse to go on where the file that is open has lost its name.

        Raises:
            ShowfaceError: the output folder was removed, renamed or replaced.
        """
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            same = False
        if not same:
            raise ShowfaceError(
                f"{self.path}: is gone or was replaced while the run went on; put the folder back and run again"
            )

    def flush(self) -> None:
        """Flush the lines to the disk; no journal that explains the same outputs may go before that.

        Raises:
            ShowfaceError: they cannot be written.
        """
        with system_errors(ShowfaceError, self.path, "cannot be written"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush the file to the disk, close it, and drop the lock."""
        with self._file:
            self.flush()
