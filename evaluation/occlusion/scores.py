"""How well a bundle's occluder finds what covers a face, on labelled pictures, and how often it sees what is not there.

Labels are 8-bit pictures of the same stems: 255 = occluder, 128 = not counted, 0 = free. Pictures are aligned faces.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import UsageError, system_errors
from showface.runtime.faces.occlusion import Occlusion, OcclusionSettings, face_zone, find_occlusion
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import SUFFIXES, read_photo
from showface.runtime.inpainter import Inpainter

OCCLUDER, UNCOUNTED = 255, 128
FALSE_ALARM = 0.003  # share of the square that is found on a clean face
RESAMPLES = 2000  # of the bootstrap
CHEEKS = ((0.34, 0.64), (0.66, 0.64))  # of an aligned face
CHEEK = 0.045  # half the side of the square that is looked at, of the face's square
TERCILES = ("darkest third", "middle third", "lightest third")

Finder = Callable[[NDArray[np.uint8]], Occlusion]  # takes an aligned face [S, S, 3]


@dataclass(frozen=True, slots=True)
class OccludedFace:
    """A labelled picture: ``rgb`` [S, S, 3] and ``label`` [S, S] at the networks' size."""

    name: str
    kind: str
    rgb: NDArray[np.uint8]
    label: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FoundScores:
    """Figures of one labelled face; shares are NaN where there is nothing to measure them by.

    Attributes:
        iou: of the occluder in the face zone, before it grows; what is not counted is left out.
        recall: share of the occluder in the face zone that is found, before it grows.
        gone: share of it that the grown hole takes away: what a user sees.
        extra: share of the square that the grown hole takes although nothing covers it.
    """

    name: str
    kind: str
    iou: float
    recall: float
    gone: float
    extra: float


def finder_of(inpainter: Inpainter, settings: OcclusionSettings) -> Finder:
    """Return what finds the occlusion of one aligned face with a bundle's occluder."""

    def find(rgb: NDArray[np.uint8]) -> Occlusion:
        image, _ = prepare(rgb, np.zeros(rgb.shape[:2], np.bool_), inpainter.image_size, "face")
        return find_occlusion(inpainter.occlusion_probability(image[None])[0], settings)

    return find


def read_labelled(folder: Path, size: int, pictures: Path | None, groups: dict[str, list[str]]) -> list[OccludedFace]:
    """Read the labelled pictures of a folder.

    Args:
        folder: holds ``STEM.png`` labels, and the pictures of the same stems with another suffix.
        size: of the networks.
        pictures: another folder to look for pictures in.
        groups: kinds by ``FOLDER/STEM``; a picture without one is of the folder's name.

    Raises:
        UsageError: there are no labels, or a picture is missing.
    """
    faces = []
    for path in sorted(folder.glob("*.png")):
        picture = _picture_of(path, pictures)
        if picture is None:
            continue
        label = _resized(read_photo(path).pixels, size, cv2.INTER_NEAREST)
        kind = groups.get(f"{folder.name}/{path.stem}", [folder.name])[0]
        faces.append(OccludedFace(f"{folder.name}/{path.stem}", kind, read_rgb(picture, size), label))
    if not faces:
        raise UsageError(f"{folder}: no labels (STEM.png) with pictures of the same stems")
    return faces


def _picture_of(label: Path, pictures: Path | None) -> Path | None:
    for folder in (label.parent, *(() if pictures is None else (pictures,))):
        for suffix in SUFFIXES:
            path = Path(folder) / f"{label.stem}{suffix}"
            if path != label and path.is_file():
                return path
    return None


