"""Masks as people make them: each is read for what it shows, or refused with the way out."""

import io

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from showface.runtime.errors import InputError
from showface.runtime.faces.mask_picture import read_hole
from showface.runtime.faces.masks import MaskSource, hole_from_mask, list_masks, warning_of

SIDE = 192


def strokes(seed, width=18):
    """Return antialiased strokes (SIDE, SIDE) uint8, 255 on 0."""
    random, drawn = np.random.default_rng(seed), np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(4):
        points = random.integers(0, SIDE, (3, 2)).astype(np.int32)
        cv2.polylines(drawn, [points], False, 255, width, cv2.LINE_AA)
    return drawn


def file_of(pixels, kind, **options):
    """Return what a file of that kind gives back."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return np.asarray(Image.open(buffer))


def on(drawn, color, ground):
    share = drawn[..., None] / 255
    return np.rint(share * np.asarray(color) + (1 - share) * np.asarray(ground)).astype(np.uint8)


def layer(drawn, color):
    return np.dstack([np.broadcast_to(np.uint8(color), (SIDE, SIDE, 3)), drawn])


PHOTO = skimage.data.astronaut()[:SIDE, 100 : 100 + SIDE]
READ = {
    "black and white": lambda d: d,
    "RGB": lambda d: np.dstack([d] * 3),
    "RGBA without transparency": lambda d: np.dstack([d, d, d, np.full_like(d, 255)]),
    "two values": lambda d: (d > 127).astype(np.uint8) * 255,
    "0 and 1": lambda d: (d > 127).astype(np.uint8),
    "0 and 1 in 16 bits": lambda d: (d > 127).astype(np.uint16),
    "16 bits": lambda d: d.astype(np.uint16) * 257,
    "one bit": lambda d: np.asarray(Image.fromarray(d > 127).convert("L")),
    "grey on black": lambda d: (d > 127).astype(np.uint8) * 90,
    "grey on grey": lambda d: np.where(d > 127, 200, 60).astype(np.uint8),
    "soft grey on black": lambda d: (d * 0.4).astype(np.uint8),
    "red": lambda d: on(d, (255, 0, 0), (0, 0, 0)),
    "blue": lambda d: on(d, (0, 0, 255), (0, 0, 0)),
    "pure blue": lambda d: on((d > 127) * np.uint8(255), (0, 0, 255), (0, 0, 0)),
    "dark red": lambda d: on((d > 127) * np.uint8(255), (90, 0, 0), (0, 0, 0)),
    "a palette of labels": lambda d: on((d > 127) * np.uint8(255), (0, 128, 0), (0, 0, 0)),
    "numbers of labels": lambda d: (d > 127) * np.uint8(11),
    "white on transparent": lambda d: layer(d, (255, 255, 255)),
    "red on transparent": lambda d: layer(d, (255, 0, 0)),
    "grey on transparent": lambda d: layer(d, (90, 90, 90)),
    "JPEG": lambda d: file_of(d, "JPEG", quality=75),
    "coarse JPEG": lambda d: file_of(np.dstack([d] * 3), "JPEG", quality=25),
    "red JPEG": lambda d: file_of(on(d, (255, 0, 0), (0, 0, 0)), "JPEG", quality=80),
    "lossy WebP": lambda d: file_of(np.dstack([d] * 3), "WEBP", quality=60),
    "GIF": lambda d: np.asarray(Image.fromarray(file_of(d, "GIF")).convert("RGB")),
    "blurred": lambda d: cv2.GaussianBlur(d, (0, 0), 2),
}  # fmt: skip
AMBIGUOUS = {
    "black on transparent": (lambda d: layer(d, (0, 0, 0)), "may mean either"),
    "all transparent": (lambda d: layer(np.zeros_like(d), (255, 255, 255)), "transparent everywhere"),
    "an erased photograph": (lambda d: np.dstack([PHOTO, 255 - d]), "pass mask_from='alpha'"),
    "red on white": (lambda d: on(d, (255, 0, 0), (255, 255, 255)), "not on black"),
    "red on green": (lambda d: on((d > 127) * np.uint8(255), (255, 0, 0), (0, 255, 0)), "not on black"),
    "red on a photograph": (lambda d: on(d, (255, 0, 0), PHOTO), "pass mask_from='color:#RRGGBB'"),
    "a photograph": (lambda d: PHOTO, "colours"),
    "a grey photograph": (lambda d: cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY), "shades"),
    "a photograph in 16 bits": (lambda d: PHOTO.astype(np.uint16) * 257, "colours"),
    "noise": (lambda d: np.random.default_rng(0).integers(0, 256, d.shape).astype(np.uint8), "shades"),
    "a ramp": (lambda d: np.tile(np.linspace(0, 255, SIDE).astype(np.uint8), (SIDE, 1)), "shades"),
    "1 everywhere": (lambda d: np.ones_like(d), "the value 1 everywhere"),
    "grey everywhere": (lambda d: np.full_like(d, 128), "the value 128 everywhere"),
    "no contrast": (lambda d: np.where(d > 127, 130, 120).astype(np.uint8), "contrast"),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", READ)
def test_a_mask_is_read_for_what_it_shows(kind, seed):
    drawn = strokes(seed)
    hole = read_hole(READ[kind](drawn), "mask.png")
    assert hole.dtype == np.bool_
    assert np.mean(hole != (drawn > 127)) < 0.02
    np.testing.assert_array_equal(read_hole(READ[kind](drawn), "mask.png", invert=True), ~hole)


@pytest.mark.parametrize("width", [4, 18, 40])
def test_black_and_white_is_read_to_the_pixel(width):
    drawn = strokes(9, width)
    for mask in (drawn, np.dstack([drawn] * 3), drawn.astype(np.uint16) * 257):
        np.testing.assert_array_equal(read_hole(mask, "m"), drawn > 127)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_may_mean_two_things_is_refused_with_the_way_out(kind, seed):
    make, words = AMBIGUOUS[kind]
    with pytest.raises(InputError, match=f"^mask.png: .*{words}"):
        read_hole(make(strokes(seed)), "mask.png")


@pytest.mark.parametrize("labels", [range(1, 14), (1, 2), (255, 3), range(1, 60)])
def test_every_label_but_the_background_is_the_hole(labels):
    drawn, random = np.zeros((SIDE, SIDE), np.uint8), np.random.default_rng(1)
    for label in labels:
        if label < 200:
            top, left = random.integers(0, SIDE - 40, 2)
            drawn[top : top + 40, left : left + 40] = label
    np.testing.assert_array_equal(read_hole(drawn, "m"), drawn > 0)
    palette = random.integers(1, 256, (256, 3)).astype(np.uint8)
    palette[0] = 0
    np.testing.assert_array_equal(read_hole(palette[drawn], "m"), drawn > 0)


def test_nothing_and_everything():
    assert not read_hole(np.zeros((8, 8), np.uint8), "m").any()
    assert read_hole(np.full((8, 8, 3), 255, np.uint8), "m").all()
    source = MaskSource("file")
    assert warning_of(np.ones((8, 8), bool), source) == (
        "the hole takes 100% of the picture; if the mask is inverted, pass invert=True"
    )
    assert warning_of(np.arange(100).reshape(10, 10) < 90, source) is None


def test_the_suffix_finds_masks_in_their_folder_and_beside(tmp_path):
    for name in (
        "a.png",
        "a_mask.png",
        "b.png",
        "b_hole.gif",
        "._a_mask.png",
        "c_mask.heic",
        "d_mask.png",
        "d_mask.gif",
    ):
        (tmp_path / name).write_bytes(b"")
    beside = MaskSource("file", tmp_path, beside=True)
    assert beside.find(tmp_path.__class__("a.png")).name == "a_mask.png"
    assert MaskSource("file", tmp_path, suffix="_hole").find(tmp_path.__class__("b.jpg")).name == "b.png"
    assert (
        MaskSource("file", tmp_path, suffix="_hole", beside=True).find(tmp_path.__class__("b.png")).name == "b_hole.gif"
    )
    for name, words in (("b.png", "no mask"), ("c.png", "of a format that is not read"), ("d.png", "several masks")):
        with pytest.raises(InputError, match=words):
            beside.find(tmp_path.__class__(name))
    assert "._a_mask" not in list_masks(tmp_path)


def test_a_mask_of_another_size_is_resized():
    drawn = strokes(2)
    small = hole_from_mask(drawn, (SIDE // 2, SIDE // 2), "m")
    assert small.shape == (SIDE // 2, SIDE // 2)
    with pytest.raises(InputError, match="does not fit"):
        hole_from_mask(drawn, (SIDE, SIDE // 2), "m")
