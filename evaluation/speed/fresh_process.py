"""A fresh process: what it costs to import, to load, to give the first result, and its peak memory.

``python -m showface.evaluation.speed.fresh_process`` reads its order as JSON from the standard input and answers in
JSON.
"""

from __future__ import annotations

import time

PROCESSES = 3
STARTED = time.time()  # before the imports that are measured

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from showface.runtime.errors import ShowfaceError  # noqa: E402


def measure_fresh(folder: Path, backend: str, device: str, threads: int, batch: int) -> dict[str, float | None]:
    """Load the bundle in ``folder`` in processes of their own and complete ``batch`` golden faces, twice.

    They run one after the other; the fastest stands, since a disturbance only adds, and the largest memory.

    Returns:
        Seconds ``start_to_result`` from the start of the process, of which ``imports``, ``load`` and ``first_run``
        are parts; ``second_run``; ``peak_mib``, the largest resident set (None where the system does not tell).

    Raises:
        ShowfaceError: the process failed.
    """
    best: dict[str, float | None] | None = None
    peaks: list[float | None] = []
    for _ in range(PROCESSES):
        order = {"folder": str(folder), "backend": backend, "device": device, "threads": threads, "batch": batch}
        command = [sys.executable, "-P", "-m", "showface.evaluation.speed.fresh_process"]  # -P: nothing of this folder
        text = json.dumps({**order, "started": time.time()})
        run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip() or "it said nothing").splitlines()[-1]
            raise ShowfaceError(f"{folder}: the process that measures a fresh start failed: {last}")
        answer: dict[str, float | None] = json.loads(run.stdout)
        if best is None or (answer["start_to_result"] or 0) < (best["start_to_result"] or 0):
            best = answer
        peaks.append(answer["peak_mib"])
    assert best is not None
    known = [peak for peak in peaks if peak is not None]
    return {**best, "peak_mib": max(known) if known else None}


def _answer(order: dict[str, Any]) -> dict[str, float | None]:
    from showface.runtime.backends import open_chain
    from showface.runtime.bundle import open_bundle

    imported = time.time()
    bundle = open_bundle(Path(order["folder"]))
    golden = bundle.golden()
    chosen = [k % len(golden["image"]) for k in range(order["batch"])]
    image, mask = golden["image"][chosen], golden["mask"][chosen]
    chain = open_chain(bundle, order["backend"], order["device"], order["threads"])
    loaded = time.time()
    chain.complete(image, mask)
    first = time.time()
    chain.complete(image, mask)
    second = time.time()
    return {
        "start_to_result": first - order["started"],
        "imports": imported - STARTED,
        "load": loaded - imported,
        "first_run": first - loaded,
        "second_run": second - first,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float | None:
    """Return the largest resident set of this process in MiB; None where the system does not tell.

    Linux's ``ru_maxrss`` would count the process that started this one, as long as the two shared their memory.
    """
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
