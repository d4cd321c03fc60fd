"""Choose the backend that runs a bundle."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from ..bundle import Bundle
from ..errors import ShowfaceError, UsageError
from .chain import Chain
from .cuda_devices import parse_device

if TYPE_CHECKING:
    from .tensorrt.loader import OpenOptions


class Backend(StrEnum):
    """Inference backends."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


def open_chain(
    bundle: Bundle,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    cuda_graph: bool = False,
    batch_limit: int | None = None,
) -> Chain:
    """Load all stages of ``bundle``; for the arguments see :meth:`~..inpainter.Inpainter.from_bundle`.

    Returns:
        A chain whose description says what was taken, and why.

    Raises:
        ValueError: no such backend.
        UsageError: a stage cannot be loaded on the backend and the device that were asked for.
    """
    from . import onnxruntime as onnxruntime_backend  # the libraries of a backend load when it is used

    chosen = Backend(backend)
    if chosen is Backend.ONNXRUNTIME or (chosen is Backend.AUTO and device == "cpu"):
        if cuda_graph:
            raise UsageError("CUDA graphs are for engines: pass backend='tensorrt' (or 'tensorrt-rtx') on a GPU")
        return onnxruntime_backend.open_chain(bundle, device, threads)
    index = 0 if device == "auto" else parse_device(device)
    if index is None:
        raise UsageError(f"{chosen.value} runs on a GPU; use auto or cuda:N, not {device}", "device")
    from .tensorrt.loader import OpenOptions, open_engines

    options = OpenOptions(cuda_graph, batch_limit)
    if chosen is Backend.AUTO:
        return _open_auto(bundle, device, index, threads, options)
    return open_engines(bundle, chosen, index, options)


def _open_auto(bundle: Bundle, device: str, index: int, threads: int | None, options: OpenOptions) -> Chain:
    """Take engines that match the device, else ONNX Runtime, and say in the description why not the engines."""
    from . import onnxruntime as onnxruntime_backend
    from .cuda_devices import cuda_device
    from .tensorrt.loader import matching_folder, open_engines

    found = cuda_device(index)
    reasons = []
    if found is not None:
        for backend in (Backend.TENSORRT, Backend.TENSORRT_RTX):
            if matching_folder(bundle, backend, found) is None:
                continue
            try:
                return open_engines(bundle, backend, index, options)
            except ShowfaceError as error:  # of the set-up, or while the engines were warmed up
                reasons.append(f"engines of {backend.value} not used: {error}")
        reasons = reasons or [f"no engines for {found.target} in the bundle"]
    try:
        chain = onnxruntime_backend.open_chain(bundle, device, threads)
    except UsageError as error:  # a kit of engines alone has no graphs to fall back to
        raise UsageError("; ".join([*reasons, error.text]), error.argument) from error
    if options.cuda_graph:
        reasons.append("without CUDA graphs, which only engines have")
    chain.description = "; ".join([chain.description, *reasons])
    return chain
