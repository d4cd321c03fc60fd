"""The adversarial side of training: a discriminator, its optimiser, and both halves of eq. 13."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn

from .. import losses
from ..config import AdversarialConfig
from ..loss_networks.discriminator import PatchDiscriminator
from ..loss_networks.feature_heads import FeatureHeads
from ..loss_networks.vgg import WIDTHS
from ..process import make_adam
from ..tasks.base import Outcome

ADAPT_EVERY = 16  # steps; measuring gradients costs a backward pass
ADAPT_MEMORY = 0.8  # of the moving average of the weight
MOST_WEIGHT = 1e4


class PatchJudge:
    """The paper's PatchGAN, which sees whole faces; nothing of its loss reaches the generator."""

    def __init__(self, config: AdversarialConfig) -> None:
        self.kind, self.network = config.loss, PatchDiscriminator(config.width)

    def generator_terms(self, discriminator: nn.Module, outcome: Outcome) -> dict[str, Tensor]:
        """Return the generator's half of eq. 13."""
        return {"adversarial": losses.generator_loss(discriminator(outcome.result), self.kind)}

    def loss(self, discriminator: nn.Module, outcome: Outcome) -> Tensor:
        """Return the discriminator's half of eq. 13."""
        logits = discriminator(torch.cat([outcome.target, outcome.result.detach()]))
        real, fake = logits.chunk(2)
        return losses.discriminator_loss(real, fake, self.kind)


class HeadsJudge:
    """Heads on the features that the perceptual loss computes anyway."""

    def __init__(self, config: AdversarialConfig) -> None:
        self.kind, self.blocks = config.loss, config.blocks
        self.network = FeatureHeads([WIDTHS[block - 1] for block in config.blocks], config.width)

    def _chosen(self, layers: list[Tensor] | None) -> list[Tensor]:
        assert layers is not None  # the stage computes features where it has heads
        return [layers[block - 1] for block in self.blocks]

    def generator_terms(self, discriminator: nn.Module, outcome: Outcome) -> dict[str, Tensor]:
        """Return the generator's half over patches that touch the hole, and the matching: means over the heads."""
        assert outcome.mask is not None
        fake = discriminator(self._chosen(outcome.found), outcome.mask)
        terms = [losses.patch_generator_loss(logits, _holes(outcome.mask, logits), self.kind) for logits, _ in fake]
        with torch.no_grad():
            real = discriminator(self._chosen(outcome.wanted), outcome.mask)
        pairs = [
            pair for (_, ours), (_, theirs) in zip(fake, real, strict=True) for pair in zip(ours, theirs, strict=True)
        ]
        matching = torch.stack([(ours.float() - theirs.float()).abs().mean() for ours, theirs in pairs]).mean()
        return {"adversarial": torch.stack(terms).mean(), "feature_matching": matching}

    def loss(self, discriminator: nn.Module, outcome: Outcome) -> Tensor:
        """Return the mean over the heads of the discriminator's half.

        Photographs alone are real. Of a completed face the patches that touch no hole are real too.
        """
        assert outcome.mask is not None
        assert outcome.photograph is not None
        real = discriminator([x.detach() for x in self._chosen(outcome.wanted)], outcome.mask)
        fake = discriminator([x.detach() for x in self._chosen(outcome.found)], outcome.mask)
        each = [
            losses.patch_discriminator_loss(ours, theirs, _holes(outcome.mask, theirs), outcome.photograph, self.kind)
            for (ours, _), (theirs, _) in zip(real, fake, strict=True)
        ]
        return torch.stack(each).mean()


def _holes(mask: Tensor, logits: Tensor) -> Tensor:
    """Return which patches [B, 1, h, w] touch the hole."""
    return F.adaptive_max_pool2d(mask, logits.shape[-2:]) > 0


class Adversary:
    """A discriminator that learns beside the generator."""

    def __init__(self, config: AdversarialConfig, betas: tuple[float, float], fabric: Fabric) -> None:
        self.config = config
        self.judge: PatchJudge | HeadsJudge = PatchJudge(config) if config.network == "patch" else HeadsJudge(config)
        learning = [p for p in self.judge.network.parameters() if p.requires_grad]
        first, second = config.betas or betas
        optimizer = make_adam(learning, config.learning_rate, (first, second), fabric)
        self.fabric, self.learning, self.adapted = fabric, learning, 0.0
        self.discriminator, self.optimizer = fabric.setup(self.judge.network, optimizer)

    def terms(self, outcome: Outcome) -> dict[str, Tensor]:
        """Return the generator's terms; the discriminator gets no gradient from them."""
        for parameter in self.learning:
            parameter.requires_grad_(False)
        terms = self.judge.generator_terms(self.discriminator, outcome)
        for parameter in self.learning:
            parameter.requires_grad_(True)
        return terms

    def weight(self, step: int, weight: float) -> float:
        """Return what the generator's term is multiplied by at ``step``: the adapted weight, or ``weight``."""
        since = step - self.config.start
        grown = 0.0 if since < 0 else min(1.0, (since + 1) / self.config.ramp) if self.config.ramp else 1.0
        return grown * (self.adapted if self.config.adaptive else weight)

    def adapts_at(self, step: int) -> bool:
        """Return whether the weight is measured before ``step``."""
        return (
            bool(self.config.adaptive)
            and step >= self.config.start
            and ((step - self.config.start) % ADAPT_EVERY == 0 or self.adapted == 0.0)
        )

    def adapt(self, others: float, adversarial: float) -> None:
        """Move the weight towards that at which the gradients have the wanted ratio.

        Args:
            others: norm of the gradient of all other weighted terms at the last layer.
            adversarial: the same of the unweighted adversarial term.
        """
        now = min(self.config.adaptive * others / max(adversarial, 1e-12), MOST_WEIGHT)
        self.adapted = now if self.adapted == 0.0 else ADAPT_MEMORY * self.adapted + (1 - ADAPT_MEMORY) * now

    def step(self, outcome: Outcome, rate_scale: float) -> Tensor:
        """Take one step of the discriminator and return its loss; ``rate_scale`` multiplies its learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate_scale
        loss = self.judge.loss(self.discriminator, outcome)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load` restores."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adapted": self.adapted,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adapted = state["adapted"]
