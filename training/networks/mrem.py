"""Mask-Region Enhanced Module: feature fusion and masked correlation mining (paper §3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import MremConfig
from .memory import STRIDE, cell_mask, region_weights


def broadcast(codes: Tensor, regions: Tensor) -> Tensor:
    """Spread ``codes`` [B, n, c] over ``regions`` [B, n, h·w] to [B, c, h·w]."""
    return codes.transpose(1, 2) @ regions


class MaskedCorrelationMining(nn.Module):
    """Self-attention between non-overlapping patches, added inside the hole only (paper Fig. 3)."""

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def patches(self, x: Tensor) -> Tensor:
        """Cut [B, c, h, w] into N patches: [B, N, p·p·c].

        Two transpositions that move whole runs of values, the channels of a pixel and the pixels of a row, are
        four times as fast in ONNX Runtime as one of single values.
        """
        (_, c, h, w), p = x.shape, self.patch_size
        rows = x.permute(0, 2, 3, 1).reshape(-1, h // p, p, w // p, p * c)
        return rows.permute(0, 1, 3, 2, 4).reshape(-1, (h // p) * (w // p), p * p * c)

    def unpatch(self, patches: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`patches` for the shape of ``like``."""
        (_, c, h, w), p = like.shape, self.patch_size
        rows = patches.reshape(-1, h // p, w // p, p, p * c).permute(0, 1, 3, 2, 4)
        return rows.reshape(-1, h, w, c).permute(0, 3, 1, 2)

    def forward(self, fused: Tensor, mask: Tensor) -> Tensor:
        """Enhance ``fused`` [B, c, h, w] where ``mask`` [B, 1, h, w] is a hole."""
        query, key = self.patches(self.query(fused)), self.patches(self.key(fused))
        scale = query.shape[2] ** -0.5
        correlation = torch.softmax((query * scale) @ key.transpose(1, 2), dim=2)
        mined = self.unpatch(correlation @ self.patches(self.value(fused)), fused)
        return fused + mined * mask


class Mrem(nn.Module):
    """The stage ``mrem``: memory codes in the hole, known codes outside, then mining."""

    def __init__(self, config: MremConfig, channels: int, categories: int) -> None:
        super().__init__()
        self.categories = categories
        self.mining = MaskedCorrelationMining(channels, config.patch_size) if config.mining else None

    def forward(self, memory_codes: Tensor, known_codes: Tensor, semantic_map: Tensor, mask: Tensor) -> Tensor:
        """Return the guidance [B, c, H/4, W/4].

        Args:
            memory_codes: Q̂ [B, n, c].
            known_codes: V [B, n, c].
            semantic_map: S [B, H, W].
            mask: [B, 1, H, W], 1 in the hole.
        """
        regions = region_weights(semantic_map, self.categories)
        hole = cell_mask(mask)
        height, width = mask.shape[2] // STRIDE, mask.shape[3] // STRIDE
        shape = (-1, known_codes.shape[2], height, width)
        from_memory = broadcast(memory_codes, regions).reshape(shape)
        from_face = broadcast(known_codes, regions).reshape(shape)
        fused = from_memory * hole + from_face * (1.0 - hole)
        return fused if self.mining is None else self.mining(fused, hole)
