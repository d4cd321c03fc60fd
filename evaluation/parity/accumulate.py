"""The worst figures over many images, in memory that does not grow with their number."""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from showface.runtime.stages import CATEGORIES, TENSORS

from ..metrics import category_iou
from .stats import (
    ERROR_EDGES,
    MARGIN_EDGES,
    Array,
    FloatFigures,
    LabelFigures,
    error_histogram,
    float_figures,
    label_figures,
)

PERFECT = {"not_finite": 0.0, "max_abs": 0.0, "p99_abs": 0.0, "agreement": -1.0, "alien": 0.0, "margin": 0.0}
WORST_KEPT = 4  # images whose pictures a report shows


@dataclass(slots=True)
class TensorTally:
    """Figures of one tensor over all images added so far."""

    name: str
    images: int = 0
    worst: FloatFigures = field(default_factory=FloatFigures)
    leaders: dict[str, tuple[float, str]] = field(default_factory=dict)  # of each figure: its worst, and the image
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(ERROR_EDGES) - 1, np.int64))
    agreement: float = 1.0
    flips: int = 0
    alien: int = 0
    margins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MARGIN_EDGES) - 1, np.int64))
    largest_margin: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(CATEGORIES),) * 2, np.int64))
    mismatch: str = ""

    @property
    def labels(self) -> bool:
        """Whether the tensor holds categories."""
        return TENSORS[self.name].dtype == "int32"

    @property
    def used(self) -> bool:
        """Whether anything was added."""
        return bool(self.images or self.mismatch)

    def add(self, image: str, reference: Array, candidate: Array, margin: Array | None = None) -> None:
        """Add the tensor of one image, without its batch dimension; another shape or dtype is noted as a mismatch."""
        self.images += 1
        if reference.shape != candidate.shape or reference.dtype != candidate.dtype:
            self.mismatch = (
                f"{candidate.dtype} {candidate.shape} instead of {reference.dtype} {reference.shape} ({image})"
            )
        elif self.labels:
            self._add_labels(image, label_figures(reference, candidate, margin))
        else:
            self._add_floats(image, float_figures(reference, candidate))
            self.histogram += error_histogram(reference, candidate)

    @property
    def worst_image(self) -> str:
        """The image of the largest error, NaN and Inf before any; of labels that of the least agreement."""
        for figure in ("not_finite", "max_abs", "agreement"):
            value, image = self.leaders.get(figure, (0.0, ""))
            if image and (value or figure != "not_finite"):
                return image
        return ""

    def _lead(self, image: str, **badness: float) -> None:
        """Keep ``image`` for each figure of which it is the worst so far."""
        for figure, value in badness.items():
            if figure not in self.leaders or value > self.leaders[figure][0]:
                self.leaders[figure] = value, image

    def _add_floats(self, image: str, figures: FloatFigures) -> None:
        self._lead(image, not_finite=figures.nan + figures.inf, max_abs=figures.max_abs, p99_abs=figures.p99_abs)
        self.worst = self.worst.worst(figures)

    def _add_labels(self, image: str, figures: LabelFigures) -> None:
        agreement = 1.0 - figures.flips / figures.pixels
        self._lead(image, agreement=-agreement, alien=figures.alien, margin=figures.largest_flipped_margin)
        self.agreement = min(self.agreement, agreement)
        self.flips += figures.flips
        self.alien += figures.alien
        self.margins += figures.flipped_margins
        self.largest_margin = max(self.largest_margin, figures.largest_flipped_margin)
        self.counts += figures.confusion

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them: what is infinite or unknown is None."""
        images = {figure: image for figure, (_, image) in self.leaders.items()}
        common = {"images": self.images, "worst_image": self.worst_image, "worst_images": images}
        common["mismatch"] = self.mismatch
        if not self.labels:
            figures = {name: finite(value) for name, value in asdict(self.worst).items()}
            return {"kind": "float", **common, **figures, "histogram": self.histogram.tolist()}
        iou = category_iou(self.counts)
        return {
            "kind": "labels",
            **common,
            "agreement": self.agreement,
            "flips": self.flips,
            "alien": self.alien,
            "largest_flipped_margin": finite(self.largest_margin),
            "flipped_margins": self.margins.tolist(),
            "iou": {name: finite(value) for name, value in zip(CATEGORIES, iou.tolist(), strict=True)},
        }


@dataclass(frozen=True, slots=True)
class ComparedPicture:
    """What a report shows of one image, all [C, H, W]."""

    name: str
    image: Array
    mask: Array
    reference: Array
    candidate: Array


@dataclass(slots=True)
class Gallery:
    """The pictures of the worst images."""

    heap: list[tuple[float, int, ComparedPicture]] = field(default_factory=list)
    seen: int = 0

    def offer(self, badness: float, picture: ComparedPicture) -> None:
        """Keep ``picture`` if it is among the worst so far."""
        self.seen += 1
        heapq.heappush(self.heap, (badness, -self.seen, picture))
        if len(self.heap) > WORST_KEPT:
            heapq.heappop(self.heap)

    def worst_first(self) -> list[ComparedPicture]:
        """Return the pictures kept."""
        return [picture for _, _, picture in sorted(self.heap, key=lambda entry: entry[:2], reverse=True)]


def finite(value: float) -> float | int | None:
    """Return ``value``, or None where JSON has no number for it."""
    return value if np.isfinite(value) else None
