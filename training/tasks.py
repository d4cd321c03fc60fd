"""The stages of training: their networks, and the loss terms of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from . import losses
from .checkpoint import read_checkpoint, reconstruction_from_checkpoint
from .config import TrainConfig
from .data.augment import Sample
from .networks.backbone import load_backbone
from .networks.reconstruction import ReconstructionNetwork
from .occluder.task import OccluderTask
from .task import Outcome, Task, with_layout


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
            load_backbone(self.model.parser.context, data / config.backbone)

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

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Cross entropy and Dice of the labels."""
        assert labels is not None
        logits = self.model.parser(self.with_coarse_faces(image, mask) if self.config.coarse_faces else image)
        terms = {"parsing": losses.parsing_loss(logits, labels, self.dice_weight)}
        return terms, paint(logits.argmax(dim=1)), paint(labels)


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

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Complete small faces roughly."""
        completed = self.model.coarse.layout.unet(image, mask)
        return self.pixel_terms(completed, image), completed, image


class CoarseTask(Task):
    """The coarse network (paper §3.1)."""

    name = "coarse"
    trained = ("coarse",)
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 5.0, "squared_error": 0.0, "perceptual": 0.0, "style": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Complete the hole roughly."""
        completed = self.model.coarse(image, mask)
        return self.pixel_terms(completed, image), completed, image


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

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Encode and decode the whole face."""
        decoded = self.model.reconstruction(image)
        return self.pixel_terms(decoded, image), decoded, image


class MdrnetTask(Task):
    """Memory, MREM and refiner, on a frozen coarse network and a frozen parser (eq. 15)."""

    name = "mdrnet"
    trained = ("memory", "mrem", "refiner")
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 5.0, "squared_error": 0.0, "intra": 0.0, "inter": 0.0, "semantic": 0.0, "perceptual": 0.0,
        "style": 0.0, "adversarial": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse the InCo² loss without its network, and restarts without a memory."""
        super().check(config)
        if config.memory_restarts and config.network.memory.kind == "none":
            raise UsageError("memory_restarts: the network has no memory (network.memory.kind); remove the key")
        if cls.coordinated(cls.weights_of(config)) and config.coordination is None:
            raise UsageError("coordination: the InCo² loss needs the checkpoint of the stage reconstruction")

    @classmethod
    def needed(cls, config: TrainConfig) -> set[str]:
        """Return the frozen networks."""
        return with_layout({"coarse", "parser"}, config.network)

    @staticmethod
    def coordinated(weights: Mapping[str, float]) -> bool:
        """Return whether the InCo² loss has a weight."""
        return bool(weights["intra"] or weights["inter"])

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__(config, data, output)
        self.reconstruction: ReconstructionNetwork | None = None
        if self.coordinated(self.weights):
            assert config.coordination is not None  # checked
            checkpoint = read_checkpoint(output / config.coordination)
            self.reconstruction = reconstruction_from_checkpoint(output / config.coordination)
            self.digests[config.coordination] = checkpoint.sha256

    @property
    def starts_from_faces(self) -> bool:
        """Whether there is a memory, and it starts anew."""
        return self.model.memory.bank is not None and "memory" not in self.loaded

    def prepare(self, sample: Sample) -> Tensor:
        """Return the known codes V [B, n, c]."""
        coarse_image = self.model.coarse(sample.image, sample.mask)
        return self.model.memory.codes(coarse_image, self.parse(coarse_image).argmax(dim=1), sample.mask)[1]

    def start(self, prepared: Tensor, generator: torch.Generator) -> None:
        """Fill the memory with them."""
        self.model.memory.bank.fill(prepared, generator)

    def parse(self, face: Tensor) -> Tensor:
        """Return the parser's logits [B, n, H, W] of ``face``, which it sees at the size that it knows."""
        size = (self.config.network.image_size,) * 2
        if face.shape[-2:] == size:
            return self.model.parser(face)
        logits = self.model.parser(F.interpolate(face, size, mode="bilinear"))
        return F.interpolate(logits, face.shape[-2:], mode="area")

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Complete the hole by the whole chain, updating the memory on the way (eqs 1-3).

        With ``crop`` the refiner sees a square of the face only; the losses over whole faces see
        that square in the face's place.
        """
        with torch.no_grad():
            coarse_image = self.model.coarse(image, mask)
            semantic_map = self.parse(coarse_image).argmax(dim=1)
            if self.model.memory.bank is not None and self.model.memory.training:
                self.model.memory.bank.update(*self.model.memory.codes(coarse_image, semantic_map, mask))
        guidance = self.model.guidance(coarse_image, semantic_map, mask)
        top, left, side = crop or (0, 0, image.shape[-1])

        def cut(tensor: Tensor, stride: int = 1) -> Tensor:
            rows, columns = (slice(start // stride, (start + side) // stride) for start in (top, left))
            return tensor[..., rows, columns]

        completed = self.model.refiner(cut(coarse_image), cut(mask), cut(guidance, 4))
        terms = self.pixel_terms(completed, cut(image))
        face = completed if crop is None else _pasted(image, completed, top, left)
        return {**terms, **self.face_terms(face, image, mask)}, completed, cut(image)

    def face_terms(self, face: Tensor, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the weighted ones among eqs 6, 7 and 9, which look at whole faces."""
        if not (self.coordinated(self.weights) or self.weights["semantic"]):
            return {}
        terms: dict[str, Tensor] = {}
        with torch.no_grad():
            truth = self.parse(image)
        if self.weights["semantic"]:
            terms["semantic"] = losses.semantic_loss(self.parse(face), truth)
        if self.reconstruction is not None:
            labels, encode = truth.argmax(dim=1), self.reconstruction.encoder
            with torch.no_grad():
                wanted = losses.region_codes(encode(image), labels, mask, len(CATEGORIES))
            found = losses.region_codes(encode(face), labels, mask, len(CATEGORIES))
            terms["intra"] = losses.intra_coordination_loss(found[0], wanted[0])
            terms["inter"] = losses.inter_coordination_loss(*found, *wanted)
        return {name: value for name, value in terms.items() if self.weights[name]}


def _pasted(image: Tensor, square: Tensor, top: int, left: int) -> Tensor:
    """Return ``image`` with ``square`` in its place; gradients flow into the square."""
    side = square.shape[-1]
    right, bottom = image.shape[-1] - left - side, image.shape[-2] - top - side
    inside = F.pad(torch.ones_like(square[:, :1]), (left, right, top, bottom))
    return image * (1 - inside) + F.pad(square, (left, right, top, bottom))


def paint(labels: Tensor) -> Tensor:
    """Return ``labels`` [B, H, W] as colours [B, 3, H, W] in [-1, 1], to look at."""
    phase = labels[:, None].float() * 2.4 + torch.tensor([0.0, 2.1, 4.2], device=labels.device).view(1, 3, 1, 1)
    return torch.sin(phase)


STAGES = (ParserTask, LayoutTask, CoarseTask, ReconstructionTask, MdrnetTask, OccluderTask)
TASKS: Mapping[str, type[Task]] = {task.name: task for task in STAGES}
