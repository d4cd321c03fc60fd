"""The standard streams of a process, which may be closed, full or of an encoding that lacks letters."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import IO, Any


class _Unfailing:
    """A standard error that may be closed, full or broken: what was to be said is lost, and the work goes on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def guard_streams() -> None:
    """Let no standard stream end the process: neither by its state, nor by letters that its encoding lacks.

    A closed one is opened on nothing, or the next file that is opened would get its number, and all that libraries
    print with it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, _Unfailing):
        broken = sys.stderr is None or sys.stderr.closed
        sys.stderr = _Unfailing(open(os.devnull, "w", encoding="utf-8") if broken else sys.stderr)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
