"""The coarse network: a U-Net of partial convolutions (paper §3.1; Liu et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import CoarseConfig, LayoutConfig
from .layers import PartialConv2d

LAYOUT_STRIDE = 4


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
        self.joint = len(widths) - 3  # the block of the decoder that ends at the layout's resolution
        self.layout = None if config.layout is None else LayoutNetwork(config.layout, outputs[self.joint])

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
        for index, block in enumerate(self.decoder):
            x, valid = block(x, valid, *skips.pop())
            if self.layout is not None and index == self.joint:
                x, valid = x + self.layout(known, mask), torch.ones_like(valid)
        return known + torch.tanh(self.to_rgb(x)) * mask


class LayoutNetwork(nn.Module):
    """Complete the face at a quarter of its resolution, for the coarse decoder to build on.

    Nearly all of the error in a large hole lies below that resolution, where a step of training costs a
    fraction of one at full size. Its features start at zero: a coarse network that was trained without it
    computes at first what it did.
    """

    def __init__(self, config: LayoutConfig, channels: int) -> None:
        super().__init__()
        self.unet = CoarseNetwork(CoarseConfig(config.widths, config.full_width))
        self.features = nn.Conv2d(3, channels, 3, padding=1)
        nn.init.zeros_(self.features.weight)
        nn.init.zeros_(self.features.bias)

    def sketch(self, known: Tensor, mask: Tensor) -> Tensor:
        """Return the completed face [B, 3, H/4, W/4]; a pixel is the mean of what is known of it, if anything is.

        Args:
            known: [B, 3, H, W] in [-1, 1], zero in the hole.
            mask: [B, 1, H, W], 1 in the hole, 0 elsewhere.
        """
        share = 1.0 - F.avg_pool2d(mask, LAYOUT_STRIDE)
        mean = F.avg_pool2d(known, LAYOUT_STRIDE) / share.clamp(min=LAYOUT_STRIDE**-2.0)
        return self.unet(mean, (share <= 0).to(mask.dtype))

    def forward(self, known: Tensor, mask: Tensor) -> Tensor:
        """Return features [B, C, H/4, W/4]; the arguments are those of :meth:`sketch`."""
        return self.features(self.sketch(known, mask))
