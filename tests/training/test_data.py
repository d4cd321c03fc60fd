"""Reading faces, labels and masks; batches that depend on seed and step only; aligned augmentation."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES
from showface.training.augment import augment
from showface.training.config import AugmentConfig, NetworkConfig, PhaseConfig, SourceConfig, TrainConfig
from showface.training.data import CELEBAMASK_TO_CATEGORY, Batch, MemoryDataset, holdout_files, read_labels, read_masks

SIZE = 64
CPU = torch.device("cpu")
CELEBAMASK = (
    "background", "skin", "nose", "eyeglasses", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def hole(ratio, size=SIZE):
    mask = np.zeros((size, size), np.uint8)
    mask[: round(size * ratio)] = 255
    return mask


@pytest.fixture
def data(tmp_path):
    """A tree of eight faces with labels and two bins of masks."""
    rng = np.random.default_rng(0)
    for i in range(8):
        write(tmp_path / f"images/{i}.png", rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        write(tmp_path / f"labels/{i}.png", np.full((SIZE, SIZE), 14 if i == 7 else 1 + i % 2, np.uint8))
    for name, ratio in (("20-30", 0.25), ("40-50", 0.45)):
        for i in range(2):
            write(tmp_path / f"masks/train/{name}/{i}.png", np.roll(hole(ratio), 8 * i, axis=0))
    return tmp_path


def config(**changes):
    base = TrainConfig({"a": SourceConfig("images", 1.0, "labels")}, {"p": PhaseConfig(4, 4, SIZE)})
    return replace(base, network=NetworkConfig(SIZE), **changes)


def test_mapping_of_the_nineteen_labels(tmp_path):
    merged = {"l_eye": "eye", "r_eye": "eye", "l_brow": "brow", "r_brow": "brow", "l_ear": "ear", "r_ear": "ear",
              "ear_r": "ear", "neck_l": "neck", "u_lip": "upper_lip", "l_lip": "lower_lip"}  # fmt: skip
    assert len(CELEBAMASK_TO_CATEGORY) == len(CELEBAMASK) == 19
    assert set(CELEBAMASK_TO_CATEGORY) == set(range(len(CATEGORIES)))
    for name, category in zip(CELEBAMASK, CELEBAMASK_TO_CATEGORY, strict=True):
        assert CATEGORIES[category] == merged.get(name, name)
    write(tmp_path / "all.png", np.arange(19, dtype=np.uint8)[None].repeat(19, axis=0))
    np.testing.assert_array_equal(read_labels(tmp_path / "all.png", 19)[5], CELEBAMASK_TO_CATEGORY)


def test_label_out_of_range(data):
    write(data / "labels/3.png", np.full((SIZE, SIZE), 19, np.uint8))
    with pytest.raises(UsageError, match=r"3\.png.*19"):
        MemoryDataset(config(), data, with_labels=True)


def test_label_map_in_colour(data):
    write(data / "labels/3.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    with pytest.raises(UsageError, match=r"3\.png"):
        MemoryDataset(config(), data, with_labels=True)


def test_missing_label(data):
    (data / "labels/5.png").unlink()
    with pytest.raises(UsageError, match=r"5\.png"):
        MemoryDataset(config(), data, with_labels=True)
    assert MemoryDataset(config(), data, with_labels=False).labels is None


def test_missing_folder(data):
    with pytest.raises(UsageError, match="absent"):
        MemoryDataset(config(sources={"a": SourceConfig("absent")}), data, with_labels=False)
    with pytest.raises(UsageError, match="nowhere"):
        MemoryDataset(config(masks="nowhere"), data, with_labels=False)


def test_unreadable_image(data):
    (data / "images/2.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"2\.png"):
        MemoryDataset(config(), data, with_labels=False)


def test_wrong_mask_polarity(tmp_path):
    write(tmp_path / "20-30/0.png", 255 - hole(0.25))
    with pytest.raises(UsageError, match=r"20-30.*0\.75"):
        read_masks(tmp_path, SIZE)


def test_masks_are_white_holes(tmp_path):
    write(tmp_path / "20-30/0.png", hole(0.25))
    np.testing.assert_array_equal(read_masks(tmp_path, SIZE)[0], hole(0.25) // 255)


def test_batch_depends_on_seed_and_step_only(data):
    first, second = (MemoryDataset(config(), data, with_labels=True) for _ in range(2))
    first.batch(0, 4)
    a, b = first.batch(3, 4), second.batch(3, 4)
    assert a.names == b.names
    assert all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("image", "mask", "labels"))
    assert a.image.shape == (4, 3, SIZE, SIZE)
    assert a.mask.shape == (4, 1, SIZE, SIZE)
    assert set(a.mask.unique().tolist()) == {0, 1}
    other_seed = MemoryDataset(config(seed=1), data, with_labels=True)
    assert not torch.equal(a.image, second.batch(4, 4).image)
    assert not torch.equal(a.image, other_seed.batch(3, 4).image)


def test_shares_of_sources_and_rare_faces(data):
    write(data / "more/x.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    sources = {"a": SourceConfig("images", 1.0, "labels"), "b": SourceConfig("more", 3.0)}
    shares = MemoryDataset(config(sources=sources), data, with_labels=False).probability
    np.testing.assert_allclose(shares, [0.25 / 8] * 8 + [0.75])
    rare = MemoryDataset(config(), data, with_labels=True).probability
    np.testing.assert_allclose(rare, [1 / 11] * 7 + [4 / 11])


def test_holdout_is_left_out(data):
    dataset = MemoryDataset(config(holdout_every=4), data, with_labels=True)
    held = holdout_files(data / "images", 4)
    assert [p.stem for p in held] == ["0", "4"]
    assert not set(held) & set(dataset.files)
    assert len(dataset.files) == 6


def aligned_batch():
    """Faces whose red channel is ten times their label, in blocks of sixteen pixels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 14, (8, 4, 4)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    image = np.zeros((8, 3, SIZE, SIZE), np.uint8)
    image[:, 0] = labels * 10
    mask = np.repeat(hole(0.25)[None, None] // 255, 8, axis=0)
    return Batch(*(torch.from_numpy(x) for x in (image, mask, labels)), tuple("abcdefgh"))


@pytest.mark.parametrize(
    ("settings", "agreement"), [(AugmentConfig(), 1.0), (AugmentConfig(rotate=15, scale=0.1, shift=0.1), 0.8)]
)
def test_augmented_image_and_labels_stay_aligned(settings, agreement):
    batch = aligned_batch()
    sample = augment(batch, settings, PhaseConfig(1, 8, SIZE), (0, 0), CPU)
    red = (sample.image[:, 0] + 1) * 127.5 / 10
    assert ((red - sample.labels).abs() < 0.05).float().mean() >= agreement
    moved = [not torch.equal(a, b.long()) for a, b in zip(sample.labels, batch.labels, strict=True)]
    assert any(moved)
    assert torch.equal(sample.mask, batch.mask.float())
    if agreement == 1.0:  # flips alone: every face is itself or its mirror image
        for got, had in zip(sample.labels, batch.labels.long(), strict=True):
            assert torch.equal(got, had) or torch.equal(got, had.flip(1))
        assert not all(moved)


def test_augment_depends_on_seed_and_step_only():
    settings = AugmentConfig(10, 0.1, 0.1, 0.2, 0.5)
    phase = PhaseConfig(1, 8, SIZE, crop=32)
    a, b, c = (augment(aligned_batch(), settings, phase, (0, step), CPU) for step in (5, 5, 6))
    assert torch.equal(a.image, b.image)
    assert a.crop == b.crop
    assert not torch.equal(a.image, c.image)
    assert a.image.abs().max() <= 1


def test_resize_and_crop():
    for step in range(8):
        sample = augment(aligned_batch(), AugmentConfig(), PhaseConfig(1, 8, 32, crop=16), (0, step), CPU)
        top, left, side = sample.crop
        assert sample.image.shape[-2:] == sample.mask.shape[-2:] == (32, 32)
        assert side == 16
        assert top % 4 == left % 4 == 0
        assert 0 <= min(top, left) <= max(top, left) <= 16
        assert set(sample.mask.unique().tolist()) == {0.0, 1.0}
