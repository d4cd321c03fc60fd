"""Style encoder, region pooling and the stage ``memory`` (paper §3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MemoryConfig
from .layers import group_norm
from .memory_bank import DisentangledMemory

STRIDE = 4  # of the style features


def region_weights(semantic_map: Tensor, categories: int) -> Tensor:
    """Return the one-hot regions [B, n, h·w] of ``semantic_map`` [B, H, W] at the features' stride."""
    labels = semantic_map[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].flatten(1)
    index = torch.arange(categories, device=labels.device, dtype=labels.dtype)
    return (labels[:, None, :] == index[None, :, None]).float()


def region_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Region-wise average pooling (Zhu et al. 2020, SEAN).

    Args:
        features: [B, c, h, w].
        weights: [B, n, h·w] in [0, 1]; the share of each cell that belongs to a region.

    Returns:
        [B, n, c]; the zero vector for an absent region. A region smaller than one cell fades to
        zero instead of being blown up. Weights are divided by the area before the product, so that
        no sum over the image leaves the float16 range. The product is taken row by row of the
        image, and the rows are added by a second product: over the whole image, or by a reduction,
        the order of summation would depend on the batch size (seen in ONNX Runtime).
    """
    height, width = features.shape[2:]
    area = weights.sum(dim=2, keepdim=True)
    share = (weights / area.clamp(min=1.0)).reshape(-1, weights.shape[1], height, width)
    rows = (share.permute(0, 2, 1, 3) @ features.permute(0, 2, 3, 1)).flatten(2)
    return (rows.new_ones(1, 1, height) @ rows).reshape(-1, weights.shape[1], features.shape[1])


def cell_mask(mask: Tensor) -> Tensor:
    """Return the hole's share [B, 1, h, w] of each cell of the features' grid."""
    return F.avg_pool2d(mask, STRIDE)


class StyleEncoder(nn.Module):
    """Encode a face into style features F_s at a quarter of its resolution.

    It works there from the start, on the pixels of each cell as channels. It ends in a normalisation rather than
    in a tanh, whose values would all but turn into signs.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.unshuffle = nn.PixelUnshuffle(STRIDE)
        self.conv1 = nn.Conv2d(3 * STRIDE**2, width, 3, padding=1)
        self.norm1 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.conv3 = nn.Conv2d(width, channels, 1)
        self.norm3 = group_norm(channels, affine=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map [B, 3, H, W] in [-1, 1] to F_s [B, c, H/4, W/4], each group of channels of mean 0 and deviation 1."""
        x = F.leaky_relu(self.norm1(self.conv1(self.unshuffle(image))), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)
        return self.norm3(self.conv3(x))


class MemoryModule(nn.Module):
    """The stage ``memory``: style encoder, region pooling and memory read."""

    def __init__(self, config: MemoryConfig, categories: int) -> None:
        super().__init__()
        self.categories = categories
        self.encoder = StyleEncoder(config.encoder_width, config.channels)
        self.bank = None if config.kind == "none" else DisentangledMemory(config, categories)

    def codes(self, coarse_image: Tensor, semantic_map: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q over whole regions and V over their known part, both [B, n, c]."""
        features = self.encoder(coarse_image)
        regions = region_weights(semantic_map, self.categories)
        known = regions * (1.0 - cell_mask(mask)).flatten(2)
        return region_pool(features, regions), region_pool(features, known)

    def forward(self, coarse_image: Tensor, semantic_map: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Return Q̂ and V [B, n, c], or F_s [B, c, h, w] itself where there is no memory.

        Args:
            coarse_image: P [B, 3, H, W] in [-1, 1].
            semantic_map: S [B, H, W], category of each pixel.
            mask: [B, 1, H, W], 1 in the hole.
        """
        if self.bank is None:
            return self.encoder(coarse_image)
        queries, known = self.codes(coarse_image, semantic_map, mask)
        return self.bank.read(queries), known
