"""The discriminator and the reconstruction network: shapes, cost, receptive field, independence in the batch."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from showface.training.config import ReconstructionConfig
from showface.training.loss_networks.discriminator import PatchDiscriminator
from showface.training.loss_networks.reconstruction import ReconstructionNetwork


def faces(batch, side, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def discriminator(width=8):
    torch.manual_seed(0)
    return PatchDiscriminator(width)


def reconstruction(width=8, channels=12):
    torch.manual_seed(0)
    return ReconstructionNetwork(ReconstructionConfig(width, channels))


@pytest.mark.parametrize(("side", "patches"), [(256, 30), (128, 14), (24, 1)])
def test_logits_for_each_patch(side, patches):
    assert discriminator()(faces(2, side)).shape == (2, 1, patches, patches)


def test_widths_of_the_discriminator():
    kernels = [tuple(layer.weight.shape) for layer in discriminator(16).layers if hasattr(layer, "weight")]
    assert kernels == [(16, 3, 4, 4), (32, 16, 4, 4), (64, 32, 4, 4), (128, 64, 4, 4), (1, 128, 4, 4)]


def test_receptive_field_is_70_pixels():
    image = faces(1, 256).double().requires_grad_()
    logits = discriminator().double().eval()(image)
    (gradient,) = torch.autograd.grad(logits[0, 0, 15, 12], image)
    rows, columns = (np.flatnonzero(gradient[0].abs().sum(dim=(0, axis)).numpy()) for axis in (2, 1))
    for seen, patch in ((rows, 15), (columns, 12)):
        assert len(seen) == 70
        assert seen[-1] - seen[0] == 69
        assert seen[0] == 8 * patch - 23  # patches are 8 pixels apart; the padding shifts the first


def test_largest_singular_value_of_each_kernel_is_one():
    model = discriminator()
    image = faces(1, 32)
    with torch.no_grad():
        model.layers[2].parametrizations.weight.original.mul_(7.0)
        for _ in range(50):
            model(image)
    model.eval()
    for layer in (layer for layer in model.layers if hasattr(layer, "weight")):
        matrix = layer.weight.detach().flatten(1).double().numpy()
        assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, abs=0.02)


def test_logits_of_a_face_depend_on_no_other_face():
    model = discriminator().eval()
    first, second = faces(1, 64, 1), faces(1, 64, 2)
    together = model(torch.cat([first, second]))
    assert torch.allclose(together, torch.cat([model(first), model(second)]), atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_two_calls_then_one_backward():
    model = discriminator()
    image = faces(1, 32).requires_grad_()
    (model(image).mean() - model(faces(1, 32, 1)).mean()).backward()
    assert torch.isfinite(image.grad).all()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_state_resumes_the_spectral_norms():
    model, other = discriminator(), PatchDiscriminator(8)
    for seed in range(3):
        model(faces(1, 32, seed))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(faces(1, 32, 3)), other(faces(1, 32, 3)))
    assert torch.equal(model(faces(1, 32, 4)), other(faces(1, 32, 4)))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48)])
def test_reconstruction_shapes_and_ranges(height, width):
    model = reconstruction()
    image = faces(2, 64)[:, :, :height, :width]
    features, result = model.encoder(image), model(image)
    assert features.shape == (2, 12, height // 8, width // 8)
    assert result.shape == image.shape
    assert features.abs().max() <= 1
    assert result.abs().max() <= 1


def test_reconstruction_passes_through_the_middle_layer():
    model = reconstruction().eval()
    image = faces(1, 32)
    middle = model.encoder(image)
    assert torch.equal(model(image), model.decoder(middle))
    with torch.no_grad():
        model.encoder[-2].weight.zero_()
    assert torch.equal(model(image), model(faces(1, 32, 5)))  # nothing goes around it


def test_cost_of_the_reconstruction_network():
    with torch.device("meta"):
        model = ReconstructionNetwork(ReconstructionConfig())
        image = torch.empty(1, 3, 256, 256)
    assert model.encoder(image).shape == (1, ReconstructionConfig().channels, 32, 32)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    with FlopCounterMode(display=False) as counter:
        model(image)
    assert 1e9 < counter.get_total_flops() < 3e9


def test_reconstruction_has_no_batch_dependence():
    model = reconstruction()  # in training mode: batch statistics would show
    first, second = faces(1, 64, 1), faces(1, 64, 2)
    together = model(torch.cat([first, second]))
    assert torch.allclose(together, torch.cat([model(first), model(second)]), atol=1e-5)
    assert not any("running" in name for name, _ in model.named_buffers())


def test_reconstruction_learns():
    model, image = reconstruction(), faces(1, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    errors = []
    for _ in range(30):
        loss = (model(image) - image).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.5 * errors[0]
