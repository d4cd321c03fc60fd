"""Colour profiles survive wherever the format holds them and they still describe the pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from showface.runtime.images.codec import decode_photo, encode_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
INK = SRGB[:16] + b"CMYK" + SRGB[20:]


def noise(shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def profile_in(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.info.get("icc_profile")


@pytest.mark.parametrize(("channels", "profile"), [(None, GRAY), (3, SRGB), (4, SRGB)])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(s, np.uint8) for s in (".png", ".tif", ".webp", ".jpg")] + [(s, np.uint16) for s in (".png", ".tif", ".tiff")],
)
def test_a_profile_is_written_and_read_again(suffix, dtype, channels, profile):
    if (suffix, channels) in ((".jpg", 4), (".webp", None)):
        pytest.skip("no such files")
    pixels = noise((9, 9) if channels is None else (9, 9, channels), dtype)
    data = encode_photo(pixels, suffix, lossy=suffix == ".jpg", profile=profile)
    assert profile_in(data) == profile
    photo = decode_photo(data, "x")
    assert photo.profile == profile
    assert photo.pixels.dtype == dtype
    if suffix != ".jpg":
        np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg", ".bmp"])
def test_no_profile_is_invented(suffix):
    data = encode_photo(noise((9, 9, 3)), suffix, lossy=True)
    assert profile_in(data) is None
    assert decode_photo(data, "x").profile is None


@pytest.mark.parametrize(("mode", "profile"), [("RGB", INK), ("RGB", GRAY), ("L", SRGB), ("RGB", b"short")])
def test_a_profile_that_does_not_describe_the_pixels_is_left_out(mode, profile):
    buffer = io.BytesIO()
    Image.fromarray(noise((9, 9, 3))).convert(mode).save(buffer, "JPEG", icc_profile=profile)
    assert decode_photo(buffer.getvalue(), "x").profile is None
