"""The perceptual distances against their formulas in numpy, and the files that LPIPS takes."""

import hashlib

import numpy as np
import pytest
import torch

from showface.evaluation.quality import perceptual
from showface.evaluation.quality.perceptual import Lpips, lpips_from_folder, relative_distance
from showface.runtime.errors import UsageError
from showface.training.loss_networks.vgg import WIDTHS, VggFeatures


def layers(seed, batch=2):
    rng = np.random.default_rng(seed)
    return [rng.uniform(0, 3, (batch, 4 + k, 8 >> (k // 2), 8)) for k in range(5)]


def as_torch(arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_relative_distance_averages_blocks_2_to_4():
    a, b = layers(1), layers(2)
    expected = [np.mean([np.abs(a[k][i] - b[k][i]).mean() / b[k][i].mean() for k in (1, 2, 3)]) for i in (0, 1)]
    np.testing.assert_allclose(relative_distance(as_torch(a), as_torch(b)), expected, rtol=1e-12)
    assert relative_distance(as_torch(a), as_torch(a)).tolist() == [0, 0]


def test_lpips_is_the_published_formula():
    """Channels of unit length, squared differences weighed by channel, spatial means, summed over the layers."""
    rng = np.random.default_rng(3)
    found = {1.0: layers(4), 2.0: layers(5)}
    weights = [rng.uniform(0, 1, layer.shape[1]) for layer in found[1.0]]
    lpips = Lpips(lambda pictures: as_torch(found[float(pictures[0, 0, 0, 0])]), as_torch(weights))
    expected = np.zeros(2)
    for x, y, w in zip(found[1.0], found[2.0], weights, strict=True):
        unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y)]
        expected += ((unit[0] - unit[1]) ** 2 * w[:, None, None]).sum(axis=1).mean(axis=(1, 2))
    pictures = [torch.full((2, 3, 8, 8), value) for value in found]
    np.testing.assert_allclose(lpips(*pictures), expected, rtol=1e-6)
    assert lpips(pictures[0], pictures[0]).tolist() == [0, 0]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Random weights in the two files' layout, with their digests in the place of the published ones."""
    torch.manual_seed(0)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(WIDTHS)}
    torch.save(VggFeatures("vgg16").state_dict(), tmp_path / "plain")
    digest = hashlib.sha256((tmp_path / "plain").read_bytes()).hexdigest()[:8]
    (tmp_path / "plain").rename(tmp_path / f"vgg16-{digest}.pth")
    torch.save(linear, tmp_path / "vgg.pth")
    monkeypatch.setattr(perceptual, "BACKBONE_FILE", f"vgg16-{digest}.pth")
    monkeypatch.setattr(perceptual, "LPIPS_DIGEST", hashlib.sha256((tmp_path / "vgg.pth").read_bytes()).hexdigest()[:8])
    return tmp_path


def test_lpips_grows_with_the_damage(published):
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    lpips = lpips_from_folder(published)
    found = []
    for strength in (0, 20, 120):
        noise = rng.integers(-strength, strength + 1, truth.shape)
        found.append(lpips.distances(list(np.clip(truth + noise, 0, 255).astype(np.uint8)), list(truth)))
    assert found[0].tolist() == [0, 0]
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()


def test_other_files_are_not_lpips(published):
    with pytest.raises(UsageError, match=r"absent/vgg16-.*: no such file; LPIPS needs"):
        lpips_from_folder(published / "absent")
    (published / "vgg.pth").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"vgg\.pth: its sha256 starts with .* version 0\.1 of vgg\.pth"):
        lpips_from_folder(published)
