"""The coarse network: a U-Net of partial convolutions (paper §3.1; Liu et al. 2018)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import CoarseConfig, LayoutConfig
from .layers import PartialConv2d, repeat_pixels

LAYOUT_STRIDE = 4
LIMITED_LEVELS = 3  # of the encoder, the deepest ones
CHANNEL_BLOCK = 8  # channels that ONNX Runtime convolves together on a CPU; it handles no input of another number so


class EncoderBlock(nn.Module):
    """Strided partial convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, scale_limit: float | None) -> None:
        super().__init__()
        self.conv = PartialConv2d(in_channels, out_channels, kernel_size, stride=2, scale_limit=scale_limit)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the resolution of ``x`` and of its validity."""
        y, valid = self.conv(x, valid)
        return F.relu(self.norm(y)) * valid, valid


class DecoderBlock(nn.Module):
    """Upsample, join the skip connection, partial convolution, leaky ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, scale_limit: float | None) -> None:
        super().__init__()
        self.share = in_channels / (in_channels + skip_channels)
        # Joined to the features, the 3 channels of the image would make the largest convolution twice as slow.
        self.apart = skip_channels % CHANNEL_BLOCK != 0
        joined, extra = (in_channels, skip_channels) if self.apart else (in_channels + skip_channels, 0)
        self.conv = PartialConv2d(joined, out_channels, 3, extra_channels=extra, scale_limit=scale_limit)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, valid: Tensor, skip: Tensor, skip_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Double the resolution of ``x`` and merge ``skip``; both are zero where invalid."""
        x, valid = repeat_pixels(x, 2), repeat_pixels(valid, 2)
        joint = self.share * valid + (1.0 - self.share) * skip_valid
        skip = skip.to(x.dtype)
        y, valid = self.conv(x, joint, skip) if self.apart else self.conv(torch.cat([x, skip], dim=1), joint)
        return F.leaky_relu(self.norm(y), 0.2) * valid, valid


class CoarseNetwork(nn.Module):
    """Complete the hole roughly: ``image`` and ``mask`` to the coarse face P.

    A learned ``prior`` takes the place of what the encoder's last level knows nothing of, so that a face that is
    wholly hidden becomes a mean face. The scale of the partial convolutions is limited where holes seldom reach
    in training: in the decoder and in the deepest levels of the encoder. The shallow levels need the full scale.

    Args:
        config: widths and limit.
        image_size: H = W of the faces; the prior has one vector for each cell of the encoder's last level.
    """

    def __init__(self, config: CoarseConfig, image_size: int) -> None:
        super().__init__()
        widths, limit = config.widths, config.scale_limit or None
        inputs = (3, *widths[:-1])
        kernels = (5, *(3,) * (len(widths) - 1))
        limits = [limit if level >= len(widths) - LIMITED_LEVELS else None for level in range(len(widths))]
        self.encoder = nn.ModuleList(
            EncoderBlock(i, o, k, s) for i, o, k, s in zip(inputs, widths, kernels, limits, strict=True)
        )
        side = max(1, image_size >> len(widths))
        self.prior = nn.Parameter(torch.zeros(1, widths[-1], side, side)) if config.prior else None
        outputs = (*reversed(widths[:-1]), config.full_width)
        self.decoder = nn.ModuleList(
            DecoderBlock(i, s, o, limit) for i, s, o in zip(reversed(widths), reversed(inputs), outputs, strict=True)
        )
        self.to_rgb = nn.Conv2d(config.full_width, 3, 3, padding=1)
        self.joint = len(widths) - 3  # the block of the decoder that ends at the layout's resolution
        self.layout = None
        if config.layout is not None:
            self.layout = LayoutNetwork(config, config.layout, outputs[self.joint], image_size // LAYOUT_STRIDE)

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
        if self.prior is not None:
            x, valid = x + self._prior_like(x) * (1.0 - valid), torch.ones_like(valid)
        sketch = weight = None
        for index, block in enumerate(self.decoder):
            x, valid = block(x, valid, *skips.pop())
            if self.layout is not None and index == self.joint:
                sketch, hidden = self.layout(known, mask)
                x, valid = x + self.layout.features(sketch), torch.ones_like(valid)
                weight = torch.sigmoid(self.layout.weight(x)) * hidden
        face = known + torch.tanh(self.to_rgb(x)) * mask
        if sketch is None:
            return face
        change = F.interpolate(weight * (sketch - _reduced(face)), scale_factor=float(LAYOUT_STRIDE), mode="bilinear")
        return (face + change * mask).clamp(-1.0, 1.0)

    def _prior_like(self, x: Tensor) -> Tensor:
        """Return the prior at the size of ``x``, which is another one where training sees faces of another size."""
        assert self.prior is not None
        prior = self.prior.to(x.dtype)
        return prior if prior.shape[-2:] == x.shape[-2:] else F.interpolate(prior, x.shape[-2:], mode="nearest")


class LayoutNetwork(nn.Module):
    """Complete the face at a quarter of its resolution, for the coarse decoder to build on.

    Nearly all of the error in a large hole lies below that resolution, where a step of training costs a
    fraction of one at full size. Where a pixel of the small face is wholly hidden, a learned ``weight`` mixes
    its colour into that of the coarse network; it starts at one half, and ``features`` of it at zero.
    """

    def __init__(self, coarse: CoarseConfig, config: LayoutConfig, channels: int, size: int) -> None:
        super().__init__()
        small = replace(coarse, widths=config.widths, full_width=config.full_width, layout=None)
        self.unet = CoarseNetwork(small, size)
        self.features = nn.Conv2d(3, channels, 3, padding=1)
        self.weight = nn.Conv2d(channels, 1, 3, padding=1)
        for layer in (self.features, self.weight):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, known: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the completed small face [B, 3, H/4, W/4], and 1 where its pixels were wholly hidden [B, 1, H/4, W/4].

        Args:
            known: [B, 3, H, W] in [-1, 1], zero in the hole; a small pixel is the mean of what is known of it.
            mask: [B, 1, H, W], 1 in the hole, 0 elsewhere.
        """
        share = 1.0 - _reduced(mask)
        hidden = (share <= 0).to(mask.dtype)
        return self.unet(_reduced(known) / share.clamp(min=LAYOUT_STRIDE**-2.0), hidden), hidden


def _reduced(x: Tensor) -> Tensor:
    """Return the means of squares, [B, C, H/4, W/4]."""
    return F.avg_pool2d(x, LAYOUT_STRIDE)
