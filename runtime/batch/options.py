"""What a run of ``showface inpaint`` does to every image, and how much of that is part of a result's key."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..backends.processors import processors
from ..errors import UsageError
from ..faces.masks import MaskSource
from ..images.codec import QUALITY, SUFFIXES
from ..images.headers import plain_suffix

FORMAT_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}

MEMORY_OF_A_FACE = 2**29  # bytes that the networks need for one face on a CPU, rounded up


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
        io_threads: how many threads read, and how many others write.
        side_by_side: batches that the networks complete at the same time; more than one on a CPU alone.
        verify: read every input again, also where size, inode and times say that it is the same.
    """

    masks: MaskSource
    batch_size: int = 8
    overwrite: bool = False
    quality: int = QUALITY
    alignment: Alignment | None = None
    save_masks: Path | None = None
    io_threads: int = 1
    side_by_side: int = 1
    verify: bool = False

    def describe(self, landmarks: str) -> str:
        """Return what decides an output beside its files and the bundle, as a part of its key.

        ``landmarks`` is a digest of where the faces come from; empty without alignment.
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
    return plain_suffix(suffix)


def io_threads_for(threads: int) -> int:
    """Return how many threads read, and how many write, of ``threads`` processors: half of them, one to eight."""
    return max(1, min(8, threads // 2))


def shared_threads(wanted: int, threads: int | None, faces: int) -> tuple[int, int | None]:
    """Return how many batches are completed at the same time on a CPU, and on how many threads each.

    Args:
        wanted: so many batches; 0 leaves it to :func:`side_by_side`.
        threads: CPU threads of all together; None takes all.
        faces: that wait.
    """
    given = threads or processors()
    together = wanted or side_by_side(given, faces)
    return together, threads if together == 1 else max(1, given // together)


def side_by_side(threads: int, faces: int) -> int:
    """Return how many batches to complete at the same time on ``threads`` processors, each on its share of them.

    One thread a face wins: threads that share a face wait for one another at every layer. What limits it is memory,
    since each face has activations of its own, and the number of faces.
    """
    return max(1, min(threads, faces, _available_memory() // MEMORY_OF_A_FACE))


def _available_memory() -> int:
    """Return the bytes that the system can still give; a great many where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 2**40
