"""Where the hole comes from: a mask file, the alpha channel, a key colour, or what the parser finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ..errors import InputError, UsageError, system_errors
from ..images.codec import OTHER_IMAGE_SUFFIXES, SUFFIXES, Photo, Pixels, read_photo
from ..stages import CATEGORIES
from .mask_picture import THRESHOLD, Hole, read_hole
from .occlusion import OcclusionSettings

MASK_SUFFIXES = (*SUFFIXES, ".gif")
MASK_SUFFIX = "_mask"  # what a mask may add to the stem of its image
APPLE_DOUBLE = "._"  # starts the names of files in which Macs keep what their file system holds beside a file
MOST = 0.9  # share of a picture from which on a hole is probably the inverse of one
ASPECT_TOLERANCE = 0.01
LOSSY_COLOR_TOLERANCE = 32  # grey levels by which JPEG and lossy WebP may smear a key colour
# Pixels by which a key colour's hole grows in a lossy file. A chroma sample covers 2×2 pixels and is interpolated
# with its neighbours, so the hole's rim is lost from the tolerance and the colour reaches three pixels beyond it.
LOSSY_COLOR_MARGIN = 4
CLASS_MARGIN = 6  # pixels of the networks' input by which a category's region grows

Listing = Mapping[str, list[str]]  # file names by stem


@dataclass(frozen=True, slots=True)
class MaskSource:
    """How the hole of an image is found.

    Attributes:
        kind: ``file`` takes it from ``path``: one mask for all images, or a folder of masks that
            mirrors the images' folder by stem. ``alpha`` takes what is transparent, ``color`` what
            has the key colour; in lossy files also what is nearly of it, and the pixels around.
            ``class`` takes the regions where the bundle's parser sees ``categories``, ``occlusion`` what its occluder
            finds, and ``categories`` besides.
        path: path of the mask or the masks, for ``file``; of the images where the masks are ``beside`` them.
        suffix: what a mask may add to the stem of its image.
        beside: whether the masks are in the images' folder, with the suffix.
        invert: complete what is black in the mask files, and keep the rest.
        color: RGB key colour in [0, 255], for ``color``.
        categories: names out of ``CATEGORIES``, for ``class`` and ``occlusion``.
        margin: pixels of the networks' input by which the regions of categories grow.
        occlusion: what counts as an occlusion, for ``occlusion``.
    """

    kind: Literal["file", "alpha", "color", "class", "occlusion"]
    path: Path | None = None
    color: tuple[int, int, int] | None = None
    categories: tuple[str, ...] = ()
    margin: int = CLASS_MARGIN
    occlusion: OcclusionSettings = field(default_factory=OcclusionSettings)
    suffix: str = MASK_SUFFIX
    beside: bool = False
    invert: bool = False

    @property
    def found(self) -> bool:
        """Whether the bundle's networks find the hole in the image itself."""
        return self.kind in ("class", "occlusion")

    def find(self, image: Path, listing: Callable[[Path], Listing] | None = None) -> Path | None:
        """Return the mask file of the image at the relative path ``image``, None where none is used.

        Args:
            image: path of the image, relative to the images' folder.
            listing: a :func:`list_masks` that remembers, for many images of one folder.

        Raises:
            InputError: there is no such file, or several, or one of a format that is not read, or its folder cannot
                be read.
        """
        if self.kind != "file" or self.path is None or self.path.is_file():
            return self.path
        folder = self.path / image.parent
        there = (listing or list_masks)(folder)
        stems = (image.stem + self.suffix,) if self.beside else (image.stem, image.stem + self.suffix)
        files = next((there[stem] for stem in stems if stem in there), [])
        found = [name for name in files if Path(name).suffix.lower() in MASK_SUFFIXES]
        if files and not found:
            raise InputError(
                f"{image}: {folder / files[0]} is of a format that is not read; save the mask as PNG, or as one of "
                f"{', '.join(MASK_SUFFIXES)}"
            )
        if not found:
            raise InputError(f"{image}: no mask {' or '.join(f'{folder / stem}.*' for stem in stems)} found")
        if len(found) > 1:
            raise InputError(f"{image}: several masks found: {', '.join(found)}")
        return folder / found[0]

    def describe(self) -> str:
        """Return what decides the hole beside the files, as a part of a result's key."""
        if self.kind == "class":
            return f"class {','.join(self.categories)} {self.margin} {self.occlusion.min_hole:g}"
        if self.kind == "occlusion":
            limits = self.occlusion
            rules = f"{limits.threshold:g} {limits.margin} {limits.min_hole:g} {limits.max_hole:g}"
            return f"occlusion {rules} {','.join(self.categories)}"
        return f"{self.kind} {self.color}{' inverted' if self.invert else ''}"


def list_masks(folder: Path) -> Listing:
    """Return the names of the images in ``folder`` by their stem; none where there is no such folder.

    Raises:
        InputError: it cannot be read.
    """
    names: dict[str, list[str]] = {}
    with system_errors(InputError, folder, "cannot be read"), suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted(folder.iterdir()):
            known = path.suffix.lower() in (*MASK_SUFFIXES, *OTHER_IMAGE_SUFFIXES)
            if known and not path.name.startswith(APPLE_DOUBLE):
                names.setdefault(path.stem, []).append(path.name)
    return names


