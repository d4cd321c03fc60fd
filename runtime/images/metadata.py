"""What a file holds beside its pixels: what is kept byte for byte, what cannot be, and the words for that.

EXIF blocks and colour profiles have modules of their own.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, TiffImagePlugin

from .exif import PNG_HEADER, png_with_chunk
from .headers import jpeg_segments, plain_suffix, png_chunks

_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"cICP")  # of PNG: texts, size, colours
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_XMP_TEXT = b"XML:com.adobe.xmp\0\0\0\0\0"  # how an iTXt chunk with XMP begins
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
# Description, make, model, software, date, artist, host, rights.
_TIFF_TEXTS = (270, 271, 272, 305, 306, 315, 316, 33432)
_TIFF_OTHERS = {34665: "EXIF", 34853: "GPS data", 33723: "IPTC block", 34377: "Photoshop block"}
_TIFF_XMP = 700
MOST = 2**20  # bytes of texts of a PNG, and of XMP
_SEGMENT = 65533  # bytes that a segment of JPEG holds
# XMP may hold a thumbnail, which shows the face as it was, and says which way the pixels were turned.
_XMP_THUMBNAIL = re.compile(rb"(<xmpGImg:image>).*?(</xmpGImg:image>)", re.S)
_XMP_TURN = re.compile(rb"(tiff:Orientation(?:=\"|='|>))[1-8]")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is kept of a file beside EXIF and profile.

    Attributes:
        dpi: pixels an inch, horizontally and vertically.
        xmp: the XMP packet, without its thumbnail.
        comment: of a JPEG.
        chunks: of a PNG, whole: texts, resolution, colour space.
        texts: of a TIFF, by tag.
        left: what is not kept in any format, in words.
    """

    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    chunks: tuple[bytes, ...] = ()
    texts: tuple[tuple[int, str], ...] = ()
    left: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON holds."""
        packed = [None if part is None else base64.b64encode(part).decode() for part in (self.xmp, self.comment)]
        chunks = [base64.b64encode(chunk).decode() for chunk in self.chunks]
        return {"dpi": self.dpi, "packed": packed, "chunks": chunks, "texts": self.texts, "left": self.left}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Metadata:
        """Return what :meth:`to_json` has described."""
        xmp, comment = (None if part is None else base64.b64decode(part) for part in data["packed"])
        chunks = tuple(base64.b64decode(chunk) for chunk in data["chunks"])
        texts = tuple((int(tag), str(text)) for tag, text in data["texts"])
        dpi = None if data["dpi"] is None else (float(data["dpi"][0]), float(data["dpi"][1]))
        return cls(dpi, xmp, comment, chunks, texts, tuple(data["left"]))

    def lost(self, suffix: str, exif: bool, profile: bool, deep: bool) -> str | None:
        """Return a sentence about what a file of another format does not hold; None where all is kept.

        A ``deep`` picture has 16 bits a channel.
        """
        suffix = plain_suffix(suffix)
        texts = any(chunk[4:8] in _TEXTS and _XMP_TEXT not in chunk[:40] for chunk in self.chunks)
        parts = [
            *self.left,
            *(["EXIF"] if exif and suffix in (".tif", ".bmp") else []),
            *(["colour profile"] if profile and suffix == ".bmp" else []),
            *(["XMP"] if self.xmp and (suffix == ".bmp" or (deep and suffix == ".tif")) else []),
            *(["resolution"] if self.dpi and (suffix == ".webp" or (deep and suffix == ".tif")) else []),
            *(["comment"] if self.comment and suffix != ".jpg" else []),
            *(["texts"] if (texts and suffix != ".png") or (self.texts and (suffix != ".tif" or deep)) else []),
        ]
        return f"left out, as the output does not hold it: {', '.join(dict.fromkeys(parts))}" if parts else None

    def save_options(self, suffix: str) -> dict[str, Any]:
        """Return the options of Pillow's ``save`` that keep what it can keep in a format, told by its plain suffix."""
        options: dict[str, Any] = {}
        if self.dpi is not None and suffix not in (".webp", ".png"):
            options["dpi"] = self.dpi
        if self.comment is not None and suffix == ".jpg":
            options["comment"] = self.comment
        if self.xmp is not None and suffix == ".webp":
            options["xmp"] = self.xmp
        if suffix == ".tif" and (self.texts or self.xmp):
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            for tag, text in self.texts:
                tags[tag] = text
            if self.xmp is not None:
                tags[_TIFF_XMP] = self.xmp
            options["tiffinfo"] = tags
        return options

    def inserted(self, data: bytes, suffix: str) -> bytes:
        """Return an encoded file with what Pillow and OpenCV do not write: chunks of PNG, and XMP of JPEG."""
        if suffix == ".png":
            if self.chunks:
                return data[:PNG_HEADER] + b"".join(self.chunks) + data[PNG_HEADER:]
            if self.dpi is not None:
                sides = (round(side / 0.0254) for side in self.dpi)
                data = png_with_chunk(data, b"pHYs", struct.pack(">IIB", *sides, 1))
            return data if self.xmp is None else png_with_chunk(data, b"iTXt", _XMP_TEXT + self.xmp)
        if suffix == ".jpg" and self.xmp is not None:
            body = _XMP_SEGMENT + self.xmp
            end = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2  # behind the JFIF header
            return data[:end] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[end:]
        return data


