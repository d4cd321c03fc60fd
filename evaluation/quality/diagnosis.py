"""What each part of a trained model is worth: the refiner's gain, the memory's use, the parser's overlap.

A part that brings nothing is a fault to be found: dead slots, a wrong category map, a loss out of scale.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.faces.tensors import prepare
from showface.runtime.stages import CATEGORIES
from showface.training.checkpoint import model_from_checkpoint
from showface.training.data.sources import image_files
from showface.training.networks.mdrnets import MDRNets

from ..faces import BUCKETS, Pair, pair_files, read_batches
from .evaluate import EvaluationSet, evaluate, evaluate_parser
from .frechet import FeatureNetwork, feature_network
from .methods import model_method, network_method, torch_device
from .scores import BucketScores

LARGEST = list(BUCKETS)[-1]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The parser's intersection over union, in [0, 1]; None for a category neither labelled nor predicted."""

    by_category: Mapping[str, float | None]
    mean: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        quality: figures by bucket of the ``coarse`` face, of the ``whole`` chain and, where the memory is
            disentangled, of the chain whose blocks are ``shuffled``: each category reads its neighbour's.
        alive: of each category, how many slots are the nearest one to some face's query, of how many.
        parser: overlap with the labels on photographs, and on the coarse faces behind the largest holes.
    """

    quality: Mapping[str, Mapping[str, BucketScores]]
    alive: Mapping[str, tuple[int, int]]
    parser: Mapping[str, Overlap]

    def to_json(self) -> str:
        """Return the figures as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def diagnose_checkpoint(
    checkpoint: Path,
    test: EvaluationSet,
    labelled: tuple[Path, Path] | None,
    holdout_every: int,
    device: str,
    threads: int | None,
) -> Diagnosis:
    """Measure the parts of the model in a checkpoint; see :func:`diagnose`.

    Args:
        checkpoint: checkpoint of an assembled model.
        test: faces and masks to measure on.
        labelled: as there.
        holdout_every: as there.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        threads: number of CPU threads; None takes all.

    Raises:
        UsageError: a file is missing or unreadable, or the device is not to be had.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place = torch_device(device)
    network = None if test.features is None else feature_network(test.features, place)
    model = model_from_checkpoint(checkpoint)[0]
    return diagnose(model, place, test.images, test.masks, network, labelled, holdout_every, test.limit)


def diagnose(
    model: MDRNets,
    device: torch.device,
    images: Path,
    masks: Path,
    features: FeatureNetwork | None = None,
    labelled: tuple[Path, Path] | None = None,
    holdout_every: int = 10,
    limit: int | None = None,
) -> Diagnosis:
    """Measure the parts of ``model``.

    Args:
        model: assembled, in evaluation mode.
        device: device to compute on.
        images: folder of photographs to complete.
        masks: folder of ratio bins.
        features: network of the Fréchet distance.
        labelled: folders of photographs and of their label maps, for the parser.
        holdout_every: of the labelled photographs each so-many-th is looked at, as training holds them out.
        limit: images a bucket and labelled photographs at most.

    Raises:
        UsageError: files are missing or unreadable.
    """
    model = model.to(device)
    size = model.config.image_size
    candidates = {"coarse": network_method(model.coarse, size, device), "whole": model_method(model, device)}
    bank = model.memory.bank
    if bank is not None and len(bank.slots) > 1:
        candidates["shuffled"] = model_method(_shuffled(model), device)
    reports = {n: evaluate(method, images, masks, features, limit) for n, method in candidates.items()}
    parser = {} if labelled is None else _parser_overlap(model, device, *labelled, masks, holdout_every, limit)
    return Diagnosis(
        {name: report.buckets for name, report in reports.items()},
        {} if bank is None else slots_alive(model, device, images, masks, limit),
        parser,
    )


def _shuffled(model: MDRNets) -> MDRNets:
    """Return a copy of ``model`` in which every category reads the block of its neighbour."""
    other = copy.deepcopy(model)
    assert other.memory.bank is not None
    other.memory.bank.slots.copy_(model.memory.bank.slots.roll(1, dims=0))  # type: ignore[union-attr]
    return other


@torch.inference_mode()
def slots_alive(
    model: MDRNets, device: torch.device, images: Path, masks: Path, limit: int | None = None
) -> dict[str, tuple[int, int]]:
    """Return how many slots of each block are the nearest to a query of some face (eq. 2), and their number.

    The faces are those behind the largest holes. A block that all categories share is one entry, ``all``.
    """
    bank = model.memory.bank
    assert bank is not None
    blocks, m, _ = bank.slots.shape
    hit = torch.zeros(len(CATEGORIES), m, dtype=torch.bool, device=device)
    for faces in read_batches(pair_files(images, masks, LARGEST, limit)):
        prepared = [prepare(face.rgb, face.hole, model.config.image_size, face.name) for face in faces]
        image, mask = (torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*prepared, strict=True))
        coarse_image = model.coarse(image, mask)
        queries, _ = model.memory.codes(coarse_image, model.parser(coarse_image).argmax(dim=1), mask)
        nearest = torch.nn.functional.one_hot(bank.similarity(queries).argmax(dim=2), m).bool()
        hit |= (nearest & (queries.abs().amax(dim=2, keepdim=True) > 0)).any(dim=0)
    if blocks == 1:
        return {"all": (int(hit.any(dim=0).sum()), m)}
    return {name: (int(row.sum()), m) for name, row in zip(CATEGORIES, hit, strict=True)}


def _parser_overlap(
    model: MDRNets,
    device: torch.device,
    photographs: Path,
    labels: Path,
    masks: Path,
    holdout_every: int,
    limit: int | None,
) -> dict[str, Overlap]:
    """Return the overlap on the held-out photographs, and on their coarse faces behind the largest holes."""
    if holdout_every < 1:
        raise UsageError(f"{holdout_every}: give a whole number from 1", "holdout-every")
    files = image_files(photographs)[::holdout_every][:limit]
    holes = iter(face.hole for faces in read_batches(_holes_for(files, photographs, masks)) for face in faces)
    size = model.config.image_size

    @torch.inference_mode()
    def parse(faces: NDArray[np.uint8], hidden: bool) -> NDArray[Any]:
        blank = np.zeros(faces.shape[1:3], bool)
        prepared = [prepare(face, next(holes) if hidden else blank, size, "face") for face in faces]
        image, mask = (torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*prepared, strict=True))
        face = model.coarse(image, mask) if hidden else image
        return np.asarray(model.parser(face).argmax(dim=1).cpu().numpy())

    found = {}
    for name, hidden in (("photographs", False), ("coarse faces", True)):
        scores, mean = evaluate_parser(partial(parse, hidden=hidden), photographs, labels, files)
        each = {c: None if np.isnan(s) else float(s) for c, s in zip(CATEGORIES, scores, strict=True)}
        found[name] = Overlap(each, float(mean))
    return found


def _holes_for(files: Sequence[Path], photographs: Path, masks: Path) -> list[Pair]:
    """Return a pair of the largest bucket for each of ``files``, with the masks that an evaluation would take."""
    pairs = pair_files(photographs, masks, LARGEST, len(files))
    return [replace(pair, image=file) for pair, file in zip(pairs, files, strict=True)]


def diagnosis_table(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as Markdown."""
    lines = ["| | bucket | L1 % | PSNR | SSIM | Fréchet |", "|---|---|---:|---:|---:|---:|"]
    for name, buckets in diagnosis.quality.items():
        for bucket, s in buckets.items():
            distance = "–" if s.frechet is None else f"{s.frechet:.1f}"
            lines.append(f"| {name} | {bucket}% | {s.l1_percent:.3f} | {s.psnr:.3f} | {s.ssim:.4f} | {distance} |")
    if diagnosis.alive:
        alive = ", ".join(f"{name} {hit}/{m}" for name, (hit, m) in diagnosis.alive.items())
        lines += ["", f"Slots alive: {alive}"]
    for name, overlap in diagnosis.parser.items():
        each = ", ".join(f"{c} {'–' if s is None else f'{s:.2f}'}" for c, s in overlap.by_category.items())
        lines += ["", f"Parser on {name}: mean IoU {overlap.mean:.3f} ({each})"]
    return "\n".join(lines) + "\n"
