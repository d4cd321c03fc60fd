"""From probabilities to the hole: what counts, what grows, and what is doubtful."""

import cv2
import numpy as np
import pytest

from showface.runtime.faces.occlusion import (
    FACE_ZONE,
    OcclusionSettings,
    barely_changed,
    doubts,
    face_zone,
    find_occlusion,
    grown,
)

S = 256
PLAIN = OcclusionSettings(margin=0)


def probabilities(*blocks, size=S):
    """Return a map of 0.02 with blocks (top, left, height, width, probability)."""
    found = np.full((size, size), 0.02, np.float32)
    for top, left, height, width, value in blocks:
        found[top : top + height, left : left + width] = value
    return found


def test_what_is_sure_and_over_the_face_is_the_hole():
    found = find_occlusion(probabilities((130, 100, 40, 60, 0.95)), PLAIN)
    wanted = np.zeros((S, S), bool)
    wanted[130:170, 100:160] = True
    # Closing with a disc rounds nothing off a rectangle.
    np.testing.assert_array_equal(found.hole, wanted)
    assert found.confidences == pytest.approx((0.95,))
    assert found.area == pytest.approx(40 * 60 / S**2)


def test_weak_pixels_count_where_they_touch_sure_ones_only():
    """Hysteresis: 0.6 is above the threshold, but only 0.95 is sure."""
    touching = find_occlusion(probabilities((130, 100, 40, 30, 0.95), (130, 130, 40, 30, 0.6)), PLAIN)
    assert touching.hole[150, 150]
    alone = find_occlusion(probabilities((100, 100, 30, 30, 0.95), (160, 130, 40, 30, 0.6)), PLAIN)
    assert alone.hole[110, 110]
    assert not alone.hole[180, 145]
    assert alone.missed == pytest.approx(40 * 30 / S**2, rel=0.2)


def test_what_only_stands_beside_the_face_is_no_occlusion():
    beside = find_occlusion(probabilities((100, 0, 120, 60, 0.99)), PLAIN)
    assert not beside.hole.any()
    reaching = find_occlusion(probabilities((130, 0, 60, 130, 0.99)), PLAIN)
    assert reaching.hole[160, 5]  # the arm goes on to the border
    assert len(reaching.confidences) == 1


def test_tiny_finds_are_left_out():
    side = int((0.003 * S * S) ** 0.5)
    assert not find_occlusion(probabilities((140, 120, side - 2, side - 2, 0.99)), PLAIN).hole.any()
    assert find_occlusion(probabilities((140, 120, side + 2, side + 2, 0.99)), PLAIN).hole.any()
    small = OcclusionSettings(margin=0, min_hole=0.0001)
    assert find_occlusion(probabilities((140, 120, 6, 6, 0.99)), small).hole.any()


def test_gaps_are_filled_unless_they_are_a_part_of_the_face():
    ring = probabilities((100, 80, 100, 100, 0.99), (140, 120, 12, 12, 0.02))
    assert find_occlusion(ring, PLAIN).hole[146, 126]
    window = probabilities((100, 80, 100, 100, 0.99), (120, 100, 60, 60, 0.02))
    assert not find_occlusion(window, PLAIN).hole[150, 130]


def test_the_hole_grows_by_the_margin_of_an_input_of_256():
    core = probabilities((130, 100, 40, 60, 0.95))
    found = find_occlusion(core, OcclusionSettings(margin=6))
    distance = cv2.distanceTransform((core < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    assert found.hole[distance <= 5].all()
    assert not found.hole[distance > 7].any()
    assert (found.parts > 0).sum() == 40 * 60
    half = grown(np.pad(np.ones((4, 4), bool), 62), 6)
    assert np.ptp(np.flatnonzero(half.any(axis=0))) == 3 + 2 * 3


def test_lengths_and_areas_follow_the_size_of_the_input():
    large = find_occlusion(probabilities((130, 100, 40, 60, 0.95)), OcclusionSettings())
    small = find_occlusion(probabilities((65, 50, 20, 30, 0.95), size=128), OcclusionSettings())
    enlarged = cv2.resize(small.hole.astype(np.uint8), (S, S), interpolation=cv2.INTER_NEAREST) > 0
    assert (enlarged ^ large.hole).sum() < 0.2 * large.hole.sum()


def test_the_threshold_moves_what_counts():
    soft = probabilities((130, 100, 40, 60, 0.6))
    assert not find_occlusion(soft, PLAIN).hole.any()
    assert find_occlusion(soft, OcclusionSettings(threshold=0.1, margin=0)).hole.any()


def test_doubts_name_what_is_unsure_missed_or_large():
    sure = find_occlusion(probabilities((130, 100, 40, 60, 0.97)), PLAIN)
    assert doubts(sure, sure.area, PLAIN) == []
    weak = probabilities((130, 100, 40, 60, 0.6), (150, 120, 2, 2, 0.95))
    assert "sure by 60%" in " ".join(doubts(find_occlusion(weak, PLAIN), 0.03, PLAIN))
    missed = find_occlusion(probabilities((150, 120, 30, 30, 0.7)), PLAIN)
    assert not missed.hole.any()
    assert "1.4% more may be covered" in doubts(missed, 0.0, PLAIN)
    assert "the hole takes 45%" in doubts(sure, 0.45, PLAIN)


def test_a_completion_that_looks_like_what_was_there_is_noticed():
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (3, S, S)).astype(np.float32)
    mask = np.zeros((1, S, S), np.float32)
    mask[0, 20:60, 20:60] = mask[0, 150:200, 100:160] = 1
    same = seen + rng.normal(0, 0.005, seen.shape).astype(np.float32)
    assert barely_changed(seen, same, mask)
    other = seen.copy()
    other[:, 150:200, 100:160] *= -1
    assert barely_changed(seen, other, mask)  # one of the two parts
    other[:, 20:60, 20:60] *= -1
    assert not barely_changed(seen, other, mask)
    assert not barely_changed(seen, seen, np.zeros_like(mask))


def test_the_zone_is_an_ellipse_over_the_face():
    zone = face_zone(S)
    (x, y), (a, b) = FACE_ZONE
    assert zone.mean() == pytest.approx(np.pi * a * b, abs=0.002)
    assert zone[round(y * S), round(x * S)]
    assert not zone[:40].any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 0.0}, "give a probability between 0 and 1"),
        ({"threshold": 1.0}, "give a probability between 0 and 1"),
        ({"min_hole": 0.6}, "0 <= smallest < largest <= 1"),
        ({"max_hole": 1.2}, "0 <= smallest < largest <= 1"),
        ({"margin": -1}, "0 or more pixels"),
    ],
)
def test_limits_that_nothing_fulfils_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        OcclusionSettings(**changes)
