"""Style encoder and Disentangled Memory Module (paper §3.2, eqs 1-5)."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MemoryConfig

MIN_NORM = 1e-4  # of a vector in a cosine; a smaller one would leave the float16 range
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
    """Encode a face into style features F_s at a quarter of its resolution."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, 2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, 2, padding=1)
        self.norm2 = nn.GroupNorm(8, 2 * width)
        self.norm3 = nn.GroupNorm(8, 4 * width)
        self.conv4 = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.conv5 = nn.Conv2d(2 * width, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map [B, 3, H, W] in [-1, 1] to F_s [B, c, H/4, W/4] in [-1, 1]."""
        x = F.leaky_relu(self.conv1(image), 0.2)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.2)
        x = F.leaky_relu(self.norm3(self.conv3(x)), 0.2)
        x = F.leaky_relu(self.conv4(x), 0.2)
        return torch.tanh(self.conv5(x))


class DisentangledMemory(nn.Module):
    """Memory slots [blocks, m, c]: one block a category, or one block shared by all of them."""

    slots: Tensor

    def __init__(self, config: MemoryConfig, categories: int) -> None:
        super().__init__()
        shared = config.kind == "shared"
        shape = (1, categories * config.slots) if shared else (categories, config.slots)
        self.temperature, self.decay = config.temperature, config.decay
        self.register_buffer("slots", F.normalize(torch.randn(*shape, config.channels), dim=2))

    def similarity(self, queries: Tensor) -> Tensor:
        """Return the cosines γ [B, n, m] between ``queries`` [B, n, c] and their block's slots (eq. 1)."""
        queries = queries / queries.norm(dim=2, keepdim=True).clamp(min=MIN_NORM)
        slots = self.slots / self.slots.norm(dim=2, keepdim=True).clamp(min=MIN_NORM)
        # The batch stays a batch dimension of the product: a face must not depend on its neighbours.
        return (queries[:, :, None, :] @ slots.transpose(1, 2)).squeeze(2)

    def read(self, queries: Tensor) -> Tensor:
        """Return Q̂ [B, n, c], the slots mixed by their softmax scores (eqs 4 and 5)."""
        scores = torch.softmax(self.similarity(queries) / self.temperature, dim=2)
        return (scores[:, :, None, :] @ self.slots).squeeze(2)

    @torch.no_grad()
    def fill(self, known: Tensor, generator: torch.Generator) -> None:
        """Start every block from codes of real faces, as a codebook starts from samples of its data.

        Random slots lie far from all codes, so that one of them wins every query and the others never
        live. A category with fewer codes than slots repeats them; one without any keeps its slots.

        Args:
            known: V [N, n, c]; the zero vector where a region is absent.
            generator: draws which codes are taken.
        """
        blocks, m, c = self.slots.shape
        for block in range(blocks):
            codes = known.reshape(-1, c) if blocks == 1 else known[:, block]
            codes = codes[codes.abs().amax(dim=1) > 0]
            if len(codes):
                order = torch.randperm(len(codes), generator=generator).repeat(-(-m // len(codes)))
                self.slots[block] = codes[order[:m].to(codes.device)]

    @torch.no_grad()
    def update(self, queries: Tensor, known: Tensor) -> Tensor:
        """Move the slot nearest to each query towards the known code (eqs 2 and 3).

        Several samples that hit one slot are averaged first, in float64 and over all processes, so
        that neither their order in the batch nor their spread over devices matters. A region that is
        absent from the face or wholly hidden has the zero vector and is left out.

        Args:
            queries: Q [B, n, c].
            known: V [B, n, c].

        Returns:
            How often each slot was hit, [blocks, m].
        """
        blocks, m, _ = self.slots.shape
        present = (queries.abs().amax(dim=2) > 0) & (known.abs().amax(dim=2) > 0)
        with torch.autocast(queries.device.type, enabled=False):  # in bfloat16 slots that are near each other tie
            nearest = self.similarity(queries.float()).argmax(dim=2)
        hit = F.one_hot(nearest, m).double() * present[:, :, None]
        total = torch.einsum("bnm,bnc->nmc", hit, known.double())
        count = hit.sum(dim=0)
        if blocks == 1:
            total, count = total.sum(dim=0, keepdim=True), count.sum(dim=0, keepdim=True)
        if dist.is_initialized():
            dist.all_reduce(total)
            dist.all_reduce(count)
        mean = total / count.clamp(min=1.0)[:, :, None]
        moved = self.decay * self.slots.double() + (1.0 - self.decay) * mean
        self.slots.copy_(torch.where(count[:, :, None] > 0, moved, self.slots.double()))
        return count


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
