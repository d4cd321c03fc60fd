"""The networks: cost, exactness of known pixels, and single layers against plain loops in numpy."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.transform
import torch
from torch.utils.flop_counter import FlopCounterMode

from showface.runtime.stages import CATEGORIES
from showface.training.config import (
    CoarseConfig,
    LayoutConfig,
    MemoryConfig,
    MremConfig,
    NetworkConfig,
    ParserConfig,
    RefinerConfig,
)
from showface.training.networks.layers import GatedConv2d, Join, PartialConv2d, Spade, SpadeResBlock
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.mrem import MaskedCorrelationMining, Mrem

SIZE = 64


def narrow(kind="disentangled", mining=True):
    return NetworkConfig(
        SIZE,
        CoarseConfig((8, 8, 8), 8, LayoutConfig((8, 8), 8)),
        ParserConfig(8),
        MemoryConfig(kind, channels=8, slots=4, encoder_width=8),
        MremConfig(mining),
        RefinerConfig((8, 8, 8), (8, 8, 8), (1, 2), 8),
    )


def build(config, scramble=False):
    """Return the model in evaluation mode; ``scramble`` gives the layers that start at zero random weights."""
    torch.manual_seed(0)
    model = MDRNets(config).eval().requires_grad_(False)
    if scramble:
        for head in (model.refiner.body.head, model.refiner.detail.head):
            torch.nn.init.normal_(head.conv.weight)
        torch.nn.init.normal_(model.coarse.layout.features.weight)
    return model


def face_and_mask(batch=2, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, size, size, generator=generator) * 2 - 1
    mask = torch.zeros(batch, 1, size, size)
    mask[:, :, size // 4 : 3 * size // 4, size // 8 + 1 : size // 2] = 1
    return image, mask


def flops_and_parameters(module, *inputs):
    """Return the result, its floating-point operations (2 a multiply–add) and the module's parameters."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = module(*inputs)
    return result, counter.get_total_flops(), sum(p.numel() for p in module.parameters())


def test_default_chain_stays_within_its_budget():
    model = build(NetworkConfig(coarse=CoarseConfig(layout=LayoutConfig())))
    image, mask = face_and_mask(1, 256)
    completed, flops, parameters = flops_and_parameters(model, image, mask)
    assert completed.shape == (1, 3, 256, 256)
    assert 10e9 < flops <= 20e9
    assert parameters <= 15e6
    guidance = torch.zeros(1, model.config.memory.channels, 64, 64)
    _, flops, parameters = flops_and_parameters(model.refiner, image, mask, guidance)
    assert 2e9 < flops <= 9e9
    assert parameters <= 4.5e6
    _, flops, _ = flops_and_parameters(model.memory.encoder, image)
    assert 0 < flops <= 1e9


@pytest.mark.parametrize("kind", ["disentangled", "shared", "none"])
@pytest.mark.parametrize("mining", [True, False])
def test_variants_run(kind, mining):
    model = build(narrow(kind, mining), scramble=True)
    image, mask = face_and_mask()
    completed = model(image, mask)
    assert completed.shape == image.shape
    assert torch.isfinite(completed).all()
    assert (model.mrem is None) == (kind == "none")


def test_untrained_chain_returns_the_coarse_face():
    model = build(narrow())
    image, mask = face_and_mask()
    assert torch.equal(model(image, mask), model.coarse(image, mask))


def test_known_pixels_are_copied():
    model = build(narrow(), scramble=True)
    image, mask = face_and_mask()
    coarse, completed = model.coarse(image, mask), model(image, mask)
    known = (mask == 0).expand_as(image)
    assert torch.equal(coarse[known], image[known])
    assert torch.equal(completed[known], image[known])
    assert not torch.equal(completed, coarse)
    assert completed.abs().max() <= 1


