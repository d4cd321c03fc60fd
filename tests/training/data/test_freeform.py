"""Free-form masks: the wanted hole ratio is always hit, and the generator alone decides a mask."""

import time

import numpy as np
import pytest

from showface.training.data.freeform import draw_mask

BUCKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))


def drawn(seed, size, low, high):
    return draw_mask(np.random.default_rng(seed), size, low, high)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(("low", "high"), BUCKETS)
def test_every_mask_hits_its_bucket(size, low, high):
    masks = [drawn(seed, size, low, high) for seed in range(200)]
    holes = [sum(map(sum, mask.tolist())) if size == 64 else int(mask.sum()) for mask in masks]
    assert low * size * size <= min(holes)
    assert max(holes) <= high * size * size
    thirds = np.histogram(np.asarray(holes) / size**2, bins=3, range=(low, high))[0]
    assert thirds.min() > 20  # all of the bucket, not one end of it
    assert all(mask.shape == (size, size) and mask.dtype == np.bool_ for mask in masks)


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.25), (0.0, 0.01), (0.97, 1.0), (0.5, 0.5 + 1 / 256)])
def test_narrow_and_extreme_ratios(low, high):
    for seed in range(20):
        assert low <= drawn(seed, 16, low, high).mean() <= high


def test_the_generator_decides():
    for seed in range(20):
        np.testing.assert_array_equal(drawn(seed, 64, 0.2, 0.3), drawn(seed, 64, 0.2, 0.3))
    assert len({drawn(seed, 64, 0.2, 0.3).tobytes() for seed in range(200)}) > 190  # frames of one width are equal


def test_masks_cover_the_face_and_differ_in_kind():
    masks = np.stack([drawn(seed, 64, 0.2, 0.4) for seed in range(300)])
    share = masks.mean(axis=0)
    assert share.min() > 0.1  # no place that is never a hole
    assert share.max() < 0.7
    framed = masks[:, 0].all(axis=1) & masks[:, -1].all(axis=1) & masks[:, :, 0].all(axis=1)
    assert 0 < framed.sum() < 100
    corners = [masks[:, y, x] for y in (0, -1) for x in (0, -1)]
    assert 50 < (~np.any(corners, axis=0)).sum() < 290  # many leave the corners free, not all


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.2), (-0.1, 0.2), (0.5, 1.1), (0.501, 0.502)])
def test_impossible_ratio(low, high):
    with pytest.raises(ValueError, match="hole ratio"):
        drawn(0, 8, low, high)


def test_speed():
    started = time.process_time()
    for seed in range(100):
        drawn(seed, 256, *BUCKETS[seed % 6])
    assert 100 / (time.process_time() - started) > 200
