"""Whatever bytes the readers get, they return an array or raise an InputError, soon."""

import contextlib
import io
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from showface.runtime.batch.results_log import parse_result
from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.landmarks import read_landmarks
from showface.runtime.faces.masks import hole_from_mask
from showface.runtime.images.codec import decode_photo, encode_photo

from .malformed import WHOLE, face, saved

SECONDS = 5.0  # for one input, far above what any needs
SEEDS = [
    *WHOLE.values(),
    saved(Image.fromarray(face(24)), "PNG", exif=Image.Exif(), icc_profile=bytes(128)),
    saved(Image.fromarray(face(24)).convert("P"), "PNG", transparency=0),
    saved(Image.fromarray(face(24)), "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    saved(Image.fromarray(face(24)), "TIFF", compression="tiff_lzw"),
    encode_photo(face(24, np.uint16), ".png", lossy=False),
    encode_photo(face(24, np.uint16), ".tif", lossy=False),
]
bounded = settings(max_examples=150, deadline=SECONDS * 1000, suppress_health_check=list(HealthCheck), derandomize=True)


@st.composite
def damaged(draw):
    """Return a seed with bytes replaced, cut out, repeated, or appended."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 8))
        action = draw(st.sampled_from(("replace", "cut", "repeat", "insert")))
        if action == "replace":
            data[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif action == "cut":
            del data[place : place + length * 20]
        elif action == "repeat":
            data[place:place] = data[place : place + length * 20]
        else:
            data[place:place] = draw(st.binary(max_size=16))
    return bytes(data)


def check_photo(data):
    """Decode as an image and as a mask, and hold the result to what the module promises."""
    started = time.monotonic()
    with contextlib.suppress(InputError):
        photo = decode_photo(data, "x")
        assert photo.pixels.dtype in (np.uint8, np.uint16)
        assert photo.pixels.ndim == 2 or photo.pixels.shape[2] in (3, 4)
        assert photo.pixels.size > 0
        height, width = photo.pixels.shape[:2]
        assert hole_from_mask(photo.pixels, (height, width), "m").shape == (height, width)
        if photo.exif is not None and len(photo.exif) < 60000:
            encode_photo(photo.pixels, ".png", lossy=False, profile=photo.profile, exif=photo.exif)
    assert time.monotonic() - started < SECONDS


@bounded
@given(damaged())
def test_damaged_images(data):
    check_photo(data)


STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"RIFF\x40\0\0\0WEBPVP8 ", b"BM"]
LANDMARKS = [b'{"a": [[[1, 2]]]}', b"a,1,2,3,4,5,6,7,8,9,nan", b"[]", b'{"a": 3}']


@bounded
@given(st.sampled_from(STARTS), st.binary())
def test_arbitrary_bytes(start, rest):
    check_photo(start + rest)


@bounded
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_lines_of_results(text):
    result = parse_result(text)
    assert result is None or result.status in ("done", "skipped", "failed")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@settings(bounded, max_examples=60)
@given(data=st.binary(max_size=300) | st.sampled_from(LANDMARKS))
def test_landmark_files(tmp_path_factory, suffix, data):
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        for faces in read_landmarks(path).values():
            assert all(points.shape == (5, 2) and np.isfinite(points).all() for points in faces)


def test_the_seeds_are_good():
    for data in SEEDS:
        assert decode_photo(data, "x").pixels.size > 0
        assert io.BytesIO(data).read(2)
