"""Masks from ratio bins and drawn ones: polarity, order, and what is refused."""

import cv2
import numpy as np
import pytest

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES
from showface.training.config import MaskConfig, MaskShares
from showface.training.data.masks import read_masks
from showface.training.data.part_masks import draw_part

SIZE = 40
WHITE, BLACK = MaskConfig("masks"), MaskConfig("masks", hole="black")


def hole(ratio, shift=0):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[: round(SIZE * ratio)] = 255
    return np.roll(mask, shift, axis=0)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def data(tmp_path):
    for name, ratio in (("20-30", 0.25), ("40-50", 0.45)):
        for i in range(3):
            write(tmp_path / f"masks/{name}/{i}.png", hole(ratio, 5 * i))
    return tmp_path


@pytest.mark.parametrize("config", [WHITE, BLACK])
def test_bins_in_order_and_polarity(data, config):
    if config is BLACK:
        for path in (data / "masks").rglob("*.png"):
            write(path, 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    masks = read_masks(config, data, SIZE, 0).masks
    assert masks.dtype == np.uint8
    expected = [hole(ratio, 5 * i) // 255 for ratio in (0.25, 0.45) for i in range(3)]
    np.testing.assert_array_equal(masks, expected)


def test_resized_masks_stay_binary(data):
    masks = read_masks(WHITE, data, SIZE // 2, 0).masks
    assert masks.shape == (6, SIZE // 2, SIZE // 2)
    np.testing.assert_array_equal(masks[0], hole(0.25)[::2, ::2] // 255)


def test_wrong_polarity(data):
    with pytest.raises(UsageError, match=r"20-30.*0\.75.*masks\.hole = 'black'"):
        read_masks(BLACK, data, SIZE, 0)


@pytest.mark.parametrize(("rows", "refused"), [(13, True), (14, False), (22, False), (23, True)])
def test_five_points_beyond_the_name(tmp_path, rows, refused):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:rows] = 255  # 40 rows: the limits of the bin 40-50 with five points are 14 and 22 rows
    write(tmp_path / "masks/40-50/a.png", mask)
    if refused:
        with pytest.raises(UsageError, match=r"40-50.*masks\.hole"):
            read_masks(WHITE, tmp_path, SIZE, 0)
    else:
        assert read_masks(WHITE, tmp_path, SIZE, 0).masks.sum() == rows * SIZE


@pytest.mark.parametrize("name", ["train", "20-thirty", "30-20", "a-b", "20", "90-110", "20-30-40"])
def test_folder_that_is_no_bin(data, name):
    write(data / f"masks/{name}/0.png", hole(0.25))
    with pytest.raises(UsageError, match=rf"masks/{name}: .*masks\.folder"):
        read_masks(WHITE, data, SIZE, 0)


def test_nothing_to_read(data):
    with pytest.raises(UsageError, match=r"nowhere.*masks\.folder"):
        read_masks(MaskConfig("nowhere"), data, SIZE, 0)
    (data / "masks/50-60").mkdir()
    with pytest.raises(UsageError, match="50-60"):
        read_masks(WHITE, data, SIZE, 0)


def test_unreadable_mask(data):
    (data / "masks/20-30/1.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"20-30/1\.png"):
        read_masks(WHITE, data, SIZE, 0)


def test_drawn_masks_spread_over_the_ratios(tmp_path):
    config = MaskConfig(None, drawn=120)
    masks = read_masks(config, tmp_path, SIZE, 3).masks
    assert masks.shape == (120, SIZE, SIZE)
    assert masks.dtype == np.uint8
    assert masks.max() == 1
    counts = np.histogram(masks.mean(axis=(1, 2)), bins=(0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6))[0]
    np.testing.assert_allclose(counts, 20, atol=2)  # a ratio on a limit counts to its neighbour
    np.testing.assert_array_equal(read_masks(config, tmp_path, SIZE, 3).masks, masks)
    np.testing.assert_array_equal(read_masks(MaskConfig(None, drawn=7), tmp_path, SIZE, 3).masks, masks[:7])
    assert not np.array_equal(read_masks(config, tmp_path, SIZE, 4).masks, masks)


def test_no_drawn_masks(tmp_path):
    with pytest.raises(UsageError, match=r"masks\.drawn = 0"):
        read_masks(MaskConfig(None, drawn=0), tmp_path, SIZE, 0)


def mixed(data):
    """Return a config with all kinds of masks; one label map shows a face, one nothing but background."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[8:32, 8:32] = 1  # skin
    labels[12:15, 12:28] = 4  # eye
    labels[18:24, 18:22] = 2  # nose
    labels[26:29, 14:26] = 11  # upper lip
    labels[:8] = 13  # hair
    write(data / "labels/0.png", labels)
    write(data / "labels/1.png", np.zeros((SIZE, SIZE), np.uint8))
    return MaskConfig("masks", drawn=30, part_labels="labels", shares=MaskShares(0.5, 0.2, 0.2, 0.1))


def test_kinds_are_drawn_by_their_shares(data):
    bank = read_masks(mixed(data), data, SIZE, 0)
    assert len(bank.masks) == 6 + 30 + 30 + 1
    each = np.diff(bank.shares, prepend=0.0)
    parts = np.split(each, np.cumsum([6, 30, 30]))
    np.testing.assert_allclose([part.sum() for part in parts], [0.5, 0.2, 0.2, 0.1])
    assert all(np.ptp(part) < 1e-12 for part in parts)
    assert bank.shares[-1] == 1.0
    assert bank.turned.tolist() == [True] * 66 + [False]
    strokes, borders = bank.masks[6:36].mean(axis=(1, 2)), bank.masks[36:66].mean(axis=(1, 2))
    assert 0.3 <= strokes.min() < strokes.max() <= 0.95
    assert borders.min() > 0.5  # an island or a tilted half plane comes near its ratio only
    assert borders.max() > 0.9
    assert not np.array_equal(strokes, borders)


def test_a_part_is_its_region_widened():
    labels = np.full((SIZE, SIZE), CATEGORIES.index("skin"), np.uint8)
    labels[10:14, 10:30] = CATEGORIES.index("eye")
    eyes = labels == CATEGORIES.index("eye")
    for seed in range(40):
        mask = draw_part(np.random.default_rng(seed), labels).astype(bool)
        if mask.any() and not mask.all():
            assert mask[eyes].all()
            rows, columns = np.nonzero(mask)
            reach = 10 - rows.min()
            assert 1 <= reach <= round(0.06 * SIZE)
            assert (rows.max(), columns.min(), columns.max()) == (13 + reach, 10 - reach, 29 + reach)
            return
    pytest.fail("no seed drew the eyes")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MaskConfig("masks", shares=MaskShares(0.0)), "positive share"),
        (MaskConfig("masks", shares=MaskShares(1.0, -0.1)), "none below 0"),
        (MaskConfig("masks", shares=MaskShares(0.5, parts=0.5)), r"masks\.part_labels"),
        (MaskConfig("masks", part_labels="empty", shares=MaskShares(0.5, parts=0.5)), r"empty: no label map"),
    ],
)
def test_shares_that_cannot_be_drawn(data, config, message):
    with pytest.raises(UsageError, match=message):
        read_masks(config, data, SIZE, 0)
