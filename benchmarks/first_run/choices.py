"""What only a device can decide: how convolutions are searched for, and for how many faces engines are tuned."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any
from unittest.mock import patch

from sections import CannotRunError, bundles_of, latencies, need_gpu

from showface.export.engines.build import build_engines
from showface.export.engines.request import BuildOptions
from showface.export.engines.targets import choose_targets
from showface.runtime.backends.cuda_devices import cuda_device
from showface.runtime.backends.onnxruntime import CUDA_OPTIONS, CUDA_PROVIDER, open_chain
from showface.runtime.backends.tensorrt.library import LIBRARIES, load_library
from showface.runtime.backends.tensorrt.loader import open_engines
from showface.runtime.bundle import Bundle
from showface.runtime.errors import ShowfaceError

SEARCHES = ("HEURISTIC", "EXHAUSTIVE")
TUNINGS: dict[str, dict[str, Any]] = {
    "for 8 faces": {},
    "for 1 face": {"batches": (1, 1, 8)},
    "for 1 face and for 8": {"profiles": 2},
}


def choices(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time each choice; what cannot run says why."""
    need_gpu()
    notes = dict[str, Any]()
    with bundles_of(arguments) as bundles:
        bundle = list(bundles.values())[-1]  # float16 where it can be made
        runs = {"search": partial(searches, bundle, arguments)}
        runs |= {backend: partial(tunings, bundle, arguments, backend) for backend in LIBRARIES}
        for name, run in runs.items():
            try:
                notes[name] = run()
            except ShowfaceError as error:
                notes[name] = str(error)
    if not any(isinstance(rows, list) for rows in notes.values()):
        raise CannotRunError("; ".join(f"{name}: {why}" for name, why in notes.items()))
    return notes


def searches(bundle: Bundle, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time ONNX Runtime with each search of cuDNN's algorithms."""
    rows = []
    for search in SEARCHES:
        with patch.dict(CUDA_OPTIONS, cudnn_conv_algo_search=search):
            opened = open_chain(bundle, "cuda:0")
        rows += latencies(opened, arguments, backend=CUDA_PROVIDER, search=search)
        opened.close()
    return rows


def tunings(bundle: Bundle, arguments: argparse.Namespace, backend: str) -> list[dict[str, Any]]:
    """Build the engines with each tuning, one after the other, and time them."""
    trt, device = load_library(backend), cuda_device(0)
    (target,) = choose_targets(trt, backend, (), False, device)
    gpu = device.name if backend == "tensorrt" and device is not None else ""
    rows = []
    for name, options in TUNINGS.items():
        built = build_engines(bundle, BuildOptions(backend, target, **options), trt.__version__, gpu)
        failed = [row.error for row in built if row.status == "failed"]
        if failed:
            raise ShowfaceError(f"{name}: {'; '.join(failed)}")
        with open_engines(bundle, backend) as opened:
            rows += latencies(opened, arguments, backend=backend, tuned=name)
    return rows
