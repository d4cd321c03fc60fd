"""Read faces and masks from folders as inputs of the chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .faces import prepare
from .folder import plan_jobs
from .images import read_photo
from .masks import hole_of, mask_source

IMAGE_SIZE = 256


def read_samples(images: Path, masks: Path | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return ``image`` [N, 3, H, W] in [-1, 1] and ``mask`` [N, 1, H, W] of all faces in ``images``.

    Args:
        images: folder of aligned square faces.
        masks: folder of masks of the same stems, or one mask for all.

    Raises:
        UsageError: masks or images are missing.
        InputError: a file cannot be read.
    """
    if masks is None:
        raise UsageError("--images needs --masks")
    source = mask_source("file", masks)
    prepared = []
    for job in plan_jobs(images, images.parent / "unused", masks):
        photo = read_photo(job.source)
        hole = hole_of(photo, source, source.find(job.relative), str(job.source))
        prepared.append(prepare(photo.pixels, hole, IMAGE_SIZE, str(job.source)))
    return np.stack([image for image, _ in prepared]), np.stack([mask for _, mask in prepared])
