"""What holds for every loss: gradients against finite differences, batches, types, and values at the ends."""

import numpy as np
import pytest
import torch
from fixtures.loss_inputs import SIDE, STRIDE, B, C, N, codes, hole, images, labels, maps, normal, parsed

from showface.training.losses import (
    discriminator_loss,
    generator_loss,
    inter_coordination_loss,
    intra_coordination_loss,
    parsing_loss,
    perceptual_loss,
    reconstruction_loss,
    region_codes,
    semantic_loss,
    squared_error_loss,
    style_loss,
    total_variation_loss,
)


def maps_loss(loss):
    return lambda a, b, c, d: loss([a, b], [c, d])


def codes_distance(features):
    hidden, known = region_codes(features, labels()[: len(features)], hole()[: len(features)], N)
    return hidden.abs().mean() + (known**2).mean()


# loss, its inputs (samples first), how many of them are differentiated
CASES = {
    "reconstruction": (reconstruction_loss, images(), 2),
    "squared error": (squared_error_loss, images(), 2),
    "intra": (intra_coordination_loss, codes()[::2], 2),
    "inter": (inter_coordination_loss, codes(), 4),
    "semantic": (semantic_loss, parsed()[:2], 1),
    "perceptual": (maps_loss(perceptual_loss), maps(), 4),
    "style": (maps_loss(style_loss), maps(), 4),
    "discriminator paper": (lambda r, f: discriminator_loss(r, f, "paper"), images(), 2),
    "discriminator hinge": (lambda r, f: discriminator_loss(r, f, "hinge"), images(), 2),
    "generator paper": (lambda f: generator_loss(f, "paper"), images()[:1], 1),
    "generator hinge": (lambda f: generator_loss(f, "hinge"), images()[:1], 1),
    "total variation": (total_variation_loss, images()[:1], 1),
    "parsing": (lambda x, y: parsing_loss(x, y, 0.7), (parsed()[2], labels()), 1),
}
EVERY = pytest.mark.parametrize("name", CASES)


def check_gradient(loss, inputs, differentiated, entries=10, step=1e-6):
    """Compare the gradient with central differences at seeded entries of the first inputs, in float64."""
    inputs = [x.clone().requires_grad_(i < differentiated) for i, x in enumerate(inputs)]
    gradients = torch.autograd.grad(loss(*inputs), inputs[:differentiated])
    random = np.random.default_rng(0)
    for x, gradient in zip(inputs, gradients, strict=False):
        for index in random.choice(x.numel(), min(entries, x.numel()), replace=False):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    x.flatten()[index] += sign * step
                    values.append(float(loss(*inputs)))
                    x.flatten()[index] -= sign * step
            expected = (values[0] - values[1]) / (2 * step)
            assert float(gradient.flatten()[index]) == pytest.approx(expected, rel=1e-4, abs=1e-8)
        assert gradient.abs().max() > 1e-6


@EVERY
def test_gradient_against_finite_differences(name):
    check_gradient(*CASES[name])


def test_gradient_of_region_codes_against_finite_differences():
    check_gradient(codes_distance, (normal(30, B, C, SIDE // STRIDE, SIDE // STRIDE),), 1)


@EVERY
def test_mean_of_half_batches_is_the_whole_batch(name):
    loss, inputs, _ = CASES[name]
    halves = [loss(*(x[part] for x in inputs)) for part in (slice(0, B // 2), slice(B // 2, B))]
    assert float(sum(halves) / 2) == pytest.approx(float(loss(*inputs)), rel=1e-12)


@EVERY
def test_bfloat16_under_autocast_is_computed_in_float32(name):
    loss, inputs, _ = CASES[name]
    low = [x.bfloat16() if x.is_floating_point() else x for x in inputs]
    exact = loss(*(x.double() if x.is_floating_point() else x for x in low))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*low)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(exact), rel=1e-5)


def test_region_codes_of_bfloat16_are_computed_in_float32():
    features = normal(30, B, C, 2, 2).bfloat16()
    exact = region_codes(features.double(), labels(), hole(), N)
    with torch.autocast("cpu", torch.bfloat16):
        result = region_codes(features, labels(), hole().bfloat16(), N)
    for code, expected in zip(result, exact, strict=True):
        assert code.dtype == torch.float32
        assert (code - expected).abs().max() < 1e-6


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n][2] != 1 and "discriminator" not in n])
def test_equal_inputs_give_zero(name):
    loss, inputs, _ = CASES[name]
    half = len(inputs) // 2
    ours = [x.clone().requires_grad_() for x in inputs[:half]]
    value = loss(*ours, *inputs[:half])
    value.backward()
    assert value == 0
    assert all(torch.isfinite(x.grad).all() for x in ours)


@pytest.mark.parametrize("name", ["semantic", "parsing", *(n for n in CASES if "paper" in n or "hinge" in n)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saturated_logits_are_finite(name, dtype):
    loss, inputs, differentiated = CASES[name]
    inputs = [x.sign().mul(100).to(dtype).requires_grad_() if x.is_floating_point() else x for x in inputs]
    value = loss(*inputs)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(x.grad).all() for x in inputs[:differentiated])
