"""The frozen VGG: its layers, its input and what its files are checked for."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from showface.runtime.errors import UsageError
from showface.training.loss_networks.vgg import VggFeatures, vgg_from_file

# torchvision's numbers of the convolutions, by block
NUMBERS = {
    "vgg19": ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34)),
    "vgg16-caffe": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
}
DATA = Path(os.environ.get("SHOWFACE_DATA", Path(__file__).parents[4] / "shared" / "data"))
SHARED = DATA / "weights" / "vgg16_imagenet_caffe_fp16.safetensors"
EACH = pytest.mark.parametrize("network", NUMBERS)


def photographs(height, width, batch=1):
    """Return 8-bit RGB values [B, H, W, 3] and the same as an image [B, 3, H, W] in [-1, 1]."""
    values = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    return values, torch.from_numpy(values).permute(0, 3, 1, 2).float() / 127.5 - 1


def network_values(values, network):
    """Return what the documentation of the weights asks for, [B, 3, H, W] in float64."""
    if network == "vgg19":
        result = (values / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        result = values[..., ::-1] - np.array([103.939, 116.779, 123.68])
    return result.transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def build():
    """Return a function that gives one random VGG of each kind."""
    built = {}

    def get(network):
        if network not in built:
            torch.manual_seed(0)
            built[network] = VggFeatures(network)
        return built[network]

    return get


@pytest.fixture(scope="module")
def vgg16_file(tmp_path_factory, build):
    """Return a float16 safetensors file of the convolutions of a random VGG-16."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file({key: value.half() for key, value in build("vgg16-caffe").state_dict().items()}, path)
    return path


def save_pth(content, folder):
    """Pickle ``content`` under a name that carries its digest, as torchvision publishes weights."""
    plain = folder / "plain"
    torch.save(content, plain)
    return plain.rename(folder / f"vgg19-{hashlib.sha256(plain.read_bytes()).hexdigest()[:8]}.pth")


@EACH
def test_input_is_the_one_that_the_weights_expect(build, network):
    values, image = photographs(5, 7)
    result = build(network).network_input(image)
    expected = network_values(values, network)
    assert np.abs(result.numpy() - expected).max() < 1e-6 * np.abs(expected).max()
    low = build(network).network_input(image.bfloat16())
    assert low.dtype == torch.float32  # 8-bit values minus a mean do not fit bfloat16


