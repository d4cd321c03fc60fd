"""Masks in memory: folders of ratio bins with a stated polarity, drawn ones, and whole facial parts."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError

from ..config import MaskConfig
from .freeform import draw_mask, draw_surround
from .part_masks import part_masks
from .pictures import read_picture
from .sources import image_files

Masks = NDArray[np.uint8]  # [N, size, size], 1 = hole

HOLE_RATIOS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))  # hole ratios of drawn masks
LARGE = (0.3, 0.95)  # hole ratios of the kind ``strokes``
SURROUND = (0.6, 0.98)  # of the kind ``borders``
KIND_STREAMS = {"strokes": 1, "borders": 2}  # no two kinds share their random numbers
TOLERANCE = 5  # percentage points by which a bin's mean hole ratio may lie outside its name


@dataclass(frozen=True, slots=True)
class MaskBank:
    """All masks of a run.

    Attributes:
        masks: [N, size, size] uint8, 1 = hole.
        shares: [N], cumulated probability of each mask, up to 1.
        turned: [N], whether a mask may be turned and mirrored; a facial part may not.
    """

    masks: Masks
    shares: NDArray[np.float64]
    turned: NDArray[np.bool_]


def read_masks(config: MaskConfig, data: Path, size: int, seed: int) -> MaskBank:
    """Return all masks.

    Args:
        config: where the masks come from; folders are relative to ``data``.
        data: the data folder.
        size: side; files are resized by nearest neighbour.
        seed: decides the drawn masks; mask k of a kind depends on the seed and k alone.

    Raises:
        UsageError: a folder is missing or no ratio bin, a file is unreadable, a bin's mean hole
            ratio contradicts its name, as with the opposite polarity, or no kind has a share.
    """
    if config.drawn < 1:
        raise UsageError(f"masks.drawn = {config.drawn}: at least one mask of each drawn kind is needed")
    shares = {kind: share for kind, share in asdict(config.shares).items() if share}
    if not shares or min(shares.values()) < 0:
        raise UsageError(
            f"masks.shares: {asdict(config.shares)}: give at least one kind a positive share, none below 0"
        )
    kinds = {kind: _of_kind(kind, config, data, size, seed) for kind in shares}
    probability = [np.full(len(kinds[kind]), share / len(kinds[kind])) for kind, share in shares.items()]
    cumulated = np.cumsum(np.concatenate(probability))
    turned = np.concatenate([np.full(len(masks), kind != "parts") for kind, masks in kinds.items()])
    return MaskBank(np.concatenate(list(kinds.values())), cumulated / cumulated[-1], turned)


def _of_kind(kind: str, config: MaskConfig, data: Path, size: int, seed: int) -> Masks:
    """Read or draw all masks of one kind of ``MaskShares``."""
    if kind == "strokes":
        return np.asarray([draw_mask(_rng(seed, kind, k), size, *LARGE) for k in range(config.drawn)], np.uint8)
    if kind == "borders":
        return np.asarray([draw_surround(_rng(seed, kind, k), size, *SURROUND) for k in range(config.drawn)], np.uint8)
    if kind == "parts":
        if config.part_labels is None:
            raise UsageError("masks.part_labels: masks of facial parts need a folder of label maps")
        return part_masks(data / config.part_labels, size, seed)
    return _drawn(config.drawn, size, seed) if config.folder is None else _files(config, data, size)


def _rng(seed: int, kind: str, k: int) -> np.random.Generator:
    return np.random.default_rng((seed, KIND_STREAMS[kind], k))


def _files(config: MaskConfig, data: Path, size: int) -> Masks:
    assert config.folder is not None
    folder = data / config.folder
    bins = sorted(p for p in folder.glob("*") if p.is_dir())
    if not bins:
        mend = "check the data folder and the key masks.folder"
        raise UsageError(f"{folder}: no ratio bins (folders like 20-30) found; {mend}", "data")
    for path in bins:
        bin_limits(path)
    return np.concatenate([_read_bin(path, config, size) for path in bins])


def _drawn(count: int, size: int, seed: int) -> Masks:
    masks = np.empty((count, size, size), np.uint8)
    for k in range(count):
        masks[k] = draw_mask(np.random.default_rng((seed, k)), size, *HOLE_RATIOS[k % len(HOLE_RATIOS)])
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
    gray = cv2.resize(read_picture(path, cv2.IMREAD_GRAYSCALE), (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(gray > 127 if config.hole == "white" else gray <= 127, np.uint8)
