"""Surfaces to fill masks, scarves, stickers and random shapes with."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .layers import FloatPicture, smooth_noise

# Colours that fabric is often of: white, black, greys, navy, sky, pink, red, beige, green.
COMMON = ((0.95, 0.95, 0.95), (0.06, 0.06, 0.07), (0.5, 0.5, 0.52), (0.1, 0.13, 0.3), (0.55, 0.75, 0.9),
          (0.9, 0.65, 0.7), (0.65, 0.1, 0.12), (0.8, 0.7, 0.58), (0.2, 0.4, 0.28))  # fmt: skip


def surface(rng: np.random.Generator, size: int, textures: Sequence[NDArray[np.uint8]]) -> FloatPicture:
    """Draw a surface [size, size, 3]: a texture, stripes, checks, dots or one colour; with folds and weave."""
    draw = rng.random()
    if draw < 0.45 and textures:
        filled = tiled(rng, size, textures[int(rng.integers(len(textures)))])
    elif draw < 0.7:
        filled = _pattern(rng, size)
    else:
        filled = np.broadcast_to(any_colour(rng), (size, size, 3)).astype(np.float32)
    return folded(rng, filled)


def any_colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a colour, a common one of fabric half of the time."""
    if rng.random() < 0.5:
        return np.asarray(COMMON[int(rng.integers(len(COMMON)))], np.float32) * np.float32(rng.uniform(0.75, 1.05))
    return rng.uniform(0.02, 1, 3).astype(np.float32)


def tiled(rng: np.random.Generator, size: int, texture: NDArray[np.uint8]) -> FloatPicture:
    """Fill a square with mirrored copies of a texture at a random scale, angle and place."""
    factor = rng.uniform(0.35, 1.6) * size / 256
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    matrix = np.asarray([[cos, -sin, rng.uniform(0, size)], [sin, cos, rng.uniform(0, size)]])
    filled = cv2.warpAffine(texture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    filled = filled.astype(np.float32) / 255
    if rng.random() < 0.4:  # the same weave in another colour
        filled = filled.mean(axis=2, keepdims=True) * any_colour(rng) * 1.3
    return filled.clip(0, 1)


def _pattern(rng: np.random.Generator, size: int) -> FloatPicture:
    """Draw stripes, checks or dots of two colours."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.02, 0.12) * size
    place = np.arange(size, dtype=np.float32)
    along = (np.cos(angle) * place + np.sin(angle) * place[:, None]) / period
    across = (-np.sin(angle) * place + np.cos(angle) * place[:, None]) / period
    kind = rng.integers(3)
    if kind == 0:
        which = along % 1 < rng.uniform(0.2, 0.8)
    elif kind == 1:
        which = (along % 1 < 0.5) ^ (across % 1 < 0.5)
    else:
        which = (along % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2 < rng.uniform(0.02, 0.15)
    return np.where(which[..., None], any_colour(rng), any_colour(rng)).astype(np.float32)


def folded(rng: np.random.Generator, filled: FloatPicture) -> FloatPicture:
    """Shade a surface as folds and weave do."""
    size = len(filled)
    folds = smooth_noise(rng, size, int(rng.integers(2, 9))) * rng.uniform(0.0, 0.14)
    if rng.random() < 0.6:  # folds run along something
        folds = folds + smooth_noise(rng, size, 14)[:, :1] * rng.uniform(0, 0.1)
    weave = rng.standard_normal((size, size)).astype(np.float32) * rng.uniform(0, 0.05)
    return (filled * (1 + folds + weave)[..., None]).clip(0, 1).astype(np.float32)


def cloth_of(rgb: NDArray[np.uint8], cloth: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """Return the largest square patch of real cloth that a labelled face shows; None below an eighth of the side."""
    inside = cv2.distanceTransform(cloth.astype(np.uint8), cv2.DIST_L2, 3)
    _, radius, _, (x, y) = cv2.minMaxLoc(inside)
    half = int(radius * 0.7)
    if half < len(cloth) // 16:
        return None
    y0, x0 = max(0, y - half), max(0, x - half)
    return np.ascontiguousarray(rgb[y0 : y + half, x0 : x + half])
