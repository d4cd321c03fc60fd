"""How good a chain is: against the ground truth in each bucket, and against the float chain in the hole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.evaluation.faces import BUCKETS
from showface.evaluation.metrics import Rgb, decibel, l1_percent, psnr, ssim
from showface.runtime.backends.chain import Session
from showface.runtime.faces.tensors import composite, prepare
from showface.runtime.stages import CHAIN_INPUTS, CHAIN_OUTPUT, LABELS

from ..parallel import parallel
from ..recording import Recorded

PEAK = 2.0  # of values in [-1, 1]
LEAST_ERROR = 1e-4  # of the float chain: below 46 dB nobody sees what 8 bits add


@dataclass(frozen=True, slots=True)
class FaceScores:
    """One face, completed by the float chain and by the candidate.

    Attributes:
        name: name of the image file.
        bucket: range of hole ratios.
        truth: (L1 %, PSNR dB, SSIM) of the candidate's composed image against the ground truth.
        float_truth: the same of the float chain.
        hole_error: mean squared difference of both results inside the hole, values in [-1, 1]; 0 without a hole.
        labels: share of pixels that the parser gives the same category; 1 without a parser.
    """

    name: str
    bucket: str
    truth: tuple[float, float, float]
    float_truth: tuple[float, float, float]
    hole_error: float
    labels: float

    @property
    def hole_psnr(self) -> float:
        """PSNR of the candidate against the float chain inside the hole, dB."""
        return to_psnr(self.hole_error)


def to_psnr(error: float) -> float:
    """Return the PSNR in dB of a mean squared error of values in [-1, 1]; infinite for 0."""
    return decibel(error, PEAK)


def from_psnr(decibel: float) -> float:
    """Return the mean squared error of values in [-1, 1] that has this PSNR in dB."""
    return float(PEAK**2 / 10 ** (decibel / 10))


def run_from(sessions: Mapping[str, Session], recorded: Recorded, start: str | None = None) -> dict[str, NDArray[Any]]:
    """Return all tensors of the chain; stages before ``start`` are not run, their recorded outputs stand."""
    names = list(sessions)
    first = 0 if start is None else names.index(start)
    tensors = dict(recorded.tensors) if first else {name: recorded.tensors[name] for name in CHAIN_INPUTS}
    return run_stages([sessions[name] for name in names[first:]], tensors)


def run_stages(sessions: Iterable[Session], tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return ``tensors`` with the outputs of ``sessions``, run one after the other."""
    tensors = dict(tensors)
    for session in sessions:
        tensors.update(session.run({name: tensors[name] for name in session.stage.inputs}))
    return tensors


def compose_face(recorded: Recorded, completed: NDArray[Any]) -> Rgb:
    """Write ``completed`` [1, 3, H, W] into the face's hole."""
    return np.asarray(composite(recorded.face.rgb, recorded.face.hole, completed[0]), np.uint8)


def score_recorded(recorded: Recorded, tensors: Mapping[str, NDArray[Any]]) -> FaceScores:
    """Compare a candidate's tensors of one face with the ground truth and with the recorded float chain."""
    face, reference = recorded.face, recorded.tensors
    hole = np.broadcast_to(reference["mask"] > 0, reference[CHAIN_OUTPUT].shape)
    difference = (tensors[CHAIN_OUTPUT].astype(np.float64) - reference[CHAIN_OUTPUT])[hole]
    results = (compose_face(recorded, values[CHAIN_OUTPUT]) for values in (tensors, reference))
    truth, float_truth = ((l1_percent(r, face.rgb), psnr(r, face.rgb), ssim(r, face.rgb)) for r in results)
    labels = float((tensors[LABELS] == reference[LABELS]).mean()) if LABELS in reference else 1.0
    return FaceScores(
        face.name,
        face.bucket,
        truth,
        float_truth,
        float((difference**2).mean()) if difference.size else 0.0,
        labels,
    )


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over faces.

    Attributes:
        buckets: bucket → ``{"l1_percent", "psnr", "ssim", "float_l1_percent", "float_psnr", "float_ssim", "faces"}``.
        hole_psnr: mean over the faces of the candidate's PSNR against the float chain in the hole, dB.
        worst_hole_psnr: the same of the worst face.
        labels: mean share of equal categories.
        hole_error: mean squared difference in the hole; finite, so that it ranks.
    """

    buckets: dict[str, dict[str, float]]
    hole_psnr: float
    worst_hole_psnr: float
    labels: float
    hole_error: float

    @property
    def psnr_drop(self) -> float:
        """By how many dB the worst bucket's PSNR against the ground truth fell; negative for a gain."""
        return max(bucket["float_psnr"] - bucket["psnr"] for bucket in self.buckets.values())


