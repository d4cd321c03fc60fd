"""What all stages of training share: which networks learn, what they start from, and the loss terms of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from showface.runtime.errors import UsageError

from . import losses
from .checkpoint import belongs, load_weights, read_checkpoint
from .config import NetworkConfig, TrainConfig
from .data.augment import Sample
from .data.dataset import Feed, open_feed
from .networks.mdrnets import MDRNets
from .networks.vgg import VggFeatures, vgg_from_file

Outcome = tuple[dict[str, Tensor], Tensor, Tensor]  # unweighted loss terms, result and target [B, 3, H, W]


class Task(nn.Module):
    """A stage of training.

    ``terms`` are its loss terms with their default weights λ: the paper names the terms, but not
    their weights. ``trained`` are the networks that learn; the others are frozen.
    """

    name: ClassVar[str]
    trained: ClassVar[tuple[str, ...]]
    terms: ClassVar[Mapping[str, float]]
    with_labels: ClassVar[bool] = False

    def __init__(self, config: TrainConfig, data: Path, output: Path) -> None:
        super().__init__()
        self.check(config)
        self.weights = self.weights_of(config)
        self.config = config
        self.model = self.build(config)
        self.loaded: set[str] = set()
        self.digests: dict[str, str] = {}  # of the checkpoints that the run starts from or keeps frozen
        for name in config.init:
            checkpoint = read_checkpoint(output / name)
            load_weights(self.model, checkpoint, output / name)
            self.loaded |= with_layout(set(checkpoint.stages), checkpoint.config)
            self.digests[name] = checkpoint.sha256
        self.check_loaded(config, self.loaded)
        self.features = self._features(data)

    @classmethod
    def weights_of(cls, config: TrainConfig) -> dict[str, float]:
        """Return the weights λ of the loss terms."""
        return {**cls.terms, **config.loss}

    @classmethod
    def with_features(cls, config: TrainConfig) -> bool:
        """Return whether a loss term with a weight looks at the features of a VGG network."""
        weights = cls.weights_of(config)
        return bool(weights.get("perceptual") or weights.get("style"))

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse a config that this stage cannot be trained by.

        Raises:
            UsageError: names the key.
        """
        unknown = sorted(set(config.loss) - set(cls.terms))
        if unknown:
            raise UsageError(f"loss: unknown term {unknown[0]!r} for {cls.name}; known: {', '.join(cls.terms)}")
        if config.memory_restarts and "memory" not in cls.trained:
            raise UsageError(f"memory_restarts: the stage {cls.name} trains no memory; remove the key")
        outside = [step for step in config.memory_restarts if not 0 <= step < config.steps]
        if outside:
            raise UsageError(f"memory_restarts: step {outside[0]} is none of the run's {config.steps}")
        if cls.with_features(config) and config.perceptual.weights is None:
            raise UsageError("perceptual.weights: the perceptual and style losses need the file of a VGG network")

    @classmethod
    def needed(cls, config: TrainConfig) -> set[str]:
        """Return the networks that must come from a checkpoint in ``init``."""
        return set()

    @classmethod
    def check_loaded(cls, config: TrainConfig, loaded: set[str]) -> None:
        """Refuse to start without a network that is :meth:`needed`.

        Raises:
            UsageError: names what is missing.
        """
        missing = sorted(cls.needed(config) - loaded)
        if missing:
            raise UsageError(
                f"init: {cls.name} needs the trained {' and '.join(missing)}; "
                f"train it first (showface train {missing[0].split('.')[-1]}) and name its checkpoint in 'init'"
            )

    @classmethod
    def files(cls, config: TrainConfig) -> tuple[str, ...]:
        """Return what the stage reads of the data folder beside faces, masks and pre-trained weights."""
        return ()

    def build(self, config: TrainConfig) -> nn.Module:
        """Return the networks, by the names that checkpoints know them under."""
        return MDRNets(config.network)

    def open_feed(self, data: Path, device: torch.device, rank: int, world: int, held_out: bool = False) -> Feed:
        """Open the samples that the stage learns from, or the held-out ones; see :func:`data.dataset.open_feed`."""
        return open_feed(self.config, data, self.with_labels, device, rank, world, held_out)

    def _features(self, data: Path) -> VggFeatures | None:
        if not self.with_features(self.config):
            return None
        settings = self.config.perceptual
        assert settings.weights is not None  # checked
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


def with_layout(networks: set[str], config: NetworkConfig) -> set[str]:
    """Return ``networks``, and the layout network where the coarse one has it."""
    return networks | {"coarse.layout"} if "coarse" in networks and config.coarse.layout is not None else networks
