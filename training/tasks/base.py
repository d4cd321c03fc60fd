"""What all stages of training share: which networks learn, what they start from, and the loss terms of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from showface.runtime.errors import UsageError

from .. import losses
from ..checkpoint import belongs, load_weights, network_digest, read_checkpoint
from ..config import NetworkConfig, TrainConfig
from ..data.augment import Sample
from ..data.dataset import Feed, open_feed
from ..loss_networks.vgg import VggFeatures, vgg_from_file
from ..networks.mdrnets import MDRNets


class Outcome(NamedTuple):
    """What a stage makes of a batch."""

    terms: dict[str, Tensor]  # unweighted losses
    result: Tensor  # [B, 3, H, W]
    target: Tensor  # [B, 3, H, W]
    mask: Tensor | None = None  # [B, 1, H, W], of the result, for a discriminator
    found: list[Tensor] | None = None  # features of the result, block by block
    wanted: list[Tensor] | None = None  # of the target
    photograph: Tensor | None = None  # [B] bool


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
            self.digests[name] = checkpoint.weights_sha256
        self.check_loaded(config, self.loaded)
        self.network_digests = {name: network_digest(self.model, name) for name in self.loaded}
        self.features = self._features(data)

    @classmethod
    def weights_of(cls, config: TrainConfig) -> dict[str, float]:
        """Return the weights λ of the loss terms."""
        return {**cls.terms, **config.loss}

    @classmethod
    def with_features(cls, config: TrainConfig) -> bool:
        """Return whether a loss term with a weight, or the validation, looks at the features of a VGG network."""
        weights = cls.weights_of(config)
        heads = weights.get("adversarial") and config.adversarial.network == "vgg-heads"
        frechet = config.validation is not None and config.validation.measure == "frechet"
        return bool(weights.get("perceptual") or weights.get("style") or heads or frechet)

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuse a config that this stage cannot be trained by.

        Raises:
            UsageError: names the key.
        """
        unknown = sorted(set(config.loss) - set(cls.terms))
        if unknown:
            raise UsageError(f"loss: unknown term {unknown[0]!r} for {cls.name}; known: {', '.join(cls.terms)}")
        if cls.with_features(config) and config.perceptual.weights is None:
            raise UsageError(
                "perceptual.weights: the perceptual and style losses, the heads and the Fréchet distance need the file "
                "of a VGG network"
            )
        if config.validation is not None and config.validation.measure == "frechet" and "perceptual" not in cls.terms:
            raise UsageError(f'validation.measure = "frechet": {cls.name} completes no faces; use "loss"')

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

    def thaw(self) -> list[nn.Module]:
        """Freeze everything but the networks that learn, and return these."""
        self.requires_grad_(False).eval()
        named = dict(self.model.named_modules())  # an ablation leaves networks out
        networks = [named[name] for name in self.learning if name in named]
        for network in networks:
            network.requires_grad_(True).train()
        return networks

    def learn(self) -> list[nn.Parameter]:
        """Freeze everything but the trained networks and return their parameters."""
        networks = self.thaw()
        if self.config.compile:
            for network in networks:
                network.compile()
        return [p for network in networks for p in network.parameters()]

    def state(self) -> dict[str, Tensor]:
        """Return weights and buffers of the trained networks, by their key in the model."""
        return {k: v for k, v in self.model.state_dict().items() if belongs(k, self.trained)}

    @property
    def fills_memory_at(self) -> int | None:
        """The step before which the memory is filled from faces; None for a stage without one, or with a full one."""
        return None

    def memory_codes(self, sample: Sample) -> Tensor:
        """Return the codes of faces that the memory is filled with, [B, n, c]."""
        raise NotImplementedError

    def fill_memory(self, codes: Tensor, generator: torch.Generator) -> None:
        """Fill the memory with what :meth:`memory_codes` returned for the faces of all processes."""
        raise NotImplementedError

    def at_step(self, step: int) -> None:
        """Get ready for ``step`` (from 0), the first one of a resumed run included."""

    @property
    def learning(self) -> tuple[str, ...]:
        """The networks that learn."""
        return self.trained

    @property
    def health_checks(self) -> tuple[int, ...]:
        """The steps after which :meth:`check_health` is to be called."""
        return ()

    def check_health(self, samples: Iterable[Sample]) -> str:
        """Return how alive the networks are on some faces, in lines.

        Raises:
            ShowfaceError: names what cannot learn.
        """
        raise NotImplementedError

    @property
    def last_layer(self) -> Tensor:
        """The weight that adaptive loss weights are measured at."""
        raise NotImplementedError

    def forward(self, sample: Sample) -> Outcome:
        """Return loss terms, result and target."""
        raise NotImplementedError

    @property
    def blocks(self) -> int:
        """How many blocks of the feature network are computed."""
        heads = self.config.adversarial.network == "vgg-heads" and self.weights.get("adversarial")
        return max((*self.config.perceptual.blocks, *(self.config.adversarial.blocks if heads else ())))

    def compared(self, completed: Tensor, target: Tensor, mask: Tensor) -> Outcome:
        """Return the weighted ones among eqs 10, 11, 12 and 14 and the squared error, and the features behind them.

        Args:
            completed: [B, 3, H, W] in [-1, 1].
            target: [B, 3, H, W] in [-1, 1].
            mask: [B, 1, H, W] in [0, 1], 1 in the hole.
        """
        each = losses.hole_weights(mask) if self.config.per_hole else None
        terms = {
            "reconstruction": losses.reconstruction_loss(completed, target, each),
            "squared_error": losses.squared_error_loss(completed, target, each),
        }
        found = wanted = None
        if self.features is not None:
            with torch.no_grad():
                wanted = self.features.blocks(target, self.blocks)
            found = self.features.blocks(completed, self.blocks)
            terms |= self._feature_terms(found, wanted, each)
        if self.weights.get("total_variation"):
            terms["total_variation"] = losses.total_variation_loss(completed)
        weighted = {name: value for name, value in terms.items() if self.weights.get(name)}
        return Outcome(weighted, completed, target, mask, found, wanted)

    def _feature_terms(self, found: list[Tensor], wanted: list[Tensor], each: Tensor | None) -> dict[str, Tensor]:
        settings = self.config.perceptual
        ours, theirs = ([layers[block - 1] for block in settings.blocks] for layers in (found, wanted))
        terms: dict[str, Tensor] = {}
        if self.weights.get("perceptual"):
            if settings.relative:
                terms["perceptual"] = losses.relative_perceptual_loss(ours, theirs, each)
            else:
                terms["perceptual"] = losses.perceptual_loss(ours, theirs)
        if self.weights.get("style"):
            terms["style"] = losses.style_loss(ours, theirs)
        return terms


def with_layout(networks: set[str], config: NetworkConfig) -> set[str]:
    """Return ``networks``, and the layout network where the coarse one has it."""
    return networks | {"coarse.layout"} if "coarse" in networks and config.coarse.layout is not None else networks
