"""From the occluder's probabilities to the hole: what counts as an occlusion, and how sure that is.

All lengths are pixels of the networks' input of 256 and grow with its side; all areas are shares of the face's square.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .mask_picture import Hole

GRID = 256  # the side that lengths are given for
MARGIN = 6  # pixels by which an occlusion grows: its edge, its shadow and its straps belong to it
THRESHOLD = 0.5
MIN_HOLE, MAX_HOLE = 0.003, 0.5
SURE = 0.32  # power of the threshold that the best pixel of an occlusion must reach: 0.80 for 0.5
CLOSE = 5  # pixels of gaps that are closed
SMALLEST_GAP = 0.01  # share below which an island of face inside an occlusion is a part of it
IN_FACE = 0.2  # share of an occlusion that must lie over the face
DOUBTFUL = 0.8  # mean probability below which an occlusion is uncertain
LEAST_CHANGE = 6.0  # mean Lab distance between a part and its completion below which it may have covered nothing
NEAR_LIMIT = 0.8  # share of the largest hole from which on a face is uncertain

# Where at least six in ten aligned faces show face: centre and half axes, as parts of the side (500 CelebA-HQ labels).
FACE_ZONE = ((0.504, 0.5485), (0.244, 0.362))


@dataclass(frozen=True, slots=True)
class OcclusionSettings:
    """What counts as an occlusion.

    Attributes:
        threshold: probability from which a pixel is covered, in (0, 1).
        margin: pixels, of an input of 256, by which an occlusion grows.
        min_hole: smallest occlusion, as a share of the face's square.
        max_hole: largest hole that is completed, as a share of the face's square.
    """

    threshold: float = THRESHOLD
    margin: int = MARGIN
    min_hole: float = MIN_HOLE
    max_hole: float = MAX_HOLE

    def __post_init__(self) -> None:
        """Refuse values that no picture fulfils.

        Raises:
            ValueError: a value lies outside its range.
        """
        if not 0 < self.threshold < 1:
            raise ValueError(f"the threshold of an occlusion is {self.threshold:g}; give a probability between 0 and 1")
        if not 0 <= self.min_hole < self.max_hole <= 1:
            raise ValueError(
                f"the smallest hole is {self.min_hole:g} and the largest {self.max_hole:g}; "
                "give shares of the face's square with 0 <= smallest < largest <= 1"
            )
        if self.margin < 0:
            raise ValueError(f"the margin is {self.margin}; give 0 or more pixels")


@dataclass(frozen=True, slots=True)
class Occlusion:
    """What was found on one face.

    Attributes:
        hole: [S, S], True = covered, grown by the margin.
        parts: [S, S] int32, the number of the part before it grew, from 1; 0 = none.
        confidences: mean probability of each part.
        missed: share of the square that is probably covered but belongs to no part: too unsure, too small or aside.
    """

    hole: Hole
    parts: NDArray[np.int32]
    confidences: tuple[float, ...]
    missed: float

    @property
    def area(self) -> float:
        """Share of the square that the hole covers."""
        return float(self.hole.mean())

    @property
    def confidence(self) -> float:
        """That of the least certain part; 1 where nothing was found."""
        return min(self.confidences, default=1.0)


def face_zone(size: int) -> Hole:
    """Return [size, size], True where an aligned face mostly shows face."""
    (x, y), (a, b) = FACE_ZONE
    place = (np.arange(size) + 0.5) / size
    return np.asarray(((place - x) / a) ** 2 + ((place[:, None] - y) / b) ** 2 <= 1)


def find_occlusion(probability: NDArray[np.float32], settings: OcclusionSettings) -> Occlusion:
    """Decide what of an aligned face is covered.

    A region counts where it holds a pixel that is nearly sure, is not tiny, and lies over the face by a fifth: what
    only stands beside a head does not hide it.

    Args:
        probability: [S, S], the occluder's output for one face.
        settings: thresholds and limits.
    """
    size = len(probability)
    scale = size / GRID
    sure = settings.threshold**SURE
    found = (probability > settings.threshold).astype(np.uint8)
    found = _keep(found, probability > sure)
    reach = max(1, round(CLOSE * scale))
    padded = cv2.copyMakeBorder(found, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    found = _filled(np.ascontiguousarray(closed[reach:-reach, reach:-reach]), SMALLEST_GAP * size * size)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    zone = face_zone(size)
    parts = np.zeros((size, size), np.int32)
    confidences: list[float] = []
    for number in range(1, count):
        inside = numbers == number
        area = int(stats[number, cv2.CC_STAT_AREA])
        over = int((inside & zone).sum())
        if area < settings.min_hole * size * size or over < IN_FACE * min(area, int(zone.sum())):
            continue
        parts[inside] = len(confidences) + 1
        confidences.append(float(probability[inside].mean()))
    missed = float(((probability > settings.threshold) & zone & (parts == 0)).mean())
    return Occlusion(grown(parts > 0, settings.margin), parts, tuple(confidences), missed)


def doubts(occlusion: Occlusion, area: float, settings: OcclusionSettings) -> list[str]:
    """Return what makes a found hole worth a look, in words; empty if nothing does. ``area`` is the hole's share."""
    found = []
    if occlusion.confidence < DOUBTFUL:
        found.append(f"the network is sure by {occlusion.confidence:.0%} only")
    if occlusion.missed >= settings.min_hole:
        found.append(f"{occlusion.missed:.1%} more may be covered")
    if area > NEAR_LIMIT * settings.max_hole:
        found.append(f"the hole takes {area:.0%}")
    return found


