"""The stage ``mdrnet``: memory, MREM and refiner, on a frozen coarse network and a frozen parser (eq. 15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from showface.runtime.errors import UsageError
from showface.runtime.stages import CATEGORIES

from .. import losses
from ..checkpoint import reconstruction_from_checkpoint
from ..config import TrainConfig
from ..data.augment import Sample
from ..loss_networks.reconstruction import ReconstructionNetwork
from ..networks.memory import region_pool, region_weights
from ..networks.refiner import STRIDE
from .base import Outcome, Task, with_layout
from .health import HealthFaces, health_report

LEARNING = {
    "small": ("memory", "mrem", "refiner.body"),
    "detail": ("refiner.detail",),
    "whole": ("memory", "mrem", "refiner"),
}
HEALTH_AFTER = 50  # steps
Crop = tuple[int, int, int]


class MdrnetTask(Task):
    """Memory, MREM and refiner at one of three scales."""

    name = "mdrnet"
    trained = ("memory", "mrem", "refiner")
    terms: ClassVar[Mapping[str, float]] = {
        "reconstruction": 5.0, "squared_error": 0.0, "intra": 0.0, "inter": 0.0, "semantic": 0.0, "perceptual": 0.0,
        "style": 0.0, "adversarial": 0.0, "feature_matching": 0.0, "total_variation": 0.0,
    }  # fmt: skip

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse the InCo² loss without its network, and what a scale does not know."""
        super().check(config)
        weights = cls.weights_of(config)
        if cls.coordinated(weights) and config.coordination is None:
            raise UsageError("coordination: the InCo² loss needs the checkpoint of the stage reconstruction")
        if config.scale == "small" and (cls.coordinated(weights) or weights["semantic"]):
            raise UsageError('loss: intra, inter and semantic look at whole faces; scale = "small" has none')
        cropped = [name for name, phase in config.phases.items() if phase.crop is not None]
        if cropped and config.scale == "small":
            raise UsageError(f'phases.{cropped[0]}.crop: scale = "small" sees whole faces only; remove the key')
        if config.oracle_steps and config.network.memory.kind == "none":
            raise UsageError("oracle_steps: the network has no memory (network.memory.kind); remove the key")

    @classmethod
    def needed(cls, config: TrainConfig) -> set[str]:
        """Return the frozen networks; the detail path has a frozen body too."""
        frozen = {"coarse", "parser"} | ({"refiner", "memory"} if config.scale == "detail" else set())
        return with_layout(frozen, config.network)

    @staticmethod
    def coordinated(weights: Mapping[str, float]) -> bool:
        """Return whether the InCo² loss has a weight."""
        return bool(weights["intra"] or weights["inter"])

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__(config, data, output)
        self.oracle = False
        self.reconstruction: ReconstructionNetwork | None = None
        if self.coordinated(self.weights):
            assert config.coordination is not None  # checked
            self.reconstruction, checkpoint = reconstruction_from_checkpoint(output / config.coordination)
            self.digests[config.coordination] = checkpoint.weights_sha256

    def learn(self) -> list[nn.Parameter]:
        """Freeze everything but the networks of the scale and return their parameters."""
        networks = self.thaw()
        self.model.refiner.train()  # nothing is cut off, so that saturated pixels keep a gradient
        if self.config.compile:
            for network in (self.model.coarse, self.model.parser, self.model.refiner.body, self.model.refiner.detail):
                network.compile()
            if self.features is not None:
                self.features.compile()
        self.at_step(0)
        return [p for network in networks for p in network.parameters()]

    @property
    def learning(self) -> tuple[str, ...]:
        """The networks that learn at the scale."""
        return LEARNING[self.config.scale]

    @property
    def last_layer(self) -> Tensor:
        """The weight of the head that the scale trains."""
        path = "body" if self.config.scale == "small" else "detail"
        weight: Tensor = self.model.get_parameter(f"refiner.{path}.head.conv.weight")
        return weight

    @property
    def fills_memory_at(self) -> int | None:
        """The step before which the memory is filled from faces; None where there is none or it is full."""
        starts = self.model.memory.bank is not None and "memory" not in self.loaded
        return self.config.oracle_steps if starts else None

    @property
    def health_checks(self) -> tuple[int, ...]:
        """Soon after the start, and soon after the memory was filled."""
        filled = self.fills_memory_at
        return tuple({HEALTH_AFTER, HEALTH_AFTER + (filled or 0)})

    @torch.no_grad()
    def known_faces(self, sample: Sample) -> HealthFaces:
        """Return the faces with P and S: those given, or those of the frozen networks."""
        coarse_image, semantic_map = sample.coarse_image, sample.semantic_map
        if coarse_image is None:
            coarse_image = self.model.coarse(sample.image, sample.mask)
        if semantic_map is None:
            semantic_map = self.parse(coarse_image).argmax(dim=1)
        return HealthFaces(sample.image, sample.mask, coarse_image, semantic_map)

    def at_step(self, step: int) -> None:
        """Let the style encoder learn as long as the memory answers with the true codes, or all along."""
        self.oracle = step < self.config.oracle_steps
        learns = self.config.scale != "detail" and (
            self.oracle or self.config.encoder == "learns" or self.model.memory.bank is None
        )
        self.model.memory.encoder.requires_grad_(learns)

    def memory_codes(self, sample: Sample) -> Tensor:
        """Return the known codes V [B, n, c]."""
        faces = self.known_faces(sample)
        return self.model.memory.codes(faces.coarse_image, faces.semantic_map, faces.mask)[1]

    def fill_memory(self, codes: Tensor, generator: torch.Generator) -> None:
        """Fill the memory with them."""
        self.model.memory.bank.fill(codes, generator)

    def check_health(self, samples: Iterable[Sample]) -> str:
        """Return how memory and joins are; see :func:`.health.health_report`."""
        faces = [self.known_faces(sample) for sample in samples]
        return health_report(self.model, faces, not self.oracle, self.learning)

    def parse(self, face: Tensor) -> Tensor:
        """Return the parser's logits [B, n, H, W] of ``face``, which it sees at the size that it knows."""
        size = (self.config.network.image_size,) * 2
        if face.shape[-2:] == size:
            return self.model.parser(face)
        logits = self.model.parser(F.interpolate(face, size, mode="bilinear"))
        return F.interpolate(logits, face.shape[-2:], mode="area")

    def guidance(self, faces: HealthFaces) -> Tensor:
        """Return the guidance, updating the memory on the way (eqs 1-3); of the true codes in an oracle's steps."""
        memory = self.model.memory
        if memory.bank is None:
            return memory.encoder(faces.coarse_image)
        if self.oracle:
            regions = region_weights(faces.semantic_map, len(CATEGORIES))
            known = queries = region_pool(memory.encoder(faces.image), regions)
        else:
            queries, known = memory.codes(faces.coarse_image, faces.semantic_map, faces.mask)
            if memory.training:
                memory.bank.update(queries.detach(), known.detach())
            queries = memory.bank.read(queries)
        return self.model.mrem(queries, known, faces.semantic_map, faces.mask)

    def forward(self, sample: Sample) -> Outcome:
        """Complete the hole by the whole chain, at the config's scale.

        With ``crop`` the path to full size sees a square of the face only; the losses over whole faces see
        that square in the face's place.
        """
        faces, image, mask = self.known_faces(sample), sample.image, sample.mask
        if self.config.scale == "small":
            return self._small(faces)._replace(photograph=sample.photograph)
        frozen = self.config.scale == "detail"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            guidance = self.guidance(faces)
            face, features = self.model.refiner.refine_body(faces.coarse_image, mask, guidance)
        place = sample.crop or (0, 0, image.shape[-1])
        square, hole, target = (_square(tensor, place) for tensor in (face, mask, image))
        features, guidance = (_square(tensor, place, STRIDE) for tensor in (features, guidance))
        outcome = self.compared(
            square + self.model.refiner.detail(square, hole, features, guidance) * hole, target, hole
        )
        whole = outcome.result if sample.crop is None else _pasted(image, outcome.result, *sample.crop[:2])
        terms = {**outcome.terms, **self.face_terms(whole, image, mask)}
        return outcome._replace(terms=terms, photograph=sample.photograph)

    def _small(self, faces: HealthFaces) -> Outcome:
        """Complete the face at a quarter of its size by the body alone."""
        guidance = self.guidance(faces)
        small_coarse, small_mask, target = (
            F.avg_pool2d(x, STRIDE) for x in (faces.coarse_image, faces.mask, faces.image)
        )
        residual = self.model.refiner.body(small_coarse, small_mask, guidance).residual
        return self.compared(small_coarse + residual * small_mask, target, small_mask)

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


def _square(tensor: Tensor, crop: Crop, stride: int = 1) -> Tensor:
    """Cut the square ``crop`` of a face out of a tensor of ``1 / stride`` of its size."""
    top, left, side = crop
    rows, columns = (slice(start // stride, (start + side) // stride) for start in (top, left))
    return tensor[..., rows, columns]


def _pasted(image: Tensor, square: Tensor, top: int, left: int) -> Tensor:
    """Return ``image`` with ``square`` in its place; gradients flow into the square."""
    side = square.shape[-1]
    right, bottom = image.shape[-1] - left - side, image.shape[-2] - top - side
    inside = F.pad(torch.ones_like(square[:, :1]), (left, right, top, bottom))
    return image * (1 - inside) + F.pad(square, (left, right, top, bottom))
