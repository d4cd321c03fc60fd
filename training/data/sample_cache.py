"""Samples whose coarse face and category map were computed once: what the stage ``samples`` leaves.

The frozen coarse network and parser cost as much a sample as a step of the small refinement, and several runs
train on the same ones. The arrays lie in plain ``.npy`` files that are mapped into memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from showface.runtime.errors import ShowfaceError, UsageError, system_errors
from showface.runtime.untrusted.read import open_file, read_json

from ..config import TrainConfig
from ..run_files import write_whole
from .dataset import Batch, Stream, generator

RECORD_FILE = "samples.json"
ARRAYS: Mapping[str, tuple[int, ...]] = {  # of a sample; -1 is the side of the face
    "image": (3, -1, -1),
    "mask": (-1, -1),
    "coarse_image": (3, -1, -1),
    "semantic_map": (-1, -1),
    "photograph": (),
}


@dataclass(frozen=True, slots=True)
class Record:
    """What the arrays hold: how many samples so far, of how many, and the digests of the networks behind them."""

    count: int
    total: int
    size: int
    digests: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write it beside the arrays."""
        text = json.dumps({"count": self.count, "total": self.total, "size": self.size, "digests": dict(self.digests)})
        write_whole(folder / RECORD_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def read_record(folder: Path) -> Record:
    """Read the record of ``folder``.

    Raises:
        UsageError: it is missing or damaged.
    """
    path = folder / RECORD_FILE
    data = read_json(path, "a record of samples", "make them with: showface train samples")
    try:
        return Record(int(data["count"]), int(data["total"]), int(data["size"]), dict(data["digests"]))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UsageError(f"{path}: no record of samples: {error}; make them with: showface train samples") from error


def create_arrays(folder: Path, total: int, size: int) -> dict[str, NDArray[np.uint8]]:
    """Create the arrays of ``total`` samples in ``folder``, or open those that are there.

    Raises:
        UsageError: arrays are there, and of other samples.
        ShowfaceError: the disk has no room for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.uint8]] = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if path.exists():
            arrays[name] = _opened(path, _shape(name, total, size), "r+")
        else:
            arrays[name] = _created(path, _shape(name, total, size))
    return arrays


def _created(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Create an array with its place on the disk: a page of the mapping without one would end the process."""
    with system_errors(ShowfaceError, path, "cannot be written"):
        try:
            array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return array


def _shape(name: str, total: int, size: int) -> tuple[int, ...]:
    return (total, *(size if side < 0 else side for side in ARRAYS[name]))


def _opened(path: Path, shape: tuple[int, ...], mode: Literal["r", "r+"]) -> NDArray[np.uint8]:
    """Map an array of samples into memory.

    Raises:
        UsageError: it is missing, no array, or of other samples.
    """
    mend = f"remove {path.parent}, or choose another folder of samples"
    with open_file(path, UsageError):  # no FIFO, which the mapping would wait for
        pass
    try:
        array = np.lib.format.open_memmap(path, mode)
    except Exception as error:  # the parser of headers raises types of many kinds
        raise UsageError(f"{path}: no array of samples: {error}; {mend}") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise UsageError(f"{path}: holds other samples; {mend}")
    return array


@dataclass(frozen=True, slots=True)
class CacheFeed:
    """The samples of every step, drawn from the arrays by (seed, step, position)."""

    config: TrainConfig
    arrays: Mapping[str, NDArray[np.uint8]]
    count: int
    device: torch.device
    rank: int
    world: int

    def batches(self, start: int) -> Iterator[Batch]:
        """Return this process's share of the batch of each step from ``start`` to the last one, in order."""
        for step in range(start, self.config.steps):
            yield self.batch(step, self.config.phase_at(step).batch_size)

    def batch(self, step: int, size: int) -> Batch:
        """Return this process's share of a batch of ``size`` samples at ``step``."""
        share = size // self.world
        positions = range(self.rank * share, (self.rank + 1) * share)
        drawn = [int(generator(Stream.SAMPLE, self.config.seed, step, p).integers(self.count)) for p in positions]
        return self._read(drawn, tuple(positions))

    def _read(self, indices: Sequence[int], positions: tuple[int, ...]) -> Batch:
        found = {name: torch.from_numpy(array[np.asarray(indices)]) for name, array in self.arrays.items()}
        return Batch(
            image=found["image"],
            mask=found["mask"][:, None],
            labels=None,
            names=tuple(f"sample {index}" for index in indices),
            positions=positions,
            photograph=found["photograph"].bool().to(self.device),
            coarse_image=found["coarse_image"],
            semantic_map=found["semantic_map"],
        )


def open_samples(
    config: TrainConfig, folder: Path, digests: Mapping[str, str], device: torch.device, rank: int, world: int
) -> CacheFeed:
    """Open the samples that the stage ``samples`` left in ``folder``, for a run that trains on them on ``device``.

    ``digests`` are those of the frozen networks of the run, by name; the networks behind the samples must be the same.
    ``rank`` is this process's number of ``world``, which share each batch.

    Raises:
        UsageError: there are none, they are not complete, damaged, of another size or of other networks, or the config
            asks for an augmentation, which would part the faces from their coarse faces.
    """
    record = read_record(folder)
    if record.count < record.total:
        raise UsageError(f"{folder}: {record.count} of {record.total} samples are there; resume their run")
    if record.size != config.network.image_size:
        raise UsageError(f"{folder}: samples of {record.size}², but network.image_size is {config.network.image_size}")
    for name, digest in record.digests.items():
        if digests.get(name) != digest:
            raise UsageError(f"{folder}: made with another {name} than that in 'init'; make them anew")
    if any(getattr(config.augment, name) for name in type(config.augment).__slots__):
        raise UsageError("augment: samples were augmented when they were made; leave the table out")
    arrays = {name: _opened(folder / f"{name}.npy", _shape(name, record.total, record.size), "r") for name in ARRAYS}
    return CacheFeed(config, arrays, record.total, device, rank, world)
