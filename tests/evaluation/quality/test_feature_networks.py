"""Which file gives which feature network, and what it sees."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from showface.evaluation.quality import feature_networks
from showface.evaluation.quality.feature_networks import feature_network, features
from showface.runtime.errors import UsageError

WIDTHS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
CAFFE = {"input": "BGR, 0-255, minus (103.939,116.779,123.68)"}


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
    assert network.is_perceptual
    found = features(network.activations(list(images)))
    assert found.shape == (2, 512)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_inception_is_called_fid_and_sees_values_around_zero(tmp_path, monkeypatch):
    class Corner(torch.nn.Module):
        def forward(self, image):
            return image[:, :, 0, -1]

    monkeypatch.setattr(feature_networks, "inception_from_file", lambda path: Corner())
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 and so on")
    network = feature_network(path)
    assert network.label == "FID"
    images = np.zeros((1, 4, 5, 3), np.uint8)
    images[0, 0, 4] = (255, 51, 0)
    assert not network.is_perceptual
    np.testing.assert_allclose(features(network.activations(list(images))), [[1.0, -0.6, -1.0]], atol=1e-6)


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