def barely_changed(seen: NDArray[np.float32], completed: NDArray[np.float32], mask: NDArray[np.float32]) -> bool:
    """Tell whether the completion of a part of the hole looks like what was there: then nothing covered the face.

    Args:
        seen: [3, S, S] in [-1, 1], the face as it came.
        completed: [3, S, S] in [-1, 1].
        mask: [1, S, S], 1 = hole.
    """
    before, after = (
        cv2.cvtColor(np.ascontiguousarray((image.transpose(1, 2, 0) + 1) / 2).clip(0, 1), cv2.COLOR_RGB2LAB)
        for image in (seen, completed.astype(np.float32))
    )
    change = np.sqrt(((before - after) ** 2).sum(axis=2))
    count, numbers = cv2.connectedComponents((mask[0] > 0).astype(np.uint8), connectivity=8)
    return any(float(change[numbers == number].mean()) < LEAST_CHANGE for number in range(1, count))


def grown(hole: Hole, margin: int) -> Hole:
    """Return ``hole`` [S, S] grown by ``margin`` pixels of an input of 256 in all directions."""
    reach = round(margin * len(hole) / GRID)
    if reach == 0:
        return hole
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    return np.asarray(cv2.dilate(hole.astype(np.uint8), disc), np.bool_)


def _keep(found: NDArray[np.uint8], sure: Hole) -> NDArray[np.uint8]:
    """Keep the regions of ``found`` that hold a pixel of ``sure``."""
    count, numbers = cv2.connectedComponents(found, connectivity=8)
    kept = np.zeros(count, np.uint8)
    kept[np.unique(numbers[sure])] = 1
    kept[0] = 0
    return np.asarray(kept[numbers], np.uint8)


def _filled(found: NDArray[np.uint8], limit: float) -> NDArray[np.uint8]:
    """Fill the gaps of fewer than ``limit`` pixels that do not touch the border."""
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(1 - found, connectivity=4)
    small = np.zeros(count, np.uint8)
    border = np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]))
    for number in range(1, count):
        small[number] = stats[number, cv2.CC_STAT_AREA] < limit and number not in border
    return np.asarray(found | small[numbers], np.uint8)
