"""Holes that the bundle's networks find in the images themselves: occlusions, and regions of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..images.codec import Pixels
from .align import Square, cut_out
from .category_mask import add_region, category_region, region_of_square
from .mask_picture import Hole
from .masks import MaskSource
from .occlusion import doubts, find_occlusion
from .tensors import prepare

if TYPE_CHECKING:
    from ..inpainter import Inpainter


@dataclass(frozen=True, slots=True)
class MaskNote:
    """What is known of a hole that was found; of several faces in one picture the least favourable.

    Attributes:
        origin: kind of the mask source.
        area: share of a face's square that its hole covers.
        parts: separate occlusions.
        confidence: mean probability of the least certain one; None where the parser alone found the hole.
        doubts: what makes the hole worth a look, in words.
        too_large: faces that were left as they are because their hole was too large.
        categories: share of a face's square that each category took which was found.
    """

    origin: str
    area: float
    parts: int
    confidence: float | None
    doubts: tuple[str, ...] = ()
    too_large: int = 0
    categories: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what ``results.jsonl`` says."""
        return {
            "from": self.origin,
            "area": round(self.area, 4),
            "parts": self.parts,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "uncertain": bool(self.doubts),
            "doubts": list(self.doubts),
            "too_large": self.too_large,
            **({"categories": dict(self.categories)} if self.categories else {}),
        }


def find_hole(
    pixels: Pixels, squares: Sequence[Square] | None, inpainter: Inpainter, source: MaskSource
) -> tuple[Hole, MaskNote]:
    """Find the hole of a picture, (H, W), (H, W, 3) or (H, W, 4), and its faces in ``squares``; None: it is one.

    Returns:
        The hole (H, W), and what is known of it.

    Raises:
        UsageError: the bundle lacks the network that is asked for.
    """
    hole: Hole = np.zeros(pixels.shape[:2], np.bool_)
    if squares is None:
        region, note = _look(pixels, inpainter, source)
        return region_of_square(region, len(hole)), note
    notes = []
    for square in squares:
        region, note = _look(cut_out(pixels, hole, square, inpainter.image_size)[0], inpainter, source)
        notes.append(note)
        add_region(hole, region, square)
    sure = [note.confidence for note in notes if note.confidence is not None]
    return hole, MaskNote(
        source.kind,
        max((note.area for note in notes), default=0.0),
        sum(note.parts for note in notes),
        min(sure, default=None),
        tuple(doubt for note in notes for doubt in note.doubts),
        sum(note.too_large for note in notes),
        {name: share for note in notes for name, share in note.categories.items()},
    )


def _look(face: Pixels, inpainter: Inpainter, source: MaskSource) -> tuple[Hole, MaskNote]:
    """Return the hole [size, size] of one square face, and what is known of it."""
    image = prepare(face, np.zeros(face.shape[:2], np.bool_), inpainter.image_size, "face")[0][None]
    region: Hole = np.zeros((inpainter.image_size,) * 2, np.bool_)
    limits, shares = source.occlusion, dict[str, float]()
    if source.categories:
        labels = inpainter.parse(image)[0]
        region, shares = category_region(labels, source.categories, source.margin, limits.min_hole)
    if source.kind != "occlusion":
        return region, MaskNote(source.kind, float(region.mean()), len(shares), None, categories=shares)
    occlusion = find_occlusion(inpainter.occlusion_probability(image)[0], limits)
    region = region | occlusion.hole
    area = float(region.mean())
    if area > limits.max_hole:
        reason = (f"the hole would take {area:.0%} of the face's square, more than {limits.max_hole:.0%}",)
        return np.zeros_like(region), MaskNote(source.kind, area, 0, occlusion.confidence, reason, 1)
    parts = len(occlusion.confidences)
    return region, MaskNote(
        source.kind, area, parts, occlusion.confidence, tuple(doubts(occlusion, area, limits)), 0, shares
    )
