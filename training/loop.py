"""The training loop: deterministic by step, resumable, interruptible."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from showface.runtime.errors import ShowfaceError, UsageError

from .augment import augment
from .checkpoint import load_weights, read_checkpoint, save_checkpoint
from .config import OptimizerConfig, PhaseConfig, TrainConfig
from .data import MemoryDataset
from .networks.backbone import load_backbone
from .networks.mdrnets import MDRNets
from .tasks import TASKS, Task

STATE_FILE = "state.pt"
PREPARE_FACES = 64


class Interrupted(ShowfaceError):  # noqa: N818 - not a fault
    """Training was stopped by a signal after its state was saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the rate of ``step``: linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = 0.5 * (1 + math.cos(math.pi * step / steps)) if config.cosine else 1.0
    return config.learning_rate * warm * decay


class Trainer:
    """One run of one training stage; its state is model, average, optimiser and step."""

    def __init__(self, task: Task, config: TrainConfig, data: Path, output: Path, device: torch.device) -> None:
        unknown = sorted(set(config.loss) - set(task.weights))
        if unknown:
            raise UsageError(f"loss: unknown term {unknown[0]!r} for {task.name}; known: {', '.join(task.weights)}")
        self.task, self.config, self.output, self.device = task, config, output, device
        self.weights: Mapping[str, float] = {**task.weights, **config.loss}
        output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = MDRNets(config.network)
        for name in config.init:
            load_weights(self.model, read_checkpoint(output / name), output / name)
        if config.backbone is not None:
            load_backbone(self.model.parser.context, data / config.backbone)
        self.model.to(device, memory_format=torch.channels_last)
        self.model.requires_grad_(False).eval()
        self.modules = {n: m for n in task.modules if (m := getattr(self.model, n)) is not None}
        for module in self.modules.values():
            module.requires_grad_(True).train()
            if config.compile:
                module.compile()
        self.parameters = [p for m in self.modules.values() for p in m.parameters()]
        betas = (config.optimizer.betas[0], config.optimizer.betas[1])
        self.optimizer = torch.optim.Adam(self.parameters, config.optimizer.learning_rate, betas)
        self.average = {k: v.detach().clone() for k, v in self._trained().items()}
        self.step = 0
        self.dataset = MemoryDataset(config, data, task.with_labels)

    def prepare(self) -> None:
        """Do what the task wants done once, on faces of their own, before the first step."""
        if self.task.prepare is None:
            return
        batch = self.dataset.batch(0, PREPARE_FACES)
        phase = PhaseConfig(steps=0, resize=self.config.network.image_size)
        self.task.prepare(self.model, augment(batch, self.config.augment, phase, (self.config.seed, 0), self.device))
        self.average = {k: v.detach().clone() for k, v in self._trained().items()}

    def _trained(self) -> dict[str, Tensor]:
        """Return weights and buffers of the networks that learn, by their key in the model."""
        return {k: v for k, v in self.model.state_dict().items() if k.split(".")[0] in self.modules}

    def train_step(self) -> dict[str, float]:
        """Take one step and return its loss terms."""
        phase = self.config.phase_at(self.step)
        batch = self.dataset.batch(self.step, phase.batch_size)
        sample = augment(batch, self.config.augment, phase, (self.config.seed, self.step), self.device)
        rate = learning_rate(self.config.optimizer, self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            terms = self.task.loss(self.model, sample, self.weights)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise ShowfaceError(
                f"step {self.step}: the loss is {total.item()} for {', '.join(batch.names)}; "
                f"the last good state is {self.output / STATE_FILE}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: term.item() for name, term in terms.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights; the short early average keeps the random start out of it."""
        decay = min(self.config.optimizer.ema_decay, self.step / (self.step + 10))
        for key, value in self._trained().items():
            if value.dtype.is_floating_point:
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def save(self) -> None:
        """Write the state to resume from and the checkpoint of the averaged weights."""
        state = {
            "step": self.step,
            "model": self._trained(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        temporary = self.output / (STATE_FILE + ".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.output / STATE_FILE)
        current = {k: v.clone() for k, v in self._trained().items()}
        self.model.load_state_dict(self.average, strict=False)
        figures: dict[str, Any] = {self.task.name: {"steps": self.step, "config": asdict(self.config)}}
        stages = [n for n, _ in self.model.named_children()] if self.task.name == "mdrnet" else list(self.modules)
        save_checkpoint(self.output / f"{self.task.name}.safetensors", self.model, stages, figures)
        self.model.load_state_dict(current, strict=False)

    def resume(self) -> None:
        """Continue from the saved state.

        Raises:
            UsageError: there is none.
        """
        path = self.output / STATE_FILE
        if not path.is_file():
            raise UsageError(f"{path}: nothing to resume from; leave --resume out to start anew")
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"], strict=False)
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def run(self, console: Console) -> None:
        """Train to the last step.

        Raises:
            Interrupted: on SIGTERM or SIGINT, after the state was saved.
        """
        started, done = time.monotonic(), 0
        sums: dict[str, float] = {}
        with _caught_signals() as caught:
            while self.step < self.config.steps:
                for name, value in self.train_step().items():
                    sums[name] = sums.get(name, 0.0) + value / self.config.log_every
                done += self.config.phase_at(self.step - 1).batch_size
                if self.step % self.config.log_every == 0:
                    rate = done / (time.monotonic() - started)
                    terms = "  ".join(f"{name} {value:.4f}" for name, value in sums.items())
                    console.print(f"step {self.step}/{self.config.steps}  {terms}  {rate:.1f} images/s")
                    started, done, sums = time.monotonic(), 0, {}
                if caught or self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                    self.save()
                if caught:
                    raise Interrupted(caught[0], f"stopped at step {self.step}; continue with --resume")


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying from them."""
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    previous = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(stage: str, config: TrainConfig, data: Path, output: Path, resume: bool, device: torch.device) -> None:
    """Run the training stage ``stage`` and leave ``<stage>.safetensors`` in ``output``."""
    if (output / STATE_FILE).exists() and not resume:
        raise UsageError(f"{output}: holds a run already; continue it with --resume or choose another --output")
    trainer = Trainer(TASKS[stage], config, data, output, device)
    if resume:
        trainer.resume()
    else:
        trainer.prepare()
    trainer.run(Console())
