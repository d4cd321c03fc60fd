"""Image metrics over whole composed images, and how well a parser's labels overlap; numpy only."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # [H, W, 3]
Confusion = NDArray[np.int64]  # [n, n]; row = truth, column = prediction


def l1_percent(result: Rgb, target: Rgb) -> float:
    """Mean absolute error in percent of the value range.

    >>> l1_percent(np.full((2, 2, 3), 51, np.uint8), np.zeros((2, 2, 3), np.uint8))
    20.0
    """
    return float(np.abs(result.astype(np.float64) - target).mean() / 255 * 100)


def psnr(result: Rgb, target: Rgb) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal images.

    >>> round(psnr(np.full((2, 2, 3), 51, np.uint8), np.zeros((2, 2, 3), np.uint8)), 3)
    13.979
    """
    return decibel(float(((result.astype(np.float64) - target) ** 2).mean()), 255)


def decibel(error: float, peak: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error; infinite for 0."""
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(result: Rgb, target: Rgb) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of σ 1.5, mean of the three channels.

    The same as scikit-image's ``structural_similarity`` with ``gaussian_weights=True``,
    ``use_sample_covariance=False``, ``data_range=255``: an 11-pixel window, borders left out.
    """
    return float(ssim_map(result, target, 255.0).mean())


def ssim_map(result: NDArray[Any], target: NDArray[Any], value_range: float) -> NDArray[np.float64]:
    """Return the structural similarity around each pixel, see :func:`ssim`.

    Args:
        result: [H, W, C].
        target: [H, W, C].
        value_range: largest minus smallest possible value.

    Returns:
        [H - 10, W - 10, C]; the borders, where the window leaves the image, are left out.
    """
    a, b = result.astype(np.float64), target.astype(np.float64)

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return similarity[5:-5, 5:-5]


def confusion(labels: NDArray[Any], truth: NDArray[Any], categories: int) -> Confusion:
    """Count the pixels of each pair of true and predicted category.

    Args:
        labels: predicted categories, integers in [0, categories), any shape.
        truth: the true ones, of the same shape.
        categories: their number n.

    Returns:
        [n, n], row = truth, column = prediction. Those of several images add up.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]

    Raises:
        ValueError: the shapes differ, or a value is no category.
    """
    if labels.shape != truth.shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit a truth of shape {truth.shape}")
    for name, values in (("predicted", labels), ("true", truth)):
        if values.size and not 0 <= values.min() <= values.max() < categories:
            raise ValueError(f"{name} labels span {values.min()} to {values.max()}; only 0-{categories - 1} are known")
    pairs = truth.astype(np.int64).ravel() * categories + labels.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=categories**2).reshape(categories, categories)


def category_iou(counts: Confusion) -> NDArray[np.float64]:
    """Return the intersection over union of each category, [n] in [0, 1]; NaN where it is absent.

    Absent is a category that is neither in the truth nor predicted; one that is only predicted has 0.

    >>> category_iou(np.array([[1, 1], [0, 1]])).tolist()
    [0.5, 0.5]
    """
    overlap = np.diagonal(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - overlap
    scores = np.full(len(counts), np.nan)
    np.divide(overlap, union, out=scores, where=union > 0)
    return scores


def mean_iou(counts: Confusion) -> float:
    """Return the mean of :func:`category_iou` in [0, 1], absent categories left out; NaN if all are absent."""
    scores = category_iou(counts)
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")
