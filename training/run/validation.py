"""What the held-out faces say of a run: which of its checkpoints is the best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ..config import AugmentConfig, PhaseConfig, TrainConfig
from ..data.augment import augment
from ..data.dataset import Feed
from ..frechet import frechet_distance, statistics
from ..losses import total_loss
from ..tasks.base import Task

BATCH = 8
FRECHET = "frechet"


@dataclass(frozen=True, slots=True)
class Validation:
    """The held-out faces of a run, and how they are looked at.

    Attributes:
        config: of the run.
        task: holds the networks.
        module: runs ``task`` on the run's devices.
        faces: those held out.
        fabric: devices.
    """

    config: TrainConfig
    task: Task
    module: nn.Module
    faces: Feed
    fabric: Fabric

    @property
    def judged_by(self) -> str:
        """The figure of :meth:`measure` whose least value is the best."""
        assert self.config.validation is not None  # there are no held-out faces without
        return FRECHET if self.config.validation.measure == FRECHET else "total"

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the mean loss terms, and the Fréchet distance if it judges, over all processes."""
        size = self.config.phase_at(self.config.steps - 1).resize
        sums: dict[str, Tensor] = {}
        rows: list[tuple[Tensor, Tensor]] = []
        count = 0
        for batch in self.faces.every_face(BATCH):
            phase = PhaseConfig(steps=1, batch_size=len(batch.names), resize=size)
            sample = augment(batch, AugmentConfig(), phase, (self.config.seed, 0), self.fabric.device)
            outcome = self.module(sample)
            terms = dict(outcome.terms)
            terms["total"] = total_loss(terms, self.task.weights)
            count += len(batch.names)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(batch.names)
            if self.judged_by == FRECHET:
                rows.append((self._row(outcome.result), self._row(outcome.target)))
        names = list(sums)
        means = self.fabric.all_reduce(torch.stack([sums[name].float() for name in names]) / count)
        assert isinstance(means, Tensor)
        found = dict(zip(names, means.tolist(), strict=True))
        return found | ({FRECHET: self._distance(rows)} if rows else {})

    def _row(self, picture: Tensor) -> Tensor:
        """Return the means [B, 512] of VGG's last layer."""
        assert self.task.features is not None  # `Task.with_features` saw to it
        return self.task.features.blocks(picture.float().clamp(-1, 1), 5)[-1].mean(dim=(2, 3))

    def _distance(self, rows: list[tuple[Tensor, Tensor]]) -> float:
        sides = [
            self.fabric.all_gather(torch.cat(side)).reshape(-1, side[0].shape[-1]) for side in zip(*rows, strict=True)
        ]
        return frechet_distance(*(statistics(side.double().cpu().numpy()) for side in sides))
