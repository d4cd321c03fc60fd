"""Which faces are used: disjoint sets, spread over the buckets, with a digest of what they hold."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from showface.calibration.samples import bucket_of, choose_samples, flat_images
from showface.evaluation.faces import BINS
from showface.runtime.errors import UsageError


def test_sets_are_disjoint_and_stratified(samples):
    assert len(samples.calibration) == 9
    assert Counter(pair.bucket for pair in samples.calibration) == {"1-20": 3, "20-40": 3, "40-60": 3}
    assert Counter(pair.bucket for pair in samples.check) == {"1-20": 1, "20-40": 1, "40-60": 1}
    assert not {p.image for p in samples.calibration} & {p.image for p in samples.check}


def test_digest_follows_the_pixels(folders, samples, tmp_path):
    images, masks = shutil.copytree(folders[0], tmp_path / "images"), shutil.copytree(folders[1], tmp_path / "masks")
    copied = choose_samples(images, masks, 9, 3)
    assert copied.digest() == samples.digest()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(copied.calibration[0].mask)
    assert copied.digest() != samples.digest()


def test_ratio_bins_pair_as_in_evaluate(folders, tmp_path):
    for name in BINS:
        (tmp_path / name).mkdir()
        for mask in sorted(folders[1].iterdir())[:2]:
            shutil.copy(mask, tmp_path / name)
    chosen = choose_samples(folders[0], tmp_path, 9, 3)
    for pair in (*chosen.calibration, *chosen.check):
        k = int(pair.image.stem)
        low = int(pair.mask.parent.name[:2])
        assert pair.bucket == ("1-20", "20-40", "40-60")[k % 3]
        assert low == 20 * (k % 3) + 10 * (k % 2)


@pytest.mark.parametrize(("ratio", "bucket"), [(0.0, "1-20"), (0.2, "1-20"), (0.21, "20-40"), (0.9, "40-60")])
def test_bucket_of(ratio, bucket):
    assert bucket_of(ratio) == bucket


def test_too_few(folders, tmp_path):
    for path in sorted(folders[0].iterdir())[:5]:
        shutil.copy(path, tmp_path)
    with pytest.raises(UsageError, match="5 faces are too few to calibrate with; give at least 9"):
        choose_samples(tmp_path, folders[1], 9, 3)


def test_flat_images_are_named(folders, tmp_path):
    images = shutil.copytree(folders[0], tmp_path / "images")
    Image.fromarray(np.full((64, 64, 3), 120, np.uint8)).save(images / "03.png")
    assert flat_images(choose_samples(images, folders[1], 9, 3).calibration) == ["03.png"]
