"""Run ``showface inpaint INPUT OUTPUT …`` again and again in forks of one warm process, and kill it with SIGKILL.

    python run_and_kill.py SEED KILLS SECONDS INPUT OUTPUT OPTION…
    python run_and_kill.py SEED KILLS SECONDS --once-it-writes INPUT OUTPUT OPTION…

Each run is killed at a random moment of its first SECONDS, until KILLS have been; then one more goes to its end. With
``--once-it-writes`` the seconds count from its first output on. An output folder that a run has completed meanwhile is
put aside under another name. Prints the exit codes as JSON. A fork starts in milliseconds what costs a second of
imports, so that most of the moments fall into the work.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import onnxruntime  # noqa: F401 - loaded once for all runs; no thread starts before a session does

from showface import cli
from showface.cli import progress, verbs  # noqa: F401
from showface.runtime.backends import onnxruntime as onnxruntime_backend  # noqa: F401


def start(arguments):
    """Return the process id of a fork that runs the command line."""
    child = os.fork()
    if child:
        return child
    try:
        cli.main(["--threads", "1", "inpaint", *arguments])
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code or 0)
    except BaseException:
        os._exit(99)


def writes(output):
    """Return whether a run has begun to write: a journal holds a line, or a file that has no name yet is there."""
    runs = Path(output).glob(".showface/run-*/*")
    return any(path.suffix == ".tmp" or path.stat().st_size for path in runs)


def end_of(child, seconds, started=lambda: True):
    """Return the exit code of a process, -9 where it was killed ``seconds`` after it had ``started``."""
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):  # what was there a moment ago
            deadline = deadline or (time.monotonic() + seconds if started() else None)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    seed, kills, longest = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    arguments = [argument for argument in sys.argv[4:] if argument != "--once-it-writes"]
    output, started = arguments[1], {}
    if "--once-it-writes" in sys.argv:
        started = {"started": lambda: writes(output)}
    moments, codes = random.Random(seed), []
    while codes.count(-signal.SIGKILL) < kills:
        codes.append(end_of(start(arguments), moments.uniform(0.0, longest), **started))
        if codes[-1] == 0 and codes.count(-signal.SIGKILL) < kills:
            os.rename(output, f"{output}-{len(codes)}")
    codes.append(end_of(start(arguments), 600.0))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
