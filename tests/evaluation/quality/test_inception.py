"""FID's Inception: its keys against the published architecture, its result against a flat computation."""

import functools
import hashlib
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from showface.evaluation.quality import inception
from showface.evaluation.quality.inception import inception_from_file
from showface.runtime.errors import UsageError

# Szegedy et al. 2016 as in torchvision: name, input channels, output channels, kernel height × width.
STEM = """
Conv2d_1a_3x3 3 32 3x3
Conv2d_2a_3x3 32 32 3x3
Conv2d_2b_3x3 32 64 3x3
Conv2d_3b_1x1 64 80 1x1
Conv2d_4a_3x3 80 192 3x3
"""
A = """
branch1x1 {i} 64 1x1
branch5x5_1 {i} 48 1x1
branch5x5_2 48 64 5x5
branch3x3dbl_1 {i} 64 1x1
branch3x3dbl_2 64 96 3x3
branch3x3dbl_3 96 96 3x3
branch_pool {i} {w} 1x1
"""
B = """
branch3x3 288 384 3x3
branch3x3dbl_1 288 64 1x1
branch3x3dbl_2 64 96 3x3
branch3x3dbl_3 96 96 3x3
"""
C = """
branch1x1 768 192 1x1
branch7x7_1 768 {w} 1x1
branch7x7_2 {w} {w} 1x7
branch7x7_3 {w} 192 7x1
branch7x7dbl_1 768 {w} 1x1
branch7x7dbl_2 {w} {w} 7x1
branch7x7dbl_3 {w} {w} 1x7
branch7x7dbl_4 {w} {w} 7x1
branch7x7dbl_5 {w} 192 1x7
branch_pool 768 192 1x1
"""
D = """
branch3x3_1 768 192 1x1
branch3x3_2 192 320 3x3
branch7x7x3_1 768 192 1x1
branch7x7x3_2 192 192 1x7
branch7x7x3_3 192 192 7x1
branch7x7x3_4 192 192 3x3
"""
E = """
branch1x1 {i} 320 1x1
branch3x3_1 {i} 384 1x1
branch3x3_2a 384 384 1x3
branch3x3_2b 384 384 3x1
branch3x3dbl_1 {i} 448 1x1
branch3x3dbl_2 448 384 3x3
branch3x3dbl_3a 384 384 1x3
branch3x3dbl_3b 384 384 3x1
branch_pool {i} 192 1x1
"""
BLOCKS = {
    "Mixed_5b": A.format(i=192, w=32), "Mixed_5c": A.format(i=256, w=64), "Mixed_5d": A.format(i=288, w=64),
    "Mixed_6a": B,
    "Mixed_6b": C.format(w=128), "Mixed_6c": C.format(w=160), "Mixed_6d": C.format(w=160), "Mixed_6e": C.format(w=192),
    "Mixed_7a": D,
    "Mixed_7b": E.format(i=1280), "Mixed_7c": E.format(i=2048),
}  # fmt: skip
SIDE = 139  # in place of 299, for speed; the last maps are 3×3
# torchvision's documented 27,161,264 parameters less its classifier and its auxiliary head.
PARAMETERS = 27_161_264 - 2_049_000 - 3_326_696


def expected_shapes():
    lines = [("", line) for line in STEM.split("\n")]
    lines += [(f"{block}.", line) for block, text in BLOCKS.items() for line in text.split("\n")]
    shapes = {}
    for prefix, line in lines:
        if line:
            name, inputs, outputs, kernel = line.split()
            shapes[f"{prefix}{name}.conv.weight"] = (int(outputs), int(inputs), *map(int, kernel.split("x")))
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}{name}.bn.{part}"] = (int(outputs),)
    return shapes


def random_state():
    generator, state = torch.Generator().manual_seed(0), {}
    for key, shape in expected_shapes().items():
        noise = torch.randn(shape, generator=generator)
        if key.endswith("conv.weight"):
            state[key] = noise * (2 / noise[0].numel()) ** 0.5
        else:
            state[key] = 1 + 0.2 * noise.clamp(-2, 2) if key.endswith(("running_var", "bn.weight")) else 0.3 * noise
    return state


