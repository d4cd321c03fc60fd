"""Metrics against scikit-image and plain loops."""

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from showface.evaluation.metrics import category_iou, confusion, l1_percent, mean_iou, psnr, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3), np.uint8), (5, 5), 1)
    noisy = np.clip(smooth.astype(int) + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    return smooth, noisy


def test_psnr_equals_scikit_image(pair):
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-9)
    assert psnr(pair[0], pair[0]) == float("inf")


def test_ssim_equals_scikit_image(pair):
    options = {"channel_axis": 2, "gaussian_weights": True, "use_sample_covariance": False, "data_range": 255}
    assert ssim(*pair) == pytest.approx(structural_similarity(*pair, **options), abs=1e-9)


def test_l1_by_hand(pair):
    expected = np.mean([abs(int(a) - int(b)) for a, b in zip(pair[0].ravel(), pair[1].ravel(), strict=True)])
    assert l1_percent(*pair) == pytest.approx(expected / 2.55)


@pytest.fixture
def labels():
    """Labels of three images in four of six categories; the truth knows 0, 1, 2, the prediction 0, 1, 4."""
    rng = np.random.default_rng(1)
    predicted = np.asarray([0, 1, 4], np.int32)[rng.integers(0, 3, (3, 9, 7))]
    return predicted, rng.integers(0, 3, (3, 9, 7)).astype(np.uint8)


def test_confusion_against_loops(labels):
    expected = np.zeros((6, 6), int)
    for predicted, true in zip(labels[0].ravel(), labels[1].ravel(), strict=True):
        expected[true, predicted] += 1
    np.testing.assert_array_equal(confusion(*labels, 6), expected)
    parts = [confusion(labels[0][i], labels[1][i], 6) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), expected)


def test_iou_against_sets_leaves_absent_categories_out(labels):
    predicted, true = labels
    expected = []
    for category in range(6):
        a, b = (set(np.flatnonzero(x == category).tolist()) for x in (predicted, true))
        expected.append(len(a & b) / len(a | b) if a | b else np.nan)
    counts = confusion(predicted, true, 6)
    np.testing.assert_allclose(category_iou(counts), expected)
    assert np.isnan(expected).tolist() == [False, False, False, True, False, True]
    assert expected[4] == 0  # only predicted: counts
    assert mean_iou(counts) == pytest.approx(sum(expected[i] for i in (0, 1, 2, 4)) / 4)
    assert np.isnan(mean_iou(np.zeros((6, 6), np.int64)))


@pytest.mark.parametrize("value", [-1, 6])
def test_confusion_refuses_what_is_no_category(labels, value):
    predicted, true = labels
    predicted[0, 0, 0] = value
    with pytest.raises(ValueError, match=rf"predicted labels span .*{value}"):
        confusion(predicted, true, 6)
    with pytest.raises(ValueError, match="shape"):
        confusion(predicted[:2], true, 6)
