"""Choose the backend that runs a bundle."""

from __future__ import annotations

from enum import StrEnum

from .bundle import Bundle
from .session import Chain


class Backend(StrEnum):
    """Inference backends."""

    AUTO = "auto"
    ONNXRUNTIME = "onnxruntime"


def open_chain(bundle: Bundle, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Chain:
    """Load all stages of ``bundle``.

    Args:
        bundle: where the models are.
        backend: a value of :class:`Backend`.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: for the CPU.

    Raises:
        ValueError: no such backend.
        UsageError: a stage cannot be loaded on the backend and the device that were asked for.
    """
    from . import onnxruntime_backend  # the libraries of a backend load when it is used

    Backend(backend)
    return onnxruntime_backend.open_chain(bundle, device, threads)
