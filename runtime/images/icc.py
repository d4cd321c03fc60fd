"""Colour profiles (ICC): which one the pixels keep, and how it gets into the 16-bit files that OpenCV writes."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, ImageCms

from ..errors import InputError
from .exif import png_with_chunk

_COLOR_SPACE = slice(16, 20)  # of the profile's header
_TIFF_PROFILE, _UNDEFINED = 34675, 7  # tag and type
_ENTRY = 12  # bytes of one tag in a TIFF directory


def profile_for(profile: object, gray: bool) -> bytes | None:
    """Return a file's profile where it describes the decoded pixels, else None.

    A CMYK or palette file becomes RGB when it is decoded; the profile of its ink is then wrong.
    """
    if not isinstance(profile, bytes) or profile[_COLOR_SPACE] != (b"GRAY" if gray else b"RGB "):
        return None
    return profile


def rgb_of_cmyk(image: Image.Image, name: str) -> tuple[Image.Image, str]:
    """Return a CMYK picture in sRGB, and what is to be said of that.

    Raises:
        InputError: it has a profile that cannot be used.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image, "is CMYK without a colour profile, so that its colours are a guess"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        text = f"{name}: is CMYK with a colour profile that cannot be used: {error}; convert it to RGB"
        raise InputError(text) from error
    assert converted is not None
    converted.info.pop("icc_profile", None)
    return converted, "is CMYK and becomes RGB: its colours are converted to sRGB by its profile"


def png_with_profile(data: bytes, profile: bytes) -> bytes:
    """Return the PNG file ``data`` with ``profile`` in it."""
    return png_with_chunk(data, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))


def tiff_with_profile(data: bytes, profile: bytes) -> bytes:
    """Return the TIFF file ``data`` with ``profile`` in it: a longer copy of its directory, at the end."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    first = start + 2
    entries = [data[first + _ENTRY * i : first + _ENTRY * (i + 1)] for i in range(count)]
    body = data + b"\0" * (len(data) % 2)
    entries.append(struct.pack(order + "HHII", _TIFF_PROFILE, _UNDEFINED, len(profile), len(body)))
    entries.sort(key=lambda entry: struct.unpack_from(order + "H", entry))
    body += profile + b"\0" * (len(profile) % 2)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return body[:4] + struct.pack(order + "I", len(body)) + body[8:] + directory
