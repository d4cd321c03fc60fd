"""Start of the decoder process, also before there is a file for it: both processes then load their libraries at once.

This module loads next to nothing itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from pathlib import Path

# -P: runs no module of the working directory
COMMAND = (sys.executable, "-P", "-m", "showface.runtime.images.decoder_worker")
PLACEABLE = sys.platform == "linux"
_waiting: list[subprocess.Popen[bytes]] = []  # started early, and not yet taken


def start_early() -> None:
    """Start a decoder for :func:`start_decoder` to take; that it cannot be started is told there."""
    with contextlib.suppress(OSError):
        _waiting.append(_started())
        _keep_apart(_waiting[-1])


def start_decoder() -> subprocess.Popen[bytes]:
    """Return a decoder that waits, or start one; it need not be ready yet.

    Raises:
        OSError: it cannot be started.
    """
    try:
        process = _waiting.pop()
    except IndexError:  # also where another thread was sooner
        return _started()
    if process.poll() is not None:
        close(process)
        return _started()
    if PLACEABLE:
        with contextlib.suppress(OSError):  # it is dead
            os.sched_setaffinity(process.pid, os.sched_getaffinity(0))
    return process


def close(process: subprocess.Popen[bytes]) -> None:
    """End a decoder, dead or alive."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what a dead process has not read
                pipe.close()


def _started() -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    # A session of its own: a terminal sends its signals to the whole group, also to one that only starts.
    return subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


def _keep_apart(process: subprocess.Popen[bytes]) -> None:
    """Keep a process off the processor that this one runs on, where Linux would leave it for a while.

    The libraries of ``showface inpaint`` then take 0.17 s to load, and 0.22 s otherwise.

    Raises:
        OSError: the system says no.
    """
    if PLACEABLE:
        here = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[36])  # field 39, processor
        if others := os.sched_getaffinity(0) - {here}:
            os.sched_setaffinity(process.pid, others)


@atexit.register
def _close_waiting() -> None:
    while _waiting:
        close(_waiting.pop())
