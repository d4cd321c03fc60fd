"""PyTorch as one side of a comparison: a checkpoint, stage by stage or as a chain."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from showface.runtime.backends.chain import Tensors
from showface.runtime.stages import CHAIN_INPUTS, LABELS, OCCLUDER, SEMANTIC_MARGIN, Stage, graphs_of
from showface.training.checkpoint import model_from_checkpoint
from showface.training.networks.folding import round_folded
from showface.training.networks.mdrnets import MDRNets
from showface.training.networks.stages import (
    OccluderStage,
    numpy_reference,
    parser_margin,
    reference_outputs,
    run_stage,
    stage_modules,
    variant_of,
)

from .cases import Case
from .sources import Identity, environment_of


@dataclass(frozen=True, slots=True)
class TorchSource:
    """A model in evaluation mode, run eagerly on the CPU, and the occluder beside it where there is one."""

    runs = True
    model: MDRNets
    identity: Identity
    occluder: OccluderStage | None = None

    def chain(self, case: Case, given: Tensors | None = None) -> Tensors:
        """Return every tensor of the chain; ``given`` replaces what the chain computes."""
        image, mask = (torch.from_numpy(case.inputs[name]) for name in CHAIN_INPUTS)
        replaced = {name: torch.from_numpy(value) for name, value in {**case.given, **(given or {})}.items()}
        tensors = reference_outputs(self.model, image, mask, replaced)
        if self.occluder is not None:
            tensors.update(run_stage(self.occluder, OCCLUDER, tensors))
        return numpy_reference(tensors)

    def stage(self, stage: Stage, inputs: Tensors) -> Tensors:
        """Run one stage alone; the parser gives its margin too."""
        tensors = {name: torch.from_numpy(inputs[name]) for name in stage.inputs}
        outputs = run_stage(self.modules()[stage.name], stage, tensors)
        if LABELS in outputs:
            outputs[SEMANTIC_MARGIN] = parser_margin(self.model, *tensors.values())
        return numpy_reference(outputs)

    def modules(self) -> dict[str, nn.Module]:
        """Return the module of each stage."""
        modules = stage_modules(self.model)
        return modules if self.occluder is None else {**modules, OCCLUDER.name: self.occluder}


def source_of_checkpoint(path: Path, threads: int | None = None) -> TorchSource:
    """Load a checkpoint as a source.

    Raises:
        UsageError: it is broken, or not of an assembled model.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model, checkpoint = model_from_checkpoint(path)
    if checkpoint.half:
        round_folded(model)  # as a bundle has it
    return source_of_model(model, f"PyTorch {torch.__version__} with {path}", checkpoint.weights_sha256)


def source_of_model(
    model: MDRNets, description: str, weights: str, occluder: OccluderStage | None = None
) -> TorchSource:
    """Make a source of a model, and the occluder beside it, in evaluation mode; ``weights`` is its digest."""
    variant = variant_of(model.config)
    environment = environment_of(f"PyTorch {torch.__version__}, eager, CPU, {torch.get_num_threads()} threads")
    names = () if occluder is None else (OCCLUDER.name,)
    precision = {stage.name: "float32" for stage in graphs_of(variant, names)}
    system = {**environment, "system": platform.platform()}
    identity = Identity(description, variant, model.config.image_size, weights, precision, system)
    return TorchSource(model, identity, occluder)
