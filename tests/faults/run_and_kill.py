"""Run ``showface inpaint INPUT OUTPUT …`` again and again in forks of one warm process, and kill it with SIGKILL.

    python run_and_kill.py SEED KILLS SECONDS INPUT OUTPUT OPTION…

Each run is killed at a random moment of its first SECONDS, until KILLS have been; then one more goes to its end. An
output folder that a run has completed meanwhile is put aside under another name. Prints the exit codes as JSON. A fork
starts in milliseconds what costs a second of imports, so that most of the moments fall into the work.
"""

import json
import os
import random
import signal
import sys
import time

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


def end_of(child, seconds):
    """Return the exit code of a process, -9 where it was killed after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    seed, kills, longest = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    arguments, output = sys.argv[4:], sys.argv[5]
    moments, codes = random.Random(seed), []
    while codes.count(-signal.SIGKILL) < kills:
        codes.append(end_of(start(arguments), moments.uniform(0.0, longest)))
        if codes[-1] == 0 and codes.count(-signal.SIGKILL) < kills:
            os.rename(output, f"{output}-{len(codes)}")
    codes.append(end_of(start(arguments), 600.0))
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
