"""Decoding and encoding of image files: layouts, losslessness, orientation and what is refused."""

import contextlib
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from showface.runtime.errors import InputError
from showface.runtime.images.codec import decode_photo, encode_photo, read_photo, write_file

GRAY, RGB, RGBA = (37, 53), (37, 53, 3), (37, 53, 4)
LOSSLESS = [(s, d, np.uint8) for s in (".png", ".tif", ".tiff") for d in (GRAY, RGB, RGBA)]
LOSSLESS += [(s, d, np.uint16) for s in (".png", ".tif", ".tiff") for d in (GRAY, RGB, RGBA)]
LOSSLESS += [(".webp", RGB, np.uint8), (".webp", RGBA, np.uint8), (".bmp", GRAY, np.uint8), (".bmp", RGB, np.uint8)]


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def smooth(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    gray = 128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)
    image = gray if len(shape) == 2 else np.stack([gray, gray[::-1], gray[:, ::-1]], axis=2)
    return np.rint(image).astype(np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_without_data(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("suffix", "shape", "dtype"), LOSSLESS)
def test_lossless_formats_keep_every_bit(suffix, shape, dtype):
    pixels = noise(shape, dtype)
    if len(shape) == 3 and shape[2] == 4:
        pixels[:9, :, 3] = 0  # the colour below full transparency is kept too
    photo = decode_photo(encode_photo(pixels, suffix.upper(), lossy=False), "x")
    assert photo.pixels.dtype == dtype
    assert not photo.lossy
    np.testing.assert_array_equal(photo.pixels, pixels)


@pytest.mark.parametrize(("suffix", "shape"), [(".jpg", GRAY), (".jpg", RGB), (".jpeg", RGB), (".webp", RGB)])
def test_lossy_formats_keep_the_layout_and_nearly_the_values(suffix, shape):
    photo = decode_photo(encode_photo(smooth(shape), suffix, lossy=True), "x")
    assert photo.lossy
    assert photo.pixels.shape == shape
    assert np.abs(photo.pixels.astype(int) - smooth(shape)).mean() < (6 if suffix == ".webp" else 1.5)


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_compression_is_found_behind_a_color_profile(lossless):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(Image.fromarray(noise(RGB)), "WEBP", lossless=lossless, icc_profile=profile)
    assert decode_photo(data, "x").lossy is not lossless


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "deep"),
    [("JPEG", False), ("PNG", False), ("WEBP", False), ("TIFF", False), ("PNG", True), ("TIFF", True)],
)
def test_orientation_is_applied_as_pillow_does(kind, deep, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    source = Image.fromarray(noise(GRAY, np.uint16) if deep else smooth(RGB))
    data = saved(source, kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(decode_photo(data, "x").pixels, expected)


@pytest.mark.parametrize(
    ("mode", "kind", "shape"),
    [("P", "PNG", RGB), ("1", "PNG", GRAY), ("LA", "PNG", RGBA), ("CMYK", "JPEG", RGB), ("P", "BMP", RGB)],
)
def test_other_pixel_types_become_gray_rgb_or_rgba(mode, kind, shape):
    source = Image.fromarray(noise(RGB)).convert(mode)
    data = saved(source, kind)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        expected = np.asarray(image.convert({2: "L", 3: "RGB"}[len(shape)] if shape != RGBA else "RGBA"))
    pixels = decode_photo(data, "x").pixels
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_transparent_palette_entry_becomes_alpha():
    source = Image.fromarray(noise((8, 8)) % 4, "L").convert("P")
    pixels = decode_photo(saved(source, "PNG", transparency=0), "x").pixels
    np.testing.assert_array_equal(pixels[..., 3] == 0, np.asarray(source) == 0)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [(s, np.uint8) for s in (".jpg", ".png", ".webp", ".tif", ".bmp")] + [(".png", np.uint16), (".tif", np.uint16)],
)
def test_truncated_files_are_refused_by_name(suffix, dtype, keep):
    data = encode_photo(noise((64, 64, 3), dtype), suffix, lossy=False)
    with pytest.raises(InputError, match="holiday"):
        decode_photo(data[: int(len(data) * keep)], "holiday" + suffix)


@pytest.mark.parametrize("data", [b"", b"not an image at all\n" * 20, b"\x89PNG\r\n\x1a\n", b"II*\0" + b"\xff" * 64])
def test_junk_is_refused_by_name(tmp_path, data):
    path = tmp_path / "junk.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"junk\.png"):
        read_photo(path)


ZERO_BY_ZERO = png_without_data(0, 0)


@pytest.mark.parametrize("data", [b"not an image at all\n" * 20, b"\0\1\2junk" * 30, ZERO_BY_ZERO])
def test_what_is_no_image_is_told_so(data):
    with pytest.raises(InputError) as caught:
        decode_photo(data, "x.png")
    assert str(caught.value) == "x.png: not an image that showface reads (JPEG, PNG, WebP, TIFF, BMP)"


def test_a_jpeg_with_a_preview_is_read_as_its_first_image():
    first, preview = smooth(RGB), smooth(RGB)[::-1]
    data = saved(Image.fromarray(first), "MPO", save_all=True, append_images=[Image.fromarray(preview)])
    photo = decode_photo(data, "x")
    assert photo.lossy
    assert np.abs(photo.pixels.astype(int) - first).mean() < 6 < np.abs(photo.pixels.astype(int) - preview).mean()


@pytest.mark.parametrize("place", ["PIL.Image.Image.convert", "PIL.TiffImagePlugin.TiffImageFile.n_frames"])
@pytest.mark.parametrize("error", [TypeError("odd tag"), KeyError("tag"), ZeroDivisionError(), RecursionError()])
def test_whatever_a_decoder_raises_is_an_input_error(monkeypatch, place, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(place, property(fail) if place.endswith("n_frames") else fail)
    with pytest.raises(InputError, match=r"odd\.tif: cannot be decoded"):
        decode_photo(saved(Image.fromarray(noise(RGB)), "TIFF"), "odd.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("deep", [False, True])
def test_damaged_files_raise_input_errors_only(kind, deep):
    if deep and kind not in ("PNG", "TIFF"):
        pytest.skip("holds 8 bits")
    random = np.random.default_rng(7)
    suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    whole = encode_photo(noise((24, 24, 3), np.uint16 if deep else np.uint8), suffix, lossy=False)
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, [len(data), min(len(data), 220), len(data)]):
            data[place] = random.integers(0, 256)
        if kind == "TIFF":  # its directory stands at the end
            data[-random.integers(1, 200)] = random.integers(0, 256)
        with contextlib.suppress(InputError):
            decode_photo(bytes(data), "x")


def test_jpeg_is_written_at_full_chroma_and_quality_95():
    for suffix in (".jpg", ".jpeg"):
        with Image.open(io.BytesIO(encode_photo(smooth(RGB), suffix, lossy=True))) as image:
            assert [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer] == [(1, 1)] * 3
            assert image.quantization == quantization_tables(95)


def quantization_tables(quality):
    """Return the tables of ITU-T T.81, annex K, scaled as libjpeg does it, for a quality above 50."""
    luminance = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
        18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
    chrominance = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99"
    tables = [[int(v) for v in luminance.split()], [int(v) for v in chrominance.split()] + [99] * 32]
    scale = 200 - 2 * quality
    return {i: [max((v * scale + 50) // 100, 1) for v in table] for i, table in enumerate(tables)}


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        read_photo(tmp_path / "gone.png")


@pytest.mark.parametrize("size", [(20000, 20000), (11000, 9500)])
def test_huge_images_are_refused_before_decoding(monkeypatch, size):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match=r"bomb.*100 megapixels"):
        decode_photo(png_without_data(*size), "bomb")


def test_a_large_image_below_the_limit_reaches_the_decoder():
    with pytest.raises(InputError, match="cannot be decoded"):
        decode_photo(png_without_data(10000, 10000), "x")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(tmp_path, kind):
    frames = [Image.fromarray(noise((16, 16, 3), seed=seed)) for seed in range(3)]
    path = tmp_path / "moving.png"
    path.write_bytes(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
    with pytest.raises(InputError, match=r"moving\.png"):
        read_photo(path)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixel_types_beyond_16_bits_are_refused(dtype):
    with pytest.raises(InputError, match=r"deep.*not supported"):
        decode_photo(saved(Image.fromarray(np.ones((8, 8), dtype)), "TIFF"), "deep")


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype", "message"),
    [(s, RGBA, np.uint8, "alpha") for s in (".jpg", ".jpeg", ".bmp")]
    + [(s, RGB, np.uint16, "16 bits") for s in (".jpg", ".webp", ".bmp")]
    + [(s, RGB, np.uint8, "cannot write") for s in (".gif", ".txt", "")],
)
def test_what_a_format_cannot_hold_is_refused(suffix, shape, dtype, message):
    with pytest.raises(InputError, match=message):
        encode_photo(np.zeros(shape, dtype), suffix, lossy=False)


def test_write_file_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "out.png"
    for data in (b"first", b"second"):
        write_file(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk trouble")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk trouble"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.png"]
