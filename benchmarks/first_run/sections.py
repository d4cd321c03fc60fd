"""The sections of ``benchmarks/gpu.py``; each takes its arguments and returns figures, or says why it cannot run."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from showface.runtime.backends.chain import Chain
from showface.runtime.backends.cuda_devices import cuda_device, cuda_device_count, driver_version
from showface.runtime.bundle import Bundle, default_bundle, open_bundle

PACKAGES = (
    "cuda-bindings",
    "onnxruntime-gpu",
    "onnxruntime",
    "tensorrt-rtx",
    "tensorrt",
    "torch",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
SIDE = 256


class CannotRunError(Exception):
    """Something that a section needs is not here; the text says what."""


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tell what is here."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = [cuda_device(index) for index in range(cuda_device_count())]
    return {
        "python": sys.version.split()[0],
        "driver runs CUDA up to": driver_version(),
        "devices": [f"{device.name} ({device.target})" for device in devices if device is not None],
        **versions,
    }


def need_gpu() -> None:
    """Raise where there is none."""
    if cuda_device_count() == 0:
        raise CannotRunError("no CUDA device, or no driver, is found here")


def cuda_of(arguments: argparse.Namespace) -> Any:
    """Return the device, or the fake of the tests."""
    if arguments.fake:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
        from fakes.cuda import FakeCuda

        return FakeCuda()
    need_gpu()
    for package in ("cuda.bindings", "cupy"):
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            raise CannotRunError(f"needs {package}: pip install cuda-bindings cupy-cuda13x (or cupy-cuda12x)")
    from showface.runtime.backends.tensorrt.cuda import CudaRuntime

    return CudaRuntime(0)


def faces(count: int) -> tuple[Any, Any]:
    """Return seeded noise as faces, and holes over half of each."""
    random = np.random.default_rng(count)
    image = random.uniform(-1, 1, (count, 3, SIDE, SIDE)).astype(np.float32)
    return image, (random.uniform(size=(count, 1, SIDE, SIDE)) > 0.5).astype(np.float32)


def timed(call: Callable[[], Any], rounds: int) -> float:
    """Return the median of some calls, in milliseconds, after two that do not count."""
    laps = []
    for lap in range(rounds + 2):
        started = time.perf_counter()
        call()
        if lap >= 2:
            laps.append(time.perf_counter() - started)
    return float(np.median(laps)) * 1e3


def latencies(chain: Chain, arguments: argparse.Namespace, **facts: Any) -> list[dict[str, Any]]:
    """Return a row for each batch: a call alone, and faces a second with two batches under way."""
    rows = []
    for batch in (1, 8) if arguments.quick else (1, 2, 4, 8, 16, 32):
        image, mask = faces(batch)
        alone = timed(lambda image=image, mask=mask: chain.complete(image, mask), 5 if arguments.quick else 30)
        count = 4 if arguments.quick else 40
        started, waiting = time.perf_counter(), None
        for _ in range(count):
            ticket = chain.submit(image, mask)
            if waiting is not None:
                waiting.result()
            waiting = ticket
        if waiting is not None:
            waiting.result()
        rate = count * batch / (time.perf_counter() - started)
        rows.append({**facts, "batch": batch, "ms a call": alone, "ms a face": alone / batch, "faces a second": rate})
    return rows


def chain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prove streams, events, pinned memory, slots, graphs, threads and clean-up on real CUDA."""
    import cupy_engines

    from showface.runtime.backends.tensorrt.engine import Graphs

    cuda, rows, leaked = cuda_of(arguments), list[dict[str, Any]](), {}
    for graphs in (Graphs.OFF, Graphs.CAPTURE):
        with cupy_engines.open_chain(cuda, 8, graphs, arguments.fake) as opened:
            if "not used" in opened.description:
                raise AssertionError(opened.description)
            for count in (1, 3, 8) if arguments.quick else (1, 2, 3, 5, 8, 9, 17, 33):
                image, mask = faces(count)
                np.testing.assert_array_equal(opened.complete(image, mask), cupy_engines.expected(image, mask))
            tickets = [(faces(count), opened.submit(*faces(count))) for count in (8, 1, 5, 8)]
            for (image, mask), ticket in reversed(tickets):
                np.testing.assert_array_equal(ticket.result(), cupy_engines.expected(image, mask))
            labels = opened.run({"image": image, "mask": mask})["semantic_map"]
            assert labels.dtype == np.int32
            assert (labels == 3).all()
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(opened.complete, image, mask).result()
            np.testing.assert_array_equal(other, cupy_engines.expected(image, mask))
            rows += [] if arguments.fake else latencies(opened, arguments, graphs=graphs.value)
        if not arguments.fake:
            before = cuda.free_memory()
            for _ in range(5):
                cupy_engines.open_chain(cuda, 8, graphs, False).close()
            leaked[graphs.value] = (before - cuda.free_memory()) / 2**20
        else:
            leaked[graphs.value] = float(len(cuda.leaks()))
    if any(amount > 1 for amount in leaked.values()):
        raise AssertionError(f"opening and closing costs memory: {leaked} MiB")
    return {"equal": "all batches, with and without graphs", "leaked MiB": leaked, "latency": rows}


