"""A discriminator of small heads on the features of a frozen network (after Sauer et al. 2021, Projected GAN)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

PROJECTED = 64  # channels of the fixed random projection


class FeatureHead(nn.Module):
    """Judge the patches of one block of features: a logit a patch, positive for real.

    The features are normalised and mixed by a fixed random 1×1 convolution, so that the head cannot live on the few
    channels that tell most at first. The mask is a channel: what is asked is whether the hole fits what is known.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.project = nn.Conv2d(channels, PROJECTED, 1, bias=False).requires_grad_(False)
        nn.init.normal_(self.project.weight, std=channels**-0.5)
        self.conv1 = spectral_norm(nn.Conv2d(PROJECTED + 1, width, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.logit = spectral_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits [B, 1, h/2, w/2], and the activations before them for feature matching.

        Args:
            features: [B, C, h, w].
            mask: [B, 1, H, W] in [0, 1], the hole's share of each pixel.
        """
        hole = F.adaptive_max_pool2d(mask, features.shape[-2:]).to(features.dtype)
        x = self.project(self.norm(features))
        first = F.leaky_relu(self.conv1(torch.cat([x, hole], dim=1)), 0.2)
        second = F.leaky_relu(self.conv2(first), 0.2)
        return self.logit(second), [first, second]


class FeatureHeads(nn.Module):
    """One head for each of some blocks of a feature network.

    Args:
        channels: of each block.
        width: channels of a head.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(FeatureHead(count, width) for count in channels)

    def forward(self, features: Sequence[Tensor], mask: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Return logits and activations of each head; arguments as those of :class:`FeatureHead`, one a head."""
        return [head(layer, mask) for head, layer in zip(self.heads, features, strict=True)]
