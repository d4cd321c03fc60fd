"""The shared data, where they lie beside the repository or at ``SHOWFACE_DATA``; skipped elsewhere."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from showface.runtime.stages import CATEGORIES
from showface.training.config import MaskConfig, SourceConfig
from showface.training.data.labels import read_labels
from showface.training.data.masks import read_masks
from showface.training.data.sources import open_source, read_face

SIZE = 64
DATA = Path(os.environ.get("SHOWFACE_DATA", Path(__file__).parents[4] / "shared" / "data"))
FACES, MASKS = "celebahq/train", "masks/val/20-30"


@pytest.mark.skipif(not (DATA / FACES).is_dir(), reason="needs the shared faces")
def test_faces_with_labels():
    source = SourceConfig(f"{FACES}/images", labels=f"{FACES}/labels")
    files = open_source(source, DATA, with_labels=True)
    assert len(files.images) == len(files.labels) == 1000
    for path, label in list(zip(files.images, files.labels, strict=True))[::200]:
        image, labels = read_face(path, SIZE), read_labels(label, SIZE)
        assert image.shape == (SIZE, SIZE, 3)
        assert image.std() > 10
        skin = np.argwhere(labels == CATEGORIES.index("skin")).mean(axis=0) / SIZE
        assert np.abs(skin - (0.6, 0.5)).max() < 0.15  # an aligned face is in the middle
        red, _, blue = image[labels == CATEGORIES.index("skin")].mean(axis=0)
        assert red > blue


@pytest.mark.skipif(not (DATA / MASKS).is_dir(), reason="needs the shared masks")
def test_one_bin_of_masks(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/20-30").symlink_to(DATA / MASKS, target_is_directory=True)
    masks = read_masks(MaskConfig("masks"), tmp_path, SIZE, 0).masks
    assert masks.shape == (200, SIZE, SIZE)
    first = cv2.imread(str(min((DATA / MASKS).iterdir())), cv2.IMREAD_GRAYSCALE)
    assert abs(masks[0].mean() - (first == 255).mean()) < 0.02
    ratios = masks.mean(axis=(1, 2))
    assert ratios.min() > 0.18
    assert ratios.max() < 0.32
