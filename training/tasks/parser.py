"""The stage ``parser``: the network that finds the categories of a face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from showface.runtime.errors import UsageError

from .. import losses
from ..config import TrainConfig
from ..data.augment import Sample
from ..weight_files import load_mobilenet
from .base import Outcome, Task, with_layout


class ParserTask(Task):
    """The face parser, on photographs with labels."""

    name = "parser"
    trained = ("parser",)
    terms: ClassVar[Mapping[str, float]] = {"parsing": 1.0}
    with_labels = True
    dice_weight = 1.0

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse a share that is none."""
        super().check(config)
        if not 0.0 <= config.coarse_faces <= 1.0:
            raise UsageError(f"coarse_faces {config.coarse_faces:g}: give a share from 0 to 1")

    @classmethod
    def needed(cls, config: TrainConfig) -> set[str]:
        """Return the coarse network where it completes faces."""
        return with_layout({"coarse"}, config.network) if config.coarse_faces else set()

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__(config, data, output)
        if config.backbone is not None:
            load_mobilenet(self.model.parser.context.features, data / config.backbone)

    def with_coarse_faces(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return ``image`` with the share ``coarse_faces`` of its faces completed.

        The size of a face's hole decides, so that neither a resumed run nor the number of processes changes it.
        """
        shuffled = mask.sum(dim=(1, 2, 3)).long() * 7919 % 1000  # a prime: masks of about one size part too
        chosen = shuffled < round(1000 * self.config.coarse_faces)
        if not chosen.any():
            return image
        with torch.no_grad():
            return torch.where(chosen[:, None, None, None], self.model.coarse(image, mask), image)

    def forward(self, sample: Sample) -> Outcome:
        """Cross entropy and Dice of the labels."""
        assert sample.labels is not None
        image = self.with_coarse_faces(sample.image, sample.mask) if self.config.coarse_faces else sample.image
        logits = self.model.parser(image)
        terms = {"parsing": losses.parsing_loss(logits, sample.labels, self.dice_weight)}
        return Outcome(terms, paint(logits.argmax(dim=1)), paint(sample.labels))


def paint(labels: Tensor) -> Tensor:
    """Return ``labels`` [B, H, W] as colours [B, 3, H, W] in [-1, 1], to look at."""
    phase = labels[:, None].float() * 2.4 + torch.tensor([0.0, 2.1, 4.2], device=labels.device).view(1, 3, 1, 1)
    return torch.sin(phase)
