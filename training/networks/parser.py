"""The face parser: BiSeNet (Yu et al. 2018) with a MobileNetV2 context path.

Adapted to 256² inputs: the spatial path keeps strides 2 and 4 instead of 8, so that brows, lids
and lips, a few pixels high at this size, survive.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ParserConfig
from .layers import repeat_pixels

# MobileNetV2 (Sandler et al. 2018): expansion, channels, repeats, stride.
INVERTED_RESIDUALS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
LAST_BLOCK_AT_STRIDE_16 = 13
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution without bias and its batch normalisation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


def conv_block(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(*conv_norm(in_channels, out_channels, kernel_size, stride), nn.ReLU())


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; key names as torchvision's."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*conv_norm(in_channels, hidden, 1), nn.ReLU6()))
        layers.append(nn.Sequential(*conv_norm(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()))
        layers.extend(conv_norm(hidden, out_channels, 1))
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H/stride, W/stride]."""
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_blocks() -> list[nn.Module]:
    """Return MobileNetV2's first convolution and its inverted residuals up to stride 32."""
    blocks: list[nn.Module] = [nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU6())]
    width = 32
    for expansion, out, repeats, stride in INVERTED_RESIDUALS:
        for i in range(repeats):
            blocks.append(InvertedResidual(width, out, stride if i == 0 else 1, expansion))
            width = out
    return blocks


class AttentionRefinement(nn.Module):
    """Channel attention over a context feature (BiSeNet's ARM)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, out_channels, 3)
        self.attention = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H, W]."""
        x = self.conv(x)
        return x * torch.sigmoid(self.attention(x.mean(dim=(2, 3), keepdim=True)))


class ContextPath(nn.Module):
    """MobileNetV2 up to stride 32, refined and brought to stride 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.ModuleList(mobilenet_blocks())
        self.refine16 = AttentionRefinement(96, channels)
        self.refine32 = AttentionRefinement(160, channels)
        self.global_context = nn.Conv2d(160, channels, 1)
        self.merge16 = conv_block(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map a normalised photograph [B, 3, H, W] to context features [B, C, H/8, W/8]."""
        at16 = x
        for i, block in enumerate(self.features):
            x = block(x)
            if i == LAST_BLOCK_AT_STRIDE_16:
                at16 = x
        context = self.refine32(x) + self.global_context(x.mean(dim=(2, 3), keepdim=True))
        context = self.refine16(at16) + repeat_pixels(context, 2)
        return self.merge16(repeat_pixels(context, 2))


class FeatureFusion(nn.Module):
    """Join spatial and context features under channel attention (BiSeNet's FFM)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv_block(in_channels, out_channels, 1)
        self.squeeze = nn.Conv2d(out_channels, out_channels // 4, 1)
        self.excite = nn.Conv2d(out_channels // 4, out_channels, 1)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Map two [B, ·, H, W] tensors to [B, C, H, W]."""
        x = self.conv(torch.cat([spatial, context], dim=1))
        attention = self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True))))
        return x + x * torch.sigmoid(attention)


class FaceParser(nn.Module):
    """Label every pixel of a face with one of the categories."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ParserConfig, categories: int) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.context = ContextPath(width)
        self.spatial2 = conv_block(3, width // 2, 3, 2)
        self.spatial4 = nn.Sequential(conv_block(width // 2, width, 3, 2), conv_block(width, width, 3))
        self.fusion = FeatureFusion(2 * width, 2 * width)
        self.head4 = conv_block(2 * width, width, 3)
        self.head2 = conv_block(width + width // 2, width, 3)
        self.classifier = nn.Conv2d(width, categories, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [B, n, H, W] of ``image`` [B, 3, H, W] in [-1, 1]."""
        x = (image * 0.5 + 0.5 - self.mean) / self.std
        at2 = self.spatial2(x)
        context = repeat_pixels(self.context(x), 2)
        at4 = self.head4(self.fusion(self.spatial4(at2), context))
        at4 = F.interpolate(at4, scale_factor=2.0, mode="bilinear", align_corners=False)
        logits = self.classifier(self.head2(torch.cat([at4, at2], dim=1)))
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