def hollow_state():
    """Return the right shapes in few bytes."""
    return {key: torch.zeros(1).expand(shape) for key, shape in expected_shapes().items()}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a state dict and lets its digest pass for the published one."""
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"

    def write(content):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        monkeypatch.setattr(inception, "SHA256_PREFIX", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
        return path

    yield write
    path.unlink(missing_ok=True)  # 87 MB


def resized(images, side):
    """Bilinear with half-pixel centres, in numpy; [B, H, W, C] -> [B, side, side, C]."""
    weights = []
    for length in images.shape[1:3]:
        at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
        low = np.minimum(at.astype(int), length - 2)
        matrix = np.zeros((side, length))
        matrix[np.arange(side), low] = 1 - (at - low)
        matrix[np.arange(side), low + 1] = at - low
        weights.append(matrix)
    return np.einsum("yh,xw,bhwc->byxc", *weights, images)


def flat_features(state, images):
    """Compute pool3 from [B, H, W, 3] in [-1, 1], with each block as the list of its branches."""

    def conv(x, name, stride=1, pad=True):
        weight = state[f"{name}.conv.weight"]
        parts = ("weight", "bias", "running_mean", "running_var")
        gain, bias, mean, variance = (state[f"{name}.bn.{part}"].view(1, -1, 1, 1) for part in parts)
        x = F.pad(x, [p for k in (weight.shape[3], weight.shape[2]) for p in (k // 2, k // 2)]) if pad else x
        x = F.conv2d(x, weight, stride=stride)
        return ((x - mean) / (variance + 0.001) ** 0.5 * gain + bias).clamp(min=0)

    def chain(x, block, *names):
        for name in names:
            halves = name.endswith("!")
            x = conv(x, f"{block}.{name.rstrip('!')}", 2 if halves else 1, not halves)
        return x

    def windows(x, stride):
        """Return the nine values of each 3×3 window, each as [B, C, h, w]."""
        spans = [(k, x.shape[2] - 2 + k, x.shape[3] - 2 + k) for k in range(3)]
        return [x[:, :, i:bottom:stride, j:right:stride] for i, bottom, _ in spans for j, _, right in spans]

    def average(x):
        """Mean over the part of a 3×3 window that lies inside the image."""
        inside = F.pad(torch.ones_like(x[:1, :1]), (1, 1, 1, 1))
        return sum(windows(F.pad(x, (1, 1, 1, 1)), 1)) / sum(windows(inside, 1))

    def maximum(x, stride):
        x = F.pad(x, (1, 1, 1, 1), value=-torch.inf) if stride == 1 else x
        return functools.reduce(torch.maximum, windows(x, stride))

    x = torch.from_numpy(resized(images, SIDE)).float().permute(0, 3, 1, 2)
    x = conv(conv(conv(x, "Conv2d_1a_3x3", 2, False), "Conv2d_2a_3x3", 1, False), "Conv2d_2b_3x3")
    x = maximum(conv(conv(maximum(x, 2), "Conv2d_3b_1x1"), "Conv2d_4a_3x3", 1, False), 2)
    double = tuple(f"branch3x3dbl_{i}" for i in (1, 2, 3))
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        paths = (("branch1x1",), ("branch5x5_1", "branch5x5_2"), double)
        x = torch.cat([*(chain(x, block, *path) for path in paths), chain(average(x), block, "branch_pool")], 1)
    paths = (("branch3x3!",), (*double[:2], "branch3x3dbl_3!"))
    x = torch.cat([*(chain(x, "Mixed_6a", *path) for path in paths), maximum(x, 2)], 1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        single, long = (tuple(f"{n}_{i}" for i in range(1, m)) for n, m in (("branch7x7", 4), ("branch7x7dbl", 6)))
        paths = (("branch1x1",), single, long)
        x = torch.cat([*(chain(x, block, *path) for path in paths), chain(average(x), block, "branch_pool")], 1)
    paths = (("branch3x3_1", "branch3x3_2!"), (*(f"branch7x7x3_{i}" for i in (1, 2, 3)), "branch7x7x3_4!"))
    x = torch.cat([*(chain(x, "Mixed_7a", *path) for path in paths), maximum(x, 2)], 1)
    for block in ("Mixed_7b", "Mixed_7c"):
        paths = [("branch1x1",)]
        paths += [("branch3x3_1", f"branch3x3_2{side}") for side in "ab"]
        paths += [("branch3x3dbl_1", "branch3x3dbl_2", f"branch3x3dbl_3{side}") for side in "ab"]
        pooled = maximum(x, 1) if block == "Mixed_7c" else average(x)
        x = torch.cat([*(chain(x, block, *path) for path in paths), chain(pooled, block, "branch_pool")], 1)
    return x.flatten(2).mean(dim=2).numpy()


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        network = inception.FidInception()
    found = {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert found == expected_shapes()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS
    assert len(found) == 94 * 5


def test_features_equal_a_flat_computation_and_other_heads_are_left_out(write, monkeypatch):
    assert inception.INPUT_SIZE == 299
    monkeypatch.setattr(inception, "INPUT_SIZE", SIDE)
    state = random_state()
    path = write({**state, "fc.weight": torch.zeros(2, 2), "AuxLogits.conv0.conv.weight": torch.zeros(1)})
    network = inception_from_file(path)
    images = np.random.default_rng(1).uniform(-1, 1, (1, 37, 50, 3))
    with torch.no_grad():
        found = network(torch.from_numpy(images).float().permute(0, 3, 1, 2)).numpy()
        expected = flat_features(state, images)
    assert found.shape == (1, 2048)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_wrong_digest_is_refused_before_unpickling(tmp_path, monkeypatch):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(hollow_state(), path)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    with pytest.raises(UsageError, match=rf"{digest}.*6726825d"):
        inception_from_file(path)


def test_incomplete_files_are_refused(write):
    state = hollow_state()
    del state["Mixed_7c.branch_pool.bn.running_var"]
    with pytest.raises(UsageError, match=r"missing key Mixed_7c\.branch_pool\.bn\.running_var"):
        inception_from_file(write(state))
    state = {**hollow_state(), "Mixed_6b.branch7x7_2.conv.weight": torch.zeros(128, 128, 7, 1)}
    with pytest.raises(UsageError, match=r"Mixed_6b\.branch7x7_2\.conv\.weight has the shape .*7, 1.*1, 7"):
        inception_from_file(write(state))
    with pytest.raises(UsageError, match="holds a list"):
        inception_from_file(write([1, 2]))


class Command:
    """What a hostile file would hold."""

    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_the_file_is_not_run(write):
    for content in (pickle.dumps(Command()), b"garbage"):
        with pytest.raises(UsageError, match="cannot be read as a weight file"):
            inception_from_file(write(content))
