"""Run the builder's process and say in one sentence how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any, Protocol

from .memory_guard import memory_limit
from .network import NodeRefusal
from .request import BuildOptions, EngineRequest

WORKER = (sys.executable, "-P", "-m", "showface.export.engines.worker")  # -P: no module of the working directory
MIB = 2**20
LOG_TAIL = 400  # characters of the library's log that an error repeats


class Progress(Protocol):
    """Is told how far a builder is."""

    def advance(self, stage: str, phase: str, done: int, steps: int) -> None:
        """Take note that so many of the steps of an outermost phase are done."""


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """What became of a request: facts, or refusals, or one failure; ``argument`` names the option that mends it."""

    facts: dict[str, Any] = field(default_factory=dict)
    refusals: tuple[NodeRefusal, ...] = ()
    failure: str = ""
    argument: str = ""

    @property
    def good(self) -> bool:
        """Whether the engine was built, or would parse."""
        return not self.refusals and not self.failure


def run_request(request: EngineRequest, progress: Progress | None = None) -> BuildOutcome:
    """Serve one request in a process of its own; ``progress`` is told of the builder's phases."""
    limit = request.options.host_memory_mib
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        worker = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(request.options),
        )
        with worker:
            try:
                with memory_limit(worker, None if limit is None else limit * MIB) as exceeded:
                    _hand_over(worker, request)
                    last = _follow(worker, request.stage, progress)
                    code = worker.wait()
            except BaseException:
                worker.kill()  # this process was interrupted: no builder is left behind
                raise
        log.seek(0)
        text = log.read()
    if exceeded.is_set():
        failure = f"the builder ran out of memory: it took more than the {limit} MiB that it may; raise this limit"
        return BuildOutcome(failure=failure, argument="host_memory")
    return _outcome(last, code, text)


def _environment(options: BuildOptions) -> dict[str, str] | None:
    """Return the environment of the builder, which sees the one GPU that it builds on; None for this process's own."""
    if options.backend != "tensorrt":
        return None
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else []
    index = names[options.device] if options.device < len(names) else str(options.device)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": index}


def _follow(worker: subprocess.Popen[str], stage: str, progress: Progress | None) -> dict[str, Any]:
    """Pass on the worker's progress and return its last event."""
    last: dict[str, Any] = {}
    steps: dict[str, int] = {}
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            last = json.loads(line)
        except ValueError:
            break  # it died in the middle of a line
        if "phase" in last:
            steps.setdefault(last["phase"], last.get("steps", 0))
            if progress is not None:
                progress.advance(stage, last["phase"], last.get("step", 0), steps[last["phase"]])
    return last


def _hand_over(worker: subprocess.Popen[str], request: EngineRequest) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(request.to_json() + "\n")
        worker.stdin.close()
    except BrokenPipeError:  # it died at once; its exit code says how
        pass


def _outcome(last: dict[str, Any], code: int, log: str) -> BuildOutcome:
    if code == 0 and "result" in last:
        return BuildOutcome(facts=last["result"])
    if code == 0 and "refused" in last:
        refusals = tuple(NodeRefusal(**refusal) for refusal in last["refused"])
        return BuildOutcome(facts=last["facts"], refusals=refusals, argument=refusals[0].argument)
    if code == 0 and "failed" in last:
        return BuildOutcome(failure=last["failed"])
    said = " ".join(log.split())[-LOG_TAIL:]
    said = f"; its last words: {said}" if said else ""
    if code < 0:
        name = signal.Signals(-code).name
        why = "probably out of memory" if name == "SIGKILL" else "a crash of the library"
        return BuildOutcome(failure=f"the builder was ended by {name} ({why}){said}")
    return BuildOutcome(failure=f"the builder ended with exit code {code}{said}")
