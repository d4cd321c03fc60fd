"""Five engines against one: the stages of a bundle joined in one file, run by ONNX Runtime and as one RTX engine.

An experiment: one engine has fewer launches and fuses across the stages' borders, but no parity by stage, no rebuild of
one stage and no parser for ``--mask-from class``. Where no GPU is, ONNX Runtime's CPU sessions are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cupy_engines import expected, open_chain_of
from sections import bundles_of, cuda_of, faces, latencies, need_gpu, timed

from showface.export.one_file import WHOLE, export_one_file
from showface.runtime.backends.batches import Shapes, common_sizes
from showface.runtime.backends.chain import Chain
from showface.runtime.backends.cuda_devices import cuda_device
from showface.runtime.backends.onnxruntime import open_chain, open_session
from showface.runtime.backends.onnxruntime_binding import BoundChain
from showface.runtime.backends.tensorrt.engine import Graphs
from showface.runtime.bundle import Bundle, open_bundle

BATCHES = (1, 8, 8)


def joined(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the joined graph and the stages one by one, in turn."""
    if arguments.fake:
        return _over_the_fake(arguments)
    device, rows, notes = cuda_device(0), list[dict[str, Any]](), dict[str, str]()
    # A CPU computes float16 in float32, so that it has nothing to tell of it.
    single = {"float32": open_bundle(arguments.bundle)}
    given: Any = nullcontext(single) if device is None else bundles_of(arguments)
    with given as bundles, tempfile.TemporaryDirectory(prefix="showface-joined-") as folder:
        for precision, bundle in bundles.items():
            path = Path(folder) / f"{precision}.onnx"
            notes[precision] = f"{export_one_file(bundle, path)['nodes']} nodes"
            rows += _in_onnx_runtime(bundle, path, precision, None if device is None else 0, arguments)
            if device is not None:
                try:
                    rows += _as_engine(bundle, path, precision, device.target, arguments)
                except Exception as error:  # an experiment must not end the others
                    notes[f"engine, {precision}"] = f"{type(error).__name__}: {error}"
    return {**notes, "latency": rows}


def _over_the_fake(arguments: argparse.Namespace) -> dict[str, Any]:
    """Show that the device chain runs one engine that takes its inputs and gives its output."""
    cuda = cuda_of(arguments)
    with open_chain_of((WHOLE,), cuda, 8, Graphs.CAPTURE, fake=True) as opened:
        image, mask = faces(11)
        np.testing.assert_array_equal(opened.complete(image, mask), expected(image, mask))
    return {"equal": "11 faces in two batches", "leaked": float(len(cuda.leaks()))}


def _in_onnx_runtime(
    bundle: Bundle, path: Path, precision: str, index: int | None, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    five = open_chain(bundle, "cpu" if index is None else f"cuda:{index}")
    session = open_session(path.read_bytes(), WHOLE, index, None)
    one = Chain([session], "joined") if index is None else BoundChain([session], Shapes.of_bundle(bundle), "", "cuda")
    rows = []
    for batch in (1,) if arguments.quick else (1, 8):
        image, mask = faces(batch)
        rounds = 3 if arguments.quick else 15
        laps = {name: list[float]() for name in ("five", "one")}
        for _ in range(rounds):  # in turn, so that a disturbance meets both
            for name, chain in (("five", five), ("one", one)):
                laps[name].append(timed(partial(chain.complete, image, mask), 1))
        times = {name: float(np.median(values)) for name, values in laps.items()}
        ratio = float(np.median(np.array(laps["five"]) / np.array(laps["one"])))
        facts = {"backend": "onnxruntime", "precision": precision, "batch": batch}
        rows.append({**facts, "five, ms": times["five"], "one, ms": times["one"], "five / one": ratio})
    return rows


def _as_engine(
    bundle: Bundle, path: Path, precision: str, target: str, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Build the joined graph as one engine of TensorRT-RTX and time it; the five stand in the section of engines."""
    need_gpu()
    from showface.export.engines.process import run_request
    from showface.export.engines.request import BuildOptions, EngineRequest
    from showface.runtime.backends.tensorrt.chain import SLOTS, DeviceChain
    from showface.runtime.backends.tensorrt.cuda import CudaRuntime
    from showface.runtime.backends.tensorrt.engine import RunOptions, deserialise, make_contexts
    from showface.runtime.backends.tensorrt.library import load_library
    from showface.runtime.backends.tensorrt.sidecar import EngineFolder

    trt, engine = load_library("tensorrt-rtx"), path.with_suffix(".engine")
    options, digest = BuildOptions("tensorrt-rtx", target, BATCHES), hashlib.sha256(path.read_bytes()).hexdigest()
    request = EngineRequest(WHOLE.name, str(path), digest, str(engine), precision, False, options)
    outcome = run_request(request)
    if not outcome.good:
        raise RuntimeError(str(outcome))
    folder, cuda, rows = EngineFolder(bundle, "tensorrt-rtx", target), CudaRuntime(0), list[dict[str, Any]]()
    sidecar: Any = SimpleNamespace(batches=BATCHES, profiles=1, version_compatible=False)
    shapes, sizes = Shapes.of_bundle(bundle), common_sizes([BATCHES])
    for graphs in (Graphs.OFF, Graphs.LIBRARY):
        loaded = deserialise(trt, engine.read_bytes(), folder, sidecar, WHOLE, shapes)
        made = make_contexts(trt, loaded, folder, SLOTS, sizes, RunOptions(graphs))
        with DeviceChain([made], sizes, shapes, cuda, folder, "joined", RunOptions(graphs)) as opened:
            rows += latencies(opened, arguments, backend="tensorrt-rtx, one", precision=precision, graphs=graphs.value)
    return rows
