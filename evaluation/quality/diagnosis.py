"""What each part of a trained model is worth: the refiner's gain, the memory's use, the parser's overlap.

A part that brings nothing is a fault to be found: dead slots, a wrong category map, a loss out of scale.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from showface.runtime.errors import UsageError
from showface.runtime.faces.tensors import prepare
from showface.runtime.stages import CATEGORIES
from showface.training.checkpoint import model_from_checkpoint
from showface.training.networks.mdrnets import MDRNets
from showface.training.tasks.health import HealthFaces, MemoryFigures, join_ratios, memory_figures

from ..faces import BUCKETS, needed_files, pair_files, read_batches
from .evaluate import EvaluationSet, evaluate, evaluate_parser
from .feature_networks import FeatureNetwork, feature_network
from .methods import model_method, network_method, torch_device
from .scores import BucketScores

LARGEST = list(BUCKETS)[-1]
OTHER_GUIDANCE = "guidance of another face"


@dataclass(frozen=True, slots=True)
class Overlap:
    """The parser's intersection over union, in [0, 1]; None for a category neither labelled nor predicted."""

    by_category: Mapping[str, float | None]
    mean: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        quality: figures by bucket of the ``coarse`` face, of the ``whole`` chain and, where there is a memory, of the
            chain under the ``guidance of another face``.
        memory: what each category's block does for the faces behind the largest holes.
        joins: deviation of the refiner's stream over that of the skip that meets it, by join.
        residual: by bucket, the correlation of what the refiner adds with what the coarse face lacks, in the hole.
        parser: overlap with the labels on photographs, and on the coarse faces behind the largest holes.
    """

    quality: Mapping[str, Mapping[str, BucketScores]]
    memory: Mapping[str, MemoryFigures]
    joins: Mapping[str, float]
    residual: Mapping[str, float]
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
    """Measure the parts of the model in a checkpoint, see :func:`diagnose`, on ``auto``, ``cpu`` or ``cuda:N``.

    Raises:
        UsageError: a file is missing or unreadable, or the device is not to be had.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place = torch_device(device)
    network = None if test.features is None else feature_network(test.features, place)
    model = model_from_checkpoint(checkpoint)[0]
    return diagnose(model, place, test, network, labelled, holdout_every)


def diagnose(
    model: MDRNets,
    device: torch.device,
    test: EvaluationSet,
    features: FeatureNetwork | None = None,
    labelled: tuple[Path, Path] | None = None,
    holdout_every: int = 10,
) -> Diagnosis:
    """Measure the parts of ``model``.

    Args:
        model: assembled, in evaluation mode.
        device: to compute on.
        test: faces and masks to measure on; its limit holds for the labelled photographs, too.
        features: network of the Fréchet distance.
        labelled: folders of photographs and of their label maps, for the parser.
        holdout_every: of the labelled photographs each so-many-th is looked at, as training holds them out.

    Raises:
        UsageError: files are missing or unreadable.
    """
    model = model.to(device)
    size = model.config.image_size
    candidates = {"coarse": network_method(model.coarse, size, device), "whole": model_method(model, device)}
    if model.memory.bank is not None:
        candidates[OTHER_GUIDANCE] = network_method(partial(_misguided, model), size, device)
    reports = {name: evaluate(method, test, features) for name, method in candidates.items()}
    parser = {} if labelled is None else _parser_overlap(model, device, *labelled, test, holdout_every)
    faces = list(_prepared(model, device, test, LARGEST))
    return Diagnosis(
        {name: report.buckets for name, report in reports.items()},
        {} if model.memory.bank is None else memory_figures(model, faces),
        join_ratios(model, faces[0]),
        {b: residual_correlation(model, _prepared(model, device, test, b)) for b in BUCKETS},
        parser,
    )


def _misguided(model: MDRNets, image: Tensor, mask: Tensor) -> Tensor:
    """Complete each face of a batch under the guidance of its neighbour; one face alone is mirrored instead."""
    coarse_image = model.coarse(image, mask)
    guidance = model.guidance(coarse_image, model.parser(coarse_image).argmax(dim=1), mask)
    other = guidance.roll(1, dims=0) if len(guidance) > 1 else guidance.flip(3)
    completed: Tensor = model.refiner(coarse_image, mask, other)
    return completed