def mask_source(
    mask_from: str, path: Path | None, margin: int = CLASS_MARGIN, occlusion: OcclusionSettings | None = None
) -> MaskSource:
    """Return where holes come from, by a short text.

    Args:
        mask_from: ``file``, ``alpha``, ``color:#RRGGBB``, ``class:NAME,…``, ``occlusion``, ``occlusion,class:NAME,…``.
        path: path of the mask or the masks, for ``file``; of the images where the masks are ``beside`` them.
        margin: pixels by which what is found grows.
        occlusion: what counts as an occlusion; None for the usual limits and ``margin``.

    Raises:
        UsageError: the two do not fit together, or one is unknown or missing.

    >>> mask_source("color:#00FF00", None).color
    (0, 255, 0)
    """
    if mask_from == "file":
        if path is None:
            raise UsageError(
                "no masks are given; name them, pass suffix='_mask' to take NAME_mask.png beside NAME.png, or "
                "pass mask_from='occlusion' (or alpha, color:#RRGGBB, class:NAME)",
                "masks",
            )
        with system_errors(UsageError, path, "cannot be read"):
            if not path.exists():
                raise UsageError(f"{path}: no such file or folder", "masks")
        return MaskSource("file", path)
    if path is not None:
        raise UsageError(f"they go with the source file, not with {mask_from}", "masks")
    if mask_from == "alpha":
        return MaskSource("alpha")
    if mask_from == "occlusion" or mask_from.startswith(("occlusion,class:", "class:")):
        names = mask_from.removeprefix("occlusion").removeprefix(",")
        kinds, limits = _categories(names) if names else (), occlusion or OcclusionSettings(margin=margin)
        kind: Literal["class", "occlusion"] = "class" if names == mask_from else "occlusion"
        return MaskSource(kind, categories=kinds, margin=margin, occlusion=limits)
    match = re.fullmatch(r"color:#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", mask_from)
    if match is None:
        known = "file, alpha, color:#RRGGBB, class:NAME,… or occlusion"
        raise UsageError(f"{mask_from} is unknown; use {known}", "mask_from")
    red, green, blue = (int(part, 16) for part in match.groups())
    return MaskSource("color", color=(red, green, blue))


def _categories(spec: str) -> tuple[str, ...]:
    names = sorted({name.strip() for name in spec.removeprefix("class:").split(",")})
    unknown = [name for name in names if name not in CATEGORIES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no category; known: {', '.join(CATEGORIES)}", "mask_from")
    return tuple(names)


def hole_of(photo: Photo, source: MaskSource, mask_file: Path | None, name: str) -> Hole:
    """Return the hole of ``photo`` as [H, W], True = to be completed; not for ``class``, which needs the parser.

    Raises:
        InputError: the mask cannot be read or has another aspect ratio, or there is no alpha channel.
    """
    pixels = photo.pixels
    if mask_file is not None:
        mask = read_photo(mask_file).pixels
        return hole_from_mask(mask, pixels.shape[:2], f"{mask_file} for {name}", source.invert)
    top = np.iinfo(pixels.dtype).max
    if source.kind == "alpha":
        if pixels.ndim != 3 or pixels.shape[2] != 4:
            raise InputError(f"{name}: has no alpha channel to take the hole from")
        return np.asarray(pixels[..., 3] <= top // 255 * THRESHOLD)
    assert source.color is not None
    tolerance = LOSSY_COLOR_TOLERANCE if photo.lossy else 0
    found: Hole = np.ones(pixels.shape[:2], np.bool_)
    for index, value in enumerate(source.color):  # one channel at a time: a photograph's integers are large
        channel = pixels if pixels.ndim == 2 else pixels[..., index]
        found &= np.abs(channel.astype(np.int32) - value * (top // 255)) <= tolerance * (top // 255)
    if not photo.lossy:
        return found
    square = np.ones((2 * LOSSY_COLOR_MARGIN + 1,) * 2, np.uint8)
    return np.asarray(cv2.dilate(found.astype(np.uint8), square), np.bool_)


def hole_from_mask(mask: Pixels, shape: tuple[int, ...], name: str, invert: bool = False) -> Hole:
    """Return the hole that a mask image shows, resized to ``shape`` (H, W) by nearest neighbour; see :func:`read_hole`.

    Raises:
        InputError: the aspect ratios differ by more than one percent, or the mask may mean several things.
    """
    (height, width), (mask_height, mask_width) = shape, mask.shape[:2]
    if abs(mask_width * height / (mask_height * width) - 1) > ASPECT_TOLERANCE:
        raise InputError(f"{name}: mask of {mask_width}×{mask_height} does not fit an image of {width}×{height}")
    hole = read_hole(mask, name, invert)
    if hole.shape == (height, width):
        return hole
    resized = cv2.resize(hole.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.bool_)


def warning_of(hole: Hole, source: MaskSource) -> str | None:
    """Return what makes a hole suspect, whatever it comes from; None where nothing does."""
    share = float(hole.mean())
    if share <= MOST:
        return None
    remedy = "; if the mask is inverted, pass invert=True" if source.kind == "file" and not source.invert else ""
    return f"the hole takes {share:.0%} of the picture{remedy}"
