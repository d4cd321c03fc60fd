"""What each training stage trains and on which loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import losses
from .augment import Sample
from .networks.mdrnets import MDRNets

Loss = Callable[[MDRNets, Sample, Mapping[str, float]], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Task:
    """A training stage: the networks that learn, and its loss terms (already weighted)."""

    name: str
    modules: tuple[str, ...]
    loss: Loss
    weights: Mapping[str, float]
    with_labels: bool = False


def parser_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Cross entropy and Dice of the parser on photographs."""
    assert sample.labels is not None
    logits = model.parser(sample.image)
    return {"parsing": losses.parsing_loss(logits, sample.labels, weights["dice"])}


def coarse_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Reconstruction of the hole."""
    coarse_image = model.coarse(sample.image, sample.mask)
    return {"hole": weights["hole"] * losses.hole_l1(coarse_image, sample.image, sample.mask)}


def mdrnet_loss(model: MDRNets, sample: Sample, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Reconstruction of the hole by the refinement chain; updates the memory on the way (eqs 1-3)."""
    image, mask = sample.image, sample.mask
    with torch.no_grad():
        coarse_image = model.coarse(image, mask)
        semantic_map = model.parser(coarse_image).argmax(dim=1)
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
        Task("mdrnet", ("memory", "mrem", "refiner"), mdrnet_loss, {"hole": 1.0}),
    )
}
