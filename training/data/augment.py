"""Augmentation of a batch on its device: from uint8 to the tensors that the networks see.

Every random number belongs to (seed, step, position): a sample is the same in whichever share of the
global batch it comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..config import AugmentConfig, PhaseConfig
from .dataset import Batch, Stream, generator

CROP_STEP = 4  # crops start on the grid of the style features
DRAWS = 11  # random numbers of a sample


@dataclass(frozen=True, slots=True)
class Sample:
    """A batch as the networks see it."""

    image: Tensor  # [B, 3, H, W] in [-1, 1]
    mask: Tensor  # [B, 1, H, W], 1 = hole
    labels: Tensor | None  # [B, H, W]
    crop: tuple[int, int, int] | None  # top, left, side of the square that the refiner trains on
    photograph: Tensor  # [B] bool, what a camera saw
    coarse_image: Tensor | None = None  # [B, 3, H, W] in [-1, 1], where it was computed before
    semantic_map: Tensor | None = None  # [B, H, W] int64


def _draws(seed: tuple[int, int], positions: Sequence[int]) -> NDArray[np.float64]:
    """Draw [DRAWS, B] numbers in [0, 1)."""
    return np.stack([generator(Stream.AUGMENT, *seed, p).random(DRAWS) for p in positions], axis=1)


def affine_maps(draws: NDArray[np.float64], config: AugmentConfig) -> NDArray[np.float64]:
    """Return [B, 2, 3] maps from output to input coordinates in [-1, 1]; mirrored half of the time.

    Args:
        draws: [5, B], for angle, scale, the two shifts and the mirror.
        config: the ranges.
    """
    angle, scale, right, down = draws[:4] * 2 - 1
    angle, scale = angle * math.radians(config.rotate), 1 + scale * config.scale
    flip = np.where(draws[4] < 0.5, -1.0, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    rows = [cos * flip, -sin, right * 2 * config.shift, sin * flip, cos, down * 2 * config.shift]
    return np.stack(rows, axis=1).reshape(-1, 2, 3)


def sampling_grid(maps: Tensor, height: int, width: int) -> Tensor:
    """Return the input coordinates [B, H, W, 2] of every output pixel under ``maps`` [B, 2, 3].

    ``F.affine_grid`` without its matrix product, which may round differently in a larger batch.
    """
    x = (torch.arange(width, device=maps.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=maps.device)[:, None] * 2 + 1) / height - 1
    return torch.stack([m[:, 0] * x + m[:, 1] * y + m[:, 2] for m in maps[..., None, None].unbind(1)], dim=3)


def _jitter(image: Tensor, draws: Tensor, config: AugmentConfig) -> Tensor:
    """Change brightness, contrast and colour balance, and blur some of the faces.

    Args:
        image: [B, 3, H, W] in [-1, 1].
        draws: [6, B], for the gains of the channels, the common gain, the offset and the blur.
        config: the ranges.
    """
    draws = draws[..., None, None, None]
    gain = 1 + (draws[:3, :, 0].transpose(0, 1) - 0.5) * config.color
    gain = gain * (1 + (draws[3] * 2 - 1) * config.color)
    image = (image * gain + (draws[4] * 2 - 1) * config.color).clamp(-1, 1)
    blurred = F.interpolate(F.avg_pool2d(image, 4), scale_factor=4.0, mode="bilinear")
    return torch.where(draws[5] < config.blur, blurred, image)


def _crop(phase: PhaseConfig, seed: tuple[int, int]) -> tuple[int, int, int] | None:
    if phase.crop is None:
        return None
    places = (phase.resize - phase.crop) // CROP_STEP + 1
    top, left = generator(Stream.CROP, *seed).integers(places, size=2) * CROP_STEP
    return int(top), int(left), phase.crop


def augment(
    batch: Batch, config: AugmentConfig, phase: PhaseConfig, seed: tuple[int, int], device: torch.device
) -> Sample:
    """Turn a batch of uint8 samples into what the networks see.

    Args:
        batch: the samples; any share of the global batch.
        config: what to draw.
        phase: resolution and crop.
        seed: the run's seed and the step; with a sample's position they decide its draws, and alone
            the crop, which all samples of a step share.
        device: where the result lies.
    """
    draws = _draws(seed, batch.positions)
    if batch.coarse_image is not None:
        return _mirrored(batch, draws[4] < 0.5, _crop(phase, seed), device)
    image = batch.image.to(device, non_blocking=True).float() / 127.5 - 1
    mask = batch.mask.to(device, non_blocking=True).float()
    grid = sampling_grid(torch.from_numpy(affine_maps(draws[:5], config)).float().to(device), *image.shape[-2:])
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = None
    if batch.labels is not None:
        labels = batch.labels.to(device, non_blocking=True).float()[:, None]
        labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    if config.color or config.blur:
        image = _jitter(image, torch.from_numpy(draws[5:]).float().to(device), config)
    if phase.resize != image.shape[-1]:
        size = (phase.resize, phase.resize)
        image, mask = F.interpolate(image, size, mode="area"), F.interpolate(mask, size, mode="nearest")
        labels = None if labels is None else F.interpolate(labels, size, mode="nearest")
    return Sample(
        image.contiguous(memory_format=torch.channels_last),
        mask.contiguous(),
        None if labels is None else labels[:, 0].round().long(),
        _crop(phase, seed),
        batch.photograph,
    )


def _mirrored(
    batch: Batch, mirror: NDArray[np.bool_], crop: tuple[int, int, int] | None, device: torch.device
) -> Sample:
    """Mirror faces whose coarse face and category map are known; nothing else may change them."""
    chosen = torch.from_numpy(mirror).to(device)

    def turned(values: Tensor | None) -> Tensor:
        assert values is not None
        moved = values.to(device, non_blocking=True)
        return torch.where(chosen.reshape(-1, *(1,) * (moved.dim() - 1)), moved.flip(-1), moved)

    image, coarse_image = (turned(x).float() / 127.5 - 1 for x in (batch.image, batch.coarse_image))
    mask, semantic_map = turned(batch.mask).float(), turned(batch.semantic_map).long()
    known = image * (1 - mask) + coarse_image * mask  # not rounded outside the hole
    as_last = {"memory_format": torch.channels_last}
    return Sample(
        image.contiguous(**as_last), mask, None, crop, batch.photograph, known.contiguous(**as_last), semantic_map
    )
