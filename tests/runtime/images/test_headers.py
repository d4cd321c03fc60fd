"""Depth, photometric and compression of TIFF files: what cannot be read exactly is refused."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from showface.runtime.errors import InputError
from showface.runtime.images.codec import decode_photo

BLACK_IS_ZERO, WHITE_IS_ZERO, RGB, PALETTE, SEPARATED = 1, 0, 2, 3, 5


def tiff(data, side, bits, photometric, samples=1, sample_format=1):
    """Return an uncompressed little-endian TIFF of one strip, by hand."""
    extra = 8 + len(data)
    tags = [(256, 4, side), (257, 4, side), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, samples), (278, 4, side), (279, 4, len(data)), (339, 3, sample_format)]
    depths = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 2 else b""
    directory = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        if tag == 258 and depths:
            directory += struct.pack("<HHII", tag, kind, samples, extra)
        else:
            directory += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
    return b"II*\0" + struct.pack("<I", extra + len(depths)) + data + depths + directory + bytes(4)


def values(shape, top, dtype):
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)


def test_a_tiff_of_12_bits_is_refused():
    pairs = values((8, 4, 2), 4095, np.uint16).astype(int)
    first, second = pairs[..., 0], pairs[..., 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)
    with pytest.raises(InputError, match=r"deep\.tif: 12 bits a channel are not supported; convert it"):
        decode_photo(tiff(packed.tobytes(), 8, 12, BLACK_IS_ZERO), "deep.tif")


@pytest.mark.parametrize("bits", [2, 4])
def test_a_tiff_of_few_bits_is_refused(bits):
    with pytest.raises(InputError, match=f"{bits} bits a channel"):
        decode_photo(tiff(bytes(8 * bits), 8, bits, BLACK_IS_ZERO), "x")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_gray_tiff_is_read_as_it_is(dtype):
    expected = values((8, 8), np.iinfo(dtype).max, dtype)
    data = tiff(expected.tobytes(), 8, expected.itemsize * 8, BLACK_IS_ZERO)
    np.testing.assert_array_equal(decode_photo(data, "x").pixels, expected)


def test_an_rgb_tiff_of_16_bits_is_read_as_it_is():
    expected = values((8, 8, 3), 65535, np.uint16)
    np.testing.assert_array_equal(decode_photo(tiff(expected.tobytes(), 8, 16, RGB, 3), "x").pixels, expected)


def test_a_tiff_whose_white_is_zero_is_inverted_or_refused():
    eight = values((8, 8), 255, np.uint8)
    np.testing.assert_array_equal(decode_photo(tiff(eight.tobytes(), 8, 8, WHITE_IS_ZERO), "x").pixels, 255 - eight)
    sixteen = values((8, 8), 65535, np.uint16)
    with pytest.raises(InputError, match=r"x: 16 bits of photometric 0 are not supported; save it as gray"):
        decode_photo(tiff(sixteen.tobytes(), 8, 16, WHITE_IS_ZERO), "x")


def test_ink_is_not_taken_for_rgb():
    ink = values((8, 8, 4), 65535, np.uint16)
    with pytest.raises(InputError, match="photometric 5"):
        decode_photo(tiff(ink.tobytes(), 8, 16, SEPARATED, 4), "x")


def test_signed_values_are_refused():
    with pytest.raises(InputError, match="pixel type is not supported"):
        decode_photo(tiff(bytes(128), 8, 16, BLACK_IS_ZERO, sample_format=2), "x")


@pytest.mark.parametrize("mode", ["1", "P"])
def test_one_bit_and_palette_stay_readable(mode):
    source = Image.fromarray(values((8, 8), 255, np.uint8)).convert(mode)
    buffer = io.BytesIO()
    source.save(buffer, "TIFF")
    expected = np.asarray(source.convert("L" if mode == "1" else "RGB"))
    np.testing.assert_array_equal(decode_photo(buffer.getvalue(), "x").pixels, expected)


@pytest.mark.parametrize(("compression", "lossy"), [("jpeg", True), ("tiff_lzw", False), ("raw", False)])
def test_a_tiff_is_lossy_where_it_holds_jpeg_data(compression, lossy):
    smooth = cv2.GaussianBlur(values((64, 64, 3), 255, np.uint8), (0, 0), 4)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "TIFF", compression=compression)
    assert decode_photo(buffer.getvalue(), "x").lossy is lossy
