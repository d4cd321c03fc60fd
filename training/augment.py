"""Augmentation of a batch on its device: from uint8 to the tensors that the networks see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import AugmentConfig, PhaseConfig
from .data import Batch

CROP_STEP = 4  # crops start on the grid of the style features


@dataclass(frozen=True, slots=True)
class Sample:
    """A batch as the networks see it."""

    image: Tensor  # [B, 3, H, W] in [-1, 1]
    mask: Tensor  # [B, 1, H, W], 1 = hole
    labels: Tensor | None  # [B, H, W]
    crop: tuple[int, int, int] | None  # top, left, side of the square that the refiner trains on


def _affine(batch: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Draw [B, 2, 3] maps from output to input coordinates; mirrored half of the time."""

    def uniform(bound: float) -> Tensor:
        return (torch.rand(batch, generator=generator) * 2 - 1) * bound

    angle, scale = uniform(math.radians(config.rotate)), 1 + uniform(config.scale)
    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [cos * flip, -sin, uniform(2 * config.shift), sin * flip, cos, uniform(2 * config.shift)]
    return torch.stack(rows, dim=1).view(batch, 2, 3)


def _jitter(image: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and colour balance, and blur some of the faces."""
    batch = len(image)
    gain = 1 + (torch.rand(batch, 3, 1, 1, generator=generator) - 0.5) * config.color
    gain = gain * (1 + (torch.rand(batch, 1, 1, 1, generator=generator) * 2 - 1) * config.color)
    offset = (torch.rand(batch, 1, 1, 1, generator=generator) * 2 - 1) * config.color
    image = (image * gain.to(image) + offset.to(image)).clamp(-1, 1)
    blurred = F.interpolate(F.avg_pool2d(image, 4), scale_factor=4.0, mode="bilinear")
    chosen = torch.rand(batch, 1, 1, 1, generator=generator) < config.blur
    return torch.where(chosen.to(image.device), blurred, image)


def augment(
    batch: Batch, config: AugmentConfig, phase: PhaseConfig, seed: tuple[int, int], device: torch.device
) -> Sample:
    """Turn a batch of uint8 samples into what the networks see.

    Args:
        batch: the samples.
        config: what to draw.
        phase: resolution and crop.
        seed: the run's seed and the step; decides every draw.
        device: where the result lies.
    """
    generator = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    image = batch.image.to(device).float() / 127.5 - 1
    mask = batch.mask.to(device).float()
    theta = _affine(len(image), config, generator).to(device)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    labels = batch.labels
    if labels is not None:
        values = labels.to(device).float()[:, None]
        values = F.grid_sample(values, grid, mode="nearest", padding_mode="reflection", align_corners=False)
        labels = values[:, 0].round().long()
    if config.color or config.blur:
        image = _jitter(image, config, generator)
    if phase.resize != image.shape[-1]:
        image = F.interpolate(image, size=(phase.resize, phase.resize), mode="area")
        mask = F.interpolate(mask, size=(phase.resize, phase.resize), mode="nearest")
    crop = None
    if phase.crop is not None:
        places = (phase.resize - phase.crop) // CROP_STEP + 1
        top, left = (CROP_STEP * torch.randint(places, (2,), generator=generator)).tolist()
        crop = (top, left, phase.crop)
    return Sample(image.contiguous(memory_format=torch.channels_last), mask.contiguous(), labels, crop)
