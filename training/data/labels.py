"""Face parsing labels: the 19 classes of CelebAMask-HQ as the paper's 14 categories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from .pictures import read_picture

LabelMap = NDArray[np.uint8]  # [size, size], index into CATEGORIES

# CelebAMask-HQ's 19 labels to the paper's 14: left and right brow, eye and ear merge, an earring
# joins the ear and a necklace the neck.
CELEBAMASK_TO_CATEGORY = (0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 11, 6, 12, 12, 13)

# The files of one face, in the order in which CelebAMask-HQ's own g_mask.py paints them one over the
# other: part k is label k + 1.
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip

RARE_CATEGORIES = (CATEGORIES.index("eyeglasses"), CATEGORIES.index("hat"))
RARE_WEIGHT = 4.0  # how much more often a face with a rare category is drawn to train the parser


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Where the labels of one face lie.

    Attributes:
        path: the label map; with ``parts`` what the names of the part masks begin with, such as
            ``CelebAMask-HQ-mask-anno/0/00012``.
        parts: the labels come as one mask a part.
    """

    path: Path
    parts: bool = False


def read_labels(file: LabelFile, size: int) -> LabelMap:
    """Read the labels of one face as categories [size, size].

    Raises:
        UsageError: as :func:`read_label_map` and :func:`read_part_labels`.
    """
    return read_part_labels(file.path, size) if file.parts else read_label_map(file.path, size)


def read_label_map(path: Path, size: int) -> LabelMap:
    """Read a CelebAMask-HQ label map as categories [size, size], resized by nearest neighbour.

    Raises:
        UsageError: the file is missing or holds a label outside 0-18; the message names it.
    """
    labels = read_picture(path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2:
        raise UsageError(f"{path}: has {labels.shape[2]} channels, and a label map has one; save it as gray")
    if labels.max() >= len(CELEBAMASK_TO_CATEGORY):
        raise UsageError(f"{path}: label {labels.max()} is outside 0-{len(CELEBAMASK_TO_CATEGORY) - 1}")
    return _categories(np.asarray(labels, np.uint8), size)


def read_part_labels(stem: Path, size: int) -> LabelMap:
    """Compose the part masks ``<stem>_<part>.png`` as categories [size, size], resized by nearest neighbour.

    A part that the face does not show has no file. Of two parts that overlap the later one of
    ``PARTS`` wins.

    Raises:
        UsageError: there is no part at all, or a file is unreadable or of another size than the others.
    """
    labels: NDArray[np.uint8] | None = None
    for label, part in enumerate(PARTS, start=1):
        path = stem.with_name(f"{stem.name}_{part}.png")
        if not path.exists():
            continue
        mask = read_picture(path, cv2.IMREAD_GRAYSCALE)
        if labels is None:
            labels = np.zeros(mask.shape[:2], np.uint8)
        if mask.shape != labels.shape:
            raise UsageError(f"{path}: {mask.shape[1]}×{mask.shape[0]}, unlike the other parts of the face")
        labels[mask > 0] = label
    if labels is None:
        raise UsageError(f"{stem}_*.png: no mask of any part")
    return _categories(labels, size)


def shows_rare_category(labels: LabelMap) -> bool:
    """Tell whether a face has eyeglasses or a hat."""
    return bool(np.isin(RARE_CATEGORIES, labels).any())


def _categories(labels: NDArray[np.uint8], size: int) -> LabelMap:
    resized = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(CELEBAMASK_TO_CATEGORY, np.uint8)[resized]
