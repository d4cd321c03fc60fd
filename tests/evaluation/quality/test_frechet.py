"""The Fréchet distance against scipy and closed forms, and the choice of its feature network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from showface.evaluation.quality import frechet
from showface.evaluation.quality.frechet import Statistics, feature_network, frechet_distance, merge, statistics
from showface.runtime.errors import UsageError

WIDTHS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
CAFFE = {"input": "BGR, 0-255, minus (103.939,116.779,123.68)"}


def rows(seed, count=40, size=6):
    rng = np.random.default_rng(seed)
    return rng.normal(3, 2, (count, size)) @ rng.normal(0, 1, (size, size))


def test_batches_merge_to_numpys_mean_and_covariance():
    data = (rows(0) + 1000).astype(np.float32)
    merged = statistics(data[:1])
    for start, stop in ((1, 2), (2, 10), (10, 33), (33, 40)):
        merged = merge(merged, statistics(data[start:stop]))
    assert merged.count == 40
    assert merged.covariance.dtype == np.float64
    np.testing.assert_allclose(merged.mean, data.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(data.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-9)


def test_distance_equals_scipys_matrix_root():
    a, b = rows(0), rows(1)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert expected > 1
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-9)


def test_closed_form_of_diagonal_gaussians():
    rng = np.random.default_rng(2)
    means, deviations = rng.normal(size=(2, 5)), rng.uniform(0.1, 3, (2, 5))
    a, b = (Statistics(m, np.diag(s**2), 100) for m, s in zip(means, deviations, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_images_than_features():
    """Singular covariances that share a basis: the closed form holds, and a general matrix root is inaccurate."""
    basis = ortho_group.rvs(60, random_state=3)
    deviations = np.zeros((2, 60))
    deviations[0, :9], deviations[1, 4:11] = np.arange(1, 10), np.arange(7, 14) / 2
    a, b = (Statistics(np.zeros(60), basis @ np.diag(s**2) @ basis.T, 12) for s in deviations)
    assert frechet_distance(a, b) == pytest.approx(((deviations[0] - deviations[1]) ** 2).sum(), rel=1e-9)


def test_equal_and_constant_features():
    same = statistics(rows(4))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-9)
    constant = [statistics(np.full((3, 4), value)) for value in (1.0, 3.0)]
    assert frechet_distance(*constant) == pytest.approx(16)


def test_useless_statistics_are_refused():
    good = statistics(rows(0))
    with pytest.raises(UsageError, match="two images"):
        frechet_distance(good, statistics(rows(1)[:1]))
    with pytest.raises(UsageError, match="length 6 and 5"):
        frechet_distance(good, statistics(rows(1)[:, :5]))
    with pytest.raises(UsageError, match="not finite"):
        frechet_distance(good, statistics(np.full((3, 6), np.nan)))


def vgg16_weights():
    generator, inputs, weights = torch.Generator().manual_seed(0), 3, {}
    for index, width in WIDTHS.items():
        spread = (2 / (9 * inputs)) ** 0.5
        weights[f"features.{index}.weight"] = (torch.randn(width, inputs, 3, 3, generator=generator) * spread).half()
        weights[f"features.{index}.bias"] = torch.randn(width, generator=generator).half()
        inputs = width
    return weights


def shapes_only(weights):
    """Return zeros of the same shapes but few bytes; refusals need no more."""
    return {key: torch.zeros(1) for key in weights}


def test_vgg16_is_called_fd_vgg16_and_sees_caffes_input(tmp_path):
    weights = vgg16_weights()
    save_file(weights, tmp_path / "vgg16.safetensors", CAFFE)
    network = feature_network(tmp_path / "vgg16.safetensors")
    assert network.label == "FD-VGG16"
    images = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), np.uint8)
    blue_first = images[..., ::-1] - np.asarray([103.939, 116.779, 123.68])
    x = torch.from_numpy(blue_first).float().permute(0, 3, 1, 2)
    for index in WIDTHS:
        if index in (5, 10, 17, 24):
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
        x = F.conv2d(x, *(weights[f"features.{index}.{part}"].float() for part in ("weight", "bias")), padding=1)
        x = x.clamp(min=0)
    expected = x.mean(dim=(2, 3)).numpy()
    assert network.features(images).shape == (2, 512)
    np.testing.assert_allclose(network.features(images), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_inception_is_called_fid_and_sees_values_around_zero(tmp_path, monkeypatch):
    class Corner(torch.nn.Module):
        def forward(self, image):
            return image[:, :, 0, -1]

    monkeypatch.setattr(frechet, "inception_from_file", lambda path: Corner())
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 and so on")
    network = feature_network(path)
    assert network.label == "FID"
    images = np.zeros((1, 4, 5, 3), np.uint8)
    images[0, 0, 4] = (255, 51, 0)
    np.testing.assert_allclose(network.features(images), [[1.0, -0.6, -1.0]], atol=1e-6)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    weights = shapes_only(vgg16_weights())
    save_file({**weights, "features.30.weight": torch.zeros(1)}, path, CAFFE)
    with pytest.raises(UsageError, match=r"weights.safetensors: holds no VGG-16"):
        feature_network(path)
    save_file(weights, path)
    with pytest.raises(UsageError, match="header does not say"):
        feature_network(path)
    save_file({"conv.weight": torch.zeros(1)}, path, CAFFE)
    with pytest.raises(UsageError, match="holds no VGG-16"):
        feature_network(path)
    path.write_bytes(b"\xff" * 8 + b"{ broken")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        feature_network(path)
    path.write_bytes(b"something else")
    with pytest.raises(UsageError, match="another file or a damaged copy"):
        feature_network(path)
    with pytest.raises(UsageError, match=r"absent.pth: cannot be read"):
        feature_network(tmp_path / "absent.pth")