@torch.inference_mode()
def _prepared(model: MDRNets, device: torch.device, test: EvaluationSet, bucket: str) -> Iterator[HealthFaces]:
    """Give the faces of a bucket, batch by batch, with their coarse faces and category maps."""
    for faces in read_batches(pair_files(test.images, test.masks, bucket, test.limit)):
        size = model.config.image_size
        blank = np.zeros(faces[0].hole.shape, bool)
        whole = torch.from_numpy(np.stack([prepare(f.rgb, blank, size, f.name)[0] for f in faces])).to(device)
        mask = torch.from_numpy(np.stack([prepare(f.rgb, f.hole, size, f.name)[1] for f in faces])).to(device)
        coarse_image = model.coarse(whole * (1 - mask), mask)
        yield HealthFaces(whole, mask, coarse_image, model.parser(coarse_image).argmax(dim=1))


@torch.inference_mode()
def residual_correlation(model: MDRNets, batches: Iterable[HealthFaces]) -> float:
    """Return Pearson's correlation of what the refiner adds to P with what P lacks of the truth, in the hole.

    1 is a refiner that removes the error, 0 one that knows nothing of it.
    """
    sums = np.zeros(6)
    for face in batches:
        guidance = model.guidance(face.coarse_image, face.semantic_map, face.mask)
        completed = model.refiner(face.coarse_image, face.mask, guidance)
        hole = face.mask.bool().expand_as(completed)
        added, lacking = ((x - face.coarse_image)[hole].double() for x in (completed, face.image))
        pairs = (added, lacking, added * added, lacking * lacking, added * lacking)
        sums += [float(hole.sum()), *(float(x.sum()) for x in pairs)]
    count, a, b, aa, bb, ab = sums
    spread = (aa - a * a / count) * (bb - b * b / count)
    return float((ab - a * b / count) / np.sqrt(spread)) if spread > 0 else 0.0


def _parser_overlap(
    model: MDRNets,
    device: torch.device,
    photographs: Path,
    labels: Path,
    test: EvaluationSet,
    holdout_every: int,
) -> dict[str, Overlap]:
    """Return the overlap on the held-out photographs, and on their coarse faces behind the largest holes."""
    if holdout_every < 1:
        raise UsageError(f"holdout_every {holdout_every}: give a whole number from 1", "holdout_every")
    files = needed_files(photographs, "photographs with labels are needed", "labelled")[::holdout_every][: test.limit]
    # A pair of the largest bucket for each photograph, with the masks that an evaluation would take.
    paired = pair_files(photographs, test.masks, LARGEST, len(files))
    paired = [replace(pair, image=file) for pair, file in zip(paired, files, strict=True)]
    holes = iter(face.hole for faces in read_batches(paired) for face in faces)
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


def diagnosis_table(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as Markdown."""
    lines = ["| | bucket | L1 % | PSNR | SSIM | Fréchet | VGG-16 distance |", "|---|---|---:|---:|---:|---:|---:|"]
    for name, buckets in diagnosis.quality.items():
        for bucket, s in buckets.items():
            figures = f"{s.l1_percent:.3f} | {s.psnr:.3f} | {s.ssim:.4f}"
            distances = " | ".join("–" if value is None else f"{value:.3f}" for value in (s.frechet, s.perceptual))
            lines.append(f"| {name} | {bucket}% | {figures} | {distances} |")
    if diagnosis.memory:
        lines += ["", "| memory of | faces | slots hit | var(Q̂) / var(V) | R² |", "|---|---:|---:|---:|---:|"]
        for name, block in diagnosis.memory.items():
            spread, r2 = ("–" if value is None else f"{value:.2f}" for value in (block.variance, block.r2))
            lines.append(f"| {name} | {block.faces} | {block.hit} of {block.slots} | {spread} | {r2} |")
    lines += ["", "Stream over skip: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in diagnosis.joins.items())]
    residual = ", ".join(f"{bucket}% {value:.3f}" for bucket, value in diagnosis.residual.items())
    lines += ["", f"Correlation of residual and error: {residual}"]
    for name, overlap in diagnosis.parser.items():
        each = ", ".join(f"{c} {'–' if s is None else f'{s:.2f}'}" for c, s in overlap.by_category.items())
        lines += ["", f"Parser on {name}: mean IoU {overlap.mean:.3f} ({each})"]
    return "\n".join(lines) + "\n"
