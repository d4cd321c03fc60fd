"""Irregular masks in memory: folders of ratio bins with a stated polarity, or free-form ones."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError

from ..config import MaskConfig
from .freeform import draw_mask
from .sources import image_files

Masks = NDArray[np.uint8]  # [N, size, size], 1 = hole

BUCKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))  # hole ratios of drawn masks
TOLERANCE = 5  # percentage points by which a bin's mean hole ratio may lie outside its name


def read_masks(config: MaskConfig, data: Path, size: int, seed: int) -> Masks:
    """Return all masks as [N, size, size], 1 = hole.

    Args:
        config: where the masks come from; the folder is relative to ``data``.
        data: the data folder.
        size: side; files are resized by nearest neighbour.
        seed: decides the drawn masks; mask k depends on the seed and k alone.

    Raises:
        UsageError: a folder is missing or no ratio bin, a file is unreadable, or a bin's mean hole
            ratio contradicts its name, as with the opposite polarity.
    """
    if config.folder is None:
        return _drawn(config.drawn, size, seed)
    folder = data / config.folder
    bins = sorted(p for p in folder.glob("*") if p.is_dir())
    if not bins:
        raise UsageError(f"{folder}: no ratio bins (folders like 20-30) found; check --data and the key masks.folder")
    for path in bins:
        bin_limits(path)
    return np.concatenate([_read_bin(path, config, size) for path in bins])


def _drawn(count: int, size: int, seed: int) -> Masks:
    if count < 1:
        raise UsageError(f"masks.drawn = {count}: at least one mask is needed where masks.folder is not given")
    masks = np.empty((count, size, size), np.uint8)
    for k in range(count):
        masks[k] = draw_mask(np.random.default_rng((seed, k)), size, *BUCKETS[k % len(BUCKETS)])
    return masks


def bin_limits(folder: Path) -> tuple[int, int]:
    """Return the least and the greatest hole ratio in percent that a bin's name promises.

    Raises:
        UsageError: it is not named so.
    """
    match = re.fullmatch(r"(\d+)-(\d+)", folder.name)
    low, high = (int(part) for part in match.groups()) if match else (0, 0)
    if not 0 <= low < high <= 100:
        raise UsageError(
            f"{folder}: a ratio bin is named by two percentages, such as 20-30; remove it or mend masks.folder"
        )
    return low, high


def check_ratio(folder: Path, holes: int, pixels: int, mend: str) -> None:
    """Refuse a bin whose name contradicts its masks, as with the opposite polarity.

    Args:
        folder: of the bin.
        holes: pixels of its masks that are hole.
        pixels: of its masks in all.
        mend: end of the message.

    Raises:
        UsageError: the ratio lies outside the name's limits by more than the tolerance.
    """
    low, high = bin_limits(folder)
    if not (low - TOLERANCE) * pixels <= 100 * holes <= (high + TOLERANCE) * pixels:
        raise UsageError(f"{folder}: the mean hole ratio {holes / pixels:.2f} contradicts the name; {mend}")


def _read_bin(folder: Path, config: MaskConfig, size: int) -> Masks:
    masks = np.asarray([_read_mask(path, config, size) for path in image_files(folder)])
    mend = f"masks.hole = {config.hole!r}: set it to the other colour, or mend the folder's name"
    check_ratio(folder, int(masks.sum(dtype=np.int64)), masks.size, mend)
    return masks


def _read_mask(path: Path, config: MaskConfig, size: int) -> NDArray[np.uint8]:
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise UsageError(f"{path}: not a readable mask")
    gray = cv2.resize(gray, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(gray > 127 if config.hole == "white" else gray <= 127, np.uint8)
