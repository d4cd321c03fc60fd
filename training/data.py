"""Faces, labels and masks held in memory as uint8, and deterministic batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from .config import SourceConfig, TrainConfig

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

# CelebAMask-HQ's 19 labels to the paper's 14: left and right brow, eye and ear merge, an earring
# joins the ear and a necklace the neck.
CELEBAMASK_TO_CATEGORY = (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 6, 12, 12, 13)
RARE_CATEGORIES = (CATEGORIES.index("eyeglasses"), CATEGORIES.index("hat"))
RARE_WEIGHT = 4.0  # how much more often a face with a rare category is drawn to train the parser


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; ``names`` are the files it came from."""

    image: Tensor  # [B, 3, H, W] uint8, RGB
    mask: Tensor  # [B, 1, H, W] uint8, 1 = hole
    labels: Tensor | None  # [B, H, W] uint8, index into CATEGORIES
    names: tuple[str, ...]


def image_files(folder: Path) -> list[Path]:
    """Return the image files of ``folder`` sorted by name.

    Raises:
        UsageError: the folder is missing or holds no image.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []
    if not files:
        raise UsageError(f"{folder}: no images found; check --data and the paths in the config")
    return files


def read_face(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a photograph as RGB [size, size, 3], resized by area."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UsageError(f"{path}: not a readable image")
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a CelebAMask-HQ label map as categories [size, size], resized by nearest neighbour.

    Raises:
        UsageError: the file is missing or holds a label outside 0-18; the message names it.
    """
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2:
        raise UsageError(f"{path}: no readable single-channel label map")
    if labels.max() >= len(CELEBAMASK_TO_CATEGORY):
        raise UsageError(f"{path}: label {labels.max()} is outside 0-{len(CELEBAMASK_TO_CATEGORY) - 1}")
    labels = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(CELEBAMASK_TO_CATEGORY, np.uint8)[labels]


def read_masks(folder: Path, size: int) -> NDArray[np.uint8]:
    """Read a folder of ratio bins (``20-30`` …) as [N, size, size], 1 = hole, white in the files.

    Raises:
        UsageError: a bin's mean hole ratio contradicts its name, as with the opposite polarity.
    """
    masks = []
    for bin_folder in sorted(p for p in folder.glob("*-*") if p.is_dir()):
        low, high = (int(part) / 100 for part in bin_folder.name.split("-"))
        read = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in image_files(bin_folder)]
        resized = [cv2.resize(m, (size, size), interpolation=cv2.INTER_NEAREST) > 127 for m in read if m is not None]
        ratio = float(np.mean(resized))
        if not low - 0.05 <= ratio <= high + 0.05:
            raise UsageError(f"{bin_folder}: mean hole ratio {ratio:.2f} contradicts the name; white must be the hole")
        masks.append(np.asarray(resized, np.uint8))
    if not masks:
        raise UsageError(f"{folder}: no ratio bins (folders like 20-30) found")
    return np.concatenate(masks)


class MemoryDataset:
    """A training set in memory that returns the batch of any step.

    A batch depends on the seed and the step alone, so that a resumed run sees what an uninterrupted
    one would have seen.
    """

    def __init__(self, config: TrainConfig, data: Path, with_labels: bool) -> None:
        self.seed, size = config.seed, config.network.image_size
        self.files: list[Path] = []
        images, labels, weights = [], [], []
        for source in config.sources.values():
            files = self._files(source, data, config.holdout_every if with_labels else None)
            images.extend(read_face(p, size) for p in files)
            share = np.ones(len(files))
            if with_labels:
                if source.labels is None:
                    raise UsageError(f"source {source.images}: the parser needs labels; add the key 'labels'")
                found = [read_labels(data / source.labels / f"{p.stem}.png", size) for p in files]
                share = np.asarray([RARE_WEIGHT if np.isin(RARE_CATEGORIES, m).any() else 1.0 for m in found])
                labels.extend(found)
            weights.append(source.weight * share / share.sum())
            self.files.extend(files)
        self.images = np.stack(images)
        self.labels = np.stack(labels) if with_labels else None
        self.probability = np.concatenate(weights) / sum(w.sum() for w in weights)
        self.masks = np.packbits(read_masks(data / config.masks, size), axis=2)

    @staticmethod
    def _files(source: SourceConfig, data: Path, holdout_every: int | None) -> list[Path]:
        files = image_files(data / source.images)
        return [p for i, p in enumerate(files) if holdout_every is None or i % holdout_every]

    def batch(self, step: int, size: int) -> Batch:
        """Return the ``size`` samples of ``step``."""
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.choice(len(self.images), size, p=self.probability)
        masks = np.unpackbits(self.masks[rng.integers(len(self.masks), size=size)], axis=2)
        return Batch(
            torch.from_numpy(self.images[chosen]).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack([_turn(m, rng) for m in masks]))[:, None],
            None if self.labels is None else torch.from_numpy(self.labels[chosen]),
            tuple(str(self.files[i]) for i in chosen),
        )


def _turn(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn and flip a mask at random."""
    turned = np.rot90(mask, rng.integers(4))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def holdout_files(images: Path, every: int) -> Sequence[Path]:
    """Return the labelled files that ``holdout_every`` keeps from the parser's training."""
    return image_files(images)[::every]