def convolve(x, weight, bias):
    """Return the 3×3 convolution of [c, H, W] with zero padding, by loops over its pixels and channels."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    result = np.empty((len(weight), *x.shape[1:]))
    for o, y, z in np.ndindex(result.shape):
        result[o, y, z] = (padded[:, y : y + 3, z : z + 3] * weight[o]).sum() + bias[o]
    return result


@EACH
def test_first_block_against_loops(build, network):
    values, image = photographs(8, 9)
    weights = {key: value.double().numpy() for key, value in build(network).state_dict().items()}
    expected = network_values(values, network)[0]
    for number in (0, 2):
        expected = convolve(expected, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"])
        expected = np.maximum(expected, 0)
    np.testing.assert_allclose(build(network)(image)[0][0], expected, rtol=1e-4, atol=1e-5 * expected.max())


@EACH
def test_each_layer_against_the_published_numbering(build, network):
    values, image = photographs(32, 16, batch=2)
    weights = {key: value.double() for key, value in build(network).state_dict().items()}
    assert {int(key.split(".")[1]) for key in weights} == {n for block in NUMBERS[network] for n in block}
    x, expected = torch.from_numpy(network_values(values, network)), []
    for block in NUMBERS[network]:
        x = F.max_pool2d(x, 2) if expected else x
        for number in block:
            x = F.relu(F.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1))
        expected.append(x)
    result = build(network)(image)
    assert [list(x.shape) for x in result] == [[2, 64, 32, 16], [2, 128, 16, 8], [2, 256, 8, 4], [2, 512, 4, 2]]
    for ours, target in zip(result, expected[:4], strict=True):
        assert (ours - target).abs().max() < 1e-5 * target.abs().max()
    deep = build(network).blocks(image, 5)[4]
    assert (deep - expected[4]).abs().max() < 1e-5 * expected[4].abs().max()


@EACH
def test_frozen_but_gradients_reach_the_image(build, network):
    vgg = build(network)
    parent = torch.nn.Sequential(vgg).train()
    assert parent.training
    assert not any(module.training for module in vgg.modules())
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    image = photographs(16, 16)[1].requires_grad_()
    sum(x.mean() for x in vgg(image)).backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.any()


def test_safetensors_of_float16_load(vgg16_file):
    vgg = vgg_from_file(vgg16_file, "vgg16-caffe")
    stored = load_file(vgg16_file)
    state = vgg.state_dict()
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[key], stored[key].float()) for key in state)
    assert not any(parameter.requires_grad for parameter in vgg.parameters())


def test_pth_with_its_digest_loads_and_the_classifier_is_left_out(tmp_path, build):
    state = dict(build("vgg19").state_dict())
    path = save_pth(state | {"classifier.0.weight": torch.zeros(2, 2)}, tmp_path)
    loaded = vgg_from_file(path, "vgg19").state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "named"), [("vgg19-dcbb9e9d.pth", "sha256 starts with"), ("vgg19.pth", "must keep the name")]
)
def test_pth_that_contradicts_its_name_is_not_opened(tmp_path, monkeypatch, name, named):
    def never(*_, **__):
        pytest.fail("the file was deserialised")

    monkeypatch.setattr(torch, "load", never)
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(UsageError, match=f"{name}: .*{named}"):
        vgg_from_file(path, "vgg19")


def test_pth_with_code_does_not_run_it(tmp_path):
    touched = tmp_path / "touched"
    path = save_pth({"features.0.weight": Payload(touched)}, tmp_path)
    with pytest.raises(UsageError, match=f"{path.name}: cannot be read"):
        vgg_from_file(path, "vgg19")
    assert not touched.exists()
    pickle.loads(pickle.dumps(Payload(touched)))
    assert touched.exists()  # the payload works


def test_other_files_are_refused(tmp_path, vgg16_file):
    state = load_file(vgg16_file)
    with pytest.raises(UsageError, match=r"vgg16\.safetensors: missing key features\.16\.weight; .*VGG-19"):
        vgg_from_file(vgg16_file, "vgg19")
    short = tmp_path / "short.safetensors"
    save_file({key: value for key, value in state.items() if key != "features.28.bias"}, short)
    with pytest.raises(UsageError, match=r"short\.safetensors: missing key features\.28\.bias"):
        vgg_from_file(short, "vgg16-caffe")
    save_file(state | {"features.2.weight": torch.zeros(64, 64, 1, 1)}, short)
    with pytest.raises(UsageError, match=r"features\.2\.weight has the shape \[64, 64, 1, 1\]"):
        vgg_from_file(short, "vgg16-caffe")
    listed = save_pth([1, 2], tmp_path)
    with pytest.raises(UsageError, match="holds a list"):
        vgg_from_file(listed, "vgg19")


@pytest.mark.parametrize("name", ["vgg16-397923af.pth", "vgg16.bin"])
def test_kinds_of_file_that_are_not_the_networks_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match=f"{name}: vgg16-caffe is read from .safetensors"):
        vgg_from_file(tmp_path / name, "vgg16-caffe")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.safetensors: cannot be read"):
        vgg_from_file(tmp_path / "none.safetensors", "vgg19")
    with pytest.raises(UsageError, match=r"none-01234567\.pth: cannot be read"):
        vgg_from_file(tmp_path / "none-01234567.pth", "vgg19")
    for name, content in (("cut.safetensors", b"\x10"), (f"vgg19-{hashlib.sha256(b'PK').hexdigest()[:8]}.pth", b"PK")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name}: cannot be read"):
            vgg_from_file(tmp_path / name, "vgg19")


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared weights are not here (set SHOWFACE_DATA)")
def test_shared_weights_load_and_tell_images_apart():
    vgg = vgg_from_file(SHARED, "vgg16-caffe")
    flat, noise = torch.zeros(1, 3, 64, 64), photographs(64, 64)[1]
    features = vgg.blocks(torch.cat([flat, noise, noise.flip(3)]), 5)[4].mean(dim=(2, 3))
    assert torch.isfinite(features).all()
    same, other = (features[1] - features[2]).norm(), (features[1] - features[0]).norm()
    assert 0 < 2 * same < other
