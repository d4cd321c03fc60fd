"""One aligned face from the bytes of its file to the bytes of the finished one, as a server or a pipe gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .batch.options import FORMAT_SUFFIXES
from .faces.found_masks import MaskNote, find_hole
from .faces.mask_picture import Hole
from .faces.masks import MaskSource, hole_from_mask, hole_of, warning_of
from .faces.tensors import FloatArray, check_square
from .images.codec import QUALITY, Photo, encode_like
from .inpainter import Inpainter

SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp", b"II": "tiff", b"MM": "tiff", b"BM": "bmp"}
Decode = Callable[[bytes, str], Photo]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded face with its hole, and what the networks take of it.

    Attributes:
        photo: decoded.
        hole: (H, H), True = to be completed.
        opaque: the alpha channel told the hole, and is set to its maximum there.
        image: [3, size, size] in [-1, 1].
        mask: [1, size, size], 1 = hole.
        note: what is known of a hole that the networks found; None for one that was given.
        warnings: what a look at the picture or at its hole gives rise to, in words.
    """

    photo: Photo
    hole: Hole
    opaque: bool
    image: FloatArray
    mask: FloatArray
    note: MaskNote | None = None
    warnings: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes the picture, or a hole that the networks found, worth a look, in words."""
        return (() if self.note is None else self.note.doubts) + self.warnings

    def encode(self, completed: NDArray[Any] | None, form: str, quality: int = QUALITY) -> bytes:
        """Return the finished picture.

        Args:
            completed: [3, size, size]; None leaves the photo as it is.
            form: a key of ``FORMAT_SUFFIXES``.
            quality: of JPEG and lossy WebP.

        Raises:
            InputError: the format cannot hold the picture's alpha channel, depth or metadata.
        """
        photo, pixels = self.photo, self.photo.pixels
        if completed is not None:
            pixels = Inpainter.compose(pixels, self.hole, completed, self.opaque)
        return encode_like(photo, pixels, FORMAT_SUFFIXES[form], quality)


def format_of(data: bytes) -> str:
    """Return the key in ``FORMAT_SUFFIXES`` of the format that a file that can be decoded has.

    >>> format_of(b"BM.."), format_of(b"RIFF....WEBP")
    ('bmp', 'webp')
    """
    return next((name for start, name in SIGNATURES.items() if data.startswith(start)), "png")


def load_picture(data: bytes, mask: bytes | None, source: MaskSource, inpainter: Inpainter, decode: Decode) -> Picture:
    """Decode a face and find its hole.

    Args:
        data: of the picture's file.
        mask: of the mask's file; None takes the hole from ``source``.
        source: ``alpha``, ``color``, ``class`` or ``occlusion``.
        inpainter: whose input is prepared, and whose networks find categories and occlusions.
        decode: turns the bytes of a file, named by the second argument in errors, into a photo.

    Raises:
        InputError: the picture or the mask cannot be used; the message starts with ``image`` or ``mask``.
        UsageError: the bundle lacks the network that is to find the hole.
    """
    photo = decode(data, "image")
    check_square(photo.pixels, "image")
    note = None
    if mask is not None:
        hole = hole_from_mask(decode(mask, "mask").pixels, photo.pixels.shape[:2], "mask", source.invert)
    elif source.found:
        hole, note = find_hole(photo.pixels, None, inpainter, source)
    else:
        hole = hole_of(photo, source, None, "image")
    warnings = tuple(filter(None, [*photo.notes, warning_of(hole, source)]))
    tensors = inpainter.prepare(photo.pixels, hole, "image")
    return Picture(photo, hole, mask is None and source.kind == "alpha", *tensors, note, warnings)
