"""Single layers of the networks against plain loops in numpy."""

import cv2
import numpy as np
import pytest
import torch

from showface.training.networks.layers import GatedConv2d, Join, PartialConv2d, Spade, SpadeResBlock


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_partial_convolution_against_loops(kernel, stride):
    torch.manual_seed(2)
    layer = PartialConv2d(2, 3, kernel, stride).requires_grad_(False)
    torch.nn.init.normal_(layer.bias)
    valid = torch.rand(1, 1, 8, 8).round()
    valid[:, :, :5, :5] = 0
    x = torch.randn(1, 2, 8, 8) * valid
    result, updated = layer(x, valid)

    weight, bias = layer.conv.weight.numpy(), layer.bias.numpy().ravel()
    pad, side = kernel // 2, (8 - 1) // stride + 1
    padded = np.pad(x.numpy()[0], ((0, 0), (pad, pad), (pad, pad)))
    seen = np.pad(valid.numpy()[0, 0], pad)
    for i in range(side):
        for j in range(side):
            window = np.s_[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            count = seen[window].sum()
            assert updated[0, 0, i, j] == (count > 0)
            for o in range(3):
                response = (weight[o] * padded[:, window[0], window[1]]).sum() * kernel**2 / count if count else 0.0
                assert float(result[0, o, i, j]) == pytest.approx(response + bias[o], abs=1e-4)


def test_partial_convolution_of_extra_features_is_that_of_joined_ones():
    torch.manual_seed(3)
    apart = PartialConv2d(8, 4, 3, extra_channels=3).requires_grad_(False)
    joined = PartialConv2d(11, 4, 3).requires_grad_(False)
    joined.conv.weight.copy_(torch.cat([apart.conv.weight, apart.extra.weight], dim=1))
    valid = torch.rand(2, 1, 8, 8).round()
    x, extra = torch.randn(2, 8, 8, 8) * valid, torch.randn(2, 3, 8, 8) * valid
    found, wanted = apart(x, valid, extra), joined(torch.cat([x, extra], dim=1), valid)
    torch.testing.assert_close(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    with pytest.raises(ValueError, match="extra features are missing"):
        apart(x, valid)
    with pytest.raises(ValueError, match="not what this layer was made for"):
        joined(torch.cat([x, extra], dim=1), valid, extra)


def test_apart_or_joined_a_convolution_starts_from_the_same_spread():
    torch.manual_seed(4)
    apart, joined = PartialConv2d(32, 64, 3, extra_channels=3), PartialConv2d(35, 64, 3)
    spread = joined.conv.weight.std().item()
    assert apart.conv.weight.std().item() == pytest.approx(spread, rel=0.03)
    assert apart.extra.weight.std().item() == pytest.approx(spread, rel=0.06)


def test_gate_and_guidance_follow_their_formulas():
    """Gated: elu(f)·σ(g). Spade: (x - mean) / sqrt(var + 1e-5) · (1 + γ) + β, γ = 0.9·tanh, enlarged bilinearly."""
    torch.manual_seed(4)
    gated, spade = (layer.requires_grad_(False) for layer in (GatedConv2d(3, 2), Spade(2, 4, 5)))
    for layer in (spade.gamma, spade.beta):
        torch.nn.init.normal_(layer.weight)
    x, guidance = torch.randn(1, 3, 16, 16), torch.randn(1, 4, 4, 4)
    feature, gate = gated.feature(x).numpy(), gated.gate(x).numpy()
    wanted = np.where(feature > 0, feature, np.expm1(feature)) / (1 + np.exp(-gate))
    result = gated(x)
    np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-5, atol=1e-6)

    shared = spade.shared(guidance).clamp(min=0)
    small = np.concatenate([0.9 * np.tanh(spade.gamma(shared).numpy()[0]), spade.beta(shared).numpy()[0]])
    large = np.stack([cv2.resize(plane, (16, 16), interpolation=cv2.INTER_LINEAR) for plane in small])
    gamma, beta = np.split(large, 2)
    plain = result.numpy()[0].astype(np.float64)
    mean, variance = plain.mean(axis=(1, 2), keepdims=True), plain.var(axis=(1, 2), keepdims=True)
    modulated = (plain - mean) / np.sqrt(variance + 1e-5) * (1 + gamma) + beta
    np.testing.assert_allclose(spade(result, guidance).numpy()[0], modulated, rtol=1e-4, atol=1e-5)


def test_spade_starts_neutral_and_its_scale_is_bounded():
    torch.manual_seed(5)
    spade = Spade(3, 4, 5).requires_grad_(False)
    x, guidance = torch.randn(2, 3, 8, 8) * 3 + 1, torch.randn(2, 4, 8, 8)
    plain = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(spade(x, guidance), plain)
    torch.nn.init.constant_(spade.gamma.bias, 1e3)
    torch.testing.assert_close(spade(x, guidance), plain * 1.9)
    torch.nn.init.constant_(spade.gamma.bias, -1e3)
    torch.testing.assert_close(spade(x, guidance), plain * 0.1, atol=1e-6, rtol=1e-4)


def test_guidance_of_twice_the_size_is_taken_with_a_stride():
    torch.manual_seed(5)
    block = SpadeResBlock(6, 4, 7, stride=2).requires_grad_(False)
    for spade in (block.spade1, block.spade2):
        torch.nn.init.normal_(spade.beta.weight)
    x, guidance = torch.randn(2, 6, 8, 8), torch.randn(2, 4, 16, 16)
    changed = guidance.clone()
    changed[:, :, 12:, 12:] += 1
    assert block(x, guidance).shape == x.shape
    difference = (block.spade1(x, guidance) - block.spade1(x, changed)).abs().amax(dim=(0, 1))
    assert difference[6:, 6:].min() > 0
    assert difference[:5, :5].max() == 0


def test_a_stream_of_any_width_leaves_the_skip_its_say():
    torch.manual_seed(6)
    join = Join(8, 8).requires_grad_(False)
    x, skip = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 8, 8)
    plain = torch.nn.functional.group_norm
    rows = plain(join.reduce(x), 1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(join(x, skip), rows + plain(skip, 1))
    for stream, beside in ((1e4 * x, skip), (x, 1e4 * skip), (1e-2 * x, skip)):
        alone = join(stream, beside) - plain(beside, 1)
        assert 0.9 < alone.std() < 1.1


@pytest.mark.parametrize("limit", [2.8, 0.0])
def test_the_scale_of_a_partial_convolution_is_limited(limit):
    layer = PartialConv2d(1, 1, 3, scale_limit=limit or None).requires_grad_(False)
    torch.nn.init.ones_(layer.conv.weight)
    valid = torch.zeros(1, 1, 7, 7)
    valid[0, 0, 3, 3] = 1
    result, _ = layer(valid, valid)
    assert float(result[0, 0, 3, 3]) == pytest.approx(limit or 9.0)
    everything = torch.ones_like(valid)
    assert float(layer(everything, everything)[0][0, 0, 3, 3]) == pytest.approx(9.0)  # of nine pixels, the sum itself


def test_validity_grows_by_the_kernel():
    valid = torch.zeros(1, 1, 7, 7)
    valid[0, 0, 3, 3] = 1
    _, updated = PartialConv2d(1, 1, 3)(torch.zeros(1, 1, 7, 7), valid)
    expected = torch.zeros(1, 1, 7, 7)
    expected[0, 0, 2:5, 2:5] = 1
    assert torch.equal(updated, expected)
