"""The occluder network: where something that is not part of the head lies between camera and face.

MobileNetV2 up to stride 16 under the parser's key names, so that the same ImageNet weights load, and three cheap
steps back up that take the features of each resolution on their way. Half a million weights see a hand or a mask as
well as ten times as many do: what decides is what it is trained on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.parser import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LAST_BLOCK_AT_STRIDE_16,
    AttentionRefinement,
    conv_norm,
    mobilenet_blocks,
)
from .config import OccluderConfig

SKIPS = {1: 16, 3: 24, 6: 32}  # channels after the last block at strides 2, 4 and 8
DEEPEST = 96  # channels at stride 16


class Encoder(nn.Module):
    """MobileNetV2 up to stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleList(mobilenet_blocks()[: LAST_BLOCK_AT_STRIDE_16 + 1])

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Map a normalised photograph [B, 3, H, W] to features at strides 2, 4 and 8, and those at stride 16."""
        skips = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in SKIPS:
                skips.append(x)
        return skips, x


class UpStep(nn.Module):
    """Double the resolution and join the encoder's features there; depthwise and 1×1 convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(*conv_norm(skip_channels, in_channels, 1))
        self.conv = nn.Sequential(
            *conv_norm(in_channels, in_channels, 3, groups=in_channels), nn.ReLU6(),
            *conv_norm(in_channels, out_channels, 1), nn.ReLU6(),
        )  # fmt: skip

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map [B, C, H, W] and [B, S, 2H, 2W] to [B, C', 2H, 2W]."""
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.conv(x + self.skip(skip))


class Occluder(nn.Module):
    """Tell for every pixel whether it belongs to something that covers the face."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: OccluderConfig) -> None:
        super().__init__()
        width, self.side = config.width, config.side
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.encoder = Encoder()
        self.refine = AttentionRefinement(DEEPEST, width)
        self.global_context = nn.Conv2d(DEEPEST, width, 1)
        half, quarter = width // 2, max(8, width // 4 + 8)
        self.up8 = UpStep(width, SKIPS[6], width)
        self.up4 = UpStep(width, SKIPS[3], half)
        self.up2 = UpStep(half, SKIPS[1], quarter)
        self.head = nn.Conv2d(quarter, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [B, 1, H, W] of ``image`` [B, 3, H, W] in [-1, 1]; their sigmoid is the probability."""
        skips, x = self.encoder((image * 0.5 + 0.5 - self.mean) / self.std)
        x = self.refine(x) + self.global_context(x.mean(dim=(2, 3), keepdim=True))
        for step, skip in zip((self.up8, self.up4, self.up2), reversed(skips), strict=True):
            x = step(x, skip)
        return F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
