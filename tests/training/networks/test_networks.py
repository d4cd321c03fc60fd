"""The networks together: cost, exactness of known pixels, and what a hole may change."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.transform
import torch
from torch.utils.flop_counter import FlopCounterMode

from showface.training.config import (
    CoarseConfig,
    LayoutConfig,
    MemoryConfig,
    MremConfig,
    NetworkConfig,
    ParserConfig,
    RefinerConfig,
)
from showface.training.networks.mdrnets import MDRNets

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


def test_the_prior_stands_where_nothing_is_known_and_nowhere_else():
    coarse = build(narrow()).coarse
    image, mask = face_and_mask()
    before = coarse(image, mask), coarse(image, torch.ones_like(mask))
    torch.nn.init.normal_(coarse.prior, std=3.0)
    assert torch.equal(coarse(image, mask), before[0])
    assert not torch.equal(coarse(image, torch.ones_like(mask)), before[1])
    assert coarse.prior.shape == (1, 8, SIZE // 8, SIZE // 8)
