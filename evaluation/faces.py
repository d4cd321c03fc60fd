"""Faces with their masks, read from folders: the one reader of all that measures, compares and exports.

Quality is measured on whole photographs paired by buckets of hole ratio (:func:`pair_files`); parity and export take
the inputs of the networks (:func:`face_inputs`), paired by stem or spread over the bins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.batch.inputs import list_images
from showface.runtime.bundle import MANIFEST_FILE, default_bundle, open_bundle
from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.mask_picture import THRESHOLD, Hole
from showface.runtime.faces.masks import hole_of, mask_source
from showface.runtime.faces.tensors import FloatArray, prepare
from showface.runtime.images.codec import read_photo
from showface.training.data.masks import check_ratio
from showface.training.data.pictures import read_picture
from showface.training.data.sources import image_files, read_face

from .metrics import Rgb

BUCKETS = {"1-20": ("00-10", "10-20"), "20-40": ("20-30", "30-40"), "40-60": ("40-50", "50-60")}
BINS = tuple(name for names in BUCKETS.values() for name in names)
SIZE = 256
BATCH = 8
BIN = re.compile(r"\d+-\d+")  # a folder of masks of one range of hole ratios, in percent
FacePairs = tuple[NDArray[np.float32], NDArray[np.float32]]  # image [N, 3, H, W] in [-1, 1] and mask [N, 1, H, W]


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
        name: name of the image file.
        bucket: range of hole ratios, a key of ``BUCKETS``.
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
        raise UsageError(f"limit {limit}: at least one image is needed", "limit")
    files = needed_files(images, "a folder of aligned faces is needed", "images")[:limit]
    bins = [needed_files(masks / name, f"the bins {', '.join(BINS)} are needed", "masks") for name in BUCKETS[bucket]]
    found = [bins[k % len(bins)] for k in range(len(files))]
    return [Pair(path, found[k][k % len(found[k])], bucket) for k, path in enumerate(files)]


def needed_files(folder: Path, mend: str, argument: str) -> list[Path]:
    """Return the image files of a folder by name.

    Raises:
        UsageError: there is none, with ``mend`` and the argument that named the folder.
    """
    try:
        return image_files(folder)
    except UsageError as error:
        raise UsageError(f"{error}; {mend}", argument) from error


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
    mask = read_picture(path, cv2.IMREAD_GRAYSCALE)
    return np.asarray(cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST) > THRESHOLD)


def face_inputs(
    images: Path, masks: Path, image_size: int, limit: int | None = None
) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    """Read aligned faces one by one as the networks take them.

    Args:
        images: folder of faces, recursive.
        masks: one mask, a folder of masks of the same stems, or a folder of bins by hole ratio (``00-10`` …):
            then face k takes bin k mod their number, so that the faces spread over all ratios.
        image_size: H = W.
        limit: stop after so many; None takes all.

    Yields:
        The path relative to ``images``, ``image`` [3, H, W] in [-1, 1] and ``mask`` [1, H, W], 1 = hole.

    Raises:
        UsageError: images or masks are missing.
        InputError: a file cannot be read.
    """
    bins = mask_bins(masks)
    source = mask_source("file", masks)
    for index, listed in enumerate(list_images(images, masks)):
        if limit is not None and index >= limit:
            return
        if listed.error is not None:
            raise InputError(listed.error)
        name, photo = str(listed.source), read_photo(listed.source)
        if bins:
            row = bins[index % len(bins)]
            mask_path: Path | None = row[index // len(bins) % len(row)]
        else:
            mask_path = source.find(listed.relative)
        yield (
            listed.relative.as_posix(),
            *prepare(photo.pixels, hole_of(photo, source, mask_path, name), image_size, name),
        )


def mask_bins(masks: Path) -> list[list[Path]]:
    """Return the mask files of each bin by name; empty where ``masks`` is no folder of bins.

    Raises:
        UsageError: a bin is empty.
    """
    if not masks.is_dir():
        return []
    found = []
    for folder in sorted(p for p in masks.iterdir() if p.is_dir() and BIN.fullmatch(p.name)):
        files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
        if not files:
            raise UsageError(f"{folder}: an empty bin of masks; remove it or fill it")
        found.append(files)
    return found


def real_faces(images: Path | None, masks: Path | None, image_size: int) -> FacePairs:
    """Return inputs of the networks made of real faces: all of a folder, else the default bundle's golden inputs.

    Raises:
        UsageError: masks without images, or there is no default bundle, or it is of another image size.
        InputError: a file cannot be read.
    """
    if images is not None:
        if masks is None:
            raise UsageError("faces need masks; name them", "images")
        _, image, mask = zip(*face_inputs(images, masks, image_size), strict=True)
        return np.stack(image), np.stack(mask)
    if masks is not None:
        raise UsageError("masks need faces; name them", "masks")
    if not (default_bundle() / MANIFEST_FILE).is_file():
        raise UsageError("no default bundle to take golden inputs from; name faces and masks")
    default = open_bundle()
    if default.manifest.image_size != image_size:
        raise UsageError(
            f"the default bundle's golden inputs have side {default.manifest.image_size}, these networks take "
            f"{image_size}; name faces and masks"
        )
    golden = default.golden()
    return golden["image"], golden["mask"]
