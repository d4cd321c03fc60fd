"""Guided Refinement Network at two scales: a body that sees the whole face, and a cheap path to full size (§3.4).

The paper's refiner works at full size. Nearly all that makes a face lies below a quarter of it, where a block sees
four times as far for a sixteenth of the work; so most blocks stand there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import RefinerConfig
from .layers import GatedConv2d, GatedResBlock, Join, Spade, SpadeResBlock

STRIDE = 4  # of the body's faces
INITIAL_GAIN = 0.1  # of a head: with Adam, the first full step of a zero-initialised layer would spoil the coarse face


class ResidualHead(nn.Module):
    """The last layer: features to a residual, zero at the start, whose steps are a tenth as large."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, padding=1)
        self.gain = nn.Parameter(torch.tensor(INITIAL_GAIN))
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to a residual [B, 3, H, W]."""
        return self.conv(F.leaky_relu(x, 0.2)) * self.gain


class SmallResult(NamedTuple):
    """What the body makes of a face."""

    residual: Tensor  # [B, 3, H/4, W/4]
    features: Tensor  # [B, C, H/4, W/4]


class RefinerBody(nn.Module):
    """The face at a quarter of its size and below, to where a block sees all of it."""

    def __init__(self, config: RefinerConfig, guidance_channels: int) -> None:
        super().__init__()
        quarter, eighth, sixteenth = config.body_widths
        hidden = config.spade_hidden
        self.stem = GatedConv2d(4, quarter)
        self.encode4 = GatedResBlock(quarter)
        self.down8 = GatedConv2d(quarter, eighth, stride=2)
        self.encode8 = nn.Sequential(GatedResBlock(eighth), GatedResBlock(eighth, 2))
        self.down16 = GatedConv2d(eighth, sixteenth, stride=2)
        self.bottom = nn.Sequential(*(GatedResBlock(sixteenth, d) for d in config.dilations))
        self.join8 = Join(sixteenth, eighth)
        self.decode8 = SpadeResBlock(eighth, guidance_channels, hidden, stride=2)
        self.join4 = Join(eighth, quarter)
        self.decode4 = SpadeResBlock(quarter, guidance_channels, hidden)
        self.spade4 = Spade(quarter, guidance_channels, hidden)
        self.head = ResidualHead(quarter)

    def forward(self, small_image: Tensor, small_mask: Tensor, guidance: Tensor) -> SmallResult:
        """Return the residual of the small face, and features for the path to full size.

        Args:
            small_image: P [B, 3, H/4, W/4] in [-1, 1], means of its pixels.
            small_mask: [B, 1, H/4, W/4], the hole's share of each pixel.
            guidance: [B, c, H/4, W/4].
        """
        at4 = self.encode4(self.stem(torch.cat([small_image, small_mask], dim=1)))
        at8 = self.encode8(self.down8(at4))
        x = self.join8(self.bottom(self.down16(at8)), at8)
        x = self.join4(self.decode8(x, guidance), at4)
        features = self.spade4(self.decode4(x, guidance), guidance)
        return SmallResult(self.head(features), features)


class RefinerDetail(nn.Module):
    """The path to full size: it draws what a small face cannot hold."""

    def __init__(self, config: RefinerConfig, guidance_channels: int) -> None:
        super().__init__()
        full, half, quarter = config.detail_widths
        hidden = config.spade_hidden
        self.stem = GatedConv2d(4, full)
        self.down2 = GatedConv2d(full, half, stride=2)
        self.down4 = GatedConv2d(half, quarter, stride=2)
        self.join_body = Join(config.body_widths[0], quarter, times=1)
        self.encode4 = GatedResBlock(quarter)
        self.decode4 = SpadeResBlock(quarter, guidance_channels, hidden)
        self.join2 = Join(quarter, half)
        self.encode2 = GatedResBlock(half)
        self.decode2 = SpadeResBlock(half, guidance_channels, hidden)
        self.join1 = Join(half, full)
        self.conv1 = nn.Conv2d(full, full, 3, padding=1)
        self.head = ResidualHead(full)

    def forward(self, image: Tensor, mask: Tensor, features: Tensor, guidance: Tensor) -> Tensor:
        """Return the residual at full size [B, 3, H, W].

        Args:
            image: [B, 3, H, W] in [-1, 1], the coarse face with the body's residual.
            mask: [B, 1, H, W], 1 in the hole.
            features: [B, C, H/4, W/4], of the body.
            guidance: [B, c, H/4, W/4].
        """
        at1 = self.stem(torch.cat([image, mask], dim=1))
        at2 = self.down2(at1)
        x = self.decode4(self.encode4(self.join_body(features, self.down4(at2))), guidance)
        x = self.decode2(self.encode2(self.join2(x, at2)), guidance)
        return self.head(self.conv1(self.join1(x, at1)))


class Refiner(nn.Module):
    """Refine the coarse face inside the hole under the guidance of memory and correlations.

    It predicts a residual on P at two scales, P + M · (enlarged small residual + residual at full size). Both heads
    start at zero: an untrained refiner returns P, so that training is measured as a gain over the coarse network.
    """

    def __init__(self, config: RefinerConfig, guidance_channels: int) -> None:
        super().__init__()
        self.body = RefinerBody(config, guidance_channels)
        self.detail = RefinerDetail(config, guidance_channels)

    def refine_body(self, coarse_image: Tensor, mask: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """Return P with the body's residual [B, 3, H, W], and the body's features; arguments as :meth:`forward`."""
        small = self.body(F.avg_pool2d(coarse_image, STRIDE), F.avg_pool2d(mask, STRIDE), guidance)
        enlarged = F.interpolate(small.residual, scale_factor=float(STRIDE), mode="bilinear")
        return coarse_image + enlarged * mask, small.features

    def forward(self, coarse_image: Tensor, mask: Tensor, guidance: Tensor) -> Tensor:
        """Return the completed face [B, 3, H, W]; known pixels are those of P.

        In [-1, 1] in evaluation mode. In training nothing is cut off, which would leave saturated pixels without a
        gradient.

        Args:
            coarse_image: P [B, 3, H, W] in [-1, 1].
            mask: [B, 1, H, W], 1 in the hole.
            guidance: [B, c, H/4, W/4].
        """
        face, features = self.refine_body(coarse_image, mask, guidance)
        face = face + self.detail(face, mask, features, guidance) * mask
        return face if self.training else face.clamp(-1.0, 1.0)
