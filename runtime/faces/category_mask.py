"""The hole as the region of a category, found by the bundle's parser on the input itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..stages import CATEGORIES
from .align import Square, picture_map, reach
from .mask_picture import Hole

Region = NDArray[np.bool_]  # [size, size], of the networks' input


def category_region(
    semantic_map: NDArray[Any], categories: tuple[str, ...], margin: int, least: float = 0.0
) -> tuple[Region, dict[str, float]]:
    """Return where a semantic map shows one of ``categories``, and how much of each it shows.

    Args:
        semantic_map: [size, size].
        categories: names out of ``CATEGORIES``.
        margin: pixels by which the region grows.
        least: share of the square below which what a category shows is a mistake of the parser, and left out.
    """
    shares, found = {}, np.zeros(semantic_map.shape, np.uint8)
    for name in categories:
        shown = semantic_map == CATEGORIES.index(name)
        if float(shown.mean()) >= max(least, 1 / semantic_map.size):
            shares[name] = round(float(shown.mean()), 4)
            found |= shown
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1,) * 2)
    return np.asarray(cv2.dilate(found, disc), np.bool_), shares


def region_of_square(region: Region, side: int) -> Hole:
    """Return the region at the size of a square image (side, side)."""
    full = cv2.resize(region.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(full >= 0.5)


def add_region(hole: Hole, region: Region, square: Square) -> None:
    """Add the region of one face to the hole (H, W) of its picture, in place."""
    area = reach(square, hole.shape)
    if area is None:
        return
    rows, columns = area
    matrix = picture_map(square, region.shape[0])
    matrix[:, 2] -= (columns.start, rows.start)
    size = columns.stop - columns.start, rows.stop - rows.start
    # The -1: by no rounding does what touches the square's edge reach a pixel beyond, which no face would complete.
    found = cv2.warpAffine(region.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=-1.0)
    hole[area] |= np.asarray(found) >= 0.5