def lost_device(arguments: argparse.Namespace) -> dict[str, Any]:
    """Let a kernel write where it must not, and look at how the chain ends."""
    import cupy_engines

    from showface.runtime.backends.tensorrt.engine import Graphs
    from showface.runtime.errors import DeviceLostError

    cuda = cuda_of(arguments)
    said = ""
    try:
        with cupy_engines.open_chain(cuda, 8, Graphs.OFF, arguments.fake) as opened:
            if arguments.fake:
                cuda.broken = "an illegal memory access was encountered (700)"
            else:
                import cupy

                cupy.RawKernel('extern "C" __global__ void lose(int *p) { p[0] = 1; }', "lose")(
                    (1,), (1,), (np.intp(1),)
                )
            for _ in range(3):
                opened.complete(*faces(8))
    except DeviceLostError as error:
        said = str(error)
    if not said:
        raise AssertionError("the chain went on after an illegal address")
    return {"said": said}


@contextmanager
def bundles_of(arguments: argparse.Namespace) -> Iterator[dict[str, Bundle]]:
    """Give copies of the float32 bundle and of its float16 one, where that can be made, in a folder that goes away."""
    source = arguments.bundle or default_bundle()
    with tempfile.TemporaryDirectory(prefix="showface-gpu-") as folder:
        single = Path(folder) / "float32"
        shutil.copytree(source, single, ignore=shutil.ignore_patterns("engines"))
        bundles = {"float32": open_bundle(single)}
        if importlib.util.find_spec("onnx") is not None:
            from showface.export.float16_bundle import export_float16

            export_float16(bundles["float32"], Path(folder) / "float16")
            bundles["float16"] = open_bundle(Path(folder) / "float16")
        yield bundles


def _parity(bundle: Bundle, opened: Chain) -> str:
    from showface.evaluation.parity.compare import compare_sources
    from showface.evaluation.parity.sources import golden_source, source_of_bundle
    from showface.evaluation.parity.tolerances import plan_tolerances

    reference, case = golden_source(bundle)
    candidate = source_of_bundle(bundle, opened)
    result = compare_sources(
        reference, candidate, [case], plan_tolerances(candidate.identity.precision, None, {})
    ).result
    return "passed" if result["passed"] else f"FAILED: {result['chain']['failures']}"


