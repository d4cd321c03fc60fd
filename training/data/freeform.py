"""Free-form masks of a wanted hole ratio: strokes, boxes, borders and half planes in random mixture."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]  # [size, size], 1 = hole
Painter = Callable[[np.random.Generator, Canvas, float], None]  # adds one shape of about the given share of the area

STROKE_WIDTH = (0.04, 0.18)  # of the side
MAX_TURN = math.radians(70)  # between two segments of a stroke
BORDERED = 0.3  # share of the masks that begin with a border; a second one would mostly lie inside the first
KNOWN_ISLANDS = 0.45  # share of the masks of a surround that leave an island known
SHRINK = 0.7  # of the next shape, after one that went beyond the wanted ratio


def draw_mask(rng: np.random.Generator, size: int, low: float, high: float) -> NDArray[np.bool_]:
    """Draw a mask [size, size], True = hole, whose hole ratio lies in [low, high].

    Args:
        rng: decides the mask.
        size: side in pixels.
        low: least share of hole pixels, in [0, 1].
        high: greatest share.

    Raises:
        ValueError: no mask of this size has such a ratio.
    """
    pixels = size * size
    if not 0 <= low <= high <= 1 or math.ceil(low * pixels) > math.floor(high * pixels):
        raise ValueError(f"no mask of {size}×{size} has a hole ratio between {low} and {high}")
    target = rng.uniform(low, high)
    enough = max(low, target - (high - low) / 4)
    fillers = MIXTURES[rng.integers(len(MIXTURES))]
    bordered = rng.random() < BORDERED
    canvas, ratio, scale = np.zeros((size, size), np.uint8), 0.0, 1.0
    while ratio < enough:
        tried = canvas.copy()
        paint = _border if bordered else fillers[rng.integers(len(fillers))]
        paint(rng, tried, scale * max(target - ratio, 1 / pixels) * rng.uniform(0.3, 1.0))
        grown = cv2.countNonZero(tried) / pixels
        if grown > high:
            scale *= SHRINK  # down to a single pixel, which always fits
        else:
            canvas, ratio, scale, bordered = tried, grown, 1.0, False
    return canvas.astype(np.bool_)


def draw_surround(rng: np.random.Generator, size: int, low: float, high: float) -> NDArray[np.bool_]:
    """Draw a mask [size, size], True = hole, that leaves a frame's inside, a half plane or an island known.

    Args:
        rng: decides the mask.
        size: side in pixels.
        low: least share of hole pixels, in [0, 1]; islands and tilted half planes come near it only.
        high: greatest share, as near.
    """
    area = rng.uniform(low, high)
    canvas = np.zeros((size, size), np.uint8)
    if rng.random() < KNOWN_ISLANDS:
        known = np.zeros_like(canvas)
        painter = _box if rng.random() < 0.5 else _ellipse
        painter(rng, known, 1 - area)
        canvas[known == 0] = 1
    else:
        _border(rng, canvas, area)
    return canvas.astype(np.bool_)


def _stroke(rng: np.random.Generator, canvas: Canvas, area: float) -> None:
    """Paint a thick stroke along a random walk; its ends are round."""
    size = len(canvas)
    width = size * min(rng.uniform(*STROKE_WIDTH), math.sqrt(area) / 2)
    length, angle, bend = area * size * size / max(width, 1.0), rng.uniform(0, 2 * math.pi), rng.choice((-1.0, 1.0))
    point, points = rng.uniform(0, size, 2), []
    while True:
        points.append(point)
        if length <= 0:
            break
        step = min(length, rng.uniform(0.05, 0.25) * size)
        point = np.clip(point + step * np.asarray((math.cos(angle), math.sin(angle))), 0, size - 1)
        angle += bend * rng.uniform(-0.3, 1.0) * MAX_TURN
        length -= step
    cv2.polylines(canvas, [np.rint(points).astype(np.int32)], isClosed=False, color=1, thickness=max(1, round(width)))


def _box(rng: np.random.Generator, canvas: Canvas, area: float) -> None:
    """Paint an upright rectangle."""
    size = len(canvas)
    aspect = math.exp(rng.uniform(-0.7, 0.7))
    width, height = (max(1, round(size * min(1.0, math.sqrt(area * a)))) for a in (aspect, 1 / aspect))
    left, top = (int(rng.integers(0, size - side, endpoint=True)) for side in (width, height))
    canvas[top : top + height, left : left + width] = 1


def _ellipse(rng: np.random.Generator, canvas: Canvas, area: float) -> None:
    """Paint a tilted ellipse that lies inside the canvas with its centre."""
    size = len(canvas)
    aspect = math.exp(rng.uniform(-0.7, 0.7))
    axes = tuple(max(1, round(size * math.sqrt(area * a / math.pi))) for a in (aspect, 1 / aspect))
    centre = tuple(int(v) for v in rng.integers(0, size, size=2))
    cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)


def _border(rng: np.random.Generator, canvas: Canvas, area: float) -> None:
    """Paint what lies outside a frame, or on the far side of a straight line."""
    size = len(canvas)
    if rng.random() < 0.4:
        thickness = max(1, round(size * (1 - math.sqrt(1 - min(area, 1.0))) / 2))
        for turned in (canvas, canvas.T):
            turned[:thickness] = turned[-thickness:] = 1
        return
    # The line cuts off the wanted area exactly where it is parallel to a side.
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.5 else math.pi / 2 * rng.integers(4)
    normal = np.asarray((math.cos(angle), math.sin(angle)))
    along, centre = np.asarray((-normal[1], normal[0])), (size - 1) / 2
    near = centre + normal * size * (0.5 - area) * np.abs(normal).sum()
    far = near + 2 * size * normal
    corners = [near - 2 * size * along, near + 2 * size * along, far + 2 * size * along, far - 2 * size * along]
    cv2.fillConvexPoly(canvas, np.rint(corners).astype(np.int32), 1)


MIXTURES: tuple[tuple[Painter, ...], ...] = ((_stroke,), (_stroke,), (_stroke, _box), (_box,))
