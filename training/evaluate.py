"""Measure an inpainting method on faces and masks, per bucket of hole ratio (paper's Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .data import image_files, read_face
from .metrics import l1_percent, psnr, ssim

BUCKETS = {"1-20": ("00-10", "10-20"), "20-40": ("20-30", "30-40"), "40-60": ("40-50", "50-60")}
SIZE = 256
BATCH = 8

Face = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # RGB [H, W, 3] and hole [H, W]
Method = Callable[[Sequence[Face]], Sequence[NDArray[np.uint8]]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over the images of one bucket."""

    l1_percent: float
    psnr: float
    ssim: float
    images: int


def paired_faces(images: Path, masks: Path, bucket: str) -> list[Face]:
    """Pair faces and masks: image k takes bin k mod 2, and in it mask k mod count, both by name."""
    bins = [image_files(masks / name) for name in BUCKETS[bucket]]
    faces = []
    for k, path in enumerate(image_files(images)):
        candidates = bins[k % len(bins)]
        mask = cv2.imread(str(candidates[k % len(candidates)]), cv2.IMREAD_GRAYSCALE)
        hole = cv2.resize(np.asarray(mask), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > 127
        faces.append((read_face(path, SIZE), hole))
    return faces


def evaluate(method: Method, images: Path, masks: Path) -> dict[str, Scores]:
    """Return the scores of ``method`` in each bucket.

    Args:
        method: completes a batch of faces.
        images: folder of photographs; resized to 256² by area.
        masks: folder of ratio bins (``00-10`` …), white = hole.
    """
    table = {}
    for bucket in BUCKETS:
        faces = paired_faces(images, masks, bucket)
        rows = []
        for start in range(0, len(faces), BATCH):
            batch = faces[start : start + BATCH]
            for (target, _), result in zip(batch, method(batch), strict=True):
                rows.append((l1_percent(result, target), psnr(result, target), ssim(result, target)))
        means = np.mean(rows, axis=0)
        table[bucket] = Scores(float(means[0]), float(means[1]), float(means[2]), len(rows))
    return table


def telea(batch: Sequence[Face]) -> list[NDArray[np.uint8]]:
    """Complete by OpenCV's fast marching (Telea 2004), radius 5: the baseline to beat."""
    return [np.asarray(cv2.inpaint(rgb, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA), np.uint8) for rgb, hole in batch]
