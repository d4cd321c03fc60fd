"""The stages of training: which networks learn, and the loss terms of a batch."""

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
from .checkpoint import belongs, load_weights, read_checkpoint, reconstruction_from_checkpoint
from .config import TrainConfig
from .data.augment import Sample
from .networks.backbone import load_backbone
from .networks.mdrnets import MDRNets
from .networks.reconstruction import ReconstructionNetwork
from .networks.vgg import VggFeatures, vgg_from_file

Outcome = tuple[dict[str, Tensor], Tensor, Tensor]  # unweighted loss terms, result and target [B, 3, H, W]


class Task(nn.Module):
    """A stage of training.

    ``terms`` are its loss terms with their default weights λ: the paper names the terms, but not
    their weights. ``trained`` are the networks that learn; the others are frozen, and those that are
    ``needed`` must come from a checkpoint in ``init``.
    """

    name: ClassVar[str]
    trained: ClassVar[tuple[str, ...]]
    terms: ClassVar[Mapping[str, float]]
    needed: tuple[str, ...] = ()
    with_labels: ClassVar[bool] = False

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__()
        unknown = sorted(set(config.loss) - set(self.terms))
        if unknown:
            raise UsageError(f"loss: unknown term {unknown[0]!r} for {self.name}; known: {', '.join(self.terms)}")
        if config.memory_restarts and "memory" not in self.trained:
            raise UsageError(f"memory_restarts: the stage {self.name} trains no memory; remove the key")
        outside = [step for step in config.memory_restarts if not 0 <= step < config.steps]
        if outside:
            raise UsageError(f"memory_restarts: step {outside[0]} is none of the run's {config.steps}")
        self.weights = {**self.terms, **config.loss}
        self.config = config
        self.model = self.build(config)
        self.loaded: set[str] = set()
        for name in config.init:
            checkpoint = read_checkpoint(output / name)
            load_weights(self.model, checkpoint, output / name)
            self.loaded.update(checkpoint.stages)
            if "coarse" in checkpoint.stages and checkpoint.config.coarse.layout is not None:
                self.loaded.add("coarse.layout")
        needed = {"coarse.layout"} if "coarse" in self.needed and config.network.coarse.layout is not None else set()
        missing = sorted({*self.needed, *needed} - self.loaded)
        if missing:
            raise UsageError(
                f"init: {self.name} needs the trained {' and '.join(missing)}; "
                f"train it first (showface train {missing[0].split('.')[-1]}) and name its checkpoint in 'init'"
            )
        self.features = self._features(data)

    def build(self, config: TrainConfig) -> nn.Module:
        """Return the networks, by the names that checkpoints know them under."""
        return MDRNets(config.network)

    def _features(self, data: Path) -> VggFeatures | None:
        if not (self.weights.get("perceptual") or self.weights.get("style")):
            return None
        settings = self.config.perceptual
        if settings.weights is None:
            raise UsageError("perceptual.weights: the perceptual and style losses need the file of a VGG network")
        return vgg_from_file(data / settings.weights, settings.network)

    def learn(self) -> list[nn.Parameter]:
        """Freeze everything but the trained networks and return their parameters."""
        self.requires_grad_(False).eval()
        named = dict(self.model.named_modules())  # an ablation leaves networks out
        networks = [named[name] for name in self.trained if name in named]
        for network in networks:
            network.requires_grad_(True).train()
            if self.config.compile:
                network.compile()
        return [p for network in networks for p in network.parameters()]

    def state(self) -> dict[str, Tensor]:
        """Return weights and buffers of the trained networks, by their key in the model."""
        return {k: v for k, v in self.model.state_dict().items() if belongs(k, self.trained)}

    @property
    def starts_from_faces(self) -> bool:
        """Whether :meth:`prepare` and :meth:`start` are to be called before the first step."""
        return False

    def prepare(self, sample: Sample) -> Tensor:
        """Return what :meth:`start` wants to know of faces, [B, ...]."""
        raise NotImplementedError

    def start(self, prepared: Tensor, generator: torch.Generator) -> None:
        """Set the networks up from what :meth:`prepare` returned for the faces of all processes."""

    def forward(self, image: Tensor, mask: Tensor, labels: Tensor | None, crop: tuple[int, int, int] | None) -> Outcome:
        """Return loss terms, result and target; the arguments are the fields of a ``Sample``."""
        raise NotImplementedError

    def pixel_terms(self, completed: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the weighted ones among eqs 10, 11, 12 and 14, and the squared error."""
        terms = {
            "reconstruction": losses.reconstruction_loss(completed, target),
            "squared_error": losses.squared_error_loss(completed, target),
        }
        if self.features is not None:
            with torch.no_grad():
                wanted = self.features(target)
            found = self.features(completed)
            terms["perceptual"] = losses.perceptual_loss(found, wanted)
            terms["style"] = losses.style_loss(found, wanted)
        if self.weights.get("total_variation"):
            terms["total_variation"] = losses.total_variation_loss(completed)
        return {name: value for name, value in terms.items() if self.weights[name]}


class ParserTask(Task):
    """The face parser, on photographs with labels."""

    name = "parser"
    trained = ("parser",)
    terms: ClassVar[Mapping[str, float]] = {"parsing": 1.0}
    with_labels = True
    dice_weight = 1.0

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        if not 0.0 <= config.coarse_faces <= 1.0:
            raise UsageError(f"coarse_faces {config.coarse_faces:g}: give a share from 0 to 1")
        self.needed = ("coarse",) if config.coarse_faces else ()
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

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        if config.network.coarse.layout is None:
            raise UsageError("network.coarse.layout: the stage layout trains this network; add the table to the config")
        super().__init__(config, data, output)

    def learn(self) -> list[nn.Parameter]:
        """Leave out what joins the layout to the coarse network, which learns with that."""
        super().learn()
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
    needed = ("coarse", "parser")
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 5.0, "squared_error": 0.0, "intra": 0.0, "inter": 0.0, "semantic": 0.0, "perceptual": 0.0,
        "style": 0.0, "adversarial": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__(config, data, output)
        if config.memory_restarts and self.model.memory.bank is None:
            raise UsageError("memory_restarts: the network has no memory (network.memory.kind); remove the key")
        self.reconstruction: ReconstructionNetwork | None = None
        if self.coordinated:
            if config.coordination is None:
                raise UsageError("coordination: the InCo² loss needs the checkpoint of the stage reconstruction")
            self.reconstruction = reconstruction_from_checkpoint(output / config.coordination)

    @property
    def coordinated(self) -> bool:
        """Whether the InCo² loss has a weight."""
        return bool(self.weights["intra"] or self.weights["inter"])

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
        if not (self.coordinated or self.weights["semantic"]):
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


STAGES = (ParserTask, LayoutTask, CoarseTask, ReconstructionTask, MdrnetTask)
TASKS: Mapping[str, type[Task]] = {task.name: task for task in STAGES}
