"""Batches that depend on the seed, the step and the position alone, from memory or from disk.

Which face and which mask stand at a position of a step's global batch is drawn from (seed, step,
position). So a resumed run sees what an uninterrupted one would have seen, and neither the number
of workers nor that of processes changes a sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from showface.runtime.errors import UsageError

from ..config import TrainConfig
from .labels import RARE_WEIGHT
from .masks import MaskBank, read_masks
from .readers import DiskFaces, FaceReader, FaceTensors, MemoryFaces
from .sources import FaceFiles, face_probability, open_sources


class Stream(IntEnum):
    """What a generator is for; no two purposes share their random numbers."""

    SAMPLE = 1
    HELD_OUT = 2
    AUGMENT = 3
    CROP = 4
    HELD_OUT_MASKS = 5
    OCCLUSION = 6
    HELD_OUT_OCCLUSION = 7


def generator(stream: Stream, *key: int) -> np.random.Generator:
    """Return the generator of ``stream`` for a key such as (seed, step, position)."""
    return np.random.default_rng((int(stream), *key))


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch, or one process's share of it."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    mask: Tensor  # [B, 1, H, W] uint8, 1 = hole
    labels: Tensor | None  # [B, H, W] uint8, index into CATEGORIES
    names: tuple[str, ...]  # of the faces' files
    positions: tuple[int, ...]  # in the global batch
    photograph: Tensor  # [B] bool, what a camera saw
    coarse_image: Tensor | None = None  # [B, 3, H, W] uint8, where it was computed before
    semantic_map: Tensor | None = None  # [B, H, W] uint8, of the coarse face


@dataclass(frozen=True, slots=True)
class Draw:
    """What one sample consists of: a face, and a mask turned by quarters and perhaps mirrored."""

    image: int
    mask: int
    turns: int
    mirrored: bool


def draw(rng: np.random.Generator, shares: NDArray[np.float64], bank: MaskBank) -> Draw:
    """Draw one sample.

    Args:
        rng: decides it.
        shares: cumulated probability of each face, up to 1.
        bank: the masks; one that may not be turned is taken as it is.
    """
    image, mask = (int(np.searchsorted(s, rng.random(), side="right")) for s in (shares, bank.shares))
    turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
    return Draw(image, mask, turns, mirrored) if bank.turned[mask] else Draw(image, mask, 0, False)


@dataclass(frozen=True, slots=True)
class Feed:
    """The samples of every step; see :func:`open_feed`."""

    config: TrainConfig
    name_of: Callable[[int], object]  # names a face by its number
    faces: FaceReader
    photographs: Tensor  # [F] bool
    shares: NDArray[np.float64]  # cumulated probability of each face, up to 1
    bank: MaskBank
    masks: Tensor  # [M, H, W] uint8, 1 = hole: those of the bank, on the device
    rank: int
    world: int

    def batches(self, start: int) -> Iterator[Batch]:
        """Return this process's share of the batch of each step from ``start`` to the last one, in order.

        Raises:
            UsageError: a face cannot be decoded; the message names the file.
        """
        steps = range(start, self.config.steps)
        plans, ahead = itertools.tee(self._plan(step, self.config.phase_at(step).batch_size) for step in steps)
        indices = ([d.image for d in plan.values()] for plan in ahead)
        for plan, faces in zip(plans, self.faces.stream(indices), strict=True):
            yield self._batch(plan, faces)

    def batch(self, step: int, size: int) -> Batch:
        """Return this process's share of a batch of ``size`` samples at ``step``.

        Raises:
            UsageError: ``size`` is no multiple of the number of processes, or a face cannot be decoded.
        """
        plan = self._plan(step, size)
        return self._batch(plan, self.faces.read([d.image for d in plan.values()]))

    def every_face(self, size: int) -> Iterator[Batch]:
        """Return each face once, in batches of at most ``size`` on this process; the same ones every time.

        Every process sees equally many: of F faces on W processes the last F mod W are left out.
        ``positions`` number the faces.
        """
        count = len(self.photographs) // self.world
        mine = range(self.rank * count, (self.rank + 1) * count)
        for start in range(0, count, size):
            plan = {}
            for k in mine[start : start + size]:
                drawn = draw(generator(Stream.HELD_OUT, self.config.seed, k), self.shares, self.bank)
                plan[k] = replace(drawn, image=k)
            yield self._batch(plan, self.faces.read(list(plan)))

    def _plan(self, step: int, size: int) -> dict[int, Draw]:
        """Return the draws of this process at ``step`` by position."""
        share = checked_share(size, self.world, f"a batch of {size} faces")
        seed = self.config.seed
        positions = range(self.rank * share, (self.rank + 1) * share)
        return {p: draw(generator(Stream.SAMPLE, seed, step, p), self.shares, self.bank) for p in positions}

    def _batch(self, plan: dict[int, Draw], faces: FaceTensors) -> Batch:
        masks = torch.stack([_turn(self.masks[d.mask], d) for d in plan.values()])
        names = tuple(str(self.name_of(d.image)) for d in plan.values())
        photograph = self.photographs[torch.tensor([d.image for d in plan.values()], device=self.photographs.device)]
        return Batch(faces[0], masks[:, None], faces[1], names, tuple(plan), photograph)


def _turn(mask: Tensor, drawn: Draw) -> Tensor:
    turned = torch.rot90(mask, drawn.turns)
    return turned.flip(1) if drawn.mirrored else turned


def checked_share(size: int, world: int, what: str) -> int:
    """Return how much of a batch of ``size`` each of ``world`` processes takes.

    Raises:
        UsageError: it is not the same for all of them; ``what`` names the batch.
    """
    if size % world:
        raise UsageError(f"{what} cannot be divided among {world} processes; use a multiple of {world}")
    return size // world


def open_feed(
    config: TrainConfig,
    data: Path,
    with_labels: bool,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    held_out: bool = False,
) -> Feed:
    """Open the faces and masks of a run.

    Masks lie on ``device`` as uint8. So do the faces in memory mode; in disk mode workers decode them
    and the batches' images lie on the host, pinned where ``device`` is a CUDA GPU.

    With labels, faces with eyeglasses or a hat are drawn ``RARE_WEIGHT`` times as often in memory
    mode. In disk mode that would need all labels to be read first: there all faces of a source weigh
    the same.

    Args:
        config: the run.
        data: the data folder.
        with_labels: give label maps too.
        device: where the run trains.
        rank: this process's number.
        world: how many processes share each batch.
        held_out: open exactly the faces that ``config.validation`` keeps from training, at most
            ``validation.faces`` of them; they are few, weigh the same and are always held in memory.

    Raises:
        UsageError: files are missing or wrong, nothing is left to train on, or a batch cannot be
            divided among the processes; the message names the file or key.
    """
    for key, value in (("seed", config.seed), ("feed.workers", config.feed.workers)):
        if value < 0:
            raise UsageError(f"{key} = {value}: must not be negative")
    for name, phase in config.phases.items():
        checked_share(phase.batch_size, world, f"phases.{name}.batch_size = {phase.batch_size}")
    sources = open_sources(config, data, with_labels, held_out)
    files = FaceFiles(
        tuple(path for source in sources.values() for path in source.images),
        tuple(label for source in sources.values() for label in source.labels or ()) if with_labels else None,
    )
    count, size, workers = len(files.images), config.network.image_size, config.feed.workers
    if held_out and count < world:
        raise UsageError(f"validation: {count} held-out faces are fewer than the {world} processes; raise 'faces'")
    bank = read_masks(config.masks, data, size, config.seed)
    faces: MemoryFaces | DiskFaces
    if held_out or config.feed.mode == "memory":
        faces = MemoryFaces(files, size, workers, device)
    else:
        faces = DiskFaces(files, size, workers, device.type == "cuda")
    if held_out:
        probability = np.full(count, 1 / count)
        assert config.validation is not None  # `open_sources` checked
        chosen = _within(bank, config.validation.hole_ratio)
        bank = _some_masks(chosen, count, generator(Stream.HELD_OUT_MASKS, config.seed))
    else:
        rare = faces.rare if isinstance(faces, MemoryFaces) else np.zeros(count, np.bool_)
        parts = {name: (config.sources[name].weight, len(source.images)) for name, source in sources.items()}
        probability = face_probability(parts, np.where(rare, RARE_WEIGHT, 1.0))
    cumulated = np.cumsum(probability)
    shares = cumulated / cumulated[-1]  # ends in 1 exactly
    photographs = np.concatenate(
        [np.full(len(source.images), config.sources[name].photographs) for name, source in sources.items()]
    )
    seen = torch.from_numpy(photographs).to(device)
    masks = torch.from_numpy(bank.masks).to(device)
    return Feed(config, files.images.__getitem__, faces, seen, shares, bank, masks, rank, world)


def _within(bank: MaskBank, ratio: tuple[float, ...]) -> MaskBank:
    """Return the masks of ``bank`` whose hole ratio lies between the two of ``ratio``."""
    if len(ratio) != 2 or not 0 <= ratio[0] < ratio[1] <= 1:
        raise UsageError(f"validation.hole_ratio = {list(ratio)}: give the least and the greatest ratio, from 0 to 1")
    ratios = bank.masks.mean(axis=(1, 2))
    kept = (ratio[0] <= ratios) & (ratios <= ratio[1])
    if not kept.any():
        raise UsageError(f"validation.hole_ratio = {list(ratio)}: no mask has such a hole; widen it")
    probability = np.diff(bank.shares, prepend=0.0)[kept]
    return MaskBank(bank.masks[kept], np.cumsum(probability) / probability.sum(), bank.turned[kept])


def _some_masks(bank: MaskBank, count: int, rng: np.random.Generator) -> MaskBank:
    """Return ``count`` masks of ``bank`` at most, each drawn by its share."""
    chosen = np.searchsorted(bank.shares, rng.random(count), side="right")
    return MaskBank(bank.masks[chosen], np.arange(1, len(chosen) + 1) / len(chosen), bank.turned[chosen])
