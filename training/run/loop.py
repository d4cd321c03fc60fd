"""The training loop: deterministic by step, resumable, interruptible, on one process or several."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.terminal import Terminal

from ..checkpoint import save_checkpoint
from ..config import OptimizerConfig, PhaseConfig, TrainConfig
from ..data.augment import Sample, augment
from ..data.dataset import Batch, Feed
from ..data.sample_cache import CacheFeed, open_samples
from ..losses import total_loss
from ..process import Interrupted, caught_signals, make_adam
from ..run_files import STATE_FILE, check_origin, load_state, save_state
from ..tasks.base import Outcome
from ..tasks.make_samples import make_samples
from ..tasks.table import TASKS
from .adversary import Adversary
from .loss_log import LossLog
from .reporter import Reporter
from .validation import Validation

PREPARE_BATCH = 16  # faces, on all processes together
HEALTH_FACES = 64


def rate_scale(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return the share of the learning rate at ``step``: linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    first = config.cosine_from * steps
    share = max(0.0, step - first) / max(steps - first, 1)
    decay = 0.5 * (1 + math.cos(math.pi * share)) if config.cosine else 1.0
    return warm * decay


class Trainer:
    """One run of one training stage; its state is networks, average, optimisers and step."""

    def __init__(self, stage: str, config: TrainConfig, data: Path, output: Path, fabric: Fabric) -> None:
        if stage not in TASKS:
            raise UsageError(f"{stage!r} is no training stage; choose one of {', '.join(TASKS)}")
        self.config, self.output, self.fabric = config, output, fabric
        output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.task = TASKS[stage](config, data, output)
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            self.task = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.task)
        self.parameters = self.task.learn()
        self.task.to(fabric.device, memory_format=torch.channels_last)
        betas = (config.optimizer.betas[0], config.optimizer.betas[1])
        self.module, self.optimizer = fabric.setup(
            self.task, make_adam(self.parameters, config.optimizer.learning_rate, betas, fabric)
        )
        self.adversary = None
        if self.task.weights.get("adversarial"):
            self.adversary = Adversary(config.adversarial, betas, fabric)
        self.live = self.task.state()  # the tensors themselves, which every change is made in
        self.average = {k: v.detach().clone() for k, v in self.live.items()}
        self.step, self.best = 0, math.inf
        place = (fabric.device, fabric.global_rank, fabric.world_size)
        self.feed: Feed | CacheFeed
        if config.samples is None:
            self.feed = self.task.open_feed(data, *place)
        else:
            self.feed = open_samples(config, output / config.samples, self.task.network_digests, *place)
        self.validation = None
        if config.validation is not None:
            faces = self.task.open_feed(data, *place, held_out=True)
            self.validation = Validation(config, self.task, self.module, faces, fabric)

    def sample(self, batch: Batch, step: int, phase: PhaseConfig) -> Sample:
        """Return what the networks see of ``batch``."""
        return augment(batch, self.config.augment, phase, (self.config.seed, step), self.fabric.device)

    def _first_samples(self, faces: int) -> Iterator[Sample]:
        """Yield at least so many whole faces, batch by batch: the same ones on any number of processes."""
        phase = PhaseConfig(steps=1, batch_size=PREPARE_BATCH, resize=self.config.network.image_size)
        for k in range(-(-faces // PREPARE_BATCH)):
            yield self.sample(self.feed.batch(k, PREPARE_BATCH), k, phase)

    @torch.no_grad()
    def begin_step(self) -> None:
        """Get the networks ready for the next step; a run that was stopped right before it does so again."""
        self.task.at_step(self.step)
        if self.step == self.task.fills_memory_at:
            self._fill_memory()

    def _check_health(self, console: Terminal) -> None:
        """Print how alive the averaged networks are, and stop a run that cannot learn.

        Raises:
            ShowfaceError: names what is wrong.
        """
        with self.averaged():
            text = self.task.check_health(self._first_samples(HEALTH_FACES))
        if self.fabric.is_global_zero:
            console.print_lines(f"step {self.step}, health:\n{text}")

    @torch.no_grad()
    def _fill_memory(self) -> None:
        """Fill the memory from faces, by the averaged style encoder, which stays as it is from here on."""
        if self.step:
            with self.averaged():
                encoder = {k: v.clone() for k, v in self.task.state().items() if k.startswith("memory.encoder.")}
            self.task.model.load_state_dict(encoder, strict=False)
        parts = []
        for sample in self._first_samples(self.config.memory_faces):
            part = self.task.memory_codes(sample)
            parts.append(self.fabric.all_gather(part).reshape(-1, *part.shape[1:]))
        before = {k: v.clone() for k, v in self.task.state().items()}
        self.task.fill_memory(torch.cat(parts), torch.Generator().manual_seed(self.config.seed))
        for key, value in self.task.state().items():
            if not torch.equal(value, before[key]):
                self.average[key] = value.detach().clone()

    def train_step(self, batch: Batch) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Take one step; return the loss terms, still on the device, and image, mask, result and target to look at."""
        sample = self.sample(batch, self.step, self.config.phase_at(self.step))
        scale = rate_scale(self.config.optimizer, self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.learning_rate * scale
        outcome = self.module(sample)
        terms, gradients = self._weighted_terms(outcome)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms["total"])
        if self.config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
        self.optimizer.step()
        if self.adversary is not None:
            terms["discriminator"] = self.adversary.step(outcome, scale)
        self.step += 1
        self._update_average()
        return terms | gradients, (sample.image, sample.mask, outcome.result, outcome.target)

    def _weighted_terms(self, outcome: Outcome) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all loss terms with their total, and the gradients that were measured on the way."""
        terms, weights, gradients = dict(outcome.terms), dict(self.task.weights), {}
        if self.adversary is not None:
            found = self.adversary.terms(outcome)
            terms |= {name: value for name, value in found.items() if weights.get(name)}
            if self.adversary.adapts_at(self.step):
                others = total_loss(outcome.terms, weights)
                self.adversary.adapt(*(float(self._gradient(term)) for term in (others, terms["adversarial"])))
            weights["adversarial"] = self.adversary.weight(self.step, weights["adversarial"])
        every = self.config.gradients_every
        if every and self.step % every == 0:
            norms = {name: weights[name] * self._gradient(term) for name, term in terms.items()}
            base = norms.get("reconstruction", torch.zeros(())).clamp_min(1e-12)
            gradients = {f"gradient/{name}": norm / base for name, norm in norms.items() if name != "reconstruction"}
        terms["total"] = total_loss(terms, weights)
        return terms, gradients

    def _gradient(self, term: Tensor) -> Tensor:
        """Return the norm of the gradient of ``term`` at the task's last layer."""
        (gradient,) = torch.autograd.grad(term, self.task.last_layer, retain_graph=True)
        return gradient.float().norm()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights; the short early average keeps the random start out of it."""
        decay = min(self.config.optimizer.ema_decay, self.step / (self.step + 10))
        moved = [key for key, value in self.live.items() if value.is_floating_point()]
        get_ema_multi_avg_fn(decay)([self.average[k] for k in moved], [self.live[k] for k in moved], self.step)
        for key in self.live.keys() - moved:  # counters
            self.average[key].copy_(self.live[key])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the networks their averaged weights for a while, in evaluation mode."""
        current = {k: v.clone() for k, v in self.task.state().items()}
        self.task.model.load_state_dict(self.average, strict=False)
        modes = {name: module.training for name, module in self.task.named_modules()}
        self.task.eval()
        try:
            yield
        finally:
            self.task.model.load_state_dict(current, strict=False)
            for name, module in self.task.named_modules():
                module.training = modes[name]

    def validate(self) -> dict[str, float]:
        """Return what the held-out faces say of the averaged weights."""
        assert self.validation is not None
        with self.averaged():
            return self.validation.measure()

    def save(self) -> None:
        """Write the state to resume from and the checkpoint of the averaged weights."""
        if not self.fabric.is_global_zero:
            return
        state = {"step": self.step, "best": self.best, "model": self.task.state(), "average": self.average}
        state["init"] = self.task.digests
        state["optimizer"] = self.optimizer.state_dict()
        if self.adversary is not None:
            state["adversary"] = self.adversary.state()
        save_state(self.output, self.config, state)
        self.save_checkpoint(self.task.name)

    def save_checkpoint(self, name: str) -> None:
        """Write the averaged weights to ``<name>.safetensors``."""
        if not self.fabric.is_global_zero:
            return
        whole = self.task.name == "mdrnet"
        stages = [n for n, _ in self.task.model.named_children()] if whole else list(self.task.trained)
        figures: dict[str, Any] = {self.task.name: {"steps": self.step, "config": asdict(self.config)}}
        with self.averaged():
            save_checkpoint(self.output / f"{name}.safetensors", self.task.model, self.config.network, stages, figures)

    def resume(self) -> None:
        """Continue from the saved state.

        Raises:
            UsageError: there is none, or it belongs to another config or to other checkpoints in ``init``.
        """
        state = load_state(self.output, self.config)
        check_origin(self.output, state, self.task.digests)
        self.task.model.load_state_dict(state["model"], strict=False)
        self.average = {k: v.to(self.fabric.device) for k, v in state["average"].items()}
        self.step, self.best = state["step"], state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary is not None:
            self.adversary.load(state["adversary"])

    def run(self, console: Terminal) -> None:
        """Train to the last step.

        Raises:
            Interrupted: on SIGTERM or SIGINT, after the state was saved.
            ShowfaceError: a loss is not finite; nothing was saved since.
        """
        config, active = self.config, self.fabric.is_global_zero
        if self.step == config.steps:
            self.save()  # stopped between the last state and its checkpoint
        losses = LossLog(self.output, self.fabric)
        reporter = Reporter(self.output if active else None, self.task.name, self.step, config, console)
        with reporter, caught_signals() as caught:
            for batch in self.feed.batches(self.step):
                self.begin_step()
                terms, faces = self.train_step(batch)
                losses.note(self.step - 1, terms, batch.names)
                if self.step in self.task.health_checks:
                    self._check_health(console)
                stop, last = self._agreed(caught), self.step == config.steps
                if stop or self._reads_losses():
                    for step, means in losses.read():
                        reporter.step(step + 1, means, config.phase_at(step).batch_size)
                if self.step % config.grid_every == 0 or last:
                    reporter.grid(self.step, *faces)
                if self._validates():
                    self._keep_best(reporter)
                if stop or last or self.step % config.checkpoint_every == 0:
                    self.save()
                if config.keep_every is not None and self.step % config.keep_every == 0:
                    self.save_checkpoint(f"{self.task.name}-step{self.step:07d}")
                if stop:
                    raise Interrupted(stop, f"stopped at step {self.step}, which was saved; pass resume=True to go on")

    def _validates(self) -> bool:
        """Return whether the held-out faces are looked at after this step."""
        validation = self.config.validation
        return validation is not None and (self.step % validation.every == 0 or self.step == self.config.steps)

    def _reads_losses(self) -> bool:
        """Return whether the losses are read after this step: to be shown, or before anything is saved."""
        config = self.config
        every = (config.log_every, config.checkpoint_every, config.keep_every or config.steps)
        return self.step == config.steps or self._validates() or any(self.step % count == 0 for count in every)

    def _keep_best(self, reporter: Reporter) -> None:
        """Validate, and keep the checkpoint when it is the best so far."""
        assert self.validation is not None
        terms = self.validate()
        found = terms[self.validation.judged_by]
        better = found < self.best
        reporter.validation(self.step, terms, better)
        if better:
            self.best = found
            self.save_checkpoint(f"{self.task.name}-best")

    def _agreed(self, caught: list[int]) -> int:
        """Return the signal that any process caught, or 0."""
        if self.fabric.world_size == 1:
            return caught[0] if caught else 0
        number = torch.tensor(caught[0] if caught else 0, device=self.fabric.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)


def train(stage: str, config: TrainConfig, data: Path, output: Path, resume: bool, fabric: Fabric) -> None:
    """Run the training stage ``stage`` and leave ``<stage>.safetensors`` in ``output``.

    Raises:
        UsageError: config or data are not usable, or ``output`` holds a run and ``resume`` is not set.
    """
    if stage == "samples":
        make_samples(config, data, output, resume, fabric)
        return
    if (output / STATE_FILE).exists() and not resume:
        raise UsageError(f"{output}: holds a run already; resume it, or choose another folder", "resume")
    trainer = Trainer(stage, config, data, output, fabric)
    if resume:
        trainer.resume()
    trainer.run(Terminal())
    fabric.barrier()  # the checkpoint is whole before any process goes on to read it
