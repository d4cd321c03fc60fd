"""PyTorch as one side of a comparison: a checkpoint, stage by stage or as a chain."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from showface.runtime.backends.chain import Tensors
from showface.runtime.stages import CHAIN_INPUTS, VARIANTS, Stage
from showface.training.checkpoint import model_from_checkpoint
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import numpy_reference, reference_outputs, stage_modules, variant_of

from .cases import Case
from .sources import LABELS, MARGIN, Identity, environment_of


@dataclass(frozen=True, slots=True)
class TorchSource:
    """A model in evaluation mode, run eagerly on the CPU."""

    model: MDRNets
    identity: Identity
    runs: bool = True

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """Return every tensor of the chain; ``given`` replaces what the chain computes."""
        image, mask = (torch.from_numpy(case.inputs[name]) for name in CHAIN_INPUTS)
        replaced = {name: torch.from_numpy(value) for name, value in {**case.given, **(given or {})}.items()}
        return numpy_reference(reference_outputs(self.model, image, mask, replaced))

    @torch.no_grad()
    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """Run one stage alone; the parser gives its margin too."""
        arguments = [torch.from_numpy(inputs[name]) for name in stage.inputs]
        result = stage_modules(self.model)[stage.name](*arguments)
        outputs = dict(zip(stage.outputs, result if isinstance(result, tuple) else (result,), strict=True))
        if LABELS in outputs:
            best = self.model.parser(*arguments).topk(2, dim=1).values
            outputs[MARGIN] = best[:, 0] - best[:, 1]
        return numpy_reference(outputs)

    def modules(self) -> dict[str, nn.Module]:
        """Return the module of each stage."""
        return stage_modules(self.model)


def source_of_checkpoint(path: Path, threads: int | None = None) -> TorchSource:
    """Load a checkpoint as a source.

    Raises:
        UsageError: it is broken, or not of an assembled model.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model, checkpoint = model_from_checkpoint(path)
    variant = variant_of(model.config)
    environment = environment_of(f"PyTorch {torch.__version__}, eager, CPU, {torch.get_num_threads()} threads")
    return TorchSource(
        model,
        Identity(
            f"PyTorch {torch.__version__} with {path}",
            variant,
            model.config.image_size,
            checkpoint.sha256,
            {stage.name: "float32" for stage in VARIANTS[variant]},
            {**environment, "system": platform.platform()},
        ),
    )