def test_the_layout_is_drawn_from_the_means_of_what_is_known():
    layout = build(narrow()).coarse.layout
    image, mask = face_and_mask()
    mask = mask.clone()
    mask[:, :, :13, :] = 1  # rows of which one in four is known
    known = image * (1 - mask)
    sketch, hidden = layout(known, mask)
    assert sketch.shape == (2, 3, SIZE // 4, SIZE // 4)
    pixels = known.numpy().reshape(2, 3, 16, 4, 16, 4)
    counts = (1 - mask).numpy().reshape(2, 1, 16, 4, 16, 4).sum(axis=(3, 5))
    means = pixels.sum(axis=(3, 5)) / np.maximum(counts, 1)
    seen = np.broadcast_to(counts > 0, means.shape)
    assert 0 < (counts == 4).sum() < seen.size
    np.testing.assert_array_equal(hidden.numpy(), counts == 0)
    np.testing.assert_allclose(sketch.numpy()[seen], means[seen], atol=1e-6)


def test_the_layout_changes_the_colours_of_what_is_wholly_hidden():
    image, mask = face_and_mask(size=128)[0], torch.zeros(2, 1, 128, 128)
    mask[:, :, 41:70, 50:81] = 1
    plain = build(replace(narrow(), coarse=CoarseConfig((8, 8, 8), 8))).coarse
    joint = build(narrow()).coarse
    joint.load_state_dict(plain.state_dict(), strict=False)
    known = image * (1 - mask)
    sketch, hidden = joint.layout(known, mask)
    means = skimage.transform.downscale_local_mean(plain(image, mask).numpy(), (1, 1, 4, 4))
    half = torch.from_numpy(0.5 * hidden.numpy() * (sketch.numpy() - means)).to(torch.float32)
    change = joint(image, mask) - plain(image, mask)
    wide = torch.nn.functional.interpolate(half, scale_factor=4, mode="bilinear") * mask
    inside = (plain(image, mask) + wide).abs() < 1
    torch.testing.assert_close(change[inside], wide[inside], atol=1e-5, rtol=0)
    assert change.abs().max() > 0.01
    assert (change[(mask == 0).expand_as(change)] == 0).all()

    torch.nn.init.constant_(joint.layout.weight.bias, -50.0)  # trained to trust nothing of it
    torch.testing.assert_close(joint(image, mask), plain(image, mask), atol=1e-5, rtol=0)
    torch.nn.init.normal_(joint.layout.features.weight)
    assert (joint(image, mask) - plain(image, mask)).abs().max() > 0.01


def test_hole_content_never_matters():
    model = build(narrow(), scramble=True)
    image, mask = face_and_mask()
    other = torch.where(mask > 0, -0.7 * image.flip(2), image)
    assert not torch.equal(image, other)
    assert torch.equal(model.coarse(image, mask), model.coarse(other, mask))
    assert torch.equal(model(image, mask), model(other, mask))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_mask_of_one_value(value):
    model = build(narrow(), scramble=True)
    image, mask = face_and_mask()
    completed = model(image, torch.full_like(mask, value))
    assert torch.isfinite(completed).all()
    if value == 0:
        assert torch.equal(completed, image)


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


def test_the_prior_stands_where_nothing_is_known_and_nowhere_else():
    coarse = build(narrow()).coarse
    image, mask = face_and_mask()
    before = coarse(image, mask), coarse(image, torch.ones_like(mask))
    torch.nn.init.normal_(coarse.prior, std=3.0)
    assert torch.equal(coarse(image, mask), before[0])
    assert not torch.equal(coarse(image, torch.ones_like(mask)), before[1])
    assert coarse.prior.shape == (1, 8, SIZE // 8, SIZE // 8)


def test_validity_grows_by_the_kernel():
    valid = torch.zeros(1, 1, 7, 7)
    valid[0, 0, 3, 3] = 1
    _, updated = PartialConv2d(1, 1, 3)(torch.zeros(1, 1, 7, 7), valid)
    expected = torch.zeros(1, 1, 7, 7)
    expected[0, 0, 2:5, 2:5] = 1
    assert torch.equal(updated, expected)


def test_patches_and_unpatch_are_inverse():
    mining = MaskedCorrelationMining(3, 4)
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(3))
    patches = mining.patches(x)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[1, 4], x[1, :, 4:8, 4:8].permute(1, 2, 0).reshape(-1))  # pixel by pixel
    assert torch.equal(mining.unpatch(patches, x), x)


def test_mining_against_loops():
    torch.manual_seed(4)
    mining = MaskedCorrelationMining(2, 2).requires_grad_(False)
    fused, mask = torch.randn(1, 2, 4, 4), torch.rand(1, 1, 4, 4)
    result = mining(fused, mask).numpy()[0]

    def project(layer):
        weight, bias = layer.weight.numpy()[:, :, 0, 0], layer.bias.numpy()
        image = np.zeros((2, 4, 4))
        for i in range(4):
            for j in range(4):
                image[:, i, j] = weight @ fused.numpy()[0, :, i, j] + bias
        return [image[:, i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]

    query, key, value = (project(layer) for layer in (mining.query, mining.key, mining.value))
    expected = fused.numpy()[0].astype(np.float64)
    for q, (i, j) in enumerate((i, j) for i in (0, 2) for j in (0, 2)):
        score = np.exp([(query[q] * k).sum() / np.sqrt(8) for k in key])
        score /= score.sum()
        mined = sum(s * v for s, v in zip(score, value, strict=True))
        expected[:, i : i + 2, j : j + 2] += mined * mask.numpy()[0, :, i : i + 2, j : j + 2]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_mrem_fuses_codes_and_mines_inside_the_hole_only():
    torch.manual_seed(5)
    categories = len(CATEGORIES)
    mrem = Mrem(MremConfig(), 8, categories).requires_grad_(False)
    memory, known = torch.randn(1, categories, 8), torch.randn(1, categories, 8)
    labels = torch.randint(categories, (1, SIZE, SIZE))
    _, mask = face_and_mask(1)
    guidance = mrem(memory, known, labels, mask)
    mrem.mining = None
    fused = mrem(memory, known, labels, mask)
    hole = torch.nn.functional.avg_pool2d(mask, 4)
    assert guidance.shape == (1, 8, SIZE // 4, SIZE // 4)
    outside, inside = (hole == 0).expand_as(fused), (hole > 0).expand_as(fused)
    assert torch.equal(guidance[outside], fused[outside])
    assert (guidance[inside] != fused[inside]).float().mean() > 0.9
    assert torch.allclose(fused[0, :, 0, 0], known[0, labels[0, 2, 2]])
    assert hole[0, 0, 8, 4] == 1
    assert torch.allclose(fused[0, :, 8, 4], memory[0, labels[0, 34, 18]])
