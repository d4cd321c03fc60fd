"""Loss functions; each is pure and returns a scalar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def hole_l1(completed: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the hole (eq. 10, whose other pixels are copied and always exact).

    Args:
        completed: [B, 3, H, W].
        target: [B, 3, H, W].
        mask: [B, 1, H, W], 1 in the hole.
    """
    error = (completed.float() - target).abs() * mask
    return error.sum() / (mask.sum() * completed.shape[1]).clamp(min=1.0)


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of [B, 3, H, W] (eq. 14)."""
    image = image.float()
    down = (image[:, :, 1:] - image[:, :, :-1]).abs().mean()
    return down + (image[:, :, :, 1:] - image[:, :, :, :-1]).abs().mean()


def parsing_loss(logits: Tensor, labels: Tensor, dice_weight: float) -> Tensor:
    """Cross entropy plus a Dice term, which counts a small category as much as a large one.

    Args:
        logits: [B, n, H, W].
        labels: [B, H, W], category of each pixel.
        dice_weight: weight of the Dice term.
    """
    logits = logits.float()
    truth = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2).float()
    probability = torch.softmax(logits, dim=1)
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    total = (probability + truth).sum(dim=(0, 2, 3))
    present = truth.sum(dim=(0, 2, 3)) > 0
    dice = (1 - (2 * overlap + 1) / (total + 1))[present].mean()
    return F.cross_entropy(logits, labels) + dice_weight * dice
