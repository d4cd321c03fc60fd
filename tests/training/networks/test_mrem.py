"""MREM: patches, mining against plain loops, and that it mines inside the hole alone."""

import numpy as np
import torch

from showface.runtime.stages import CATEGORIES
from showface.training.config import MremConfig
from showface.training.networks.mrem import MaskedCorrelationMining, Mrem

SIZE = 64


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
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[:, :, SIZE // 4 : 3 * SIZE // 4, SIZE // 8 + 1 : SIZE // 2] = 1
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
