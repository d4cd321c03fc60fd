"""The stage ``occluder``: a network that finds what covers the face, on synthetic occlusions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from showface.runtime.errors import UsageError

from ..config import TrainConfig
from ..data.augment import Sample
from ..data.dataset import Feed
from ..data.occlusions.feed import open_occlusion_feed
from ..data.occlusions.layers import COVERED, UNCOUNTED
from ..tasks.base import Outcome, Task
from ..weight_files import load_mobilenet
from .network import Occluder

BOUNDARY_WEIGHT = 3.0  # of the pixels along an outline: there the hole is decided
BOUNDARY_REACH = 3  # pixels on either side of it


class OccluderTask(Task):
    """Cross entropy and Dice of covered pixels."""

    name = "occluder"
    trained = ("occluder",)
    terms: ClassVar[Mapping[str, float]] = {"cross_entropy": 1.0, "dice": 0.5}
    with_labels = True

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse to train at another resolution than the network will work at."""
        super().check(config)
        for name, phase in config.phases.items():
            if phase.resize != config.occluder.side:
                raise UsageError(
                    f"phases.{name}.resize = {phase.resize}: the occluder works at occluder.side = "
                    f"{config.occluder.side}; give both the same value"
                )

    @classmethod
    def files(cls, config: TrainConfig) -> tuple[str, ...]:
        """Return the folders of cut-outs and textures, and the lists of faces that are left out."""
        occlusion = config.occlusion
        textures = () if occlusion.textures is None else (occlusion.textures,)
        return (*(entry.folder for entry in occlusion.cutouts.values()), *textures, *occlusion.left_out.values())

    def build(self, config: TrainConfig) -> nn.Module:
        """Return the network."""
        return nn.ModuleDict({"occluder": Occluder(config.occluder)})

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__(config, data, output)
        if config.backbone is not None:
            load_mobilenet(self.model.occluder.encoder.features, data / config.backbone)

    def open_feed(self, data: Path, device: torch.device, rank: int, world: int, held_out: bool = False) -> Feed:
        """Open synthetic occlusions."""
        return open_occlusion_feed(self.config, data, device, rank, world, held_out)

    def forward(self, sample: Sample) -> Outcome:
        """Compare the found occlusion with the pasted one."""
        assert sample.labels is not None
        logits = self.model.occluder(sample.image)
        target = (sample.labels == COVERED)[:, None].float()
        counted = (sample.labels != UNCOUNTED)[:, None].float()
        terms = {
            "cross_entropy": boundary_cross_entropy(logits, target, counted),
            "dice": soft_dice_loss(logits, target, counted),
        }
        wanted = {name: value for name, value in terms.items() if self.weights[name]}
        return Outcome(wanted, overlay(sample.image, torch.sigmoid(logits)), overlay(sample.image, target))


def boundary_cross_entropy(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Mean binary cross entropy of the counted pixels, those along an outline weighing more.

    Args:
        logits: [B, 1, H, W].
        target: [B, 1, H, W], 1 = covered.
        counted: [B, 1, H, W], 0 where nobody can say.
    """
    size = 2 * BOUNDARY_REACH + 1
    around = F.max_pool2d(target, size, 1, BOUNDARY_REACH) + F.max_pool2d(1 - target, size, 1, BOUNDARY_REACH) - 1
    weight = counted * (1 + (BOUNDARY_WEIGHT - 1) * around)
    losses = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp(min=1)


def soft_dice_loss(logits: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """One minus the soft Dice of each picture, in the mean; shapes as in :func:`boundary_cross_entropy`.

    One is added to numerator and denominator at a scale of a hundredth of the picture, so that a clean face has a
    loss that falls as what is wrongly found on it shrinks.
    """
    found = torch.sigmoid(logits.float()) * counted
    wanted = target * counted
    slack = 0.01 * target.shape[-1] * target.shape[-2]
    both = (found * wanted).sum(dim=(1, 2, 3))
    total = found.sum(dim=(1, 2, 3)) + wanted.sum(dim=(1, 2, 3))
    return (1 - (2 * both + slack) / (total + slack)).mean()


def overlay(image: Tensor, share: Tensor) -> Tensor:
    """Return ``image`` [B, 3, H, W] with ``share`` [B, 1, H, W] of red over it, to look at."""
    red = torch.tensor([1.0, -1.0, -1.0], device=image.device).view(1, 3, 1, 1)
    return image + (red - image) * share.to(image.dtype) * 0.6
