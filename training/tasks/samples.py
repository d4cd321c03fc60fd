"""The stage ``samples``: complete faces by the frozen coarse network and parse them, once for several runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..data.augment import Sample
from .base import Task, with_layout


class SamplesTask(Task):
    """Nothing learns; the steps of the phases say how many samples are made."""

    name = "samples"
    trained = ()
    terms: ClassVar[Mapping[str, float]] = {}

    @classmethod
    def needed(cls, config: TrainConfig) -> set[str]:
        """Return the networks that are run."""
        return with_layout({"coarse", "parser"}, config.network)

    def learn(self) -> list[nn.Parameter]:
        """Freeze everything."""
        self.requires_grad_(False).eval()
        return []

    @torch.no_grad()
    def arrays(self, sample: Sample) -> dict[str, Tensor]:
        """Return the arrays of ``data.sample_cache`` for a batch, uint8."""
        coarse_image = self.model.coarse(sample.image, sample.mask).float()
        return {
            "image": _as_bytes(sample.image),
            "mask": sample.mask[:, 0].round().byte(),
            "coarse_image": _as_bytes(coarse_image),
            "semantic_map": self.model.parser(coarse_image).argmax(dim=1).byte(),
            "photograph": sample.photograph.byte(),
        }


def _as_bytes(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).byte()
