"""PyTorch as the baseline of a benchmark: the same chain, eager or compiled, and its FLOP count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from showface.runtime.backends.chain import Tensors
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, VARIANTS, Stage
from showface.training.checkpoint import model_from_checkpoint
from showface.training.config import NetworkConfig
from showface.training.networks.stages import example_inputs, run_stage, stage_modules, variant_of

MATMUL_SIDE = 1024
MATMUL_GFLOP = 2 * MATMUL_SIDE**3 / 1e9


@dataclass(frozen=True, slots=True)
class TorchSubject:
    """The stages of a checkpoint on the CPU."""

    name: str
    description: str
    stages: tuple[Stage, ...]
    modules: dict[str, Callable[..., Any]]

    def complete(self, image: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        """Run the chain: image [B, 3, H, W] and mask [B, 1, H, W] to the completed image."""
        tensors = {n: torch.from_numpy(a) for n, a in zip(CHAIN_INPUTS, (image, mask), strict=True)}
        for stage in self.stages:
            tensors.update(run_stage(self.modules[stage.name], stage, tensors))
        return tensors[CHAIN_OUTPUT].numpy()

    @property
    def on_device(self) -> bool:
        """It runs on the CPU."""
        return False

    def stage(self, stage: Stage, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run one stage alone and return its outputs."""
        tensors = {name: torch.from_numpy(inputs[name]) for name in stage.inputs}
        return {name: tensor.numpy() for name, tensor in run_stage(self.modules[stage.name], stage, tensors).items()}


def torch_subjects(path: Path, compiled: bool, threads: int) -> tuple[list[TorchSubject], dict[str, float], str]:
    """Load a checkpoint as baseline: eager, and with ``compiled`` by ``torch.compile`` too.

    Returns:
        The subjects, the GFLOP of each stage and of the ``chain`` for one face (2 per multiply–add), and the digest
        of the weights.

    Raises:
        UsageError: the checkpoint is broken, or not of an assembled model.
    """
    torch.set_num_threads(threads)
    model, checkpoint = model_from_checkpoint(path)
    modules, stages = stage_modules(model), VARIANTS[variant_of(model.config)]
    version = f"PyTorch {torch.__version__}"
    subjects = [TorchSubject("torch-eager", f"{version}, eager, CPU", stages, dict(modules))]
    if compiled:
        inductor = {name: torch.compile(module) for name, module in modules.items()}
        subjects.append(TorchSubject("torch-compile", f"{version}, torch.compile, CPU", stages, inductor))
    return subjects, gflop_of(modules, stages, model.config), checkpoint.weights_sha256


def gflop_of(modules: dict[str, nn.Module], stages: tuple[Stage, ...], config: NetworkConfig) -> dict[str, float]:
    """Count the GFLOP (2 per multiply–add) of each stage and of the ``chain`` for one face."""
    found = {}
    for stage in stages:
        with FlopCounterMode(display=False) as counter:
            run_stage(modules[stage.name], stage, example_inputs(stage, config, 1))
        found[stage.name] = counter.get_total_flops() / 1e9
    return {**found, "chain": sum(found.values())}


def matmul_task() -> Callable[[], Any]:
    """Return a float32 matrix product of ``MATMUL_GFLOP``, the machine's yardstick."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(MATMUL_SIDE, MATMUL_SIDE, generator=generator) for _ in range(2))
    result = torch.empty(MATMUL_SIDE, MATMUL_SIDE)
    return lambda: torch.mm(a, b, out=result)
