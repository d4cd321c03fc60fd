"""Loss terms that wait on the device until they are read, so that a step need not wait for its own figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor

from showface.runtime.errors import ShowfaceError

from ..run_files import STATE_FILE


class LossLog:
    """The loss terms of the steps since they were last read, as means over the processes of ``fabric``."""

    def __init__(self, output: Path, fabric: Fabric) -> None:
        self.output, self.fabric = output, fabric
        self.waiting: list[tuple[int, dict[str, Tensor], tuple[str, ...]]] = []

    def note(self, step: int, terms: Mapping[str, Tensor], names: tuple[str, ...]) -> None:
        """Keep the terms of ``step``, scalars on the device, and the names of its faces."""
        self.waiting.append((step, {name: value.detach().float() for name, value in terms.items()}, names))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Return each step's means over all processes; to be called before anything is saved.

        Raises:
            ShowfaceError: a term is not finite; names the first step at which it is not, and its faces.
        """
        if not self.waiting:
            return []
        steps, self.waiting = self.waiting, []
        stacked = torch.stack([value for _, terms, _ in steps for value in terms.values()])
        if self.fabric.world_size > 1:
            stacked = self.fabric.all_reduce(stacked)  # type: ignore[assignment]
        values = iter(stacked.tolist())
        found = []
        for step, terms, names in steps:
            means = {name: next(values) for name in terms}
            bad = [name for name, value in means.items() if not math.isfinite(value)]
            if bad:
                self._refuse(step, bad[0], means[bad[0]], names)
            found.append((step, means))
        return found

    def _refuse(self, step: int, term: str, value: float, names: tuple[str, ...]) -> None:
        every: list[Any] = [names]
        if self.fabric.world_size > 1:
            every = [None] * self.fabric.world_size
            dist.all_gather_object(every, names)
        files = ", ".join(name for part in every for name in part)
        path = self.output / STATE_FILE
        good = f"the last good state is {path}" if path.is_file() else "no state was saved before it"
        raise ShowfaceError(f"step {step}: the loss term {term!r} is {value} for {files}; {good}")
