"""The adversarial side of training: discriminator, its optimiser, and both halves of eq. 13."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from .config import AdversarialConfig
from .losses import discriminator_loss, generator_loss
from .networks.discriminator import PatchDiscriminator


class Adversary:
    """A PatchGAN discriminator that learns beside the generator."""

    def __init__(self, config: AdversarialConfig, betas: tuple[float, float], fabric: Fabric) -> None:
        self.kind, self.learning_rate = config.loss, config.learning_rate
        network = PatchDiscriminator(config.width)
        optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, betas)
        self.fabric = fabric
        self.discriminator, self.optimizer = fabric.setup(network, optimizer)

    def term(self, completed: Tensor) -> Tensor:
        """Return the generator's half; the discriminator gets no gradient from it."""
        self.discriminator.requires_grad_(False)
        loss = generator_loss(self.discriminator(completed), self.kind)
        self.discriminator.requires_grad_(True)
        return loss

    def step(self, completed: Tensor, target: Tensor, rate_scale: float) -> Tensor:
        """Take one step of the discriminator and return its loss.

        Args:
            completed: [B, 3, H, W], the generator's faces.
            target: [B, 3, H, W], photographs.
            rate_scale: what the schedule multiplies the learning rate by.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate_scale
        logits = self.discriminator(torch.cat([target, completed.detach()]))
        real, fake = logits.chunk(2)
        loss = discriminator_loss(real, fake, self.kind)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Return what :meth:`load` restores."""
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
