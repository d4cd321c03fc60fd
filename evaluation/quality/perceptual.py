"""Perceptual distances between a picture and its ground truth: in the layers of one VGG, and LPIPS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.training.loss_networks.vgg import WIDTHS, vgg_from_file
from showface.training.weight_files import matching_weights, unpickle_weights

from ..metrics import Rgb
from .feature_networks import Layers, as_tensor

BLOCKS = slice(1, 4)  # of VGG-16, as the spike of the refinement was measured: relu2_2, relu3_3, relu4_3

BACKBONE_FILE = "vgg16-397923af.pth"  # torchvision's
LPIPS_FILE = "vgg.pth"  # weights/v0.1 of the authors' package
LPIPS_DIGEST = "a78928a0"  # first digits of its sha256
EPSILON = 1e-10


def relative_distance(result: Layers, truth: Layers) -> NDArray[np.float64]:
    """Return how far results are from the truth in VGG-16's blocks 2 to 4, [B] ≥ 0.

    Of each block the mean absolute difference is divided by the mean of the truth; the three are averaged.

    Args:
        result: ends of the five blocks, [B, c, h, w] each.
        truth: of the same shapes, ≥ 0.
    """
    parts = [
        (a - b).abs().mean(dim=(1, 2, 3)) / b.mean(dim=(1, 2, 3)).clamp_min(EPSILON)
        for a, b in zip(result[BLOCKS], truth[BLOCKS], strict=True)
    ]
    return torch.stack(parts).double().mean(dim=0).cpu().numpy()


class Lpips(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al. 2018), version 0.1 on VGG-16.

    Args:
        vgg: maps pictures [B, 3, H, W] in [-1, 1] to the ends of VGG-16's five blocks.
        weights: of the channels of each block, [c] ≥ 0.
    """

    def __init__(self, vgg: Any, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.vgg = vgg
        self.weights = nn.ParameterList(nn.Parameter(w.view(1, -1, 1, 1), requires_grad=False) for w in weights)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance [B] of pictures ``a`` from ``b``, both [B, 3, H, W] in [-1, 1]; H, W ≥ 16."""
        total = torch.zeros(len(a), device=a.device)
        for x, y, weight in zip(self.vgg(a), self.vgg(b), self.weights, strict=True):
            total = total + ((_unit(x) - _unit(y)) ** 2 * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    def distances(self, results: Sequence[Rgb], truths: Sequence[Rgb]) -> NDArray[np.float64]:
        """Return the distance [B] of pictures [H, W, 3] of one size from their ground truth."""
        device = self.weights[0].device
        with torch.inference_mode():
            found: Tensor = self(as_tensor(results, device), as_tensor(truths, device))
            return found.double().cpu().numpy()


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + EPSILON)


def lpips_from_folder(folder: Path, device: torch.device | None = None) -> Lpips:
    """Load LPIPS from its two published files, ``vgg16-397923af.pth`` and ``vgg.pth`` of version 0.1, in ``folder``.

    Both are read only if their sha256 is the published one, and as plain weights.

    Raises:
        UsageError: a file is missing, is another, or is damaged.
    """
    for name in (BACKBONE_FILE, LPIPS_FILE):
        if not (folder / name).is_file():
            raise UsageError(
                f"{folder / name}: no such file; LPIPS needs torchvision's {BACKBONE_FILE} and the authors' "
                f"lpips/weights/v0.1/{LPIPS_FILE} in one folder",
                "lpips",
            )
    vgg = vgg_from_file(folder / BACKBONE_FILE, "vgg16")
    path, source = folder / LPIPS_FILE, f"version 0.1 of {LPIPS_FILE}"
    wanted = {f"lin{i}.model.1.weight": torch.empty(1, width, 1, 1) for i, width in enumerate(WIDTHS)}
    weights = matching_weights(unpickle_weights(path, LPIPS_DIGEST, source), wanted, path, source)
    return Lpips(lambda pictures: vgg.blocks(pictures, len(WIDTHS)), list(weights.values())).to(device or "cpu")
