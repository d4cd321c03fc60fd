"""End a process that takes more memory than it may: TensorRT hangs, rather than fails, under RLIMIT_AS."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from showface.runtime.errors import UsageError

INTERVAL = 0.02  # seconds between two looks
KIB = 2**10


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("VmRSS:"))
    return next((int(fields[1]) * KIB for fields in lines), 0)


@contextmanager
def memory_limit(process: subprocess.Popen[str], limit: int | None) -> Iterator[threading.Event]:
    """Kill ``process`` as soon as its resident memory exceeds ``limit`` bytes; the event tells that it did.

    Raises:
        UsageError: a limit is asked for on a system that has no ``/proc``.
    """
    exceeded, over = threading.Event(), threading.Event()
    if limit is None:
        yield exceeded
        return
    if not sys.platform.startswith("linux"):
        raise UsageError("the builder's memory can be limited on Linux only; set no limit", "host_memory")

    def watch() -> None:
        while not over.wait(INTERVAL):
            if resident_bytes(process.pid) > limit:
                exceeded.set()
                process.kill()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield exceeded
    finally:
        over.set()
        thread.join()
