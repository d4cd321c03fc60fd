"""What each training stage trains and on which loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import losses
from .augment import Sample
from .networks.mdrnets import MDRNets

Loss = Callable[[MDRNets, Sample, Mapping[str, float]], dict[str, Tensor]]
Prepare = Callable[[MDRNets, Sample], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A training stage: the networks that learn, its loss terms, and what is done once before step 0."""

    name: str
    modules: tuple[str, ...]
    loss: Loss
    weights: Mapping[str, float]
    with_labels: bool = False
    prepare: Prepare | None = None


def parser_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Cross entropy and Dice of the parser on photographs."""
    assert sample.labels is not None
    logits = model.parser(sample.image)
    return {"parsing": losses.parsing_loss(logits, sample.labels, weights["dice"])}


def coarse_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Reconstruction of the hole."""
    coarse_image = model.coarse(sample.image, sample.mask)
    return {"hole": weights["hole"] * losses.hole_l1(coarse_image, sample.image, sample.mask)}


def parse(model: MDRNets, face: Tensor) -> Tensor:
    """Return the categories [B, H, W] of ``face``, which the parser sees at the size that it knows."""
    size = (model.config.image_size, model.config.image_size)
    if face.shape[-2:] == size:
        return model.parser(face).argmax(dim=1)
    logits = model.parser(F.interpolate(face, size, mode="bilinear"))
    return F.interpolate(logits, face.shape[-2:], mode="area").argmax(dim=1)


@torch.no_grad()
def fill_memory(model: MDRNets, sample: Sample) -> None:
    """Start the memory's slots from the known codes of ``sample``."""
    if model.memory.bank is None:
        return
    coarse_image = model.coarse(sample.image, sample.mask)
    semantic_map = parse(model, coarse_image)
    model.memory.bank.fill(model.memory.codes(coarse_image, semantic_map, sample.mask)[1])


def mdrnet_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Reconstruction of the hole by the refinement chain; updates the memory on the way (eqs 1-3)."""
    image, mask = sample.image, sample.mask
    with torch.no_grad():
        coarse_image = model.coarse(image, mask)
        semantic_map = parse(model, coarse_image)
        if model.memory.bank is not None:
            model.memory.bank.update(*model.memory.codes(coarse_image, semantic_map, mask))
    guidance = model.guidance(coarse_image, semantic_map, mask)
    if sample.crop is not None:
        top, left, side = sample.crop
        rows, columns = slice(top, top + side), slice(left, left + side)
        image, mask, coarse_image = (t[..., rows, columns] for t in (image, mask, coarse_image))
        rows, columns = slice(top // 4, (top + side) // 4), slice(left // 4, (left + side) // 4)
        guidance = guidance[..., rows, columns]
    completed = model.refiner(coarse_image, mask, guidance)
    return {"hole": weights["hole"] * losses.hole_l1(completed, image, mask)}


TASKS = {
    task.name: task
    for task in (
        Task("parser", ("parser",), parser_loss, {"dice": 1.0}, with_labels=True),
        Task("coarse", ("coarse",), coarse_loss, {"hole": 1.0}),
        Task("mdrnet", ("memory", "mrem", "refiner"), mdrnet_loss, {"hole": 1.0}, prepare=fill_memory),
    )
}
