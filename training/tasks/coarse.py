"""The stages ``layout`` and ``coarse``: the first, smooth completion, and the network in it that lays out the face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from showface.runtime.errors import UsageError

from ..config import TrainConfig
from ..data.augment import Sample
from .base import Outcome, Task


class LayoutTask(Task):
    """The network inside the coarse one that lays the face out: on faces of its own resolution."""

    name = "layout"
    trained = ("coarse.layout",)
    terms: ClassVar[Mapping[str, float]] = {"reconstruction": 5.0, "squared_error": 0.0}

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse a config without the network."""
        super().check(config)
        if config.network.coarse.layout is None:
            raise UsageError("network.coarse.layout: the stage layout trains this network; add the table to the config")

    def learn(self) -> list[nn.Parameter]:
        """Leave out what joins the layout to the coarse network, which learns with that."""
        super().learn()
        if self.config.compile:
            self.model.coarse.layout.unet.compile()  # what is called here
        for layer in (self.model.coarse.layout.features, self.model.coarse.layout.weight):
            layer.requires_grad_(False)
        return list(self.model.coarse.layout.unet.parameters())

    def forward(self, sample: Sample) -> Outcome:
        """Complete small faces roughly."""
        return self.compared(self.model.coarse.layout.unet(sample.image, sample.mask), sample.image, sample.mask)


class CoarseTask(Task):
    """The coarse network (paper §3.1)."""

    name = "coarse"
    trained = ("coarse",)
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 5.0, "squared_error": 0.0, "perceptual": 0.0, "style": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    def forward(self, sample: Sample) -> Outcome:
        """Complete the hole roughly."""
        return self.compared(self.model.coarse(sample.image, sample.mask), sample.image, sample.mask)
