"""Read and write image files as numpy arrays.

An array is (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16, upright (EXIF orientation
applied). Pillow decodes and encodes 8-bit files, because it reports truncated data; OpenCV the
16-bit ones, which Pillow would cut to 8.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import InputError

Pixels = NDArray[Any]  # uint8 or uint16; (H, W), (H, W, 3) or (H, W, 4)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # these hold 16 bits a channel
ALPHA_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
MAX_PIXELS = 100_000_000
QUALITY = 95  # of JPEG and lossy WebP

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "MPO")  # MPO: a JPEG with an embedded preview
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_SAMPLE_FORMAT = 258, 339


@dataclass(frozen=True, slots=True)
class Photo:
    """One decoded image file."""

    pixels: Pixels
    lossy: bool  # the file's own compression


def read_photo(path: Path) -> Photo:
    """Decode an image file; see the module for the layout.

    Raises:
        InputError: the file cannot be read, is no image of a known format, is truncated, holds more
            than one frame, floats, or more than 100 megapixels (checked before decoding).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_photo(data, str(path))


def decode_photo(data: bytes, name: str) -> Photo:
    """Decode the bytes of an image file; ``name`` stands in the errors, which are those of :func:`read_photo`."""
    if not data:
        raise InputError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            header: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            header = _open_large(data, name)
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image that showface reads (JPEG, PNG, WebP, TIFF, BMP)") from error
    except Exception as error:  # Pillow's parsers raise many types on malformed headers
        raise InputError(f"{name}: broken image header: {error}") from error
    with header:
        _check_header(header, name)
        try:
            pixels = _decode(header, data)
            # Pillow and OpenCV both turn a TIFF upright themselves.
            orientation = 1 if header.format == "TIFF" else int(header.getexif().get(_EXIF_ORIENTATION, 1))
        except InputError:
            raise
        except Exception as error:  # as above; a truncated file is the usual one
            raise InputError(f"{name}: cannot be decoded: {error}") from error
        if pixels is None:
            raise InputError(f"{name}: its pixel type ({header.mode}) is not supported; convert it to 8 or 16 bits")
        return Photo(_upright(pixels, orientation), _is_lossy(header, data))


def _open_large(data: bytes, name: str) -> Image.Image:
    """Open a file that Pillow's own, lower limit warned of."""
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: larger than {MAX_PIXELS // 10**6} megapixels") from error


def _check_header(header: Image.Image, name: str) -> None:
    width, height = header.size
    if width < 1 or height < 1:
        raise InputError(f"{name}: has no pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width}×{height} is larger than {MAX_PIXELS // 10**6} megapixels")
    frames = 1 if header.format == "MPO" else getattr(header, "n_frames", 1)
    if frames > 1:
        raise InputError(f"{name}: holds {frames} frames; give one image a file")


def _bits_per_channel(header: Image.Image, data: bytes) -> int:
    """Return the bit depth in the file, which Pillow's mode does not tell."""
    if header.format == "TIFF":
        tags: Any = header.tag_v2  # type: ignore[attr-defined]
        if 3 in tags.get(_TIFF_SAMPLE_FORMAT, (1,)):
            return 32
        return int(max(tags.get(_TIFF_BITS_PER_SAMPLE, (1,))))
    if header.format == "PNG":
        # A PNG starts with an 8-byte signature, the IHDR chunk's length and name, width and height.
        return data[24]
    return 8


def _decode(header: Image.Image, data: bytes) -> Pixels | None:
    deep = _bits_per_channel(header, data) if header.format in ("TIFF", "PNG") else 8
    if deep > 16 or header.mode == "F":
        return None
    if deep == 16:
        Image.open(io.BytesIO(data)).load()  # OpenCV keeps silent about truncated data
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.dtype != np.uint16:
            return None
        return _swap_red_and_blue(np.asarray(decoded, np.uint16))
    has_alpha = header.mode in ("RGBA", "LA", "PA") or "transparency" in header.info
    mode = "RGBA" if has_alpha else "L" if header.mode in ("1", "L") else "RGB"
    return np.array(header.convert(mode), np.uint8)


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


def _is_lossy(header: Image.Image, data: bytes) -> bool:
    if header.format != "WEBP":
        return header.format in ("JPEG", "MPO")
    offset = 12  # a RIFF header, then chunks; a colour profile may stand before the pixels
    while offset + 8 <= len(data) and data[offset : offset + 4] != b"VP8L":
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        offset += 8 + size + size % 2
    return data[offset : offset + 4] != b"VP8L"


def encode_photo(pixels: Pixels, suffix: str, lossy: bool) -> bytes:
    """Encode ``pixels`` for a file name's ``suffix``.

    JPEG is written at quality 95 and 4:4:4. WebP is lossless unless ``lossy``, then at quality 95
    (lossy WebP has no 4:4:4). All other formats are lossless.

    Raises:
        InputError: the format cannot hold the array's alpha channel or bit depth.
    """
    suffix = suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"cannot write {suffix or 'a file without suffix'}; use one of {', '.join(SUFFIXES)}")
    if pixels.dtype == np.uint16:
        if suffix not in DEEP_SUFFIXES:
            raise InputError(f"{suffix} cannot hold 16 bits a channel; write to {' or '.join(DEEP_SUFFIXES)}")
        return bytes(cv2.imencode(suffix, _swap_red_and_blue(pixels))[1])
    if pixels.ndim == 3 and pixels.shape[2] == 4 and suffix not in ALPHA_SUFFIXES:
        raise InputError(f"{suffix} cannot hold an alpha channel; write to {' or '.join(ALPHA_SUFFIXES)}")
    formats: dict[str, dict[str, Any]] = {
        ".jpg": {"format": "JPEG", "quality": QUALITY, "subsampling": 0},
        ".jpeg": {"format": "JPEG", "quality": QUALITY, "subsampling": 0},
        ".webp": {"format": "WEBP", "quality": QUALITY if lossy else 100, "lossless": not lossy, "exact": True},
        ".png": {"format": "PNG", "compress_level": 4},
        ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
        ".tiff": {"format": "TIFF", "compression": "tiff_lzw"},
        ".bmp": {"format": "BMP"},
    }
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **formats[suffix])
    return buffer.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary name beside ``path``, flush it to disk and rename it."""
    temporary = path.with_name(f".{os.getpid()}.showface.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
