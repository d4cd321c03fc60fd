"""Open the engines of a bundle on the device at hand, or say why that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ...bundle import Bundle
from ...errors import UsageError
from ...stages import OCCLUDER
from ..batches import Shapes, common_sizes
from ..cuda_devices import CudaDevice, cuda_device
from .chain import SLOTS, DeviceChain
from .cuda import CudaRuntime
from .engine import RTX, Graphs, RunOptions, choose_graphs, deserialise, make_contexts
from .kernel_cache import KernelCache, cache_file
from .library import load_library
from .sidecar import (
    AMPERE_PLUS,
    EngineFolder,
    build_command,
    check_sidecar,
    engine_folders,
    fits_model,
    read_engine,
    read_sidecar,
    runs_on,
)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """What the user may choose of how engines run.

    Attributes:
        cuda_graph: launch the engines' work as CUDA graphs; True takes the library's own where it has them.
        batch_limit: faces a batch at most, also what memory is allocated for; None for what the engines take.
        kernel_cache: keep the kernels that TensorRT-RTX compiles on disk.
    """

    cuda_graph: bool | Graphs = False
    batch_limit: int | None = None
    kernel_cache: bool = True


def matching_folder(bundle: Bundle, backend: str, device: CudaDevice) -> EngineFolder | None:
    """Return the engines of ``backend`` for ``device``; those for exactly that target come first."""
    fitting = [folder for folder in engine_folders(bundle, backend) if runs_on(folder.target, device.target)]
    return min(fitting, key=lambda folder: folder.target != device.target, default=None)


def open_engines(bundle: Bundle, backend: str, index: int = 0, options: OpenOptions | None = None) -> DeviceChain:
    """Load all engines of ``bundle`` on CUDA device ``index``.

    Raises:
        UsageError: there is no such device, library or set of engines, or an engine does not match; in one
            sentence, with the command that mends it.
        ShowfaceError: a first batch could not be run.
    """
    device = cuda_device(index)
    if device is None:
        raise UsageError(
            f"{backend}: no CUDA device {index}, or no driver, is found here; pass backend='onnxruntime'", "backend"
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
    return open_folder(folder, trt, CudaRuntime(index), device, options)


def check_engines(folder: EngineFolder, version: str, device: CudaDevice) -> None:
    """Check the sidecars of all stages.

    Raises:
        UsageError: one is missing or does not match.
    """
    for stage in folder.bundle.manifest.graphs:
        sidecar = read_sidecar(folder, stage.name)
        check_sidecar(folder, sidecar, stage.name, version, device.target)
        if not fits_model(sidecar, device.name):
            any_gpu = build_command(folder.bundle, folder.backend, AMPERE_PLUS)
            raise UsageError(
                f"{folder.engine(stage.name)}: built on {sidecar.gpu}, this GPU is {device.name}; {folder.rebuild}; "
                f"or build for any GPU from sm_80 on with: {any_gpu}"
            )


def open_folder(
    folder: EngineFolder, trt: Any, cuda: CudaRuntime, device: CudaDevice, options: OpenOptions | None = None
) -> DeviceChain:
    """Deserialise the engines of a folder whose sidecars have been checked, side by side and every hash first."""
    options = options or OpenOptions()
    graphs = options.cuda_graph
    if not isinstance(graphs, Graphs):
        graphs = choose_graphs(trt, folder.backend, graphs)
    stages, shapes = folder.bundle.manifest.graphs, Shapes.of_bundle(folder.bundle)
    sidecars = [read_sidecar(folder, stage.name) for stage in stages]

    def side_by_side(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        with ThreadPoolExecutor(len(stages), initializer=cuda.activate) as pool:
            return list(pool.map(function, *arguments))

    data = side_by_side(lambda sidecar: read_engine(folder, sidecar), sidecars)
    loaded = side_by_side(
        lambda one, sidecar, stage: deserialise(trt, one, folder, sidecar, stage, shapes), data, sidecars, stages
    )
    cuda.activate()
    cache = KernelCache(None)
    if folder.backend == RTX and options.kernel_cache:
        cache = KernelCache(cache_file([s.engine_sha256 for s in sidecars], trt.__version__, device.name))
    slots = [1 if stage == OCCLUDER else SLOTS for stage in stages]  # the slots do not run the occluder
    how = RunOptions(graphs, options.batch_limit, cache)
    sizes = common_sizes([sidecar.batches for sidecar in sidecars], options.batch_limit)
    engines = [make_contexts(trt, one, folder, count, sizes, how) for one, count in zip(loaded, slots, strict=True)]
    description = f"{folder.backend} {trt.__version__} on {device.name} (its engines for {folder.target} match)"
    return DeviceChain(engines, sizes, shapes, cuda, folder, description, how)
