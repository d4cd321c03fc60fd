"""Picture files of a data folder: whatever one holds, it is decoded whole or refused by its name."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from showface.evaluation.faces import Pair, read_pair
from showface.runtime.errors import UsageError
from showface.training.config import MaskConfig
from showface.training.data.labels import read_label_map, read_part_labels
from showface.training.data.masks import read_masks
from showface.training.data.occlusions.cutouts import read_cutout
from showface.training.data.pictures import read_picture
from showface.training.data.sources import read_face

SIDE = 96
RGB = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


def encoded(kind, pixels=RGB, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def claiming(width, height):
    """Return a PNG whose header asks for more memory than there is."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, body))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


JPEG = encoded("JPEG")
IN_EXIF = b"\xff\xe1" + struct.pack(">H", len(JPEG) + 2) + JPEG
WHOLE = {kind: encoded(kind) for kind in FORMATS}
BAD = {
    "empty": b"",
    "text": b"no picture at all",
    "a bomb": claiming(60_000, 60_000),
    "a larger bomb": claiming(2**31 - 1, 2**31 - 1),
    "a thumbnail whose picture is cut off": JPEG[:2] + IN_EXIF + JPEG[2:-40],
    "a flipped bit": WHOLE["PNG"][:4000] + bytes([WHOLE["PNG"][4000] ^ 1]) + WHOLE["PNG"][4001:],
    "two pictures": encoded("TIFF", save_all=True, append_images=[Image.fromarray(RGB)]),
    "an icon": b"\0\0\1\0\1\0" + bytes(40),
    **{f"{kind}, {share} %": data[: len(data) * share // 100] for kind, data in WHOLE.items() for share in (20, 90)},
}  # fmt: skip
READERS = {
    "face": lambda path: read_face(path, SIDE),
    "labels": lambda path: read_label_map(path, SIDE),
    "parts": lambda path: read_part_labels(path.with_name("x"), SIDE),
    "mask": lambda path: read_masks(MaskConfig("masks"), path.parents[2], SIDE, 0),
    "cut-out": read_cutout,
    "pair": lambda path: read_pair(Pair(path, path, "")),
}


@pytest.fixture
def path(tmp_path):
    """Return a path that is a face, a part of labels and a mask of a bin alike."""
    (tmp_path / "masks" / "20-30").mkdir(parents=True)
    return tmp_path / "masks" / "20-30" / "x_skin.png"


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_whole_picture_is_named(path, reader, kind, capfd):
    path.write_bytes(BAD[kind])
    with pytest.raises(UsageError, match=r"x_skin\.png: .*; replace the file or take it out") as refused:
        READERS[reader](path)
    assert "\n" not in str(refused.value)
    assert "OpenCV" not in capfd.readouterr().err


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_named_and_not_waited_for(path, reader):
    os.mkfifo(path)
    with pytest.raises(UsageError, match="x_skin"):
        READERS[reader](path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="x_skin"):
        READERS[reader](path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_picture_is_what_opencv_reads(tmp_path, kind):
    path = tmp_path / f"a{FORMATS[kind]}"
    trailing = b"" if kind == "TIFF" else b"\xff\xd8\xff\xd9 behind it"
    path.write_bytes(encoded(kind) + trailing)
    for mode in (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE, cv2.IMREAD_UNCHANGED):
        np.testing.assert_array_equal(read_picture(path, mode), cv2.imread(str(path), mode))
    if kind != "JPEG" and kind != "WEBP":
        np.testing.assert_array_equal(read_picture(path, cv2.IMREAD_COLOR)[..., ::-1], RGB)


def test_a_progressive_jpeg_is_whole_after_its_last_scan(tmp_path):
    data, path = encoded("JPEG", progressive=True), tmp_path / "a.jpg"
    path.write_bytes(data)
    assert read_picture(path, cv2.IMREAD_COLOR).shape == (SIDE, SIDE, 3)
    path.write_bytes(data[: data.rfind(b"\xff\xda") + 30])
    with pytest.raises(UsageError, match="is cut off"):
        read_picture(path, cv2.IMREAD_COLOR)


@pytest.mark.parametrize("fill", [b"", b"\xff\xff"], ids=["plain", "filled up before a marker"])
def test_a_video_behind_a_jpeg_may_hold_any_bytes(tmp_path, fill):
    """Phones write both into one file; markers in the video are none of the picture's."""
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG[:2] + fill + JPEG[2:] + b"ftyp\xff\xd9 video \xff\xda video")
    assert read_picture(path, cv2.IMREAD_COLOR).shape == (SIDE, SIDE, 3)


def test_a_picture_within_the_bounds_is_read_without_a_word(tmp_path, monkeypatch, recwarn):
    """Pillow warns of sizes that are still allowed."""
    path = tmp_path / "a.png"
    path.write_bytes(WHOLE["PNG"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE * SIDE - 1)
    assert read_picture(path, cv2.IMREAD_COLOR).shape == (SIDE, SIDE, 3)
    assert not recwarn.list
