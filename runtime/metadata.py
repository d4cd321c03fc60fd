"""EXIF blocks: kept byte for byte, but for what would be wrong about the completed picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

PREFIX = b"Exif\0\0"  # stands before the block in JPEG, and in some PNG and WebP files
_ORIENTATION, _SHORT = 0x0112, 3
_ENTRY = 12  # bytes of one tag in a TIFF directory
_PNG_HEADER = 33  # bytes: the signature and the chunk IHDR, which every other chunk follows


def exif_of(info: Mapping[Any, Any]) -> bytes | None:
    """Return the EXIF block of an image that is written upright; None where there is none, or a broken one.

    Two things are changed in place, so that offsets inside a maker's notes go on to hold: the orientation becomes 1,
    and the thumbnail, which shows the face as it was, is unlinked.

    Args:
        info: Pillow's ``Image.info``.
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
        (count,) = struct.unpack_from(order + "H", block, start)
        for place in range(start + 2, start + 2 + _ENTRY * count, _ENTRY):
            tag, kind = struct.unpack_from(order + "HH", block, place)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                struct.pack_into(order + "H", block, place + 8, 1)
        struct.pack_into(order + "I", block, start + 2 + _ENTRY * count, 0)  # where the thumbnail's directory stands
    except struct.error:
        return None
    return bytes(block)


def png_with_exif(data: bytes, exif: bytes) -> bytes:
    """Return the PNG file ``data`` with an ``eXIf`` chunk."""
    checksum = zlib.crc32(b"eXIf" + exif)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", checksum)
    return data[:_PNG_HEADER] + chunk + data[_PNG_HEADER:]