def read_rgb(path: Path, size: int) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB [size, size, 3], resized by area."""
    pixels = read_photo(path).pixels
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    eight = np.ascontiguousarray(rgb // (np.iinfo(rgb.dtype).max // 255)).astype(np.uint8)
    return _resized(eight, size, cv2.INTER_AREA)


def _resized(image: Any, size: int, interpolation: int) -> NDArray[np.uint8]:
    if image.ndim == 3 and interpolation == cv2.INTER_NEAREST:
        image = image[..., 0]
    return np.asarray(cv2.resize(image, (size, size), interpolation=interpolation), np.uint8)


def read_groups(path: Path) -> dict[str, list[str]]:
    """Read a CSV of ``name,group`` lines.

    Raises:
        UsageError: it cannot be read, or a line has other than two fields.
    """
    groups: dict[str, list[str]] = {}
    with system_errors(UsageError, path, "cannot be read"), path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if len(row) != 2:
                raise UsageError(f"{path}: line {number} has {len(row)} fields; write name,group")
            groups.setdefault(row[0], []).append(row[1])
    return groups


def score_face(face: OccludedFace, find: Finder) -> FoundScores:
    """Measure one labelled face."""
    found = find(face.rgb)
    zone = face_zone(len(face.label))
    counted, covered = zone & (face.label != UNCOUNTED), zone & (face.label == OCCLUDER)
    core = (found.parts > 0) & counted
    union = (core | covered).sum()
    total = covered.sum()
    return FoundScores(
        face.name,
        face.kind,
        float((core & covered).sum() / union) if union else float("nan"),
        float((core & covered).sum() / total) if total else float("nan"),
        float((found.hole & covered).sum() / total) if total else float("nan"),
        float((found.hole & (face.label == 0)).mean()),
    )


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of the values that are numbers, and its 95 % interval by resampling them."""
    known = np.asarray([value for value in values if np.isfinite(value)])
    if not len(known):
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    means = known[rng.integers(0, len(known), (RESAMPLES, len(known)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(known.mean()), float(low), float(high)


def summarise(scores: Iterable[FoundScores]) -> dict[str, dict[str, Any]]:
    """Return for each kind, and for ``all``, the number of faces and the figures with their intervals."""
    by_kind: dict[str, list[FoundScores]] = {}
    for score in scores:
        by_kind.setdefault(score.kind, []).append(score)
        by_kind.setdefault("all", []).append(score)
    names = ("iou", "recall", "gone", "extra")
    ordered = sorted(by_kind, key=lambda kind: (kind == "all", kind))
    return {
        kind: {
            "faces": len(by_kind[kind]),
            "median_iou": float(np.nanmedian([score.iou for score in by_kind[kind]])),
            **{name: bootstrap([getattr(score, name) for score in by_kind[kind]]) for name in names},
        }
        for kind in ordered
    }


def skin_lightness(rgb: NDArray[np.uint8]) -> float:
    """Return the median CIE L of the cheeks of an aligned face, 0 to 100."""
    size = len(rgb)
    half = max(1, round(CHEEK * size))
    squares = [rgb[int(y * size) - half : int(y * size) + half, int(x * size) - half : int(x * size) + half]
               for x, y in CHEEKS]  # fmt: skip
    pixels = np.concatenate([square.reshape(-1, 3) for square in squares]).astype(np.float32)[None] / 255
    return float(np.median(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[..., 0]))


def false_alarms(
    paths: Sequence[Path], find: Finder, size: int, groups: dict[str, list[str]]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, float]]]:
    """Count the clean faces on which more than ``FALSE_ALARM`` is found.

    Args:
        paths: of aligned faces that nothing covers.
        find: of the occluder.
        size: of the networks.
        groups: names of groups, such as ``beard``, by stem.

    Returns:
        For ``all``, each third by skin lightness and each group: ``faces``, ``alarms`` and ``rate``; and what was
        found on which face, most first.
    """
    found, light = [], []
    for path in paths:
        rgb = read_rgb(path, size)
        found.append(float((find(rgb).parts > 0).mean()))
        light.append(skin_lightness(rgb))
    alarms = np.asarray(found) > FALSE_ALARM
    thirds = np.argsort(np.argsort(light)) * 3 // max(1, len(light))
    members: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(paths), np.bool_)}
    members |= {name: thirds == k for k, name in enumerate(TERCILES)}
    for group in sorted({name for names in groups.values() for name in names}):
        inside = np.asarray([group in groups.get(path.stem, []) for path in paths], np.bool_)
        if inside.any():
            members[group] = inside
    rates = {
        name: {"faces": int(inside.sum()), "alarms": int((alarms & inside).sum()), "rate": float(alarms[inside].mean())}
        for name, inside in members.items()
        if inside.any()
    }
    worst = sorted(((path.name, share) for path, share in zip(paths, found, strict=True)), key=lambda entry: -entry[1])
    return rates, [entry for entry in worst if entry[1] > 0]
