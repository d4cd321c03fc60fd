"""The model as the stage table cuts it: the module of each stage, and every tensor of the chain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from showface.runtime.stages import COARSE_IMAGE, SEMANTIC_MARGIN, TENSORS, VARIANTS, Stage

from ..config import NetworkConfig
from ..occluder.network import Occluder
from .mdrnets import MDRNets


class ParserStage(nn.Module):
    """The parser up to its labels; training needs its logits, the chain does not."""

    def __init__(self, parser: nn.Module) -> None:
        super().__init__()
        self.parser = parser

    def forward(self, coarse_image: Tensor) -> Tensor:
        """Return ``semantic_map`` [B, H, W] int32."""
        return torch.argmax(self.parser(coarse_image), dim=1).to(torch.int32)


class OccluderStage(nn.Module):
    """The occluder at the resolution that it works at, up to its probabilities; training needs its logits."""

    def __init__(self, occluder: Occluder) -> None:
        super().__init__()
        self.occluder = occluder

    def forward(self, image: Tensor) -> Tensor:
        """Return ``occlusion`` [B, 1, H, W] in [0, 1] of ``image`` [B, 3, H, W] in [-1, 1]."""
        side, full = self.occluder.side, image.shape[-1]
        if side == full:
            return torch.sigmoid(self.occluder(image))
        small = F.interpolate(image, scale_factor=_factor(full, side), mode="bilinear", align_corners=False)
        logits = self.occluder(small)
        logits = F.interpolate(logits, scale_factor=_factor(side, full), mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)


def _factor(old: int, new: int) -> float:
    """Return the factor that resizes ``old`` pixels to ``new``; a little more, because the product is rounded down."""
    return new / old * (1 + 1e-7)


def variant_of(config: NetworkConfig) -> str:
    """Return the variant of the stage table that a network config builds."""
    if config.memory.kind == "none":
        return "no-memory"
    if not config.mrem.mining:
        return "no-mrem"
    return "non-disentangled" if config.memory.kind == "shared" else "full"


def stage_modules(model: MDRNets) -> dict[str, nn.Module]:
    """Return the module of each stage; its arguments follow the stage table."""
    modules: dict[str, nn.Module] = {"coarse": model.coarse, "parser": ParserStage(model.parser)}
    modules["memory"] = model.memory.encoder if model.memory.bank is None else model.memory
    if model.mrem is not None:
        modules["mrem"] = model.mrem
    modules["refiner"] = model.refiner
    return modules


@torch.no_grad()
def reference_outputs(
    model: MDRNets, image: Tensor, mask: Tensor, given: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return every tensor of the chain as PyTorch computes it, and the parser's margin.

    Args:
        model: in evaluation mode.
        image: [B, 3, H, W] in [-1, 1].
        mask: [B, 1, H, W], 1 in the hole.
        given: tensors that replace the chain's own as soon as these are computed.
    """
    tensors: dict[str, Tensor] = {"image": image, "mask": mask}
    modules = stage_modules(model)
    for stage in VARIANTS[variant_of(model.config)]:
        outputs = run_stage(modules[stage.name], stage, tensors)
        tensors.update({name: (given or {}).get(name, value) for name, value in outputs.items()})
    tensors[SEMANTIC_MARGIN] = parser_margin(model, tensors[COARSE_IMAGE])
    return tensors


@torch.no_grad()
def run_stage(module: Callable[..., Any], stage: Stage, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs of one stage by name; ``tensors`` hold its inputs, and may hold more."""
    result = module(*(tensors[name] for name in stage.inputs))
    return dict(zip(stage.outputs, result if isinstance(result, tuple) else (result,), strict=True))


@torch.no_grad()
def parser_margin(model: MDRNets, coarse_image: Tensor) -> Tensor:
    """Return the parser's lead of the best label over the second best, [B, H, W]."""
    best = model.parser(coarse_image).topk(2, dim=1).values
    lead: Tensor = best[:, 0] - best[:, 1]
    return lead


def example_inputs(stage: Stage, config: NetworkConfig, batch: int) -> dict[str, Tensor]:
    """Return zeros of the shapes and types that a stage takes."""
    dtypes = {"float32": torch.float32, "int32": torch.int32}
    shape = {name: TENSORS[name].resolve(batch, config.image_size, config.memory.channels) for name in stage.inputs}
    return {name: torch.zeros(shape[name], dtype=dtypes[TENSORS[name].dtype]) for name in stage.inputs}


def numpy_reference(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Convert the tensors of :func:`reference_outputs` for a comparison."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
