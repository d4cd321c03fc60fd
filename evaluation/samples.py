"""Read faces and masks from folders as inputs of the chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from showface.runtime.batch.inputs import list_images
from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.masks import hole_of, mask_source
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import read_photo


def read_samples(images: Path, masks: Path | None, image_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return ``image`` [N, 3, H, W] in [-1, 1] and ``mask`` [N, 1, H, W] of all faces in ``images``.

    Args:
        images: folder of aligned square faces.
        masks: folder of masks of the same stems, or one mask for all.
        image_size: H = W, the side of the networks' input.

    Raises:
        UsageError: masks or images are missing.
        InputError: a file cannot be read.
    """
    if masks is None:
        raise UsageError("--images needs --masks")
    source = mask_source("file", masks)
    prepared = []
    for listed in list_images(images, masks):
        if listed.error is not None:
            raise InputError(listed.error)
        name = str(listed.path)
        photo = read_photo(listed.path)
        hole = hole_of(photo, source, source.find(listed.relative), name)
        prepared.append(prepare(photo.pixels, hole, image_size, name))
    return np.stack([image for image, _ in prepared]), np.stack([mask for _, mask in prepared])
