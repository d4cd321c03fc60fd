"""Metrics against independent references, and the pairing of faces with masks."""

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from showface.training.evaluate import evaluate, paired_faces, telea
from showface.training.metrics import l1_percent, psnr, ssim


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
def tree(tmp_path):
    """Five photographs and two masks a bin, each mask with its own number of hole rows."""
    rng = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for k in range(5):
        cv2.imwrite(str(tmp_path / "images" / f"{k}.png"), rng.integers(0, 256, (300, 300, 3), np.uint8))
    for b, name in enumerate(("00-10", "10-20", "20-30", "30-40", "40-50", "50-60")):
        folder = tmp_path / "masks" / name
        folder.mkdir(parents=True)
        for i in range(2):
            mask = np.zeros((256, 256), np.uint8)
            mask[: 10 * (2 * b + i + 1)] = 255
            cv2.imwrite(str(folder / f"{i}.png"), mask)
    return tmp_path


def test_pairing_alternates_bins_and_cycles_masks(tree):
    faces = paired_faces(tree / "images", tree / "masks", "20-40")
    rows = [int(hole[:, 0].sum()) for _, hole in faces]
    assert rows == [50, 80, 50, 80, 50]  # image k: bin k mod 2, mask k mod 2
    assert all(rgb.shape == (256, 256, 3) for rgb, _ in faces)


def test_evaluate_scores_a_perfect_and_a_real_method(tree):
    perfect = evaluate(lambda batch: [rgb for rgb, _ in batch], tree / "images", tree / "masks")
    real = evaluate(telea, tree / "images", tree / "masks")
    for bucket in perfect:
        assert perfect[bucket].images == 5
        assert perfect[bucket].l1_percent == 0
        assert perfect[bucket].ssim == pytest.approx(1)
        assert real[bucket].l1_percent > 0
        assert real[bucket].psnr < 60
    assert real["1-20"].psnr > real["40-60"].psnr
