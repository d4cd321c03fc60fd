"""Malformed inputs, made on purpose: a function a file, each with what a run has to say about it."""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

FAILS, DONE = "failed", "done"
MASK = "hole.png"


@dataclass(frozen=True)
class Fault:
    """One file: its name below the input folder, its bytes, and how it has to end."""

    name: str
    data: bytes
    status: str
    words: str = ""


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def face(side=64, dtype=np.uint8, channels=3):
    y, x = np.mgrid[:side, :side]
    wave = (np.sin(x / 5) + np.cos(y / 7) + 2) / 4
    return np.stack([wave * np.iinfo(dtype).max] * channels, axis=2).astype(dtype)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, body, depth=8, color=2, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


WHOLE = {
    "png": saved(Image.fromarray(face()), "PNG"),
    "jpg": saved(Image.fromarray(face()), "JPEG"),
    "webp": saved(Image.fromarray(face()), "WEBP", lossless=True),
    "tif": saved(Image.fromarray(face()), "TIFF"),
    "bmp": saved(Image.fromarray(face()), "BMP"),
}


def truncated():
    """Every format, cut at every tenth of its length."""
    for suffix, data in WHOLE.items():
        for tenth in range(10):
            yield Fault(f"cut-{tenth}.{suffix}", data[: len(data) * tenth // 10], FAILS)


def flipped():
    """Every format with one bit flipped in its first bytes, which no decoder can take for its format."""
    for suffix, data in WHOLE.items():
        yield Fault(f"flip.{suffix}", bytes([data[0] ^ 0x10]) + data[1:], FAILS, "not an image")
    broken = bytearray(WHOLE["png"])
    broken[-30] ^= 1  # in the compressed data: its checksum no longer fits
    yield Fault("flip-checksum.png", bytes(broken), FAILS, "damaged")


def odd_contents():
    """Files that are images, but not of the kind that the name or the networks expect."""
    image = Image.fromarray(face())
    frames = [Image.fromarray(np.roll(face(), k, axis=0)) for k in range(3)]
    yield Fault("png-inside.jpg", WHOLE["png"], DONE)
    yield Fault("jpeg-inside.png", WHOLE["jpg"], DONE)
    yield Fault("gif-inside.png", saved(image, "GIF"), DONE)
    yield Fault("animated.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), FAILS, "3 frames")
    yield Fault("animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]), FAILS, "3 frames")
    yield Fault("pages.tif", saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]), FAILS, "3 frames")
    yield Fault("cmyk.jpg", saved(image.convert("CMYK"), "JPEG"), DONE)
    yield Fault("palette.png", saved(image.convert("P"), "PNG"), DONE)
    yield Fault("one-bit.png", saved(image.convert("1"), "PNG"), DONE)
    yield Fault("deep.png", saved(Image.fromarray(face(dtype=np.uint16)[..., 0]), "PNG"), DONE)
    yield Fault("float.tif", saved(Image.fromarray(face()[..., 0].astype(np.float32)), "TIFF"), FAILS, "not supported")
    yield Fault("one-pixel.png", saved(Image.fromarray(face(1)), "PNG"), DONE)
    yield Fault("two-pixels.png", saved(Image.fromarray(face(2)), "PNG"), DONE)
    yield Fault("wide.png", saved(Image.fromarray(face()[:32]), "PNG"), FAILS, "not square")
    broken_exif = b"\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\x7f"
    yield Fault("exif.jpg", WHOLE["jpg"][:2] + broken_exif + WHOLE["jpg"][2:], DONE)
    yield Fault("trailing.png", WHOLE["png"] + b"trailing" * 1000, DONE)
    yield Fault("empty.png", b"", FAILS, "empty")
    yield Fault("text.png", b"an image this is not\n" * 50, FAILS, "not an image")
    yield Fault("zeros.jpg", bytes(10000), FAILS, "not an image")
    yield Fault("profile.png", saved(image, "PNG", icc_profile=b"no profile at all" * 9), DONE)


def bombs():
    """Small files that say, or hold, far more than they should."""
    yield Fault("huge-header.png", png(2**31 - 1, 2**31 - 1, b""), FAILS)
    yield Fault("huge.png", png(40000, 40000, zlib.compress(b"")), FAILS, "megapixels")
    yield Fault("bomb.png", png(9999, 9999, zlib.compress(bytes(3 * 10**7), 9)), FAILS, "cannot be decoded")
    yield Fault("overlong.png", png(64, 64, zlib.compress(bytes(64 * (1 + 3 * 64)) + bytes(10**8), 9)), DONE)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8), 9))
    yield Fault("text-bomb.png", png(64, 64, zlib.compress(bytes(64 * (1 + 3 * 64))), extra=text), FAILS)
    profile = chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(10**8), 9))
    yield Fault("profile-bomb.png", png(64, 64, zlib.compress(bytes(64 * (1 + 3 * 64))), extra=profile), FAILS)


def odd_names():
    """A good image under names that shells, terminals and paths get wrong."""
    shells = ("new\nline.png", "\x1b[31mred.png", "bell\a.png", " space .png", "-rf.png", "quote'\".png", "a;b&c.png")
    escapes = ("..png", "...png", "..%2f..%2fescape.png", "..\\..\\escape.png")
    for name in (*shells, *escapes, "[bold]x[].png", "ünï☃.png", "%s%n.png"):
        yield Fault(name, WHOLE["png"], DONE)
    yield Fault("x" * 251 + ".png", WHOLE["png"], DONE)
    yield Fault(os.fsdecode(b"latin-\xe9\xff.png"), WHOLE["png"], DONE)
    yield Fault("UPPER.PNG", WHOLE["png"], DONE)
    yield Fault("..deep/.../x.png", WHOLE["png"], DONE)


@cache
def all_faults():
    """Return every malformed file; they are made when a test first asks, not when tests are collected."""
    return [fault for kind in (truncated, flipped, odd_contents, bombs, odd_names) for fault in kind()]