def quality_of(scores: Sequence[FaceScores]) -> Quality:
    """Average the faces, at least one; faces that equal the ground truth (empty holes) are left out of PSNR."""
    buckets = {}
    for name in BUCKETS:
        rows = [score for score in scores if score.bucket == name]
        if not rows:
            continue
        figures: dict[str, float] = {"faces": len(rows)}
        for k, metric in enumerate(("l1_percent", "psnr", "ssim")):
            pairs = [(row.truth[k], row.float_truth[k]) for row in rows]
            finite = [pair for pair in pairs if all(map(math.isfinite, pair))] or [(0.0, 0.0)]
            figures[metric], figures[f"float_{metric}"] = map(fmean, zip(*finite, strict=True))
        buckets[name] = figures
    # A face without a difference would make the mean infinite: it counts as the best that 8-bit files can show.
    holes = [min(score.hole_psnr, 100.0) for score in scores]
    labels, error = fmean(score.labels for score in scores), fmean(score.hole_error for score in scores)
    return Quality(buckets, fmean(holes), min(holes), labels, error)


def score_faces(sessions: Mapping[str, Session], faces: Iterable[Recorded], threads: int = 1) -> Iterator[FaceScores]:
    """Run ``sessions`` over ``faces``, ``threads`` of them side by side, and yield the scores of each in order."""
    return parallel(lambda face: score_recorded(face, run_from(sessions, face)), faces, threads)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a candidate is likely to cost other faces; a plan is made by it, and judged by :class:`Quality`.

    An error that has nothing to do with what the float chain gets wrong adds its power to it: a face loses
    ``10 log10(1 + error / float error)`` dB. Whether the two happen to add up or to cancel on one face is chance, a
    tenth of a decibel and more, which ten faces do not average out and a search would fit. But not all is chance:
    clipping also cuts what was wrong. So half of what is to be expected counts, and half of what was lost. How one
    layer group ranks among the others, what is to be expected of a typical face says: the mean is often that of one
    face in which a region between two categories goes to the other one, as it does whichever group is changed.

    Attributes:
        psnr_drop: dB against the ground truth inside the hole, lost and expected averaged, in the worst bucket.
        typical_drop: dB that are to be expected at the geometric mean of the faces' errors, in the worst bucket.
        hole_psnr: as of :class:`Quality`.
        hole_error: as of :class:`Quality`.
        labels: as of :class:`Quality`.
    """

    psnr_drop: float
    typical_drop: float
    hole_psnr: float
    hole_error: float
    labels: float


@dataclass(frozen=True, slots=True)
class FaceLoss:
    """What one face loses inside the hole.

    Attributes:
        bucket: range of hole ratios.
        lost: PSNR against the ground truth, dB.
        ratio: error against the float chain over the float chain's own against the ground truth.
        error: mean squared difference from the float chain, values in [-1, 1].
        labels: share of equal categories.
    """

    bucket: str
    lost: float
    ratio: float
    error: float
    labels: float


def loss_of(recorded: Recorded, tensors: Mapping[str, NDArray[Any]], picture: str) -> FaceLoss:
    """Compare ``picture`` [1, 3, H, W] of a candidate's tensors with the recorded one inside the hole."""
    face, reference = recorded.face, recorded.tensors
    hole = np.broadcast_to(reference["mask"] > 0, reference[picture].shape)
    expected = reference[picture][hole].astype(np.float64)
    whole, _ = prepare(face.rgb, np.zeros_like(face.hole), hole.shape[-1], face.name)
    truth = whole[None][hole].astype(np.float64)
    result = tensors[picture][hole].astype(np.float64)
    pairs = (result, expected), (expected, truth), (result, truth)
    error, own, made = (float(((a - b) ** 2).mean()) if hole.any() else 0.0 for a, b in pairs)
    own, made = max(own, LEAST_ERROR), max(made, LEAST_ERROR)
    labels = float((tensors[LABELS] == reference[LABELS]).mean()) if LABELS in reference else 1.0
    return FaceLoss(face.bucket, 10.0 * math.log10(made / own), error / own, error, labels)


def estimate_of(losses: Sequence[FaceLoss]) -> Estimate:
    """Summarise what faces lose."""
    drops: dict[str, list[tuple[float, float]]] = {}
    for loss in losses:
        drops.setdefault(loss.bucket, []).append((loss.lost, loss.ratio))
    errors, labels = [loss.error for loss in losses], [loss.labels for loss in losses]
    holes = [min(to_psnr(error), 100.0) for error in errors]
    psnr_drop = max(fmean((lost + _expected(ratio)) / 2 for lost, ratio in rows) for rows in drops.values())
    typical_drop = max(_expected(geometric_mean(max(ratio, 1e-12) for _, ratio in rows)) for rows in drops.values())
    return Estimate(psnr_drop, typical_drop, fmean(holes), fmean(errors), fmean(labels))


def _expected(ratio: float) -> float:
    """Return what an error of ``ratio`` times the float chain's own costs where the two are independent, in dB."""
    return 10.0 * math.log10(1.0 + ratio)


def estimate(
    sessions: Mapping[str, Session], faces: Iterable[Recorded], start: str | None = None, threads: int = 1
) -> Estimate:
    """Estimate what ``sessions`` cost, run from the stage ``start`` on over ``faces``, ``threads`` side by side."""

    def loss(face: Recorded) -> FaceLoss:
        return loss_of(face, run_from(sessions, face, start), CHAIN_OUTPUT)

    return estimate_of(list(parallel(loss, faces, threads)))
