"""Measure an inpainting method on faces and masks, per bucket of hole ratio (paper's Table 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from showface.runtime.errors import UsageError
from showface.runtime.images.codec import write_file
from showface.runtime.stages import CATEGORIES
from showface.training.data.labels import read_label_map
from showface.training.data.sources import read_face

from ..faces import BATCH, BUCKETS, SIZE, check_masks, pair_files, read_batches
from ..metrics import Rgb, category_iou, confusion, mean_iou
from .contact_sheet import write_contact_sheet
from .frechet import FeatureNetwork, Statistics, feature_network, frechet_distance, merge, statistics
from .methods import Method, MethodChoice, torch_device
from .scores import BucketScores, ImageScores, Report, markdown_table, score_bucket, score_image

logger = logging.getLogger(__name__)

Parser = Callable[[NDArray[np.uint8]], NDArray[Any]]  # RGB [B, H, W, 3] -> categories [B, H, W]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """What a method is measured on.

    Attributes:
        images: folder of photographs.
        masks: folder of ratio bins.
        features: weights of the network behind the Fréchet distance; None leaves it out.
        limit: take the first so many images; None takes all.
    """

    images: Path
    masks: Path
    features: Path | None = None
    limit: int | None = None


def evaluate(
    method: Method,
    images: Path,
    masks: Path,
    network: FeatureNetwork | None = None,
    limit: int | None = None,
) -> Report:
    """Return the figures of ``method`` in each bucket; one batch of faces is in memory at a time.

    Args:
        method: completes a batch of faces.
        images: folder of photographs; resized to 256² by area.
        masks: folder of ratio bins (``00-10`` …), white = hole.
        network: measure the Fréchet distance with it, of the results from the ground truth.
        limit: take the first so many images; None takes all.

    Raises:
        UsageError: images or masks are missing, unreadable or of the wrong polarity, or there are too
            few images for a Fréchet distance.
    """
    pairs = {bucket: pair_files(images, masks, bucket, limit) for bucket in BUCKETS}
    total = sum(map(len, pairs.values()))
    if network is not None and total < 2 * len(BUCKETS):  # all buckets hold the same images
        raise UsageError(f"{images}: the Fréchet distance needs two images or more; leave the features out")
    for bucket in BUCKETS:
        check_masks(pairs[bucket])
    buckets: dict[str, BucketScores] = {}
    rows: list[ImageScores] = []
    truth: Statistics | None = None
    for bucket in BUCKETS:
        scored: list[ImageScores] = []
        found: Statistics | None = None
        first = truth is None  # the faces of all buckets are the same
        for faces in read_batches(pairs[bucket]):
            results = method(faces)
            scored += [score_image(face, result) for face, result in zip(faces, results, strict=True)]
            if network is not None:
                found = _add(found, network, results)
                if first:
                    truth = _add(truth, network, [face.rgb for face in faces])
            logger.debug("%d of %d faces measured", len(rows) + len(scored), total)
        distance = None if found is None or truth is None else frechet_distance(found, truth)
        buckets[bucket] = score_bucket(scored, distance)
        rows += scored
    return Report(buckets, tuple(rows), None if network is None else network.label)


def _add(known: Statistics | None, network: FeatureNetwork, images: Sequence[Rgb]) -> Statistics:
    new = statistics(network.features(np.stack(images)))
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


def run_evaluation(
    choice: MethodChoice,
    test: EvaluationSet,
    device: str = "auto",
    threads: int | None = None,
    json_file: Path | None = None,
    sheet: Path | None = None,
) -> str:
    """Evaluate one method and return the Markdown table; what the verb ``evaluate`` does.

    Args:
        choice: which method.
        test: faces and masks to measure on.
        device: ``auto``, ``cpu`` or ``cuda:N``, of the method and of the feature network.
        threads: number of CPU threads; None takes all.
        json_file: write the figures there.
        sheet: write the contact sheet there.

    Raises:
        UsageError: anything given is wrong; nothing was written.
    """
    choice.check()
    if threads is not None:
        torch.set_num_threads(threads)
    names = [pair.image.name for pair in pair_files(test.images, test.masks, next(iter(BUCKETS)), test.limit)]
    name, method = choice.open(names, device, threads)
    network = None if test.features is None else feature_network(test.features, torch_device(device))
    report = evaluate(method, test.images, test.masks, network, test.limit)
    if json_file is not None:
        write_file(json_file, report.to_json().encode())
    if sheet is not None:
        write_contact_sheet(sheet, report, method, test.images, test.masks)
    return markdown_table({name: report})
