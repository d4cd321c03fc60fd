"""How far one image's tensor is from its reference: pure functions over numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.runtime.stages import CATEGORIES

from ..metrics import Confusion, confusion, decibel, ssim_map

Array = NDArray[Any]
HIGHER_IS_BETTER = frozenset({"cosine", "snr_db", "psnr_db", "ssim"})
VALUE_RANGE = 2.0  # of an image in [-1, 1]
# Of the histogram of flipped margins: a quarter decade each, and the tie margins of the tolerances.
MARGIN_EDGES = np.sort(np.append(np.logspace(-8, 3, 45), (5e-2, 2.0)))
ERROR_EDGES = np.logspace(-10, 3, 53)  # of the histogram of absolute errors, a quarter decade each


@dataclass(frozen=True, slots=True)
class FloatFigures:
    """The error of one float tensor.

    Values that are NaN or infinite on either side are counted and left out of all else.

    Attributes:
        nan: positions where either side is NaN.
        inf: positions where either side, and neither is NaN, is infinite.
        max_abs: largest absolute error.
        p999_abs: its 99.9th percentile, linearly interpolated as numpy's.
        p99_abs: its 99th percentile.
        mean_abs: its mean.
        relative: ‖candidate - reference‖ / ‖reference‖; 0 for 0 / 0.
        cosine: of the angle between the two; 1 where both are zero.
        snr_db: 10 log10(‖reference‖² / ‖candidate - reference‖²); infinite for equal tensors.
    """

    nan: int = 0
    inf: int = 0
    max_abs: float = 0.0
    p999_abs: float = 0.0
    p99_abs: float = 0.0
    mean_abs: float = 0.0
    relative: float = 0.0
    cosine: float = 1.0
    snr_db: float = float("inf")

    def worst(self, other: FloatFigures) -> FloatFigures:
        """Return the worse of each figure; counts add up."""
        values = {}
        for field in fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            if field.name in ("nan", "inf"):
                values[field.name] = mine + its
            else:
                values[field.name] = min(mine, its) if field.name in HIGHER_IS_BETTER else max(mine, its)
        return FloatFigures(**values)


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How the labels of one image differ.

    Attributes:
        pixels: their number.
        flips: how many differ.
        flipped_margins: counts over ``MARGIN_EDGES`` (first and last bin open) of the reference's lead
            of its best label over the second, where they differ; a lead that is not known counts last.
        largest_flipped_margin: infinite where one is not known.
        confusion: [n, n]; row = reference, column = candidate.
        alien: labels of the candidate that are no category.
    """

    pixels: int
    flips: int
    flipped_margins: NDArray[np.int64]
    largest_flipped_margin: float
    confusion: Confusion
    alien: int


def float_figures(reference: Array, candidate: Array) -> FloatFigures:
    """Measure the error of a float tensor of any shape; both are of the same.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    a, b = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    nan = np.isnan(a) | np.isnan(b)
    inf = (np.isinf(a) | np.isinf(b)) & ~nan
    finite = ~(nan | inf)
    counts = int(nan.sum()), int(inf.sum())
    if not finite.all():
        a, b = a[finite], b[finite]
    if not a.size:
        return FloatFigures(*counts)
    error = np.abs(b - a)
    p99, p999 = np.quantile(error, (0.99, 0.999))
    noise, signal, norm = float(error @ error), float(a @ a), float(np.sqrt(a @ a) * np.sqrt(b @ b))
    return FloatFigures(
        *counts,
        max_abs=float(error.max()),
        p999_abs=float(p999),
        p99_abs=float(p99),
        mean_abs=float(error.mean()),
        relative=float(np.sqrt(noise / signal)) if signal else (float("inf") if noise else 0.0),
        cosine=float(np.clip((a @ b) / norm, -1.0, 1.0)) if norm else float(noise == 0),
        snr_db=10 * float(np.log10(signal / noise)) if noise and signal else (-float("inf") if noise else float("inf")),
    )


def error_histogram(reference: Array, candidate: Array) -> NDArray[np.int64]:
    """Count the absolute errors over ``ERROR_EDGES``; the first bin takes what is smaller, the last what is larger."""
    error = np.abs(candidate.astype(np.float64) - reference.astype(np.float64)).ravel()
    return _open_histogram(error[np.isfinite(error)], ERROR_EDGES)


def label_figures(reference: Array, candidate: Array, margin: Array | None) -> LabelFigures:
    """Compare the labels of one image.

    Args:
        reference: [...] integers.
        candidate: array of the same shape.
        margin: of the same shape, the reference's lead of its best label over the second; None where unknown.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    flipped = reference != candidate
    flips = int(flipped.sum())
    margins = np.full(flips, np.inf) if margin is None else margin[flipped].astype(np.float64)
    margins = np.where(np.isnan(margins), np.inf, margins)  # an unknown margin excuses nothing
    known = (candidate >= 0) & (candidate < len(CATEGORIES))
    return LabelFigures(
        pixels=reference.size,
        flips=flips,
        flipped_margins=_open_histogram(margins, MARGIN_EDGES),
        largest_flipped_margin=float(margins.max(initial=0.0)),
        confusion=confusion(candidate[known], reference[known], len(CATEGORIES)),
        alien=int((~known).sum()),
    )


def hole_figures(reference: Array, candidate: Array, mask: Array) -> tuple[float, float]:
    """Return PSNR in dB and SSIM of an image inside its hole.

    Args:
        reference: [3, H, W] in [-1, 1].
        candidate: array of the same shape.
        mask: [1, H, W], 1 = hole.

    Returns:
        PSNR over the hole's values (infinite where they are equal), and the mean of the SSIM map over
        the hole's pixels that lie 5 or more from the border; NaN for a hole without such pixels.
    """
    hole = mask[0] > 0
    if not hole.any():
        return float("nan"), float("nan")
    error = (candidate.astype(np.float64) - reference.astype(np.float64))[:, hole]
    mean_square = float((error**2).mean())
    psnr = decibel(mean_square, VALUE_RANGE)
    inner = hole[5:-5, 5:-5]
    if not inner.any():
        return psnr, float("nan")
    similarity = ssim_map(candidate.transpose(1, 2, 0), reference.transpose(1, 2, 0), VALUE_RANGE)
    return psnr, float(similarity[inner].mean())


def _open_histogram(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count ``values`` between ``edges``; what lies outside goes to the first or the last bin."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(bins, minlength=len(edges) - 1).astype(np.int64)
