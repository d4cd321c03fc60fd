"""Labels: 19 to 14, one map or one mask a part, against a loop over pixels."""

import cv2
import numpy as np
import pytest

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES
from showface.training.data.labels import (
    CELEBAMASK_TO_CATEGORY,
    PARTS,
    LabelFile,
    read_label_map,
    read_labels,
    read_part_labels,
    shows_rare_category,
)

SIZE = 24
MERGED = {
    "l_eye": "eye", "r_eye": "eye", "l_brow": "brow", "r_brow": "brow", "l_ear": "ear", "r_ear": "ear",
    "ear_r": "ear", "neck_l": "neck", "u_lip": "upper_lip", "l_lip": "lower_lip", "eye_g": "eyeglasses",
}  # fmt: skip
# The order in which CelebAMask-HQ's g_mask.py paints.
OFFICIAL = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_mapping_of_the_nineteen_labels(tmp_path):
    assert len(CELEBAMASK_TO_CATEGORY) == 19
    assert set(CELEBAMASK_TO_CATEGORY) == set(range(len(CATEGORIES)))
    for name, category in zip(("background", *OFFICIAL), CELEBAMASK_TO_CATEGORY, strict=True):
        assert CATEGORIES[category] == MERGED.get(name, name)
    path = write(tmp_path / "all.png", np.arange(19, dtype=np.uint8)[None].repeat(19, axis=0))
    np.testing.assert_array_equal(read_label_map(path, 19)[5], CELEBAMASK_TO_CATEGORY)


def test_resize_keeps_labels(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 19, (8, 8), dtype=np.uint8)
    path = write(tmp_path / "a.png", small.repeat(2, axis=0).repeat(2, axis=1))
    expected = [[CELEBAMASK_TO_CATEGORY[label] for label in row] for row in small]
    np.testing.assert_array_equal(read_label_map(path, 8), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_parts_against_a_loop(tmp_path, channels):
    rng = np.random.default_rng(1)
    stem = tmp_path / "anno/0/00007"
    masks = {part: rng.random((SIZE, SIZE)) < 0.2 for part in OFFICIAL if part not in ("hat", "neck_l")}
    for part, mask in masks.items():
        pixels = np.uint8(255) * mask
        write(stem.with_name(f"00007_{part}.png"), pixels if channels == 1 else np.stack([pixels] * 3, axis=2))
    write(stem.with_name("00008_hat.png"), np.full((SIZE, SIZE), 255, np.uint8))  # another face's
    expected = np.zeros((SIZE, SIZE), np.int64)
    for y in range(SIZE):
        for x in range(SIZE):
            for part in OFFICIAL:
                if part in masks and masks[part][y, x]:
                    expected[y, x] = CATEGORIES.index(MERGED.get(part, part))
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(read_part_labels(stem, SIZE), expected)
    np.testing.assert_array_equal(read_labels(LabelFile(stem, parts=True), SIZE), expected)
    assert PARTS == OFFICIAL


def test_rare_categories():
    labels = np.full((4, 4), CATEGORIES.index("hair"), np.uint8)
    assert not shows_rare_category(labels)
    for name in ("hat", "eyeglasses"):
        worn = labels.copy()
        worn[2, 3] = CATEGORIES.index(name)
        assert shows_rare_category(worn)


@pytest.mark.parametrize(
    "pixels", [np.full((8, 8), 19, np.uint8), np.full((8, 8), 255, np.uint8), np.full((8, 8), 300, np.uint16)]
)
def test_label_out_of_range(tmp_path, pixels):
    path = write(tmp_path / "3.png", pixels)
    with pytest.raises(UsageError, match=rf"3\.png.*{pixels.max()}.*0-18"):
        read_labels(LabelFile(path), SIZE)


def test_unreadable_labels(tmp_path):
    coloured = write(tmp_path / "colour.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    for path in (coloured, tmp_path / "broken.png", tmp_path / "absent.png"):
        with pytest.raises(UsageError, match=path.name):
            read_label_map(path, SIZE)


def test_unreadable_parts(tmp_path):
    stem = tmp_path / "00001"
    with pytest.raises(UsageError, match="00001_"):
        read_part_labels(stem, SIZE)
    write(tmp_path / "00001_skin.png", np.zeros((8, 8), np.uint8))
    write(tmp_path / "00001_nose.png", np.zeros((8, 9), np.uint8))
    with pytest.raises(UsageError, match=r"00001_nose.*9×8"):
        read_part_labels(stem, SIZE)
    (tmp_path / "00001_nose.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="00001_nose"):
        read_part_labels(stem, SIZE)
