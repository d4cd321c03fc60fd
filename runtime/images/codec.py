"""Read and write image files as numpy arrays.

An array is (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16, upright (EXIF orientation
applied). Pillow decodes and encodes 8-bit files, because it reports truncated data; OpenCV the
16-bit ones, which Pillow would cut to 8.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..files import write_file
from ..untrusted.read import read_file
from .exif import PREFIX, exif_of, png_of_gray_alpha, png_with_chunk
from .headers import (
    MAX_PIXELS,
    bits_per_channel,
    check_header,
    check_jpeg,
    check_png,
    is_lossy,
    other_kind,
    plain_suffix,
)
from .icc import png_with_profile, profile_for, rgb_of_cmyk, tiff_with_profile
from .metadata import Metadata, metadata_of, said_of

__all__ = ["SUFFIXES", "Photo", "Pixels", "decode_photo", "encode_photo", "read_photo", "write_file"]

Pixels = NDArray[Any]  # uint8 or uint16; (H, W), (H, W, 3) or (H, W, 4)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
# Suffixes that name an image that showface does not write: as an output surely no folder's name.
OTHER_IMAGE_SUFFIXES = (
    ".apng", ".avif", ".bpg", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl",
    ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".tga",
)  # fmt: skip
DEEP_SUFFIXES = (".png", ".tif")  # these hold 16 bits a channel
ALPHA_SUFFIXES = (".png", ".webp", ".tif")
EXIF_SUFFIXES = (".jpg", ".png", ".webp")
QUALITY = 95  # of JPEG and lossy WebP

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # GIF for masks: it is not written
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Photo:
    """One decoded image file.

    Attributes:
        pixels: see the module for the layout.
        lossy: whether the file's own compression is.
        profile: the ICC profile that describes ``pixels``; None where the file holds none.
        exif: the EXIF block, set upright and without its thumbnail; None where the file holds none.
        metadata: what else is kept.
        gray: whether the file's RGBA ``pixels`` are gray with alpha, and are to be written so.
        notes: what is to be said of the file, in words.
    """

    pixels: Pixels
    lossy: bool
    profile: bytes | None = None
    exif: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)
    gray: bool = False
    notes: tuple[str, ...] = ()


def read_photo(path: str | Path) -> Photo:
    """Decode an image file; see the module for the layout.

    Raises:
        InputError: the file cannot be read, is no image of a known format, is truncated, holds more
            than one frame, floats, a depth other than 8 or 16 bits (1, 2 and 4 where they scale
            exactly), or more than 100 megapixels (checked before decoding).
    """
    path = Path(path)
    return decode_photo(read_file(path), str(path))


def decode_photo(data: bytes, name: str) -> Photo:
    """Decode the bytes of an image file; ``name`` stands in the errors, which are those of :func:`read_photo`."""
    with decode_errors(data, name):
        return _decode(data, name)


def check_image(data: bytes, name: str) -> None:
    """Refuse, before anything is decoded, what :func:`decode_photo` would, as far as that can be told.

    Raises:
        InputError: the bytes are no image of a known format, of too many pixels or frames, or cut off.
    """
    with decode_errors(data, name), Image.open(io.BytesIO(data), formats=_FORMATS) as header:
        check_header(header, name)
        if header.format == "PNG":
            check_png(data, name)
        if header.format in ("JPEG", "MPO"):
            check_jpeg(data, name)


@contextmanager
def decode_errors(data: bytes, name: str) -> Iterator[None]:
    """Turn all that decoders raise in the block on the bytes of the file ``name`` into one sentence.

    Raises:
        InputError: for any error but :class:`MemoryError`.
    """
    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            # Of sizes below MAX_PIXELS and of broken metadata; data that cannot be decoded raises.
            warnings.simplefilter("ignore")
            yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        kind = other_kind(data)
        found = "not an image" if kind is None else f"is {kind}, not an image"
        raise InputError(f"{name}: {found} that showface reads (JPEG, PNG, WebP, TIFF, BMP)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: larger than {MAX_PIXELS // 10**6} megapixels") from error
    except Exception as error:  # decoders raise many types on malformed data; a truncated file is the usual one
        raise InputError(f"{name}: cannot be decoded: {error}") from error


def _decode(data: bytes, name: str) -> Photo:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
        check_header(header, name)
        if header.format == "PNG":
            check_png(data, name)
        deep = bits_per_channel(header, data, name) == 16
        if deep and "transparency" in header.info:
            raise InputError(f"{name}: 16 bits with a transparent colour are not read; save it with an alpha channel")
        lossy = is_lossy(header, data)
        notes, held = said_of(header, data), header.info.get("icc_profile")
        image: Image.Image = header
        if header.mode == "CMYK":
            image, note = rgb_of_cmyk(header, name)
            notes.append(note)
        gray = header.mode == "LA" or (deep and header.format == "PNG" and data[25] == 4)
        pixels = _decode_deep(data, name) if deep else _decode_shallow(image)
        # Pillow and OpenCV both turn a TIFF upright themselves.
        orientation = 1 if header.format == "TIFF" else int(header.getexif().get(_EXIF_ORIENTATION, 1))
        profile = profile_for(header.info.get("icc_profile"), gray=gray or pixels.ndim == 2)
        if held and profile is None and header.mode != "CMYK" and not notes:
            notes.append("its colour profile is not one of its pixels, and is left out")
        # A TIFF is itself the directory of its EXIF tags: what it holds beside the pixels is not carried over.
        exif = None if header.format == "TIFF" else exif_of(header.info)
        metadata = metadata_of(header, data)
        return Photo(_upright(pixels, orientation), lossy, profile, exif, metadata, gray, tuple(notes))


def _decode_shallow(header: Image.Image) -> Pixels:
    has_alpha = header.mode in ("RGBA", "LA", "PA") or "transparency" in header.info
    mode = "RGBA" if has_alpha else "L" if header.mode in ("1", "L") else "RGB"
    return np.array(header.convert(mode), np.uint8)


def _decode_deep(data: bytes, name: str) -> Pixels:
    Image.open(io.BytesIO(data)).load()  # OpenCV keeps silent about truncated data
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise InputError(f"{name}: its pixel type is not supported; convert it to 8 or 16 bits")
    return _swap_red_and_blue(np.asarray(decoded, np.uint16))


def _swap_red_and_blue(pixels: Pixels) -> Pixels:
    if pixels.ndim == 2:
        return pixels
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(pixels, code))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply EXIF orientation 1-8."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def encode_photo(
    pixels: Pixels,
    suffix: str,
    lossy: bool,
    profile: bytes | None = None,
    exif: bytes | None = None,
    quality: int = QUALITY,
    metadata: Metadata = Metadata(),  # noqa: B008 - frozen
    gray: bool = False,
) -> bytes:
    """Encode ``pixels`` for a file name's ``suffix``.

    JPEG is written at ``quality`` and 4:4:4. WebP is lossless unless ``lossy``, then at ``quality``
    (lossy WebP has no 4:4:4). All other formats are lossless. BMP holds no ``profile``; JPEG, PNG and
    WebP alone hold ``exif``. Of ``metadata`` what the format holds is kept; ``gray`` writes RGBA as gray with alpha.

    Raises:
        InputError: the format cannot hold the array's alpha channel, bit depth or metadata.
    """
    suffix = plain_suffix(suffix)
    if suffix not in SUFFIXES:
        raise InputError(f"cannot write {suffix or 'a file without suffix'}; use one of {', '.join(SUFFIXES)}")
    if pixels.dtype == np.uint16:
        return metadata.inserted(_encode_deep(pixels, suffix, profile, exif, gray), suffix)
    if pixels.ndim == 3 and pixels.shape[2] == 4 and suffix not in ALPHA_SUFFIXES:
        raise InputError(f"{suffix} cannot hold an alpha channel; write to {' or '.join(ALPHA_SUFFIXES)}")
    formats: dict[str, dict[str, Any]] = {
        ".jpg": {"format": "JPEG", "quality": quality, "subsampling": 0},
        ".webp": {"format": "WEBP", "quality": quality if lossy else 100, "lossless": not lossy, "exact": True},
        ".png": {"format": "PNG", "compress_level": 2},
        ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
        ".bmp": {"format": "BMP"},
    }
    options = formats[suffix] if profile is None else {**formats[suffix], "icc_profile": profile}
    if exif is not None and suffix in EXIF_SUFFIXES:
        options = {**options, "exif": PREFIX + exif}
    options = {**options, **metadata.save_options(suffix)}
    image = Image.fromarray(pixels)
    if gray and pixels.ndim == 3:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., [0, 3]]), "LA")
    buffer = io.BytesIO()
    try:
        image.save(buffer, **options)
    except (ValueError, OSError) as error:  # such as an EXIF block of a PNG that is too long for JPEG
        raise InputError(f"cannot be encoded as {options['format']}: {error}") from error
    return metadata.inserted(buffer.getvalue(), suffix)


def encode_like(photo: Photo, pixels: Pixels, suffix: str, quality: int = QUALITY) -> bytes:
    """Encode ``pixels`` with all that a photo holds beside its own; see :func:`encode_photo`."""
    return encode_photo(pixels, suffix, photo.lossy, photo.profile, photo.exif, quality, photo.metadata, photo.gray)


def _encode_deep(pixels: Pixels, suffix: str, profile: bytes | None, exif: bytes | None, gray: bool) -> bytes:
    if suffix not in DEEP_SUFFIXES:
        raise InputError(f"{suffix} cannot hold 16 bits a channel; write to {' or '.join(DEEP_SUFFIXES)}")
    if gray and suffix == ".png" and pixels.ndim == 3:
        data = png_of_gray_alpha(pixels)
    else:
        data = bytes(cv2.imencode(suffix, _swap_red_and_blue(pixels))[1])
    if suffix != ".png":
        return data if profile is None else tiff_with_profile(data, profile)
    data = data if exif is None else png_with_chunk(data, b"eXIf", exif)
    return data if profile is None else png_with_profile(data, profile)
