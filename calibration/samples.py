"""Which faces and masks a calibration uses: spread evenly over the buckets of hole ratio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from showface.evaluation.faces import BINS, BUCKETS, SIZE, Pair, needed_files, pair_files, read_pair
from showface.runtime.errors import UsageError, system_errors
from showface.runtime.faces.masks import mask_source
from showface.runtime.images.codec import SUFFIXES
from showface.training.data.sources import read_face

MIN_FACES = 6  # a range over fewer faces says little of the next one
MIN_CHECKED = 3  # one a bucket
MIN_CONTRAST = 2.0  # grey levels; the standard deviation of a picture that shows something


@dataclass(frozen=True, slots=True)
class Samples:
    """The pairs that set the ranges, and others that judge the result; no face is in both."""

    calibration: tuple[Pair, ...]
    check: tuple[Pair, ...]

    def digest(self) -> str:
        """Return the SHA-256 of all files in their order, with what separates the two sets."""
        total = hashlib.sha256()
        for pairs in (self.calibration, self.check):
            total.update(b"set")
            for pair in pairs:
                for path in (pair.image, pair.mask):
                    with system_errors(UsageError, path, "cannot be read"):
                        total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


def choose_samples(images: Path, masks: Path, faces: int, checked: int) -> Samples:
    """Pair images with masks and split them: at most ``faces`` set the ranges, ``checked``, the last by name, judge.

    The images are aligned faces, the masks ratio bins (``00-10`` …), paired as ``showface evaluate`` does, or masks of
    the images' stems.

    Raises:
        UsageError: images or masks are missing or too few.
    """
    binned = any((masks / name).is_dir() for name in BINS)
    pairs = _binned_pairs(images, masks) if binned else _pairs_by_stem(images, masks)
    needed = MIN_FACES + MIN_CHECKED
    if len(pairs) < needed:
        raise UsageError(f"{images}: {len(pairs)} faces are too few to calibrate with; give at least {needed}")
    checked = max(MIN_CHECKED, min(checked, len(pairs) // 4))
    rest = pairs[: len(pairs) - checked]
    return Samples(tuple(_spread(rest, min(faces, len(rest)))), tuple(pairs[len(rest) :]))


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Take ``count`` pairs: the buckets in turn, and in each evenly over the folder."""
    by_bucket = [[pair for pair in pairs if pair.bucket == bucket] for bucket in BUCKETS]
    by_bucket = [found for found in by_bucket if found]
    shares = [0] * len(by_bucket)
    turn = 0
    while sum(shares) < count:
        if shares[turn % len(shares)] < len(by_bucket[turn % len(shares)]):
            shares[turn % len(shares)] += 1
        turn += 1
    return [
        found[k * len(found) // share] for found, share in zip(by_bucket, shares, strict=True) for k in range(share)
    ]


def _binned_pairs(images: Path, masks: Path) -> list[Pair]:
    by_bucket = [pair_files(images, masks, bucket) for bucket in BUCKETS]
    return [by_bucket[k % len(by_bucket)][k] for k in range(len(by_bucket[0]))]


def _pairs_by_stem(images: Path, masks: Path) -> list[Pair]:
    source = mask_source("file", masks)
    pairs = []
    for image in needed_files(images, "a folder of aligned faces is needed", "images"):
        if image.suffix.lower() not in SUFFIXES:
            continue
        mask = source.find(Path(image.name))
        if mask is not None:
            pair = Pair(image, mask, "")
            pairs.append(Pair(image, mask, bucket_of(float(read_pair(pair).hole.mean()))))
    return pairs


def bucket_of(ratio: float) -> str:
    """Return the bucket of a hole ratio in [0, 1]; larger ones count to the last."""
    ends = {bucket: float(bucket.split("-")[1]) / 100 for bucket in BUCKETS}
    return next((bucket for bucket, end in ends.items() if ratio <= end), list(BUCKETS)[-1])


def flat_images(pairs: Sequence[Pair]) -> list[str]:
    """Return the names of the images that show a single colour, from which a range would collapse."""
    return [pair.image.name for pair in pairs if float(read_face(pair.image, SIZE).std()) < MIN_CONTRAST]
