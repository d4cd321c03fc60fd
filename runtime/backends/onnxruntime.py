"""Sessions on ONNX Runtime, on the CPU or on CUDA; never silently on another device than asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import UsageError
from ..stages import OCCLUDER, Stage
from .chain import Chain, Tensors
from .cuda_devices import cuda_device_count

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
ERRORS_ONLY = 3


@dataclass(slots=True)
class OnnxRuntimeSession:
    """One stage in an ONNX Runtime session."""

    stage: Stage
    session: ort.InferenceSession

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Map the stage's inputs to its outputs, by the names of the stage table."""
        outputs = self.session.run(list(self.stage.outputs), dict(inputs))
        return dict(zip(self.stage.outputs, outputs, strict=True))


def parse_device(device: str) -> int | None:
    """Return the CUDA index of ``cuda:N``, or None for ``cpu``.

    Raises:
        UsageError: neither of the two.
    """
    if device == "cpu":
        return None
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise UsageError(f"--device {device}: use auto, cpu or cuda:N")
    return int(index or 0)


def session_options(threads: int | None) -> ort.SessionOptions:
    """Return the options that every session of a chain has; ``threads`` of None leaves their number to the library."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # A pattern is kept for each shape that was seen, beside the arena: 589 MiB instead of 359 at batch 1.
    options.enable_mem_pattern = False
    # The threads of a stage that has ended would spin on while the next stage wants their processors.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def open_session(data: bytes, stage: Stage, cuda_index: int | None, threads: int | None) -> OnnxRuntimeSession:
    """Load one stage.

    Args:
        data: the ONNX model.
        stage: its entry of the stage table.
        cuda_index: CUDA device, or None for the CPU.
        threads: for the CPU; None leaves the choice to ONNX Runtime.

    Raises:
        UsageError: the model cannot be loaded, or not on that device, or is not of that stage.
    """
    options = session_options(threads)
    providers: list[Any] = [CPU_PROVIDER]
    if cuda_index is not None:
        # TF32 would cost the parity with PyTorch that the bundle promises.
        providers = [(CUDA_PROVIDER, {"device_id": str(cuda_index), "use_tf32": "0"})]
    try:
        session = ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own types derive from Exception and are not exported
        raise UsageError(f"stage {stage.name}: ONNX Runtime cannot load it: {error}") from error
    wanted = CPU_PROVIDER if cuda_index is None else CUDA_PROVIDER
    if session.get_providers()[0] != wanted:
        raise UsageError(
            "CUDA was asked for, but ONNX Runtime's CUDA provider did not load; "
            "install its libraries with: pip install 'showface[cuda]', or use --device cpu"
        )
    names = tuple(sorted(i.name for i in session.get_inputs())), tuple(sorted(o.name for o in session.get_outputs()))
    if names != (tuple(sorted(stage.inputs)), tuple(sorted(stage.outputs))):
        raise UsageError(
            f"stage {stage.name}: the graph has the inputs and outputs {names}, not those of the manifest's variant; "
            "export the bundle again"
        )
    return OnnxRuntimeSession(stage, session)


def open_chain(bundle: Bundle, device: str = "auto", threads: int | None = None) -> Chain:
    """Load all stages of ``bundle``.

    Args:
        bundle: where the models are.
        device: ``cpu``, ``cuda:N``, or ``auto``: CUDA where it works, else the CPU.
        threads: for the CPU.

    Raises:
        UsageError: a stage cannot be loaded on the device that was asked for.
    """

    def load(cuda_index: int | None, reason: str) -> Chain:
        sessions = [open_session(bundle.model(s), s, cuda_index, threads) for s in bundle.manifest.stages]
        where = "CPU" if cuda_index is None else f"CUDA device {cuda_index}"
        description = f"ONNX Runtime {ort.__version__} on {where} ({reason})"
        occluder = None
        if OCCLUDER in bundle.manifest.graphs:
            occluder = open_session(bundle.model(OCCLUDER), OCCLUDER, cuda_index, threads)
        return Chain(sessions, description, "cpu" if cuda_index is None else "cuda", occluder)

    if device != "auto":
        cuda_index = parse_device(device)
        found = cuda_device_count()
        if cuda_index is not None and cuda_index >= found:
            raise UsageError(f"--device {device}: the driver reports {found} CUDA devices; use --device cpu")
        return load(cuda_index, "as asked")
    if cuda_device_count() == 0:
        return load(None, "no CUDA device found")
    try:
        return load(0, "a CUDA device was found")
    except UsageError as error:
        return load(None, f"a CUDA device was found, but cannot be used: {error}")
