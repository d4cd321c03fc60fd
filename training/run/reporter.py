"""How a run shows itself: a progress bar or plain lines, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from showface.runtime.untrusted.terminal import Terminal

from ..config import TrainConfig

GRID_FACES = 4


class Reporter:
    """Collects the loss terms of each step and shows their means every ``log_every`` steps."""

    def __init__(self, output: Path | None, name: str, start: int, config: TrainConfig, console: Terminal) -> None:
        """Show the run ``name`` from step ``start`` on; silent where ``output`` is None (other processes)."""
        self.config, self.writer = config, None
        self.console = Terminal(quiet=True) if output is None else console
        if output is not None:
            self.writer = SummaryWriter(str(output / "tensorboard"), purge_step=start)
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
        )  # fmt: skip
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.bar = self.progress.add_task(name, total=config.steps, completed=start, figures="")
        self._restart()

    def _restart(self) -> None:
        self.started, self.images, self.count = time.monotonic(), 0, 0
        self.sums: dict[str, float] = {}

    def __enter__(self) -> Reporter:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.writer is not None:
            self.writer.close()

    def step(self, step: int, terms: Mapping[str, float], images: int) -> None:
        """Note the loss terms of the ``step``-th step, which saw ``images`` faces."""
        self.images, self.count = self.images + images, self.count + 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if step % self.config.log_every and step != self.config.steps:
            return
        speed = self.images / (time.monotonic() - self.started)
        means = {name: value / self.count for name, value in self.sums.items()}
        self._scalars(step, {"images_per_second": speed, **{f"loss/{name}": value for name, value in means.items()}})
        figures = "  ".join(f"{name} {value:.4f}" for name, value in means.items()) + f"  {speed:.1f} images/s"
        self.progress.update(self.bar, completed=step, figures=figures)
        if not self.console.is_terminal:
            left = (self.config.steps - step) * self.images / self.count / speed
            self.console.print(f"step {step}/{self.config.steps}  {figures}  {left / 60:.0f} min left")
        self._restart()

    def validation(self, step: int, terms: Mapping[str, float], best: bool) -> None:
        """Show the loss terms on held-out faces."""
        self._scalars(step, {f"validation/{name}": value for name, value in terms.items()})
        figures = "  ".join(f"{name} {value:.4f}" for name, value in terms.items())
        best_so_far = "  (best)" if best else ""
        self.console.print(f"step {step}  held-out faces: {figures}{best_so_far}")
        self._restart()

    def _scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, step)

    def grid(self, step: int, image: Tensor, mask: Tensor, result: Tensor, target: Tensor) -> None:
        """Write a picture of some faces: input, result and target; values in [-1, 1]."""
        if self.writer is None:
            return
        hidden = image * (1 - mask)
        columns = [hidden, result, target] if result.shape == image.shape else [result, target]
        faces = [column[:GRID_FACES].detach().float().cpu() for column in columns]
        lines = [torch.cat(face, dim=2) for face in zip(*faces, strict=True)]
        self.writer.add_image("faces", (torch.cat(lines, dim=1) * 0.5 + 0.5).clamp(0, 1), step)
