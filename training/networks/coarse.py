"""The coarse network: a U-Net of partial convolutions (paper §3.1; Liu et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import CoarseConfig
from .layers import PartialConv2d


class EncoderBlock(nn.Module):
    """Strided partial convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = PartialConv2d(in_channels, out_channels, kernel_size, stride=2)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the resolution of ``x`` and of its validity."""
        y, valid = self.conv(x, valid)
        return F.relu(self.norm(y)) * valid, valid


class DecoderBlock(nn.Module):
    """Upsample, join the skip connection, partial convolution, leaky ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.share = in_channels / (in_channels + skip_channels)
        self.conv = PartialConv2d(in_channels + skip_channels, out_channels, 3)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, valid: Tensor, skip: Tensor, skip_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Double the resolution of ``x`` and merge ``skip``; both are zero where invalid."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        valid = F.interpolate(valid, scale_factor=2.0, mode="nearest")
        joint = self.share * valid + (1.0 - self.share) * skip_valid
        y, valid = self.conv(torch.cat([x, skip.to(x.dtype)], dim=1), joint)
        return F.leaky_relu(self.norm(y), 0.2) * valid, valid


class CoarseNetwork(nn.Module):
    """Complete the hole roughly: ``image`` and ``mask`` to the coarse face P."""

    def __init__(self, config: CoarseConfig) -> None:
        super().__init__()
        widths = config.widths
        inputs = (3, *widths[:-1])
        kernels = (5, 3, 3, 3, 3, 3, 3)
        self.encoder = nn.ModuleList(
            EncoderBlock(i, o, k) for i, o, k in zip(inputs, widths, kernels, strict=False)
        )
        outputs = (*reversed(widths[:-1]), config.full_width)
        self.decoder = nn.ModuleList(
            DecoderBlock(i, s, o) for i, s, o in zip(reversed(widths), reversed(inputs), outputs, strict=True)
        )
        self.to_rgb = nn.Conv2d(config.full_width, 3, 3, padding=1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return P [B, 3, H, W] in [-1, 1]; known pixels are copied from ``image``.

        Args:
            image: [B, 3, H, W] in [-1, 1]; what lies in the hole is ignored.
            mask: [B, 1, H, W], 1 in the hole, 0 elsewhere.
        """
        valid = 1.0 - mask
        known = image * valid
        skips = []
        x = known
        for block in self.encoder:
            skips.append((x, valid))
            x, valid = block(x, valid)
        for block in self.decoder:
            x, valid = block(x, valid, *skips.pop())
        return known + torch.tanh(self.to_rgb(x)) * mask
