"""Where a stage's time goes in ONNX Runtime: its kernels by kind."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import onnxruntime as ort

from showface.runtime.backends.chain import Tensors
from showface.runtime.backends.onnxruntime import session_options
from showface.runtime.bundle import Bundle

RUNS = 10  # on the clock
PROVIDERS = ["CPUExecutionProvider"]


def kernel_times(bundle: Bundle, tensors: Tensors, threads: int) -> dict[str, dict[str, float]]:
    """Return for each stage the milliseconds of one run by kind of kernel, on the CPU, the longest first.

    Of each kernel the fastest run counts; two runs warm up. ``tensors`` are all those of a chain.
    """
    found = {}
    for stage in bundle.manifest.graphs:
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / stage.name)
            session = ort.InferenceSession(bundle.model(stage), options, providers=PROVIDERS)
            for _ in range(RUNS + 2):
                session.run(list(stage.outputs), {name: tensors[name] for name in stage.inputs})
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        durations: dict[tuple[str, str], list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                durations[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
        kinds: dict[str, float] = defaultdict(float)
        for (kind, _), times in durations.items():
            kinds[kind] += min(times[2:])
        found[stage.name] = dict(sorted(kinds.items(), key=lambda entry: -entry[1]))
    return found
