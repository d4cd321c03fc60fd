"""The Fréchet distance between the features of two sets of images, and which network gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import open_file
from showface.training.networks.vgg import vgg_from_file
from showface.training.weight_files import read_safetensors

from .inception import FILE_NAME, inception_from_file

FrechetLabel = Literal["FID", "FD-VGG16"]
Features = Callable[[NDArray[np.uint8]], NDArray[Any]]  # RGB [B, H, W, 3] -> [B, d]

CAFFE_INPUT = "BGR, 0-255"  # how the entry `input` of the shared VGG-16's header begins


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


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """What the Fréchet distance is measured with.

    Attributes:
        label: ``FID`` for the standard Inception network alone; distances of different labels do
            not compare.
        features: maps RGB [B, H, W, 3] uint8 to features [B, d].
    """

    label: FrechetLabel
    features: Features


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
        raise UsageError("the Fréchet distance needs two images or more; raise the limit or leave the features out")
    if a.mean.shape != b.mean.shape:
        raise UsageError(f"features of length {len(a.mean)} and {len(b.mean)} do not compare; use one network for both")
    if not all(np.isfinite(values).all() for s in (a, b) for values in (s.mean, s.covariance)):
        raise UsageError("a feature is not finite; check the weights of the network")
    shift = a.mean - b.mean
    cross = np.linalg.svd(_root(a.covariance).T @ _root(b.covariance), compute_uv=False).sum()
    distance = shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)


def feature_network(path: Path, device: torch.device | None = None) -> FeatureNetwork:
    """Load the feature network of a weight file; the content decides which it is.

    Args:
        path: the shared VGG-16 as safetensors gives ``FD-VGG16``, pytorch-fid's Inception file
            gives ``FID``.
        device: device to compute on; by default the CPU.

    Raises:
        UsageError: the file is neither of the two, or broken.
    """
    device = device or torch.device("cpu")
    if _is_safetensors(path):
        _check_vgg16(path)
        vgg = vgg_from_file(path, "vgg16-caffe").to(device)
        return FeatureNetwork("FD-VGG16", _on_arrays(vgg.deep, device))
    return FeatureNetwork("FID", _on_arrays(inception_from_file(path).to(device), device))


def _on_arrays(network: Callable[[Tensor], Tensor], device: torch.device) -> Features:
    """Let a network of [B, 3, H, W] in [-1, 1] take and return arrays."""

    def features(images: NDArray[np.uint8]) -> NDArray[Any]:
        with torch.inference_mode():
            scaled = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
            return np.asarray(network(scaled).cpu().numpy())

    return features


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do: 8 bytes for the header's length, then JSON."""
    with open_file(path, UsageError) as file:
        return file.read(9)[8:] == b"{"


def _check_vgg16(path: Path) -> None:
    """Refuse other networks, and VGG-16 weights that want another input than the label stands for."""
    expected = f"for FD-VGG16 give Caffe's VGG-16 as safetensors, for FID {FILE_NAME}"
    keys, metadata = read_safetensors(path)
    if "features.28.weight" not in keys or "features.30.weight" in keys:
        raise UsageError(f"{path}: holds no VGG-16; {expected}", "features")
    if not metadata.get("input", "").startswith(CAFFE_INPUT):
        raise UsageError(
            f"{path}: its header does not say 'input': '{CAFFE_INPUT} …', so the weights may want another "
            f"input; {expected}",
            "features",
        )
