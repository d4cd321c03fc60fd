"""Where the hole comes from: thresholds, resizing, the search for mask files, alpha and key colours."""

import errno
import functools
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from showface.runtime.errors import InputError, UsageError
from showface.runtime.faces.masks import (
    LOSSY_COLOR_MARGIN,
    LOSSY_COLOR_TOLERANCE,
    MaskSource,
    hole_from_mask,
    hole_of,
    list_masks,
    mask_source,
)
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.images.codec import Photo, decode_photo, encode_photo

GREEN = (0, 255, 0)


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def square(shape, start=16, stop=48):
    hole = np.zeros(shape, np.bool_)
    hole[start:stop, start:stop] = True
    return hole


@pytest.mark.parametrize(("value", "is_hole"), [(0, False), (127, False), (128, True), (255, True)])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mask_threshold(value, is_hole, shape, dtype):
    """One pixel of any grey at the rim of black and white."""
    mask = np.zeros(shape, dtype)
    mask[:, 3:] = np.iinfo(dtype).max
    mask[0, 2] = value * (np.iinfo(dtype).max // 255)
    if len(shape) == 3 and shape[2] == 4:
        mask[..., 3] = np.iinfo(dtype).max
    hole = hole_from_mask(mask, (4, 6), "m")
    assert hole.dtype == np.bool_
    assert hole[:, 3:].all()
    assert hole[0, 2] == is_hole
    assert hole.sum() == 12 + is_hole


@pytest.mark.parametrize("factor", [2, 3, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_growing_a_mask_repeats_its_pixels(factor, dtype):
    mask = (noise((20, 31)) > 127).astype(dtype) * np.iinfo(dtype).max
    rows, columns = np.arange(20 * factor) // factor, np.arange(31 * factor) // factor
    expected = (mask > 0)[rows[:, None], columns[None]]
    np.testing.assert_array_equal(hole_from_mask(mask, expected.shape, "m"), expected)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_shrinking_a_mask_keeps_its_blocks(factor):
    expected = noise((20, 31)) > 127
    mask = np.kron(expected, np.ones((factor, factor))).astype(np.uint8) * 255
    np.testing.assert_array_equal(hole_from_mask(mask, (20, 31), "m"), expected)


@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (100, 98)])
def test_another_aspect_ratio_is_refused_by_name(shape):
    with pytest.raises(InputError, match="mask of a face"):
        hole_from_mask(np.zeros(shape, np.uint8), (200, 200), "mask of a face")


def test_one_percent_of_aspect_ratio_is_forgiven():
    assert hole_from_mask(np.full((1000, 995), 255, np.uint8), (256, 256), "m").shape == (256, 256)


@pytest.mark.parametrize(("dtype", "step"), [(np.uint8, 1), (np.uint16, 257)])
def test_alpha_source_takes_what_is_transparent(dtype, step):
    pixels = noise((2, 4, 4), dtype)
    pixels[..., 3] = np.asarray([0, 127, 128, 255], dtype) * dtype(step)
    hole = hole_of(Photo(pixels, lossy=False), MaskSource("alpha"), None, "x")
    assert hole.tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_alpha_source_needs_an_alpha_channel(shape):
    with pytest.raises(InputError, match=r"face\.jpg.*alpha"):
        hole_of(Photo(np.zeros(shape, np.uint8), lossy=True), MaskSource("alpha"), None, "face.jpg")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_color_source_is_exact_in_lossless_files(dtype, channels):
    top = np.iinfo(dtype).max
    pixels = np.full((64, 64, channels), top, dtype)
    hole = square((64, 64))
    pixels[hole, :3] = np.asarray(GREEN, dtype) * (top // 255)
    pixels[0, 0, :3] = (1, top, 0)  # nearly the key colour
    found = hole_of(Photo(pixels, lossy=False), MaskSource("color", color=GREEN), None, "x")
    np.testing.assert_array_equal(found, hole)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_color_source_tolerates_lossy_compression(suffix):
    pixels = np.full((64, 64, 3), (190, 140, 120), np.uint8)
    pixels[square((64, 64))] = GREEN
    photo = decode_photo(encode_photo(pixels, suffix, lossy=True), "x")
    found = hole_of(photo, MaskSource("color", color=GREEN), None, "x")
    assert found[square((64, 64), 15, 49)].all()
    assert not found[~square((64, 64), 11, 53)].any()


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3), (40, 50, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_color_source_is_the_distance_of_all_channels(dtype, shape, lossy):
    rng, color = np.random.default_rng(3), (100, 100, 100) if len(shape) == 2 else (90, 120, 60)
    scale, tolerance = np.iinfo(dtype).max // 255, LOSSY_COLOR_TOLERANCE if lossy else 0
    near = np.asarray((*color, 0)[: shape[2]] if len(shape) == 3 else 100)
    pixels = ((near + rng.integers(-tolerance - 1, tolerance + 2, shape)) * scale).clip(0, None).astype(dtype)
    sample = np.atleast_3d(pixels)[..., :3].astype(np.int64)
    expected = (np.abs(sample - np.asarray(color)[: sample.shape[2]] * scale) <= tolerance * scale).all(axis=2)
    assert 0 < expected.sum() < expected.size
    if lossy:
        expected = ndimage.binary_dilation(expected, np.ones((2 * LOSSY_COLOR_MARGIN + 1,) * 2))
    found = hole_of(Photo(pixels, lossy=lossy), MaskSource("color", color=color), None, "x")
    np.testing.assert_array_equal(found, expected)


def towards(color, pixels, clean):
    """Return by how many grey levels [H, W] each pixel has gone from its clean value in the direction of ``color``."""
    way = np.asarray(color, float) - clean
    return ((pixels - clean) * way).sum(axis=2) / np.maximum(np.linalg.norm(way, axis=2), 1)


@pytest.mark.parametrize("color", [GREEN, (255, 0, 255), (255, 0, 0), (0, 0, 255)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 75}),
        ("JPEG", {"quality": 95}),
        ("WEBP", {"quality": 80}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
@pytest.mark.parametrize("side", [256, 400])
def test_no_key_color_of_a_lossy_file_is_left_around_the_hole(kind, options, color, side):
    face = cv2.resize(skimage.data.astronaut()[0:256, 96:352], (side, side), interpolation=cv2.INTER_AREA)
    covered = square((side, side), 61, 141)  # not on the borders of blocks
    cv2.circle(painted := covered.astype(np.uint8), (side // 2, side * 3 // 4), 21, 1, -1)
    covered = painted > 0

    def compressed(pixels):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        return decode_photo(buffer.getvalue(), "x")

    photo = compressed(np.where(covered[..., None], np.asarray(color, np.uint8), face))
    clean = compressed(face).pixels.astype(np.float32)
    hole = hole_of(photo, MaskSource("color", color=color), None, "x")
    assert (hole | ~covered).all()
    assert hole.sum() < 1.6 * covered.sum()
    completed = composite(photo.pixels, hole, np.zeros((3, 256, 256), np.float32))
    faint = 64  # what other blocks of the same compression vary by; the frame itself is at 200 and more
    assert towards(color, completed, clean)[~hole].max() < faint
    image, mask = prepare(photo.pixels, hole, 256, "x")
    seen = (image.transpose(1, 2, 0) + 1) * 127.5
    small = cv2.resize(clean, (256, 256), interpolation=cv2.INTER_AREA)
    assert towards(color, seen, small)[mask[0] == 0].max() < faint


@pytest.mark.parametrize(("color", "count"), [((77, 77, 77), 1), ((77, 0, 0), 0)])
def test_color_source_on_gray(color, count):
    pixels = np.asarray([[76, 77, 78]], np.uint8)
    assert hole_of(Photo(pixels, lossy=False), MaskSource("color", color=color), None, "x").sum() == count


def test_file_source_reads_the_mask(tmp_path):
    path = tmp_path / "mask.png"
    hole = square((64, 64))
    path.write_bytes(encode_photo(hole.astype(np.uint8) * 255, ".png", lossy=False))
    found = hole_of(Photo(noise((64, 64, 3)), lossy=False), MaskSource("file", path), path, "x")
    np.testing.assert_array_equal(found, hole)
    with pytest.raises(InputError, match=r"mask\.png for wide\.jpg"):
        hole_of(Photo(noise((64, 80, 3)), lossy=False), MaskSource("file", path), path, "wide.jpg")


def test_find_gives_one_file_for_all_images(tmp_path):
    path = tmp_path / "mask.png"
    path.touch()
    assert MaskSource("file", path).find(Path("a.jpg")) == path
    assert MaskSource("file", path).find(Path("deep/er/b.jpg")) == path


def test_find_mirrors_the_folder_by_stem(tmp_path):
    names = ["a.png", "a.txt", "ab.png", "sub/a.PNG", "sub/b.c.tif"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = MaskSource("file", tmp_path)
    assert source.find(Path("a.jpg")) == tmp_path / "a.png"
    assert source.find(Path("sub/a.jpg")) == tmp_path / "sub" / "a.PNG"
    assert source.find(Path("sub/b.c.jpg")) == tmp_path / "sub" / "b.c.tif"
    for missing in ("c.jpg", "sub/ab.jpg", "other/a.jpg"):
        with pytest.raises(InputError, match=f"{missing}: no mask"):
            source.find(Path(missing))


def test_a_folder_that_cannot_be_read_for_a_moment_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    listing = functools.lru_cache(list_masks)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(InputError, match="cannot be read: Input/output error"):
            MaskSource("file", tmp_path).find(Path("a.jpg"), listing)
    assert MaskSource("file", tmp_path).find(Path("a.jpg"), listing) == tmp_path / "a.png"


def test_find_refuses_a_choice(tmp_path):
    for name in ("a.png", "a.bmp"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"a\.jpg: several masks found: a\.bmp, a\.png"):
        MaskSource("file", tmp_path).find(Path("a.jpg"))


@pytest.mark.parametrize("source", [MaskSource("alpha"), MaskSource("color", color=GREEN)])
def test_find_is_empty_without_mask_files(source):
    assert source.find(Path("a.png")) is None


def test_mask_source_parses_the_command_line(tmp_path):
    assert mask_source("file", tmp_path) == MaskSource("file", tmp_path)
    assert mask_source("alpha", None) == MaskSource("alpha")
    assert mask_source("color:#00fF7e", None) == MaskSource("color", color=(0, 255, 126))


@pytest.mark.parametrize(
    ("spec", "path"),
    [("file", None), ("file", Path("no/such/masks")), ("alpha", Path()), ("color:#00ff00", Path()), ("", None)]
    + [(s, None) for s in ("beta", "color", "color:red", "color:#0f0", "color:#00ff0g", "color:#00ff001", "ALPHA")],
)
def test_mask_source_refuses_what_does_not_fit(spec, path):
    with pytest.raises(UsageError):
        mask_source(spec, path)
