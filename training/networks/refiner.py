"""Guided Refinement Network: gated encoder, SPADE decoder (paper §3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import RefinerConfig
from .layers import GatedConv2d, GatedResBlock, Spade, SpadeResBlock, repeat_pixels


class Refiner(nn.Module):
    """Refine the coarse face inside the hole under the guidance of memory and correlations.

    It predicts a residual on P, and its last layer starts at zero: an untrained refiner returns P,
    so that training is measured as a gain over the coarse network.
    """

    def __init__(self, config: RefinerConfig, guidance_channels: int) -> None:
        super().__init__()
        full, half, quarter = config.width, 2 * config.width, 4 * config.width
        self.encode1 = GatedConv2d(4, full)
        self.encode2 = GatedConv2d(full, half, stride=2)
        self.encode4 = GatedConv2d(half, quarter, stride=2)
        self.body = nn.Sequential(*(GatedResBlock(quarter, d) for d in config.dilations))
        self.decode4 = SpadeResBlock(quarter, quarter, guidance_channels, config.spade_hidden)
        self.decode2 = SpadeResBlock(quarter, half, guidance_channels, config.spade_hidden, repeat=2)
        self.decode1 = nn.Conv2d(half, full, 3, padding=1)
        self.spade1 = Spade(full, guidance_channels, config.spade_hidden)
        self.to_rgb = nn.Conv2d(full, 3, 3, padding=1)
        nn.init.zeros_(self.to_rgb.weight)
        nn.init.zeros_(self.to_rgb.bias)  # type: ignore[arg-type]

    def forward(self, coarse_image: Tensor, mask: Tensor, guidance: Tensor) -> Tensor:
        """Return the completed face [B, 3, H, W] in [-1, 1]; known pixels are those of P.

        Args:
            coarse_image: P [B, 3, H, W] in [-1, 1].
            mask: [B, 1, H, W], 1 in the hole.
            guidance: [B, c, H/4, W/4].
        """
        skip1 = self.encode1(torch.cat([coarse_image, mask], dim=1))
        skip2 = self.encode2(skip1)
        x = self.decode4(self.body(self.encode4(skip2)), guidance)
        x = self.decode2(x, guidance) + skip2
        x = self.decode1(repeat_pixels(x, 2)) + skip1
        residual = self.to_rgb(F.leaky_relu(self.spade1(x, guidance), 0.2))
        return (coarse_image + residual * mask).clamp(-1.0, 1.0)
