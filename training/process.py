"""How a process of training starts, on one device or several, and how a signal stops it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, signal
from types import FrameType
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import Precision
from torch import nn
from torch.optim import Adam

from showface.runtime.errors import ShowfaceError, UsageError

from .config import TrainConfig
from .config_reader import config_from_toml

SOFTWARE_BF16 = ("DEFAULT", "AVX2")  # instruction sets without products of bfloat16

logger = logging.getLogger(__name__)


class Interrupted(ShowfaceError):  # noqa: N818 - not a fault
    """Training was stopped by a signal after its state was saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying from them."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    previous = {number: signal(number, remember) for number in (SIGTERM, SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal(number, handler)


class Bfloat16(Precision):
    """Products and features in bfloat16, weights and losses in float32.

    Fabric's own plugin for this rounds the faces to bfloat16 before a network sees them, widens all features that come
    out of it, and refuses ``torch.autograd.grad``, by which the adversary's weight is measured.
    """

    precision = "bf16-mixed"

    def __init__(self, device: str) -> None:
        self.device = device

    def forward_context(self) -> AbstractContextManager[Any]:
        """See :class:`Precision`."""
        return torch.autocast(self.device, torch.bfloat16)


def open_run(config: Path, device: str, devices: int, threads: int | None) -> tuple[TrainConfig, Fabric]:
    """Read the TOML file of a run's config and start Fabric for it; see :func:`use_threads` and :func:`make_fabric`.

    Raises:
        UsageError: the config is wrong, or the device is not to be had.
    """
    run = config_from_toml(TrainConfig, config)
    use_threads(threads)
    return run, make_fabric(device, devices, run.precision)


def use_threads(threads: int | None) -> None:
    """Let torch compute with so many threads; each process does so. None leaves it to torch."""
    if threads is not None:
        torch.set_num_threads(threads)


def make_fabric(device: str, devices: int, precision: str) -> Fabric:
    """Start Fabric on ``devices`` devices of the kind ``device``, or on what torchrun started.

    Raises:
        UsageError: CUDA was asked for and is not to be had.
    """
    if device not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r}: choose cpu or cuda", "device")
    if device == "cuda" and torch.cuda.device_count() < devices:
        found = torch.cuda.device_count()
        raise UsageError(f"{found} CUDA devices found, {devices} asked for; ask for fewer, or for cpu", "device")
    if precision == "bf16" and device == "cpu" and torch.backends.cpu.get_cpu_capability() in SOFTWARE_BF16:
        logger.warning('this CPU computes bfloat16 in software, which is slow; set precision = "fp32" in the config')
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=Bfloat16(device) if precision == "bf16" else None,
    )
    fabric.launch()
    if device == "cuda":  # all inputs of a phase have one size; float32 products may use TensorFloat-32
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return fabric


def make_adam(parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float], fabric: Fabric) -> Adam:
    """Return Adam, on a GPU as one kernel for all parameters."""
    return Adam(parameters, rate, betas, fused=fabric.device.type == "cuda")
