"""EXIF blocks: kept byte for byte, but for what would be wrong about the completed picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = b"Exif\0\0"  # stands before the block in JPEG, and in some PNG and WebP files
_ORIENTATION, _SHORT = 0x0112, 3
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_ENTRY = 12  # bytes of one tag in a TIFF directory
PNG_HEADER = 33  # bytes: the signature and the chunk IHDR, which every other chunk follows


def exif_of(info: Mapping[Any, Any]) -> bytes | None:
    """Return the EXIF block of an image that is written upright; None where there is none, or a broken one.

    Two things are changed in place, so that offsets inside a maker's notes go on to hold: the orientation becomes 1,
    and the thumbnail, which shows the face as it was, is unlinked and its bytes become zero. What a maker's notes hold,
    which may be a preview too, is left alone. ``info`` is Pillow's.
    """
    found = info.get("exif")
    if not isinstance(found, bytes):
        return None
    block = bytearray(found.removeprefix(PREFIX))
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None or len(block) < 8:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        end = start + 2
        for tag, kind, place in _entries(block, order, start):
            end = place + _ENTRY
            if (tag, kind) == (_ORIENTATION, _SHORT):
                struct.pack_into(order + "H", block, place + 8, 1)
        (second,) = struct.unpack_from(order + "I", block, end)  # the thumbnail's directory
        struct.pack_into(order + "I", block, end, 0)
    except struct.error:
        return None
    with suppress(struct.error, KeyError):  # none, or one that nobody could show
        _erase_thumbnail(block, order, second)
    return bytes(block)


def _entries(block: bytearray, order: str, start: int) -> Iterator[tuple[int, int, int]]:
    """Yield tag, type and place of each entry of the directory at ``start``."""
    (count,) = struct.unpack_from(order + "H", block, start)
    for place in range(start + 2, start + 2 + _ENTRY * count, _ENTRY):
        tag, kind = struct.unpack_from(order + "HH", block, place)
        yield tag, kind, place


def _erase_thumbnail(block: bytearray, order: str, directory: int) -> None:
    places = {tag: place + 8 for tag, _, place in _entries(block, order, directory)}
    (first,) = struct.unpack_from(order + "I", block, places[_THUMBNAIL])
    (length,) = struct.unpack_from(order + "I", block, places[_THUMBNAIL_LENGTH])
    erased = slice(first, first + length)
    block[erased] = bytes(len(block[erased]))


def png_of_gray_alpha(pixels: NDArray[np.uint16]) -> bytes:
    """Return a PNG of the first and last channel of (H, W, 4), which neither Pillow nor OpenCV writes in 16 bits."""
    height, width = pixels.shape[:2]
    rows = pixels[..., [0, 3]].astype(">u2").reshape(height, -1).view(np.uint8)
    body = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # each row unfiltered
    head = png_with_chunk(b"\x89PNG\r\n\x1a\n", b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0))
    return head + png_with_chunk(b"", b"IDAT", zlib.compress(body, 4)) + png_with_chunk(b"", b"IEND", b"")


def png_with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Return the PNG file ``data`` with one chunk more, such as ``eXIf``, after its header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:PNG_HEADER] + chunk + data[PNG_HEADER:]
