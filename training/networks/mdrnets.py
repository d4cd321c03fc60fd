"""The assembled model: coarse, parser, memory, MREM, refiner (paper Fig. 2)."""

from __future__ import annotations

from torch import Tensor, nn

from showface.runtime.stages import CATEGORIES

from ..config import NetworkConfig
from .coarse import CoarseNetwork
from .memory import MemoryModule
from .mrem import Mrem
from .parser import FaceParser
from .refiner import Refiner


class MDRNets(nn.Module):
    """Memory-Disentangled Refinement Networks; each attribute is a stage of the stage table."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        categories, channels = len(CATEGORIES), config.memory.channels
        self.coarse = CoarseNetwork(config.coarse, config.image_size)
        self.parser = FaceParser(config.parser, categories)
        self.memory = MemoryModule(config.memory, categories)
        self.mrem = None if config.memory.kind == "none" else Mrem(config.mrem, channels, categories)
        self.refiner = Refiner(config.refiner, channels)

    def guidance(self, coarse_image: Tensor, semantic_map: Tensor, mask: Tensor) -> Tensor:
        """Return what steers the refiner, [B, c, H/4, W/4]."""
        codes = self.memory(coarse_image, semantic_map, mask)
        return codes if self.mrem is None else self.mrem(*codes, semantic_map, mask)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Complete ``image`` [B, 3, H, W] in [-1, 1] where ``mask`` [B, 1, H, W] is 1."""
        coarse_image = self.coarse(image, mask)
        semantic_map = self.parser(coarse_image).argmax(dim=1)
        return self.refiner(coarse_image, mask, self.guidance(coarse_image, semantic_map, mask))
