"""Sessions on ONNX Runtime, on the CPU or on CUDA; never silently on another device than asked."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import DeviceLostError, ShowfaceError, UsageError
from ..stages import OCCLUDER, Stage, mismatch
from .batches import Shapes
from .chain import Chain, Tensors
from .cuda_devices import STICKY_ERRORS, cuda_device_count, driver_version, lost_device, parse_device
from .processors import granted, quota

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
ERRORS_ONLY = 3
CUDA_OPTIONS = {
    # TF32 would cost the parity with PyTorch that the bundle promises.
    "use_tf32": "0",
    # The search times every convolution for every batch that it meets, and may choose otherwise the next time.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Each session has an arena of its own, which would double whenever it grows.
    "arena_extend_strategy": "kSameAsRequested",
}
_CODE = re.compile(r"CUDA (?:failure|error) (\d+)")
DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}  # ONNX Runtime's names of the stage table's types
SPIN_MICROSECONDS = "1000"  # that a thread waits busily for its next work; runs were no faster without this limit
LOADERS = 2  # threads that open sessions; the largest stage is half of the work
LOG_TAIL = 300  # characters of what ONNX Runtime printed that an error repeats


@dataclass(slots=True)
class OnnxRuntimeSession:
    """One stage in an ONNX Runtime session."""

    stage: Stage
    session: ort.InferenceSession
    cuda_index: int | None = None

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Map the stage's inputs to its outputs, by the names of the stage table.

        Raises:
            ShowfaceError: the graph returned another number of faces, or another size or type, than the table says.
        """
        with device_errors(self.cuda_index):
            outputs = self.session.run(list(self.stage.outputs), dict(inputs))
        named = dict(zip(self.stage.outputs, outputs, strict=True))
        count = len(inputs[self.stage.inputs[0]])
        for output in named.values():
            if output.ndim and len(output) != count:
                raise ShowfaceError(f"stage {self.stage.name} returned {len(output)} faces for {count}")
        tensors = {**{name: inputs[name] for name in self.stage.inputs}, **named}
        fault = mismatch({name: (str(array.dtype), array.shape) for name, array in tensors.items()}, {"B": count})
        if fault is not None:
            raise ShowfaceError(f"stage {self.stage.name}: {fault}")
        return named


@contextmanager
def device_errors(cuda_index: int | None) -> Iterator[None]:
    """Tell the loss of a CUDA device from an error of one batch.

    ONNX Runtime names CUDA's error where a call of CUDA failed, but not where cuDNN or cuBLAS did, so that a small
    copy to the device is tried then: after the errors that matter here it fails with their number.

    Raises:
        DeviceLostError: no later call can succeed.
    """
    try:
        yield
    except Exception as error:  # ONNX Runtime's own types derive from Exception and are not exported
        if cuda_index is None or isinstance(error, ShowfaceError):
            raise
        said = str(error)
        try:
            ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", cuda_index)
        except Exception as probe:
            said = f"{said} {probe}"
        if STICKY_ERRORS & {int(code) for code in _CODE.findall(said)}:
            raise DeviceLostError(lost_device(cuda_index, _tail(str(error)))) from error
        raise


def session_options(threads: int | None) -> ort.SessionOptions:
    """Return the options that every session of a chain has.

    Without ``threads`` their number is the library's, which knows of no quota of a container: where there is one, that.
    """
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # A pattern is kept for each shape that was seen, beside the arena: 589 MiB instead of 359 at batch 1.
    options.enable_mem_pattern = False
    # The threads of a stage that has ended would spin on while the next stage wants their processors.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Those of a session that has just been opened would spin on while the next one is.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    limit = quota()
    if threads is None and limit is not None and limit < granted():
        threads = limit
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


@functools.cache
def preload_libraries() -> str:
    """Load the CUDA libraries that pip has installed, once, and return what ONNX Runtime says of those it missed.

    They lie in ``site-packages/nvidia``, where the loader of the system does not look.
    """
    if not hasattr(ort, "preload_dlls"):
        return ""
    said = io.StringIO()
    with redirect_stdout(said):  # it prints what it cannot load
        ort.preload_dlls()
    return _tail(said.getvalue())


