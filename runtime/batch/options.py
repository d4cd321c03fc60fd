"""What a run of ``showface inpaint`` does to every image, and how much of that is part of a result's key."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import UsageError
from ..faces.masks import MaskSource
from ..images.codec import QUALITY, SUFFIXES

Format = Literal["jpeg", "png", "webp", "tiff", "bmp"]
FORMAT_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the faces of a picture are: found by YuNet, or given.

    Attributes:
        detector: the model file of YuNet.
        landmarks: a CSV or JSON file of landmarks; wins over the detector.
    """

    detector: Path | None = None
    landmarks: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run.

    Attributes:
        masks: source of the holes.
        batch_size: faces that go through the networks together.
        overwrite: replace files that no earlier run explains.
        quality: quality of JPEG and lossy WebP outputs, 1–100.
        alignment: warp the faces of unaligned pictures; None takes each image as one aligned face.
        save_masks: a folder that gets the hole of every image.
        workers: threads that read, and threads that write.
        verify: read every input again, also where size, inode and times say that it is the same.
    """

    masks: MaskSource
    batch_size: int = 8
    overwrite: bool = False
    quality: int = QUALITY
    alignment: Alignment | None = None
    save_masks: Path | None = None
    workers: int = 1
    verify: bool = False

    def describe(self, landmarks: str) -> str:
        """Return what decides an output beside its files and the bundle, as a part of its key.

        Args:
            landmarks: digest of where the faces come from; empty without alignment.
        """
        parts = [self.masks.describe()]
        if self.quality != QUALITY:
            parts.append(f"quality {self.quality}")
        if self.alignment is not None:
            parts.append(f"align {landmarks}")
        return " ".join(parts)


def absolute(options: Options) -> Options:
    """Return the options with absolute paths, for processes that stand in another folder."""

    def full(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(path))

    faces = options.alignment
    return replace(
        options,
        masks=replace(options.masks, path=full(options.masks.path)),
        alignment=None if faces is None else Alignment(full(faces.detector), full(faces.landmarks)),
        save_masks=full(options.save_masks),
    )


def suffix_of_format(name: str | None) -> str | None:
    """Return the suffix of the outputs of a format; None keeps the suffix of each input.

    >>> suffix_of_format("tiff"), suffix_of_format("same")
    ('.tif', None)

    Raises:
        UsageError: no such format.
    """
    if name is None or name == "same":
        return None
    suffix = FORMAT_SUFFIXES.get(name.lower(), "." + name.lower())
    if suffix not in SUFFIXES:
        raise UsageError(f"{name} is not written; use same, {', '.join(FORMAT_SUFFIXES)}", "format")
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(threads: int) -> int:
    """Return how many threads read, and how many write, of ``threads`` processors: half of them, one to eight."""
    return max(1, min(8, threads // 2))
