"""Augmentation: image, mask and labels stay aligned, and every draw belongs to a position."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from showface.training.config import AugmentConfig, PhaseConfig
from showface.training.data.augment import affine_maps, augment, sampling_grid
from showface.training.data.dataset import Batch

SIZE = 64
CPU = torch.device("cpu")
ALL = AugmentConfig(10, 0.1, 0.1, 0.2, 0.5)


def aligned_batch(count=8, offset=0):
    """Faces whose red channel is ten times their label, in blocks of sixteen pixels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 14, (16, 4, 4)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    image = np.zeros((16, 3, SIZE, SIZE), np.uint8)
    image[:, 0] = labels * 10
    mask = np.zeros((16, 1, SIZE, SIZE), np.uint8)
    mask[:, :, :16] = 1
    part = slice(offset, offset + count)
    tensors = (torch.from_numpy(x[part]) for x in (image, mask, labels))
    photograph = torch.arange(16)[part] % 2 == 0
    return Batch(*tensors, tuple("abcdefghijklmnop"[part]), tuple(range(16))[part], photograph)


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


def test_layout():
    sample = augment(aligned_batch(), ALL, PhaseConfig(1, 8, SIZE), (0, 0), CPU)
    assert sample.image.is_contiguous(memory_format=torch.channels_last)
    assert sample.image.dtype == sample.mask.dtype == torch.float32
    assert sample.labels.dtype == torch.int64
    assert sample.image.abs().max() <= 1
    assert sample.crop is None


def test_augment_depends_on_seed_and_step_only():
    phase = PhaseConfig(1, 8, SIZE, crop=32)
    a, b, c, d = (augment(aligned_batch(), ALL, phase, seed, CPU) for seed in ((0, 5), (0, 5), (0, 6), (1, 5)))
    assert torch.equal(a.image, b.image)
    assert a.crop == b.crop
    assert not torch.equal(a.image, c.image)
    assert not torch.equal(a.image, d.image)


@pytest.mark.parametrize("settings", [AugmentConfig(), ALL])
@pytest.mark.parametrize("parts", [(8, 8), (5, 11), (1, 15), (16,)])
def test_shares_of_a_batch_equal_the_whole(settings, parts):
    phase = PhaseConfig(1, 4, 32, crop=16)  # its batch size plays no part
    whole = augment(aligned_batch(16), settings, phase, (3, 4), CPU)
    starts = np.cumsum((0, *parts))[:-1]
    shares = [
        augment(aligned_batch(n, start), settings, phase, (3, 4), CPU) for n, start in zip(parts, starts, strict=True)
    ]
    for key in ("image", "mask", "labels"):
        assert torch.equal(torch.cat([getattr(share, key) for share in shares]), getattr(whole, key))
    assert {share.crop for share in shares} == {whole.crop}


def test_positions_differ():
    batch = aligned_batch()
    same = {key: getattr(batch, key)[:1].expand_as(getattr(batch, key)) for key in ("image", "mask", "labels")}
    alike = replace(batch, **same)
    sample = augment(alike, AugmentConfig(rotate=10), PhaseConfig(1, 8, SIZE), (0, 0), CPU)
    assert len({image.numpy().tobytes() for image in sample.image}) == 8


