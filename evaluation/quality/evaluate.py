"""Measure an inpainting method on faces and masks, per bucket of hole ratio (paper's Table 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.files import write_side
from showface.runtime.stages import CATEGORIES
from showface.training.data.labels import read_label_map
from showface.training.data.sources import read_face
from showface.training.frechet import Statistics, frechet_distance, merge, statistics

from ..faces import BATCH, BUCKETS, SIZE, check_masks, pair_files, read_batches
from ..metrics import category_iou, confusion, mean_iou
from .contact_sheet import write_contact_sheet
from .feature_networks import FeatureNetwork, Layers, feature_network, features
from .methods import Method, MethodChoice, torch_device
from .paper_tables import paper_rows
from .perceptual import Lpips, lpips_from_folder, relative_distance
from .scores import BucketScores, ImageScores, Report, markdown_table, score_bucket, score_image, to_json

logger = logging.getLogger(__name__)

Parser = Callable[[NDArray[np.uint8]], NDArray[Any]]  # RGB [B, H, W, 3] -> categories [B, H, W]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What a method is measured on.

    Attributes:
        images: folder of photographs; resized to 256² by area.
        masks: folder of ratio bins (``00-10`` …), white = hole.
        features: weights of the network behind the Fréchet distance, and behind the perceptual one if it is VGG-16;
            None leaves both out.
        limit: take the first so many images; None takes all.
        lpips: folder of LPIPS' published weights; None leaves it out.
    """

    images: Path
    masks: Path
    features: Path | None = None
    limit: int | None = None
    lpips: Path | None = None


def evaluate(
    method: Method, test: EvaluationSet, network: FeatureNetwork | None = None, lpips: Lpips | None = None
) -> Report:
    """Return the figures of ``method`` in each bucket; one batch of faces is in memory at a time.

    Args:
        method: completes a batch of faces.
        test: faces and masks to measure on; its networks are not loaded.
        network: measure the Fréchet distance with it, of the results from the ground truth; with VGG-16 the
            perceptual distance as well.
        lpips: measure LPIPS with it.

    Raises:
        UsageError: images or masks are missing, unreadable or of the wrong polarity, or there are too
            few images for a Fréchet distance.
    """
    pairs = {bucket: pair_files(test.images, test.masks, bucket, test.limit) for bucket in BUCKETS}
    total = sum(map(len, pairs.values()))
    if network is not None and total < 2 * len(BUCKETS):  # all buckets hold the same images
        raise UsageError(f"{test.images}: the Fréchet distance needs two images or more; leave the features out")
    for bucket in BUCKETS:
        check_masks(pairs[bucket])
    buckets: dict[str, BucketScores] = {}
    rows: list[ImageScores] = []
    for bucket in BUCKETS:
        scored: list[ImageScores] = []
        found: Statistics | None = None
        truth: Statistics | None = None
        for faces in read_batches(pairs[bucket]):
            results, wanted = method(faces), [face.rgb for face in faces]
            perceptual: Sequence[float | None] = [None] * len(faces)
            if network is not None:
                layers, true_layers = network.activations(results), network.activations(wanted)
                found, truth = _add(found, layers), _add(truth, true_layers)
                if network.is_perceptual:
                    perceptual = relative_distance(layers, true_layers).tolist()
            similarity = [None] * len(faces) if lpips is None else lpips.distances(results, wanted).tolist()
            scored += map(score_image, faces, results, perceptual, similarity)
            logger.debug("%d of %d faces measured", len(rows) + len(scored), total)
        distance = None if found is None or truth is None else frechet_distance(found, truth)
        buckets[bucket] = score_bucket(scored, distance)
        rows += scored
    return Report(buckets, tuple(rows), None if network is None else network.label)


def _add(known: Statistics | None, layers: Layers) -> Statistics:
    new = statistics(features(layers))
    return new if known is None else merge(known, new)


def evaluate_parser(
    parser: Parser, images: Path, labels: Path, files: Sequence[str | Path]
) -> tuple[NDArray[np.float64], float]:
    """Compare a parser's categories with CelebAMask-HQ label maps, both at 256².

    Args:
        parser: maps faces RGB [B, 256, 256, 3] to categories [B, 256, 256].
        images: folder of photographs.
        labels: folder of label maps of the same stems, ``<stem>.png``.
        files: names of the photographs to be taken; of a path, its last part.

    Returns:
        The intersection over union of each of the 14 categories, [14], NaN where a category is
        neither labelled nor predicted; and their mean, such categories left out. Pixels of all
        images are counted together.

    Raises:
        UsageError: ``files`` is empty, or a photograph or label is missing or unreadable.
    """
    names = [Path(file).name for file in files]
    if not names:
        raise UsageError(f"{images}: no file to evaluate the parser on; name at least one")
    counts = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        truth = np.stack([read_label_map(labels / f"{Path(name).stem}.png", SIZE) for name in batch])
        predicted = parser(np.stack([read_face(images / name, SIZE) for name in batch]))
        counts += confusion(predicted, truth, len(CATEGORIES))
    return category_iou(counts), mean_iou(counts)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured.

    Attributes:
        test: faces and masks it was measured on.
        methods: that were measured, by name.
        reports: the figures of each.
        table: of them all, in Markdown.
    """

    test: EvaluationSet
    methods: Mapping[str, Method]
    reports: Mapping[str, Report]
    table: str

    def write(self, json_file: Path | None, sheet: Path | None, overwrite: bool = False) -> None:
        """Write the figures, and the contact sheet of the last method, where they are wanted.

        Raises:
            ShowfaceError: as :func:`showface.runtime.files.write_side`.
        """
        if json_file is not None:
            write_side(json_file, to_json(self.reports).encode(), overwrite)
        if sheet is not None:
            last = list(self.methods)[-1]
            folders = self.test.images, self.test.masks
            write_contact_sheet(sheet, self.reports[last], self.methods[last], *folders, overwrite)


def run_evaluation(
    choice: MethodChoice,
    test: EvaluationSet,
    device: str = "auto",
    threads: int | None = None,
    paper: Sequence[str] = ("celebahq/mdrnets",),
) -> Evaluation:
    """Evaluate methods; what the verb ``evaluate`` does.

    Methods and feature networks run on ``device``: ``auto``, ``cpu`` or ``cuda:N``. ``paper`` names rows of the
    paper's Table 1 to print below, see :func:`.paper_tables.paper_rows`.

    Raises:
        UsageError: anything given is wrong.
    """
    beside = paper_rows(paper)
    if threads is not None:
        torch.set_num_threads(threads)
    names = [pair.image.name for pair in pair_files(test.images, test.masks, next(iter(BUCKETS)), test.limit)]
    methods = choice.open(names, device, threads)
    network = None if test.features is None else feature_network(test.features, torch_device(device))
    lpips = None if test.lpips is None else lpips_from_folder(test.lpips, torch_device(device))
    reports = {name: evaluate(method, test, network, lpips) for name, method in methods.items()}
    return Evaluation(test, methods, reports, markdown_table(reports, beside))
