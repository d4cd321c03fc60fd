"""What the header of an image file tells: whether it may be decoded, its depth, whether it is lossy."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from ..errors import InputError

MAX_PIXELS = 100_000_000

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339  # tags of TIFF
_UNSIGNED = 1
_BLACK_IS_ZERO, _RGB, _PALETTE = 1, 2, 3
_TIFF_JPEG = (6, 7)  # the compressions that hold JPEG data, of TIFF 6.0 and of its later technical note


_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"crx ": "Canon raw",
    **dict.fromkeys((b"qt  ", b"isom", b"mp42"), "video"),
}
_SIGNATURES = {
    b"8BPS": "Photoshop", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000", b"\x76\x2f\x31\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"%PDF": "PDF",
    b"\0\0\1\0": "a Windows icon", b"<svg": "SVG", b"<?xml": "XML", b"BPG\xfb": "BPG", b"qoif": "QOI",
    b"PK\3\4": "a zip",
    **{b"P%d" % k: "Netpbm" for k in range(1, 8)},
}  # fmt: skip


def plain_suffix(suffix: str) -> str:
    """Return a suffix in lower case, and the same for all that name one format.

    >>> plain_suffix(".JPEG"), plain_suffix(".tiff"), plain_suffix(".png")
    ('.jpg', '.tif', '.png')
    """
    lower = suffix.lower()
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(lower, lower)


def other_kind(data: bytes) -> str | None:
    """Return what a file is that no decoder here knows, by how it begins; None where that is unknown, too."""
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "HEIF")
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)


def check_header(header: Image.Image, name: str) -> None:
    """Refuse, before it is decoded, what is empty, gigantic, or more than one image.

    Raises:
        InputError: the message starts with ``name``.
    """
    width, height = header.size
    if width < 1 or height < 1:
        raise InputError(f"{name}: has no pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width}×{height} is larger than {MAX_PIXELS // 10**6} megapixels")
    frames = 1 if header.format == "MPO" else getattr(header, "n_frames", 1)  # MPO: a JPEG with a preview
    if frames > 1:
        raise InputError(f"{name}: holds {frames} frames; give one image a file")


def check_png(data: bytes, name: str) -> None:
    """Refuse a PNG whose pixels are not those that were written; Pillow does not look at these checksums.

    Raises:
        InputError: the checksum of a critical chunk does not fit; the message starts with ``name``.
    """
    for kind, chunk in png_chunks(data):
        critical = not kind[0] & 0x20  # by the case of its first letter
        if critical and zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise InputError(f"{name}: is damaged: the checksum of its chunk {kind.decode('latin-1')} does not fit")
        if kind == b"IEND":
            return


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and the bytes of each chunk of a PNG: length, name, content and checksum."""
    view, place = memoryview(data), 8  # after the signature
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(view[place : place + 4], "big")
        yield bytes(view[place + 4 : place + 8]), view[place:end]
        place = end


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of what each segment of a JPEG holds, up to its first scan."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in (b"\xda", b""):
        if data[place + 1] == 0xFF:  # any number of these may stand before a marker
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield data[place + 1], place + 4, end
        place = end


def check_jpeg(data: bytes, name: str) -> None:
    """Refuse a JPEG without an end; what stands behind the end, such as a video, may be anything.

    Raises:
        InputError: it is cut off; the message starts with ``name``.
    """
    scan = max((end for _, _, end in jpeg_segments(data)), default=2)
    if data.find(b"\xff\xd9", scan) < 0:  # in a scan these two bytes are its end alone
        raise InputError(f"{name}: is cut off")


def bits_per_channel(header: Image.Image, data: bytes, name: str) -> int:
    """Return 8 or 16, the depth of the decoded array; Pillow's mode does not tell it.

    Raises:
        InputError: the file has a depth or a pixel type that neither Pillow nor OpenCV decodes exactly.
    """
    if header.format == "TIFF":
        return _tiff_bits(header.tag_v2, name)  # type: ignore[attr-defined]
    # A PNG starts with an 8-byte signature, the IHDR chunk's length and name, width, height and depth;
    # Pillow scales its 1, 2 and 4 bits exactly to 8.
    return 16 if header.format == "PNG" and data[24] == 16 else 8


def _tiff_bits(tags: Any, name: str) -> int:
    bits, photometric = set(tags.get(_BITS_PER_SAMPLE, (1,))), tags.get(_PHOTOMETRIC)
    if any(sample != _UNSIGNED for sample in tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))):
        raise InputError(f"{name}: its pixel type is not supported; convert it to unsigned 8 or 16 bits")
    if photometric == _PALETTE or bits in ({1}, {8}):
        return 8
    if bits != {16}:
        depth = ", ".join(map(str, sorted(bits)))
        raise InputError(f"{name}: {depth} bits a channel are not supported; convert it to 8 or 16 bits")
    if photometric not in (_BLACK_IS_ZERO, _RGB):  # OpenCV takes the values of the others for gray or RGB
        raise InputError(
            f"{name}: 16 bits of photometric {photometric} are not supported; save it as gray (0 = black) or RGB"
        )
    return 16


def is_lossy(header: Image.Image, data: bytes) -> bool:
    """Return whether the file's own compression has changed the values."""
    if header.format == "TIFF":
        return header.tag_v2.get(_COMPRESSION) in _TIFF_JPEG  # type: ignore[attr-defined]
    if header.format != "WEBP":
        return header.format in ("JPEG", "MPO")
    offset = 12  # a RIFF header, then chunks; a colour profile may stand before the pixels
    while offset + 8 <= len(data) and data[offset : offset + 4] != b"VP8L":
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        offset += 8 + size + size % 2
    return data[offset : offset + 4] != b"VP8L"