def onnxruntime(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time ONNX Runtime's CUDA provider and compare it with PyTorch."""
    need_gpu()
    from showface.runtime.backends.onnxruntime import open_chain

    rows, parity, opened_in = list[dict[str, Any]](), {}, {}
    with bundles_of(arguments) as bundles:
        for (precision, bundle), layout in itertools.product(bundles.items(), ("channels first", "channels last")):
            started = time.perf_counter()
            opened = open_chain(bundle, "cuda:0", channels_last=layout == "channels last")
            opened_in[f"{precision}, {layout}"] = time.perf_counter() - started
            parity[f"{precision}, {layout}"] = _parity(bundle, opened)
            rows += latencies(opened, arguments, precision=precision, layout=layout)
            opened.close()
    return {"parity": parity, "open, s": opened_in, "latency": rows}


def engines(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build engines for this GPU with each library that is here; time them eagerly and with graphs."""
    need_gpu()
    from showface.export.engines.build import build_engines
    from showface.export.engines.request import BuildOptions
    from showface.export.engines.targets import choose_targets
    from showface.runtime.backends.tensorrt.engine import Graphs
    from showface.runtime.backends.tensorrt.library import LIBRARIES, load_library
    from showface.runtime.backends.tensorrt.loader import OpenOptions, open_engines
    from showface.runtime.errors import ShowfaceError

    device, rows, starts, notes = cuda_device(0), list[dict[str, Any]](), list[dict[str, Any]](), {}
    with bundles_of(arguments) as bundles:
        for backend in LIBRARIES:
            try:
                trt = load_library(backend)
                (target,) = choose_targets(trt, backend, (), False, device)
            except ShowfaceError as error:
                notes[backend] = str(error)
                continue
            gpu = device.name if backend == "tensorrt" and device is not None else ""
            for precision, bundle in bundles.items():
                built = build_engines(bundle, BuildOptions(backend, target), trt.__version__, gpu)
                failed = [row.error for row in built if row.status == "failed"]
                if failed:
                    notes[f"{backend} {precision}"] = "; ".join(failed)
                    continue
                for graphs in (Graphs.OFF, *((Graphs.LIBRARY,) if backend == "tensorrt-rtx" else ()), Graphs.CAPTURE):
                    for start in ("cold", "warm"):
                        started = time.perf_counter()
                        opened: Any = open_engines(bundle, backend, 0, OpenOptions(cuda_graph=graphs))
                        facts = {"backend": backend, "precision": precision, "graphs": graphs.value}
                        seconds, free = time.perf_counter() - started, opened.cuda.free_memory() / 2**20
                        starts.append({**facts, "start": start, "seconds": seconds, "free device memory, MiB": free})
                        if start == "warm":
                            starts[-1]["parity"] = _parity(bundle, opened)
                            rows += latencies(opened, arguments, **facts)
                            notes[f"{backend} {precision} {graphs.value}"] = opened.description
                        opened.close()
    if not rows:
        raise CannotRunError("; ".join(f"{name}: {why}" for name, why in notes.items()))
    return {**notes, "start": starts, "latency": rows}


def weights_of(arguments: argparse.Namespace) -> Any:
    """Return the model of the checkpoint, or of the bundle where none was given."""
    from showface.training.checkpoint import model_from_checkpoint

    if arguments.checkpoint is not None:
        return model_from_checkpoint(arguments.checkpoint)[0]
    if importlib.util.find_spec("onnx") is None:
        raise CannotRunError("needs --checkpoint, or onnx to take the weights from the bundle")
    from showface.export.to_checkpoint import checkpoint_from_bundle

    with tempfile.TemporaryDirectory(prefix="showface-gpu-") as folder:
        path = Path(folder) / "model.safetensors"
        checkpoint_from_bundle(open_bundle(arguments.bundle), path)
        return model_from_checkpoint(path)[0]


def torch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time PyTorch on the same GPU."""
    if importlib.util.find_spec("torch") is None:
        raise CannotRunError("needs torch: pip install 'showface[export]'")
    import torch as pytorch

    if not pytorch.cuda.is_available():
        raise CannotRunError(f"this PyTorch ({pytorch.__version__}) sees no CUDA device")
    model = weights_of(arguments).cuda().eval()
    compiled: Any = pytorch.compile(model, dynamic=False)
    kinds = (
        ("eager", model, None),
        ("eager bfloat16", model, pytorch.bfloat16),
        ("eager float16", model, pytorch.float16),
    )
    rows = []
    for name, module, half in (
        *kinds,
        *(() if arguments.quick else (("compiled bfloat16", compiled, pytorch.bfloat16),)),
    ):
        for batch in (1, 8) if arguments.quick else (1, 2, 4, 8, 16, 32):
            given = [pytorch.from_numpy(array).pin_memory() for array in faces(batch)]

            def call(module: Any = module, half: Any = half, given: Any = given) -> None:
                with (
                    pytorch.inference_mode(),
                    pytorch.autocast("cuda", half or pytorch.float16, enabled=half is not None),
                ):
                    module(*(array.cuda(non_blocking=True) for array in given)).float().cpu()

            took = timed(call, 5 if arguments.quick else 30)
            rows.append({"kind": name, "batch": batch, "ms a call": took, "ms a face": took / batch})
    memory = pytorch.cuda.max_memory_allocated() / 2**20
    return {"peak memory, MiB": memory, "latency": rows}


def one_graph(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the stages joined in one graph."""
    import joined

    return joined.joined(arguments)


def decisions(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time what only a device can decide."""
    import choices

    return choices.choices(arguments)


RUN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "environment": environment,
    "chain": chain,
    "lost-device": lost_device,
    "onnxruntime": onnxruntime,
    "engines": engines,
    "torch": torch,
    "joined": one_graph,
    "choices": decisions,
}