def test_maps_against_a_loop():
    settings = AugmentConfig(rotate=30, scale=0.2, shift=0.1)
    draws = np.random.default_rng(0).random((5, 20))
    for map_, (angle, scale, right, down, flip) in zip(affine_maps(draws, settings), draws.T, strict=True):
        turn, size = math.radians(30) * (2 * angle - 1), 1 + 0.2 * (2 * scale - 1)
        rotation = size * np.asarray([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        mirror = np.diag([-1.0 if flip < 0.5 else 1.0, 1.0])
        np.testing.assert_allclose(map_[:, :2], rotation @ mirror, atol=1e-12)
        np.testing.assert_allclose(map_[:, 2], [0.2 * (2 * right - 1), 0.2 * (2 * down - 1)], atol=1e-12)


def test_grid_against_torch():
    maps = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(maps, [3, 1, 6, 10], align_corners=False)
    torch.testing.assert_close(sampling_grid(maps, 6, 10), expected)


def test_jitter_is_one_gain_a_channel_and_one_offset():
    batch = aligned_batch()
    gray = torch.from_numpy(np.random.default_rng(2).integers(100, 156, (8, 3, SIZE, SIZE), dtype=np.uint8))
    batch = replace(batch, image=gray, labels=None)
    phase = PhaseConfig(1, 8, SIZE)
    plain = augment(batch, AugmentConfig(), phase, (0, 0), CPU).image.double().numpy()
    changed = augment(batch, AugmentConfig(color=0.2), phase, (0, 0), CPU).image.double().numpy()
    offsets = []
    for before, after in zip(plain, changed, strict=True):
        fits = [np.polyfit(x.ravel(), y.ravel(), 1, full=True) for x, y in zip(before, after, strict=True)]
        assert max(float(fit[1][0]) for fit in fits) < 1e-8  # the rest of a straight line
        gains, constants = np.transpose([fit[0] for fit in fits])
        assert np.all((gains >= 0.9 * 0.8) & (gains <= 1.1 * 1.2))
        assert np.ptp(gains) > 1e-3
        assert np.ptp(constants) < 1e-5
        offsets.append(constants[0])
    assert np.abs(offsets).max() <= 0.2
    assert np.ptp(offsets) > 0.1


def test_blur_takes_its_share():
    batch = aligned_batch(16)
    noise = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (16, 3, SIZE, SIZE), dtype=np.uint8))
    batch = replace(batch, image=noise, labels=None)
    blurred = 0
    for step in range(6):
        images = augment(batch, AugmentConfig(blur=0.25), PhaseConfig(1, 16, SIZE), (0, step), CPU).image
        blurred += int((images.std(dim=(1, 2, 3)) < 0.3).sum())
    assert 0.12 < blurred / 96 < 0.4


def test_resize_and_crop():
    crops = set()
    batch = aligned_batch(2)
    for step in range(20):
        sample = augment(batch, AugmentConfig(), PhaseConfig(1, 2, 32, crop=16), (0, step), CPU)
        top, left, side = sample.crop
        assert sample.image.shape[-2:] == sample.mask.shape[-2:] == sample.labels.shape[-2:] == (32, 32)
        assert side == 16
        assert top % 4 == left % 4 == 0
        assert 0 <= min(top, left) <= max(top, left) <= 16
        assert torch.equal(sample.mask[:, 0, 0], torch.ones(2, 32))
        assert sample.mask.mean() == 0.25
        red = (sample.image[:, 0] + 1) * 127.5 / 10
        assert (red - sample.labels).abs().max() < 0.05
        crops.add((top, left))
    assert len(crops) > 8
    assert {top for top, _ in crops} == {0, 4, 8, 12, 16}


def test_known_coarse_faces_are_mirrored_with_their_faces_and_nothing_else():
    batch = aligned_batch(16)
    coarse, labels = 255 - batch.image, batch.labels
    batch = replace(batch, coarse_image=coarse, semantic_map=labels)
    sample = augment(batch, ALL, PhaseConfig(1, 16, SIZE, crop=32), (0, 3), CPU)
    mirrored = 0
    for i in range(16):
        image, mask, wanted, kind = (
            t[i].flip(-1) if not torch.equal(sample.semantic_map[i], labels[i].long()) else t[i]
            for t in (batch.image, batch.mask.float(), coarse, labels.long())
        )
        mirrored += torch.equal(kind, labels[i].long().flip(-1))
        assert torch.equal(sample.semantic_map[i], kind)
        assert torch.equal(sample.mask[i], mask)
        torch.testing.assert_close(sample.image[i], image.float() / 127.5 - 1)
        known = sample.image[i] * (1 - mask) + (wanted.float() / 127.5 - 1) * mask
        torch.testing.assert_close(sample.coarse_image[i], known)
    assert 2 <= mirrored <= 14
    assert torch.equal(sample.photograph, batch.photograph)
    assert sample.crop[2] == 32
