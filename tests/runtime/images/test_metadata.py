"""What a file holds beside its pixels is kept, refused or said; colours outside the hole are those of the input."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from showface.runtime.errors import InputError
from showface.runtime.faces.tensors import composite, is_gray
from showface.runtime.images.codec import decode_photo, encode_like
from showface.runtime.images.decoder_process import IsolatedDecoder
from showface.runtime.images.metadata import Metadata

XMP = b'<x:xmpmeta tiff:Orientation="6"><xmpGImg:image>/9j/OLDFACE</xmpGImg:image><dc:title>me</dc:title></x:xmpmeta>'


def picture(mode="RGB", side=64):
    y, x = np.mgrid[:side, :side]
    rgb = np.stack([x * 4, y * 4, (x + y) * 2], axis=2).clip(0, 255).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def again(data, suffix):
    """Return the decoded file, and that of its own pixels encoded with all that it holds."""
    photo = decode_photo(data, "x")
    return photo, Image.open(io.BytesIO(encode_like(photo, photo.pixels, suffix)))


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".tif"), ("BMP", ".bmp")])
def test_the_resolution_is_kept(kind, suffix):
    _, found = again(saved(picture(), kind, dpi=(300, 150)), suffix)
    assert found.info["dpi"] == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_is_kept_without_its_thumbnail_and_upright(kind, suffix):
    options = {"xmp": XMP}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": text}
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = XMP
        options = {"tiffinfo": tags}
    if kind == "JPEG":
        data = saved(picture(), kind)
        body = b"http://ns.adobe.com/xap/1.0/\0" + XMP
        data = data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    else:
        data = saved(picture(), kind, **options)
    photo = decode_photo(data, "x")
    written = encode_like(photo, photo.pixels, suffix)
    assert written.count(b"<dc:title>me</dc:title>") == 1
    assert b'tiff:Orientation="1"' in written
    assert b"OLDFACE" not in written
    assert decode_photo(written, "again").metadata.xmp == photo.metadata.xmp


def test_texts_of_png_and_a_comment_of_jpeg_are_kept():
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a face")
    text.add_text("Long", "x" * 5000, zip=True)
    text.add_itxt("Ünïcode", "☃", "de", "Titel")
    photo, found = again(saved(picture(), "PNG", pnginfo=text), ".png")
    found.load()
    assert found.text == {"Title": "a face", "Long": "x" * 5000, "Ünïcode": "☃"}
    assert photo.metadata.lost(".jpg", False, False, False) == "left out, as the output does not hold it: texts"
    photo, found = again(saved(picture(), "JPEG", comment=b"taken in 1999"), ".jpg")
    assert found.info["comment"] == b"taken in 1999"
    assert "comment" in photo.metadata.lost(".png", False, False, False)


def test_texts_of_tiff_are_kept_and_its_exif_is_said():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[33432] = "a face", "nobody"
    photo, found = again(saved(picture(), "TIFF", tiffinfo=tags), ".tif")
    assert (found.tag_v2[270], found.tag_v2[33432]) == ("a face", "nobody")
    assert photo.metadata.lost(".tif", False, False, False) is None
    assert Metadata(left=("EXIF",)).lost(".tif", False, False, False).endswith("hold it: EXIF")


def test_colour_chunks_of_png_are_kept():
    text = PngImagePlugin.PngInfo()
    text.add(b"gAMA", (100000).to_bytes(4, "big"))
    _, found = again(saved(picture(), "PNG", pnginfo=text), ".png")
    assert found.info["gamma"] == 1.0


def test_the_second_picture_of_an_mpo_and_what_lies_behind_a_jpeg_are_said():
    data = saved(picture(), "MPO", save_all=True, append_images=[picture()])
    assert decode_photo(data, "x").notes == ("holds 2 pictures, of which the first is completed and kept alone",)
    assert "behind the picture" in decode_photo(saved(picture(), "JPEG") + b"ftypmp42" * 9, "x").notes[0]
    assert decode_photo(saved(picture(), "JPEG") + bytes(40), "x").notes == ()


@pytest.mark.parametrize("place", [0.4, 0.6, 0.8])
def test_a_jpeg_that_is_damaged_in_the_middle_fails(place):
    data = bytearray(saved(picture(side=256), "JPEG", quality=95))
    middle = int(len(data) * place)
    data[middle : middle + 400] = bytes(400)
    with IsolatedDecoder() as decoder:
        with pytest.raises(InputError, match=r"x: is damaged: .*orrupt"):
            decoder.decode(bytes(data), "x")
        assert decoder.decode(saved(picture(), "JPEG", dpi=(72, 72)), "y").metadata.dpi == (72, 72)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_a_guess_and_that_is_said(kind):
    photo = decode_photo(saved(picture("CMYK"), kind), "x")
    assert photo.pixels.shape == (64, 64, 3)
    assert "a guess" in photo.notes[0]


def test_cmyk_with_a_profile_that_cannot_be_used_is_refused():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with pytest.raises(InputError, match="cannot be used"):
        decode_photo(saved(picture("CMYK"), "JPEG", icc_profile=lab), "x")


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_pictures_keep_their_mode(mode, suffix):
    photo, found = again(saved(picture(mode), "PNG"), suffix)
    assert found.mode == ("L" if mode == "1" else mode)
    assert photo.gray == (mode == "LA")


def test_gray_with_alpha_in_16_bits_keeps_its_mode():
    values = np.random.default_rng(0).integers(0, 65536, (20, 24, 2)).astype(np.uint16)
    from showface.runtime.images.exif import png_of_gray_alpha

    data = png_of_gray_alpha(np.dstack([values[..., :1]] * 3 + [values[..., 1:]]))
    photo = decode_photo(data, "x")
    np.testing.assert_array_equal(photo.pixels[..., [0, 3]], values)
    assert encode_like(photo, photo.pixels, ".png")[25] == 4
    np.testing.assert_array_equal(decode_photo(encode_like(photo, photo.pixels, ".png"), "y").pixels, photo.pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_where_all_that_is_known_is_gray_the_fill_is(dtype, channels):
    random, top = np.random.default_rng(0), np.iinfo(dtype).max
    pixels = np.repeat(random.integers(0, top, (64, 64, 1)), channels, axis=2).astype(dtype)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    pixels[25:30, 25:30, 0] = 0  # the hue of what hides the face does not count
    assert is_gray(pixels, hole)
    done = composite(pixels, hole, random.uniform(-1, 1, (3, 64, 64)).astype(np.float32))
    assert (done[..., 0] == done[..., 1])[hole].all()
    assert (done[..., 1] == done[..., 2])[hole].all()
    np.testing.assert_array_equal(done[~hole], pixels[~hole])
    pixels[0, 0, 0] = top - pixels[0, 0, 1]
    assert not is_gray(pixels, hole)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_gray_photograph_in_a_colour_jpeg_is_gray(quality):
    photo = decode_photo(saved(picture("L").convert("RGB"), "JPEG", quality=quality), "x")
    assert is_gray(photo.pixels, np.zeros((64, 64), bool))


def test_16_bits_with_a_transparent_colour_are_refused():
    data = bytes(cv2.imencode(".png", np.full((8, 8, 3), 999, np.uint16))[1])
    from showface.runtime.images.exif import png_with_chunk

    with pytest.raises(InputError, match="transparent colour"):
        decode_photo(png_with_chunk(data, b"tRNS", b"\x03\xe7" * 3), "x")


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"\0\0\0\x18ftypheic", "HEIF"), (b"\0\0\0\x18ftypavif", "AVIF"), (b"8BPS", "Photoshop"), (b"%PDF-1.4", "PDF"),
     (b"P6\n", "Netpbm"), (b"\xff\x0a", "JPEG XL"), (b"<svg ", "SVG"), (b"#?RADIANCE", "Radiance")],
)  # fmt: skip
def test_an_image_of_another_format_is_named(start, kind):
    with pytest.raises(InputError, match=f"is {kind}.*, not an image that showface reads"):
        decode_photo(start + bytes(100), "x")
