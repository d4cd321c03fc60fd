"""A layer to paste over a face, and how it is lit, coloured and joined to the picture.

Pictures are RGB float32 [S, S, 3] in [0, 1], alpha and labels [S, S]. A paste that is sharper, cleaner or of another
light than its face would be found by its seam and not by what it is: so all of that is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatPicture = NDArray[np.float32]
Alpha = NDArray[np.float32]

FREE, COVERED, UNCOUNTED = 0, 1, 2  # what a label says of a pixel

# Where at least six in ten aligned faces show face, and where they show head: centre and half axes, of the side.
FACE = ((0.504, 0.5485), (0.244, 0.362))
HEAD = ((0.505, 0.444), (0.404, 0.478))


@dataclass(slots=True)
class Scene:
    """A picture in the making."""

    picture: FloatPicture
    labels: NDArray[np.uint8]  # FREE, COVERED or UNCOUNTED

    @property
    def size(self) -> int:
        """The side in pixels."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Layer:
    """What is pasted: colour, and how much of it covers each pixel."""

    colour: FloatPicture
    alpha: Alpha


def ellipse(size: int, shape: tuple[tuple[float, float], tuple[float, float]]) -> NDArray[np.bool_]:
    """Return the inside [size, size] of an ellipse of centre and half axes as parts of the side."""
    (x, y), (a, b) = shape
    place = (np.arange(size) + 0.5) / size
    return np.asarray(((place - x) / a) ** 2 + ((place[:, None] - y) / b) ** 2 <= 1)


def warped(rgba: NDArray[np.uint8], matrix: NDArray[np.float64], size: int) -> Layer:
    """Lay a cut-out [H, W, 4] onto a canvas by an affine [2, 3] or projective [3, 3] map of its pixels."""
    source = rgba.astype(np.float32) / 255
    source[..., :3] *= source[..., 3:]  # premultiplied: transparent pixels have no colour to bleed
    warp = cv2.warpAffine if matrix.shape[0] == 2 else cv2.warpPerspective
    laid = np.asarray(warp(source, matrix, (size, size), flags=cv2.INTER_LINEAR), np.float32)
    alpha = laid[..., 3]
    return Layer(laid[..., :3] / np.maximum(alpha[..., None], 1e-3), alpha)


def placed(
    rgba: NDArray[np.uint8], centre: tuple[float, float], length: float, angle: float, mirrored: bool, size: int
) -> Layer:
    """Lay a cut-out with its centre at a point of the canvas.

    Args:
        rgba: the cut-out.
        centre: x and y in pixels.
        length: of its longer side, in pixels.
        angle: clockwise, in radians.
        mirrored: left and right are swapped before it is turned.
        size: side of the canvas.
    """
    height, width = rgba.shape[:2]
    factor = length / max(height, width)
    if factor < 0.6:  # bilinear sampling would skip pixels
        rgba = cv2.resize(rgba, None, fx=factor * 1.4, fy=factor * 1.4, interpolation=cv2.INTER_AREA)
        height, width = rgba.shape[:2]
        factor = length / max(height, width)
    cos, sin, flip = np.cos(angle) * factor, np.sin(angle) * factor, -1.0 if mirrored else 1.0
    linear = np.asarray([[cos * flip, -sin], [sin * flip, cos]])
    shift = np.asarray(centre) - linear @ np.asarray(((width - 1) / 2, (height - 1) / 2))
    return warped(rgba, np.column_stack([linear, shift]), size)


def recoloured(
    layer: Layer, mean: NDArray[np.float32], spread: NDArray[np.float32] | None, strength: NDArray[np.float32]
) -> Layer:
    """Move the Lab colours of a layer towards a mean (and a spread), each channel by ``strength`` in [0, 1]."""
    inside = layer.alpha > 0.5
    if not inside.any():
        return layer
    x, y, width, height = cv2.boundingRect((layer.alpha > 0).astype(np.uint8))
    window = slice(y, y + height), slice(x, x + width)
    lab = cv2.cvtColor(layer.colour[window].clip(0, 1), cv2.COLOR_RGB2LAB)
    pixels = lab[inside[window]]
    own_mean, own_spread = pixels.mean(axis=0), pixels.std(axis=0) + 1e-3
    scale = np.ones(3, np.float32) if spread is None else (spread / own_spread).clip(0.6, 1.6) ** strength
    moved = (lab - own_mean) * scale + own_mean + (mean - own_mean) * strength
    colour = layer.colour.copy()
    colour[window] = cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_LAB2RGB).clip(0, 1)
    return Layer(colour, layer.alpha)


def skin_colour(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and spread of the Lab colours of the cheeks and the nose."""
    size = scene.size
    part = scene.picture[int(0.52 * size) : int(0.72 * size) : 2, int(0.32 * size) : int(0.68 * size) : 2]
    pixels = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2LAB).reshape(-1, 3)
    return pixels.mean(axis=0), pixels.std(axis=0)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Alpha:
    """Return [size, size] noise of about unit spread whose features are ``size / cells`` large."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def paste(rng: np.random.Generator, scene: Scene, layer: Layer, shadow: float = 0.35, counts: bool = True) -> None:
    """Join a layer to the scene: light, shadow, soft edge; and mark it covered.

    Args:
        rng: decides strengths and directions.
        scene: changed in place.
        layer: what is pasted.
        shadow: the darkest that its shadow may be, 0 for none.
        counts: it is an occlusion; otherwise the labels stay as they are.
    """
    size, alpha = scene.size, layer.alpha
    erode = int(rng.integers(0, 3))
    if erode:
        alpha = cv2.erode(alpha, np.ones((erode + 1, erode + 1), np.uint8))
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.2) * size / 256)
    place = np.linspace(-1, 1, size, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
    ramp = 1 + strength * (np.cos(angle) * place + np.sin(angle) * place[:, None])
    colour = layer.colour * ramp[..., None] * rng.uniform(0.85, 1.12)
    if shadow and rng.random() < 0.7:
        depth, blur = rng.uniform(0, shadow), rng.uniform(0.01, 0.05) * size
        dx, dy = rng.uniform(-0.04, 0.04, 2) * size
        small = cv2.resize(alpha, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), max(0.5, blur / 4))
        move = np.asarray([[4.0, 0, dx], [0, 4.0, dy]])
        cast = cv2.warpAffine(small, move, (size, size), flags=cv2.INTER_LINEAR)
        scene.picture *= 1 - depth * cast[..., None]
    scene.picture += (colour.clip(0, 1) - scene.picture) * alpha[..., None]
    if counts:
        scene.labels[alpha >= 0.5] = COVERED
        scene.labels[(alpha >= 0.15) & (alpha < 0.5) & (scene.labels == FREE)] = UNCOUNTED
