"""Where the hole comes from: a mask file, the alpha channel, or a key colour."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError, UsageError, system_errors
from .images import SUFFIXES, Photo, Pixels, read_photo

Hole = NDArray[np.bool_]  # [H, W], True where the image is to be completed

THRESHOLD = 127  # a brighter mask pixel is a hole; a less opaque one too
ASPECT_TOLERANCE = 0.01
LOSSY_COLOR_TOLERANCE = 32  # grey levels by which JPEG and lossy WebP may smear a key colour
# Pixels by which a key colour's hole grows in a lossy file. A chroma sample covers 2×2 pixels and is interpolated
# with its neighbours, so the hole's rim is lost from the tolerance and the colour reaches three pixels beyond it.
LOSSY_COLOR_MARGIN = 4


@dataclass(frozen=True, slots=True)
class MaskSource:
    """How the hole of an image is found.

    Attributes:
        kind: ``file`` takes it from ``path``: one mask for all images, or a folder of masks that
            mirrors the images' folder by stem. ``alpha`` takes what is transparent, ``color`` what
            has the key colour; in lossy files also what is nearly of it, and the pixels around.
        path: of the mask or the masks, for ``file``.
        color: RGB key colour in [0, 255], for ``color``.
    """

    kind: Literal["file", "alpha", "color"]
    path: Path | None = None
    color: tuple[int, int, int] | None = None

    def find(self, image: Path) -> Path | None:
        """Return the mask file of the image at the relative path ``image``, None where none is used.

        Raises:
            InputError: there is no such file, or several.
        """
        if self.kind != "file" or self.path is None or self.path.is_file():
            return self.path
        folder = self.path / image.parent
        try:
            found = sorted(p for p in folder.iterdir() if p.stem == image.stem and p.suffix.lower() in SUFFIXES)
        except OSError:
            found = []
        if not found:
            raise InputError(f"{image}: no mask {folder / image.stem}.* found")
        if len(found) > 1:
            raise InputError(f"{image}: several masks found: {', '.join(p.name for p in found)}")
        return found[0]


def mask_source(spec: str, path: Path | None) -> MaskSource:
    """Parse the command line's ``--mask-from`` and ``--masks``.

    Raises:
        UsageError: the two do not fit together, or one is unknown or missing.
    """
    if spec == "file":
        if path is None:
            raise UsageError("no masks given: add --masks PATH, or --mask-from alpha or color:#RRGGBB")
        with system_errors(UsageError, path, "cannot be read"):
            if not path.exists():
                raise UsageError(f"--masks {path}: no such file or folder")
        return MaskSource("file", path)
    if path is not None:
        raise UsageError(f"--masks goes with --mask-from file, not with {spec}")
    if spec == "alpha":
        return MaskSource("alpha")
    match = re.fullmatch(r"color:#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", spec)
    if match is None:
        raise UsageError(f"--mask-from {spec}: use file, alpha or color:#RRGGBB")
    red, green, blue = (int(part, 16) for part in match.groups())
    return MaskSource("color", color=(red, green, blue))


def hole_of(photo: Photo, source: MaskSource, mask_file: Path | None, name: str) -> Hole:
    """Return the hole of ``photo`` as [H, W], True = to be completed.

    Raises:
        InputError: the mask cannot be read or has another aspect ratio, or there is no alpha channel.
    """
    pixels = photo.pixels
    if mask_file is not None:
        return hole_from_mask(read_photo(mask_file).pixels, pixels.shape[:2], f"{mask_file} for {name}")
    top = np.iinfo(pixels.dtype).max
    if source.kind == "alpha":
        if pixels.ndim != 3 or pixels.shape[2] != 4:
            raise InputError(f"{name}: has no alpha channel to take the hole from")
        return np.asarray(pixels[..., 3] <= top // 255 * THRESHOLD)
    color = np.asarray(source.color, np.int32) * (top // 255)
    rgb = pixels[..., :3] if pixels.ndim == 3 else pixels[..., None]
    tolerance = LOSSY_COLOR_TOLERANCE if photo.lossy else 0
    found = np.asarray((np.abs(rgb.astype(np.int32) - color) <= tolerance * (top // 255)).all(axis=2))
    if not photo.lossy:
        return found
    square = np.ones((2 * LOSSY_COLOR_MARGIN + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(found.astype(np.uint8), square), np.bool_)


def hole_from_mask(mask: Pixels, shape: tuple[int, ...], name: str) -> Hole:
    """Resize a mask image to ``shape`` (H, W) by nearest neighbour; brighter than 127 of 255 is the hole.

    Raises:
        InputError: the aspect ratios differ by more than one percent.
    """
    if mask.ndim == 3:
        mask = np.asarray(cv2.cvtColor(mask[..., :3], cv2.COLOR_RGB2GRAY))
    (height, width), (mask_height, mask_width) = shape, mask.shape
    if abs(mask_width * height / (mask_height * width) - 1) > ASPECT_TOLERANCE:
        raise InputError(f"{name}: mask of {mask_width}×{mask_height} does not fit an image of {width}×{height}")
    hole = mask > np.iinfo(mask.dtype).max // 255 * THRESHOLD
    if hole.shape == (height, width):
        return hole
    resized = cv2.resize(hole.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.bool_)
