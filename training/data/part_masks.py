"""Masks that hide whole facial parts, by the label maps of aligned faces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from .labels import LabelMap, read_label_map

# What people hide or lose together; each group is one mask.
GROUPS = (
    ("eye", "brow", "eyeglasses"),
    ("eye",),
    ("nose",),
    ("mouth", "upper_lip", "lower_lip"),
    ("nose", "mouth", "upper_lip", "lower_lip"),
    ("skin", "nose", "eye", "brow", "mouth", "upper_lip", "lower_lip"),
    ("hair", "hat"),
)
REACH = (0.01, 0.06)  # of the side, by which a part is widened
LEAST = 0.002  # share of the face; a smaller part is left out


def part_masks(folder: Path, size: int, seed: int) -> NDArray[np.uint8]:
    """Return a mask [N, size, size], 1 = hole, of one group of parts of each label map that shows it.

    Args:
        folder: label maps of aligned faces, as PNG files with CelebAMask-HQ's 19 labels.
        size: side of the masks.
        seed: decides group and reach of map k together with k.

    Raises:
        UsageError: the folder holds no label maps that show a part, or one of them is unreadable.
    """
    masks = []
    for k, path in enumerate(sorted(folder.glob("*.png"))):
        rng = np.random.default_rng((seed, 3, k))
        mask = draw_part(rng, read_label_map(path, size))
        if mask.mean() >= LEAST:
            masks.append(mask)
    if not masks:
        mend = "check the data folder and the key masks.part_labels"
        raise UsageError(f"{folder}: no label map that shows a facial part; {mend}", "data")
    return np.asarray(masks)


def draw_part(rng: np.random.Generator, labels: LabelMap) -> NDArray[np.uint8]:
    """Return the region [H, W] of a random group of parts of ``labels`` [H, W], widened at random; 1 = hole."""
    group = GROUPS[rng.integers(len(GROUPS))]
    region = np.isin(labels, [CATEGORIES.index(name) for name in group]).astype(np.uint8)
    reach = max(1, round(rng.uniform(*REACH) * len(labels)))
    return np.asarray(cv2.dilate(region, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)), np.uint8)