def metadata_of(header: Image.Image, data: bytes) -> Metadata:
    """Return what is kept of an image file, and what is not."""
    info, left = header.info, []
    chunks: tuple[bytes, ...] = ()
    if header.format == "PNG":
        chunks = tuple(bytes(chunk) for kind, chunk in png_chunks(data) if kind in _CHUNKS)
    if sum(map(len, chunks)) > MOST:
        chunks, left = (), ["texts of more than a megabyte"]
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or info.get("XMP")
    xmp = xmp.encode() if isinstance(xmp, str) else xmp if isinstance(xmp, bytes) else None
    if xmp is not None and len(xmp) + len(_XMP_SEGMENT) > _SEGMENT - 2:
        xmp, left = None, [*left, "XMP of more than 64 KiB"]
    if xmp is not None:
        xmp = _cleaned(xmp)
        chunks = tuple(_with_xmp(chunks, xmp))
    if header.format in ("JPEG", "MPO"):
        left += [word for mark, word in ((b"Photoshop 3.0\0", "IPTC block"), (b"/xmp/extension/", "rest of its XMP"))
                 if any(mark in part for part in _jpeg_beginnings(data))]  # fmt: skip
    tags = getattr(header, "tag_v2", None) if header.format == "TIFF" else None
    texts: tuple[tuple[int, str], ...] = ()
    if tags is not None:
        left += [word for tag, word in _TIFF_OTHERS.items() if tag in tags]
        texts = tuple((tag, tags[tag]) for tag in _TIFF_TEXTS if isinstance(tags.get(tag), str))
        xmp = _cleaned(tags[_TIFF_XMP]) if isinstance(tags.get(_TIFF_XMP), bytes) else None
    comment = info.get("comment")
    comment = comment if isinstance(comment, bytes) and header.format in ("JPEG", "MPO") else None
    return Metadata(_dpi_of(header), xmp, comment, chunks, texts, tuple(left))


def _cleaned(xmp: bytes) -> bytes:
    return _XMP_TURN.sub(rb"\g<1>1", _XMP_THUMBNAIL.sub(rb"\1\2", xmp))


def _with_xmp(chunks: tuple[bytes, ...], xmp: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG with its XMP replaced."""
    for chunk in chunks:
        if chunk[4:8] == b"iTXt" and chunk[8:25] == _XMP_TEXT[:17]:
            yield png_with_chunk(b"", b"iTXt", _XMP_TEXT + xmp)
        else:
            yield chunk


def _dpi_of(header: Image.Image) -> tuple[float, float] | None:
    found = header.info.get("dpi")
    try:
        x, y = float(found[0]), float(found[1])  # type: ignore[index]
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return None
    return (x, y) if 1 <= x <= 65000 and 1 <= y <= 65000 else None


def _jpeg_beginnings(data: bytes) -> Iterator[bytes]:
    """Yield the beginnings of the application segments of a JPEG."""
    for marker, begin, end in jpeg_segments(data):
        if 0xE0 <= marker <= 0xEF:
            yield data[begin : min(end, begin + 76)]


def said_of(header: Image.Image, data: bytes) -> list[str]:
    """Return what is to be said of a file whose parts do not all become a part of the output."""
    said = []
    if header.format == "MPO":
        said.append(f"holds {getattr(header, 'n_frames', 2)} pictures, of which the first is completed and kept alone")
    elif header.format == "JPEG" and not data.rstrip(b"\0\r\n").endswith(b"\xff\xd9"):
        said.append("holds data behind the picture, such as a video, which are left out")
    return said
