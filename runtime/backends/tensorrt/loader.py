"""Open the engines of a bundle on the device at hand, or say why that cannot be."""

from __future__ import annotations

from typing import Any

from ...bundle import Bundle
from ...errors import UsageError
from ..cuda_devices import CudaDevice, cuda_device
from .chain import DeviceChain
from .device import Cuda
from .engine import load_engine
from .library import load_library
from .session import Shapes
from .sidecar import EngineFolder, check_sidecar, engine_folders, fits_model, read_engine, read_sidecar, runs_on


def matching_folder(bundle: Bundle, backend: str, device: CudaDevice) -> EngineFolder | None:
    """Return the engines of ``backend`` for ``device``; those for exactly that target come first."""
    fitting = [folder for folder in engine_folders(bundle, backend) if runs_on(folder.target, device.target)]
    return min(fitting, key=lambda folder: folder.target != device.target, default=None)


def open_engines(bundle: Bundle, backend: str, index: int = 0, cuda_graph: bool = False) -> DeviceChain:
    """Load all engines of ``bundle`` on CUDA device ``index``.

    Raises:
        UsageError: there is no such device, library or set of engines, or an engine does not match; in one
            sentence, with the command that mends it.
    """
    device = cuda_device(index)
    if device is None:
        raise UsageError(
            f"--backend {backend}: no CUDA device {index}, or no driver, is found here; use --backend onnxruntime"
        )
    folder = matching_folder(bundle, backend, device)
    if folder is None:
        others = ", ".join(f.target for f in engine_folders(bundle, backend)) or "none"
        wanted = EngineFolder(bundle, backend, device.target)
        raise UsageError(
            f"{bundle.folder}: no engines of {backend} for {device.name} ({device.target}), only for: {others}; "
            + wanted.rebuild.replace("rebuild", "build", 1)
        )
    trt = load_library(backend)
    check_engines(folder, trt.__version__, device)
    from .cuda import CudaRuntime

    return open_folder(folder, trt, CudaRuntime(index), device, cuda_graph)


def check_engines(folder: EngineFolder, version: str, device: CudaDevice) -> None:
    """Check the sidecars of all stages.

    Raises:
        UsageError: one is missing or does not match.
    """
    for stage in folder.bundle.manifest.graphs:
        sidecar = read_sidecar(folder, stage.name)
        check_sidecar(folder, sidecar, stage.name, version, device.target)
        if not fits_model(sidecar, device.name):
            raise UsageError(
                f"{folder.engine(stage.name)}: built on {sidecar.gpu}, this GPU is {device.name}; {folder.rebuild} or "
                "--hardware-compatible"
            )


def open_folder(
    folder: EngineFolder, trt: Any, cuda: Cuda, device: CudaDevice, cuda_graph: bool = False
) -> DeviceChain:
    """Deserialise the engines of a folder, every hash first.

    Args:
        folder: whose sidecars have been checked.
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        cuda: the device.
        device: its name, for the description.
        cuda_graph: see :class:`~.chain.DeviceChain`.
    """
    manifest = folder.bundle.manifest
    shapes = Shapes(manifest.image_size, manifest.code_channels)
    sidecars = [read_sidecar(folder, stage.name) for stage in manifest.graphs]
    data = [read_engine(folder, sidecar) for sidecar in sidecars]
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    if any(sidecar.version_compatible for sidecar in sidecars):
        runtime.engine_host_code_allowed = True  # such engines carry the runtime that they were built with
    engines = [
        load_engine(trt, runtime, one, folder, sidecar, stage, shapes, cuda_graph)
        for one, sidecar, stage in zip(data, sidecars, manifest.graphs, strict=True)
    ]
    description = f"{folder.backend} {trt.__version__} on {device.name} (its engines for {folder.target} match)"
    return DeviceChain(engines, shapes, cuda, folder, description, cuda_graph)
