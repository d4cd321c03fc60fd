"""The stage ``reconstruction``: an autoencoder of whole faces, for the InCo² loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from ..config import TrainConfig
from ..data.augment import Sample
from ..loss_networks.reconstruction import ReconstructionNetwork
from .base import Outcome, Task


class ReconstructionTask(Task):
    """The encoder-decoder whose encoder the InCo² loss looks through (paper Fig. 4)."""

    name = "reconstruction"
    trained = ("reconstruction",)
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 1.0, "squared_error": 0.0, "perceptual": 0.0, "style": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    def build(self, config: TrainConfig) -> nn.Module:
        """Return the autoencoder."""
        return nn.ModuleDict({"reconstruction": ReconstructionNetwork(config.reconstruction)})

    def forward(self, sample: Sample) -> Outcome:
        """Encode and decode the whole face."""
        return self.compared(self.model.reconstruction(sample.image), sample.image, torch.ones_like(sample.mask))
