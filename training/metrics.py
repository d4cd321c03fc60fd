"""Image metrics over whole composed images; numpy only."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]  # [H, W, 3]


def l1_percent(result: Rgb, target: Rgb) -> float:
    """Mean absolute error in percent of the value range."""
    return float(np.abs(result.astype(np.float64) - target).mean() / 255 * 100)


def psnr(result: Rgb, target: Rgb) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal images."""
    error = float(((result.astype(np.float64) - target) ** 2).mean())
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(result: Rgb, target: Rgb) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window of σ 1.5, mean of the three channels.

    The same as scikit-image's ``structural_similarity`` with ``gaussian_weights=True``,
    ``use_sample_covariance=False``, ``data_range=255``: an 11-pixel window, borders left out.
    """
    a, b = result.astype(np.float64), target.astype(np.float64)

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT))

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(similarity[5:-5, 5:-5].mean())
