"""The Fréchet distance between the features of two sets of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and covariance of feature rows, in float64.

    Attributes:
        mean: [d].
        covariance: [d, d], of the sample (divided by count - 1); zero for a single row.
        count: number of rows.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    count: int


def statistics(rows: NDArray[Any]) -> Statistics:
    """Return the statistics of feature rows [N, d], N ≥ 1."""
    rows = rows.astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Statistics(mean, centred.T @ centred / max(len(rows) - 1, 1), len(rows))


def merge(a: Statistics, b: Statistics) -> Statistics:
    """Return the statistics of all rows behind ``a`` and ``b`` (Chan et al. 1983)."""
    count = a.count + b.count
    step = b.mean - a.mean
    scatter = a.covariance * (a.count - 1) + b.covariance * (b.count - 1)
    scatter += np.outer(step, step) * (a.count * b.count / count)
    return Statistics(a.mean + step * (b.count / count), scatter / (count - 1), count)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R [d, r] with R Rᵀ = ``covariance``; r leaves out what is zero but for rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values.max() * len(values) * np.finfo(np.float64).eps
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Return |μ_a - μ_b|² + tr(C_a + C_b - 2 (C_a C_b)^½), ≥ 0 (Heusel et al. 2017).

    With C = R Rᵀ the trace of the root is the sum of the singular values of R_aᵀ R_b. The distance
    shrinks with the number of images: compare sets of the same size only.

    Raises:
        UsageError: a set has fewer than two images, the lengths of the features differ, or a feature
            is not finite.
    """
    if min(a.count, b.count) < 2:
        raise UsageError("the Fréchet distance needs two images or more")
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"features of length {len(a.mean)} and {len(b.mean)} do not compare; use one network for both")
    if not all(np.isfinite(values).all() for s in (a, b) for values in (s.mean, s.covariance)):
        raise UsageError("a feature is not finite; check the weights of the network")
    shift = a.mean - b.mean
    cross = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    distance = shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)
