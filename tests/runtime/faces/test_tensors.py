"""The way into the networks' square and back: no occluder leaks in, no known pixel changes."""

import cv2
import numpy as np
import pytest

from showface.runtime.errors import InputError
from showface.runtime.faces.tensors import composite, prepare

SIZE = 256  # of the networks


def noise(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def some_hole(side, seed=0):
    """One large block and single pixels, the worst case of a resize."""
    hole = np.random.default_rng(seed).random((side, side)) < 0.002
    hole[side // 3 : side // 2, side // 4 : side // 2] = True
    hole[0, 0] = hole[-1, -1] = True
    return hole


def some_face(seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (3, SIZE, SIZE)).astype(np.float32)


def touched(hole, size):
    """Compute by loops over each axis which small pixels a hole pixel has any weight in."""
    side = len(hole)
    weight = np.zeros((size, side), np.bool_)
    for i in range(size):
        if side > size:  # integer arithmetic: pixel i covers [i * side, (i + 1) * side) / size
            weight[i, i * side // size : -(-(i + 1) * side // size)] = True
        else:
            left, rest = divmod((2 * i + 1) * side - size, 2 * size)
            weight[i, min(max(left, 0), side - 1)] = True
            if rest:
                weight[i, min(left + 1, side - 1)] = True
    return (weight.astype(int) @ hole.astype(int) @ weight.T.astype(int)) > 0


@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_prepare_at_the_same_size_only_normalises(dtype, channels):
    pixels = noise((SIZE, SIZE) if channels is None else (SIZE, SIZE, channels), dtype)
    hole = some_hole(SIZE)
    image, mask = prepare(pixels, hole, SIZE, "x")
    rgb = np.stack([pixels] * 3, axis=2) if channels is None else pixels[..., :3]
    expected = rgb.transpose(2, 0, 1) / np.iinfo(dtype).max * 2.0 - 1.0
    expected[:, hole] = 0
    assert image.dtype == mask.dtype == np.float32
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert (image[:, hole] == 0).all()
    np.testing.assert_array_equal(mask, hole[None])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [100, 256, 511])
def test_the_occluder_never_reaches_the_networks(side, dtype):
    pixels, hole = noise((side, side, 3), dtype), some_hole(side)
    image, mask = prepare(pixels, hole, SIZE, "x")
    for fill in (0, np.iinfo(dtype).max, noise((int(hole.sum()), 3), dtype, seed=1)):
        changed = pixels.copy()
        changed[hole] = fill
        again, mask_again = prepare(changed, hole, SIZE, "x")
        np.testing.assert_array_equal(again, image)
        np.testing.assert_array_equal(mask_again, mask)


@pytest.mark.parametrize("side", [64, 100, 256, 257, 300, 511, 512, 1000])
def test_whatever_the_hole_touches_is_hole(side):
    hole = some_hole(side)
    image, mask = prepare(noise((side, side, 3)), hole, SIZE, "x")
    assert image.shape == (3, SIZE, SIZE)
    assert mask.shape == (1, SIZE, SIZE)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert (mask[0][touched(hole, SIZE)] == 1).all()
    assert mask.mean() < 0.9  # yet not everything is
    assert (image[:, mask[0] == 1] == 0).all()


@pytest.mark.parametrize("side", [64, 100, 256, 257, 300, 511, 512, 1000])
def test_known_pixels_are_as_without_a_hole(side):
    pixels, hole = noise((side, side, 3)), some_hole(side)
    image, mask = prepare(pixels, hole, SIZE, "x")
    whole, none = prepare(pixels, np.zeros_like(hole), SIZE, "x")
    assert not none.any()
    known = mask[0] == 0
    np.testing.assert_allclose(image[:, known], whole[:, known], atol=1e-5)
    assert np.abs(image).max() <= 1 + 1e-6


@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [100, 256, 300, 512, 1000])
def test_channel_by_channel_is_bit_identical_to_all_at_once(side, dtype, channels):
    """In little memory comes out what the formulas over whole arrays give."""
    pixels = noise((side, side) if channels is None else (side, side, channels), dtype)
    hole, top = some_hole(side), np.iinfo(dtype).max
    rgb = np.stack([pixels] * 3, axis=2) if channels is None else pixels[..., :3]

    def resized(array, to):
        kind = cv2.INTER_AREA if len(array) > to else cv2.INTER_LINEAR
        return cv2.resize(array, (to, to), interpolation=kind) if len(array) != to else array

    small = resized(hole.astype(np.float32), SIZE) > 0
    known = resized(np.where(hole[..., None], 0, rgb).astype(np.float32), SIZE) * (2.0 / top) - 1.0
    image, mask = prepare(pixels, hole, SIZE, "x")
    np.testing.assert_array_equal(image, np.where(small[..., None], 0.0, known).astype(np.float32).transpose(2, 0, 1))
    np.testing.assert_array_equal(mask[0], small)

    face = some_face()
    values = np.rint((resized(np.ascontiguousarray(face.transpose(1, 2, 0)), side) + 1.0) * (top / 2.0)).clip(0, top)
    if channels is None:
        values = np.rint(np.multiply(values, np.asarray([0.299, 0.587, 0.114], np.float32)).sum(axis=-1))
    written = composite(pixels, hole, face)[hole]
    np.testing.assert_array_equal(written if channels is None else written[:, :3], values[hole])


@pytest.mark.parametrize("shape", [(64, 65), (65, 64, 3)])
def test_prepare_refuses_what_is_not_square(shape):
    with pytest.raises(InputError, match=r"wide\.png.*not square"):
        prepare(noise(shape), np.zeros(shape[:2], np.bool_), SIZE, "wide.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_prepare_refuses_a_hole_that_is_not_bool(dtype):
    """A hole of integers would be taken for indices."""
    with pytest.raises(InputError, match=r"face\.png: the hole is .*give bool"):
        prepare(noise((64, 64, 3)), some_hole(64).astype(dtype), SIZE, "face.png")


@pytest.mark.parametrize("shape", [(32, 32), (64, 64, 1), (64,), (1, 64)])
def test_prepare_refuses_a_hole_of_another_shape(shape):
    with pytest.raises(InputError, match=r"face\.png: the hole is bool .*give bool \(64, 64\)"):
        prepare(noise((64, 64, 3)), np.ones(shape, np.bool_), SIZE, "face.png")


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("side", [64, 256, 300, 512])
def test_composite_copies_everything_outside_the_hole(side, dtype, channels, opaque):
    pixels = noise((side, side) if channels is None else (side, side, channels), dtype)
    hole, before = some_hole(side), pixels.copy()
    result = composite(pixels, hole, some_face(), opaque)
    assert result.dtype == dtype
    assert result.shape == pixels.shape
    np.testing.assert_array_equal(result[~hole], before[~hole])
    np.testing.assert_array_equal(pixels, before)  # the input is not written to
    if channels == 4:
        alpha = np.iinfo(dtype).max if opaque else before[hole, 3]
        np.testing.assert_array_equal(result[hole, 3], alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_composite_inverts_the_normalisation(dtype):
    pixels, hole = noise((SIZE, SIZE, 3), dtype), some_hole(SIZE)
    image, _ = prepare(pixels, np.zeros_like(hole), SIZE, "x")
    np.testing.assert_array_equal(
        composite(np.where(hole[..., None], 0, pixels).astype(dtype), hole, image)[hole], pixels[hole]
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("side", [64, 256, 300])
def test_composite_clips_and_scales(side, channels, dtype):
    top = np.iinfo(dtype).max
    pixels = noise((side, side) if channels is None else (side, side, channels), dtype)
    hole = some_hole(side)
    for value, expected in ((-1.5, 0), (-1, 0), (1, top), (1.5, top), (0, top / 2)):
        result = composite(pixels, hole, np.full((3, SIZE, SIZE), value, np.float32))
        assert (np.abs(result[hole].astype(int) - expected) <= 1).all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((64, 64, 3), "f4"), ((64, 64, 1), "u1"), ((64, 64, 2), "u1"), ((64,), "u1"), ((), "u2")]
)
def test_prepare_refuses_what_is_no_image(shape, dtype):
    with pytest.raises(InputError, match=r"face\.png: .* is no image"):
        prepare(np.zeros(shape, dtype), np.ones((64, 64), np.bool_), SIZE, "face.png")
