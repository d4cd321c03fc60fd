"""Faces paired with masks for evaluation, the same pairs for every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.faces.masks import THRESHOLD, Hole
from showface.training.data.masks import check_ratio
from showface.training.data.sources import image_files, read_face

from .metrics import Rgb

BUCKETS = {"1-20": ("00-10", "10-20"), "20-40": ("20-30", "30-40"), "40-60": ("40-50", "50-60")}
BINS = tuple(name for names in BUCKETS.values() for name in names)
SIZE = 256
BATCH = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of one face to complete."""

    image: Path
    mask: Path
    bucket: str


@dataclass(frozen=True, slots=True)
class Face:
    """One face to complete.

    Attributes:
        name: of the image file.
        bucket: of hole ratios, a key of ``BUCKETS``.
        rgb: the whole face [256, 256, 3].
        hole: [256, 256], True = to be completed.
    """

    name: str
    bucket: str
    rgb: Rgb
    hole: Hole


def pair_files(images: Path, masks: Path, bucket: str, limit: int | None = None) -> list[Pair]:
    """Pair faces and masks: image k takes bin k mod 2, and in it mask k mod count, both by name.

    Args:
        images: folder of photographs.
        masks: folder of ratio bins (``00-10`` …).
        bucket: key of ``BUCKETS``.
        limit: take the first so many images; None takes all.

    Raises:
        UsageError: there are no images, a bin is missing or empty, or ``limit`` is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: at least one image is needed")
    files = _files(images, "--images needs a folder of aligned faces")[:limit]
    bins = [_files(masks / name, f"--masks needs the bins {', '.join(BINS)}") for name in BUCKETS[bucket]]
    found = [bins[k % len(bins)] for k in range(len(files))]
    return [Pair(path, found[k][k % len(found[k])], bucket) for k, path in enumerate(files)]


def _files(folder: Path, mend: str) -> list[Path]:
    try:
        return image_files(folder)
    except UsageError as error:
        raise UsageError(f"{folder}: no such folder, or no images in it; {mend}") from error


def read_pair(pair: Pair) -> Face:
    """Read a face, resized to 256² by area, and its hole, by nearest neighbour; white is the hole.

    Raises:
        UsageError: a file cannot be read; the message names it.
    """
    return Face(pair.image.name, pair.bucket, read_face(pair.image, SIZE), _read_hole(pair.mask))


def read_batches(pairs: Sequence[Pair]) -> Iterator[list[Face]]:
    """Read the faces batch by batch; see :func:`read_pair`."""
    for start in range(0, len(pairs), BATCH):
        yield [read_pair(pair) for pair in pairs[start : start + BATCH]]


def check_masks(pairs: Sequence[Pair]) -> None:
    """Read every mask once, before anything expensive is done.

    Raises:
        UsageError: a mask cannot be read, or the mean hole ratio of a bin contradicts its name, as
            with the opposite polarity.
    """
    for folder in sorted({pair.mask.parent for pair in pairs}):
        files = {pair.mask for pair in pairs if pair.mask.parent == folder}
        holes = sum(int(_read_hole(path).sum()) for path in files)
        check_ratio(folder, holes, len(files) * SIZE**2, "white must be the hole")


def _read_hole(path: Path) -> NDArray[np.bool_]:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise UsageError(f"{path}: not a readable mask; replace the file")
    return np.asarray(cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > THRESHOLD)