def open_session(
    data: bytes,
    stage: Stage,
    cuda_index: int | None,
    threads: int | None,
    shapes: Shapes | None = None,
    channels_last: bool = False,
) -> OnnxRuntimeSession:
    """Load one stage on a CUDA device, or on the CPU where ``cuda_index`` is None.

    ``shapes`` are those of the bundle; None where only their relations are known. ``channels_last`` lets CUDA's
    convolutions work on NHWC, the layout of a GPU's tensor cores.

    Raises:
        UsageError: the model cannot be loaded, or not on that device alone, or its inputs and outputs are not those
            of the stage by name, type or size.
    """
    options = session_options(threads)
    providers: list[Any] = [CPU_PROVIDER]
    missing = ""
    if cuda_index is not None:
        if CUDA_PROVIDER not in ort.get_available_providers():
            raise UsageError(f"CUDA was asked for, but {_cuda_remedy(missing)}")
        missing = preload_libraries()
        layout = {"prefer_nhwc": "1"} if channels_last else {}
        providers = [(CUDA_PROVIDER, {"device_id": str(cuda_index), **CUDA_OPTIONS, **layout})]
        ort.set_default_logger_severity(ERRORS_ONLY)  # it warns that a newer kind of provider is not here
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # Without enable_fallback=0 it would load the model again on the CPU where CUDA fails.
        session = ort.InferenceSession(data, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own types derive from Exception and are not exported
        where = "" if cuda_index is None else f" on CUDA device {cuda_index}"
        remedy = "" if cuda_index is None else f"; {_cuda_remedy(missing)}"
        if "fallback to CPU EP has been explicitly disabled" in str(error):
            remedy = "; its graph has a node that ONNX Runtime's CUDA provider cannot run: pass device='cpu'"
        raise UsageError(f"stage {stage.name}: ONNX Runtime cannot load it{where}: {error}{remedy}") from error
    session.disable_fallback()  # nor may it go on on the CPU when a run fails
    wanted = CPU_PROVIDER if cuda_index is None else CUDA_PROVIDER
    if session.get_providers()[0] != wanted:
        raise UsageError(f"CUDA was asked for, but ONNX Runtime's CUDA provider did not load; {_cuda_remedy(missing)}")
    _check_graph(session, stage, shapes)
    return OnnxRuntimeSession(stage, session, cuda_index)


def _check_graph(session: ort.InferenceSession, stage: Stage, shapes: Shapes | None) -> None:
    """Compare what a graph says that it takes and returns with the stage table."""
    names = tuple(sorted(i.name for i in session.get_inputs())), tuple(sorted(o.name for o in session.get_outputs()))
    if names != (tuple(sorted(stage.inputs)), tuple(sorted(stage.outputs))):
        raise UsageError(
            f"stage {stage.name}: the graph has the inputs and outputs {names}, not those of the manifest's variant; "
            "export the bundle again"
        )
    said = {t.name: (DTYPES.get(t.type, t.type), t.shape) for t in (*session.get_inputs(), *session.get_outputs())}
    tensors = {name: said[name] for name in (*stage.inputs, *stage.outputs)}
    fault = mismatch(tensors, {} if shapes is None else {"H": shapes.image_size, "c": shapes.channels})
    if fault is None and isinstance(tensors[stage.inputs[0]][1][0], int):
        fault = f"its batch is fixed to {tensors[stage.inputs[0]][1][0]}"
    if fault is not None:
        raise UsageError(f"stage {stage.name}: {fault}, as the graph says; export the bundle again")


def _cuda_remedy(missing: str) -> str:
    """Return what to do where the CUDA provider does not work."""
    built, driver = str(getattr(ort, "cuda_version", "")), driver_version()
    if built[:2].isdigit() and driver is not None and driver[0] < int(built[:2]):
        return (
            f"this ONNX Runtime is built for CUDA {built} and the driver runs CUDA up to {driver[0]}.{driver[1]}: "
            f"update the NVIDIA driver, install an onnxruntime-gpu for CUDA {driver[0]}, or pass device='cpu'"
        )
    if CUDA_PROVIDER not in ort.get_available_providers():
        return (
            "the installed ONNX Runtime is built for the CPU: pip uninstall onnxruntime onnxruntime-gpu, then "
            "pip install 'showface[cuda]'; or pass device='cpu'"
        )
    said = f" ({missing})" if missing else ""
    return f"install its libraries with: pip install 'showface[cuda]'{said}, or pass device='cpu'"


def _tail(text: str) -> str:
    return " ".join(text.split())[-LOG_TAIL:]


def open_chain(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    channels_last: bool = False,
) -> Chain:
    """Load all stages of ``bundle`` on ``cpu``, ``cuda:N``, or ``auto``: CUDA where it works, else the CPU.

    ``channels_last``, see :func:`open_session`, is off until a GPU has shown what it brings.

    Raises:
        UsageError: a stage cannot be loaded on the device that was asked for.
        ShowfaceError: a first batch could not be run on it.
    """
    if device != "auto":
        cuda_index = parse_device(device)
        found = cuda_device_count()
        if cuda_index is not None and cuda_index >= found:
            raise UsageError(f"{device}: the driver reports {found} CUDA devices; pass device='cpu'", "device")
        return _load(bundle, cuda_index, threads, "as asked", channels_last)
    if cuda_device_count() == 0:
        return _load(bundle, None, threads, "no CUDA device found")
    try:
        return _load(bundle, 0, threads, "a CUDA device was found", channels_last)
    except ShowfaceError as error:
        return _load(bundle, None, threads, f"a CUDA device was found, but cannot be used: {error}")


def _load(
    bundle: Bundle, cuda_index: int | None, threads: int | None, reason: str, channels_last: bool = False
) -> Chain:
    from .onnxruntime_binding import BoundChain

    shapes = Shapes.of_bundle(bundle)

    def opened(stage: Stage) -> OnnxRuntimeSession:
        return open_session(bundle.model(stage), stage, cuda_index, threads, shapes, channels_last)

    # ONNX Runtime optimises one graph on one processor; the CUDA libraries are not loaded from several threads.
    largest_first = sorted(bundle.manifest.graphs, key=lambda stage: -bundle.size(f"{stage.name}.onnx"))
    with ThreadPoolExecutor(1 if cuda_index is not None else min(threads or LOADERS, LOADERS)) as loaders:
        graphs = {session.stage.name: session for session in loaders.map(opened, largest_first)}
    occluder = graphs.get(OCCLUDER.name)
    sessions = [graphs[stage.name] for stage in bundle.manifest.stages]
    where = "CPU" if cuda_index is None else f"CUDA device {cuda_index}"
    description = f"ONNX Runtime {ort.__version__} on {where} ({reason})"
    if cuda_index is None:
        return Chain(sessions, description, "cpu", occluder)
    return BoundChain(sessions, shapes, description, "cuda", cuda_index, occluder)
