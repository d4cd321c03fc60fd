"""Folded weights that float16 holds: the network computes nearly what it did, and its graph takes half the room."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from showface.training.networks.folding import round_folded, scale_of


@pytest.fixture
def layers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    norm = network[1]
    with torch.no_grad():
        norm.weight.uniform_(0.2, 2.0)
        norm.bias.uniform_(-1.0, 1.0)
        norm.running_mean.uniform_(-1.0, 1.0)
        norm.running_var.uniform_(0.1, 3.0)
    return network.eval().requires_grad_(False)


def test_the_product_is_rounded_and_the_scale_is_one(layers):
    before = copy.deepcopy(layers)
    round_folded(layers)
    scale = (before[1].weight / torch.sqrt(before[1].running_var + before[1].eps)).numpy()
    product = before[0].weight.numpy() * scale[:, None, None, None]
    np.testing.assert_array_equal(layers[0].weight.numpy(), product.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(scale_of(layers[1]).numpy(), 1.0, rtol=2e-7)
    assert torch.equal(layers[3].weight, before[3].weight)  # no normalisation follows it
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(layers(image), before(image), atol=2e-3, rtol=2e-3)


def test_rounding_twice_changes_nothing_more(layers):
    round_folded(layers)
    weight = layers[0].weight.clone()
    round_folded(layers)
    torch.testing.assert_close(layers[0].weight, weight, rtol=1e-3, atol=0)
