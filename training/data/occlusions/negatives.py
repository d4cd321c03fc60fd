"""What must not be taken for an occlusion: light, make-up, beards, seams; and what happens to a whole picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .drawn import blob, outline
from .fabric import any_colour
from .layers import FloatPicture, Scene, smooth_noise


def light(rng: np.random.Generator, scene: Scene) -> None:
    """Cast a shadow, or coloured light, with a soft or hard edge; or stripes, as blinds and leaves do."""
    size = scene.size
    draw = rng.random()
    if draw < 0.4:
        centre = rng.uniform(0.15, 0.85, 2) * size
        alpha = outline(size, blob(rng, centre, rng.uniform(0.1, 0.4) * size, 0.5))
    else:
        turn = rng.uniform(0, 2 * np.pi)
        place = (np.arange(size) + 0.5) / size - 0.5
        across = np.cos(turn) * place + np.sin(turn) * place[:, None] + rng.uniform(-0.2, 0.2)
        across = across + smooth_noise(rng, size, 4) * 0.03
        if draw > 0.8:
            across = np.sin(across * rng.uniform(15, 60)) + rng.uniform(-0.5, 0.5)
        alpha = (across > 0).astype(np.float32)  # half of the face, or stripes
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.004, 0.08) * size)[..., None]
    gain = np.float32(rng.uniform(0.35, 0.85)) if rng.random() < 0.6 else (0.5 + any_colour(rng)).astype(np.float32)
    scene.picture = (scene.picture * (1 - alpha + alpha * gain)).clip(0, 1)


def paint(rng: np.random.Generator, scene: Scene) -> None:
    """Draw make-up, a tattoo, freckles or a mark; the skin shows through."""
    size = scene.size
    kind = rng.random()
    alpha = np.zeros((size, size), np.float32)
    if kind < 0.35:  # make-up at lids, cheeks or lips
        places = ((0.376, 0.46), (0.622, 0.46), (0.33, 0.64), (0.67, 0.64), (0.5, 0.74))
        first = int(rng.choice((0, 2, 4)))
        for x, y in places[first : first + 2]:
            axes = (round(rng.uniform(0.04, 0.09) * size), round(rng.uniform(0.02, 0.06) * size))
            cv2.ellipse(alpha, (round(x * size), round(y * size)), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
        alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.004, 0.03) * size)
        colour, strength = any_colour(rng), rng.uniform(0.15, 0.6)
    elif kind < 0.65:  # a tattoo, or painted lines
        for _ in range(int(rng.integers(1, 7))):
            start = rng.uniform(0.25, 0.75, 2)
            points = start + np.cumsum(rng.normal(0, 0.04, (int(rng.integers(3, 9)), 2)), axis=0)
            thick = int(rng.integers(1, max(2, size // 50)))
            cv2.polylines(alpha, [np.rint(points * size).astype(np.int32)], False, 1.0, thick, cv2.LINE_AA)
        colour, strength = any_colour(rng) * rng.uniform(0.1, 1), rng.uniform(0.3, 0.75)
    elif kind < 0.85:  # freckles and moles
        for _ in range(int(rng.integers(3, 60))):
            where = np.rint(rng.normal((0.5, 0.58), (0.12, 0.13)) * size).astype(int).tolist()
            cv2.circle(alpha, where, int(rng.integers(1, max(2, size // 90))), 1.0, -1, cv2.LINE_AA)
        colour, strength = np.asarray((0.35, 0.2, 0.12), np.float32), rng.uniform(0.2, 0.7)
    else:  # a patch of lighter or darker skin
        alpha = outline(size, blob(rng, rng.uniform(0.3, 0.7, 2) * size, rng.uniform(0.04, 0.14) * size, 0.7))
        alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.003, 0.02) * size)
        gain = np.float32(rng.choice((0.65, 0.8, 1.25, 1.4)))
        scene.picture = (scene.picture * (1 - alpha[..., None] + alpha[..., None] * gain)).clip(0, 1)
        return
    alpha = (alpha * strength)[..., None]
    scene.picture = (scene.picture * (1 - alpha + alpha * colour)).clip(0, 1)


def other_face(rng: np.random.Generator, scene: Scene, other: FloatPicture) -> None:
    """Blend in the jaw, the brow or half of another aligned face: beards, lips and lines that are not its own."""
    size = scene.size
    centre, axes = ((0.5, 0.82), (0.26, 0.19)) if rng.random() < 0.7 else ((0.5, 0.55), (0.2, 0.28))
    canvas = np.zeros((size, size), np.float32)
    cv2.ellipse(canvas, (round(centre[0] * size), round(centre[1] * size)),
                (round(axes[0] * size), round(axes[1] * size)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)  # fmt: skip
    alpha = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.015, 0.05) * size)[..., None]
    inside = canvas > 0.5
    shift = scene.picture[inside].mean(axis=0) - other[inside].mean(axis=0)
    scene.picture += ((other + shift * rng.uniform(0.7, 1)).clip(0, 1) - scene.picture) * alpha


def self_patch(rng: np.random.Generator, scene: Scene) -> None:
    """Paste a piece of the picture onto itself a little aside: a seam without an occlusion, to be ignored by it."""
    size = scene.size
    alpha = outline(size, blob(rng, rng.uniform(0.25, 0.75, 2) * size, rng.uniform(0.05, 0.15) * size, 0.4))
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.2))[..., None]
    moved = np.roll(scene.picture, rng.integers(-size // 40, size // 40 + 1, 2).tolist(), axis=(0, 1))
    gain = np.float32(rng.uniform(0.93, 1.07))
    scene.picture += ((moved * gain).clip(0, 1) - scene.picture) * alpha * (scene.labels == 0)[..., None]


def toned(rng: np.random.Generator, picture: FloatPicture) -> FloatPicture:
    """Turn some pictures grey, and some into warm, cold or stage light."""
    draw = rng.random()
    if draw < 0.08:
        grey = picture @ np.asarray((0.299, 0.587, 0.114), np.float32)
        tint = np.ones(3, np.float32) if rng.random() < 0.6 else np.asarray((1.08, 1.0, 0.86), np.float32)
        return np.asarray((grey[..., None] * tint).clip(0, 1), np.float32)
    if draw < 0.24:
        gain = np.exp(rng.normal(0, 0.28, 3)).astype(np.float32)
        return np.asarray((picture * gain).clip(0, 1), np.float32)
    return picture


def degraded(rng: np.random.Generator, picture: FloatPicture) -> NDArray[np.uint8]:
    """Blur, shrink, add noise and compress the whole picture, so that no paste is told by its sharpness."""
    size = len(picture)
    if rng.random() < 0.3:
        picture = picture.clip(0, 1) ** np.float32(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.35:
        small = max(48, round(size * rng.uniform(0.3, 0.9)))
        shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    elif rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.6))
    if rng.random() < 0.4:
        noise = rng.standard_normal((size, size, 1 if rng.random() < 0.5 else 3), np.float32)
        picture = picture + noise * np.float32(rng.uniform(0.005, 0.05))
    image = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(35, 96))
        coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
    return image
