"""What starts a run from the command line: its config, its processes, its threads."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.fabric import Fabric

from .config import TrainConfig
from .config_reader import config_from_toml
from .process import make_fabric


def open_run(config: Path, device: str, devices: int, threads: int | None) -> tuple[TrainConfig, Fabric]:
    """Read a run's config and start Fabric for it.

    Args:
        config: TOML file of a :class:`TrainConfig`.
        device: ``cpu`` or ``cuda``.
        devices: processes, one a device.
        threads: CPU threads of each process; None takes all.

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
