"""Things that are drawn: sunglasses, microphones, cloth over the face, shapes, stickers and text."""

from __future__ import annotations

import string
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .fabric import any_colour, surface
from .layers import Alpha, FloatPicture, Layer, smooth_noise

EYES = ((0.3764, 0.4775), (0.6222, 0.4792))  # of an aligned face


def outline(size: int, points: NDArray[np.float64]) -> Alpha:
    """Fill a polygon [N, 2] of pixels, with soft edges."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def blob(rng: np.random.Generator, centre: NDArray[np.float64], radius: float, roughness: float) -> NDArray[np.float64]:
    """Return the outline [N, 2] of a random smooth shape."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    bumps = sum(rng.uniform(-1, 1) / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, 6))
    radii = radius * (1 + roughness * bumps).clip(0.25)
    stretch = np.exp(rng.uniform(-0.5, 0.5))
    turn = rng.uniform(0, np.pi)
    local = np.column_stack([np.cos(angles) * radii * stretch, np.sin(angles) * radii / stretch])
    cos, sin = np.cos(turn), np.sin(turn)
    return np.asarray(centre + local @ np.asarray([[cos, sin], [-sin, cos]]))


def glasses(rng: np.random.Generator, size: int, reflected: FloatPicture, clear: bool = False) -> Layer:
    """Draw glasses: superellipse lenses with a gradient and a reflection, a bridge, a rim and temples.

    Args:
        rng: decides their shape and colour.
        size: side of the canvas.
        reflected: a picture [S, S, 3] that the lenses mirror faintly.
        clear: eyeglasses that one sees through; otherwise sunglasses.
    """
    half_width = rng.uniform(0.095, 0.15) * size
    half_height = half_width * rng.uniform(0.55, 1.0)
    power = rng.uniform(1.8, 5)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    cos, sin = np.cos(angles), np.sin(angles)
    lens = np.column_stack([
        np.sign(cos) * np.abs(cos) ** (2 / power) * half_width,
        np.sign(sin) * np.abs(sin) ** (2 / power) * half_height * np.where(sin > 0, rng.uniform(0.8, 1.2), 1),
    ])  # fmt: skip
    slant, drop = rng.uniform(-0.12, 0.12), rng.uniform(-0.015, 0.035)
    lenses = np.zeros((size, size), np.float32)
    centres = []
    for side, (x, y) in zip((-1, 1), EYES, strict=True):
        centre = np.asarray((x + side * rng.uniform(-0.005, 0.015), y + drop)) * size
        shaped = lens * np.asarray((side, 1.0))
        shaped[:, 1] += slant * shaped[:, 0] * side
        centres.append(centre)
        lenses = np.maximum(lenses, outline(size, centre + shaped))
    if rng.random() < 0.12:  # one shield, as goggles have
        left, right = centres[0][0] - half_width, centres[1][0] + half_width
        top, bottom = centres[0][1] - half_height, centres[0][1] + half_height
        corners = np.asarray([(left, top), (right, top), (right - 0.02 * size, bottom), (left + 0.02 * size, bottom)])
        lenses = np.maximum(lenses, outline(size, corners))
    rim = max(1, round(rng.uniform(0.004, 0.022) * size))
    frame = cv2.dilate(lenses, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1,) * 2)) - lenses
    bars = np.zeros((size, size), np.float32)
    height = round(centres[0][1] - half_height * rng.uniform(0, 0.6))
    thick = max(1, round(rng.uniform(0.008, 0.03) * size))
    inner = (round(centres[0][0] + half_width * 0.8), round(centres[1][0] - half_width * 0.8))
    cv2.line(bars, (inner[0], height), (inner[1], height), 1.0, thick, cv2.LINE_AA)
    for side, centre in zip((-1, 1), centres, strict=True):
        start = round(centre[0] + side * half_width * 0.9)
        end = round(centre[0] + side * (half_width + 0.08 * size))
        cv2.line(bars, (start, height), (end, height + round(rng.uniform(-0.01, 0.02) * size)), 1.0, thick, cv2.LINE_AA)
    frame = np.maximum(frame, bars * (lenses < 0.5))

    dark = rng.uniform(0.0, 0.28, 3) * np.asarray((1, 1, 1) if rng.random() < 0.6 else rng.uniform(0.5, 1.6, 3))
    if rng.random() < 0.2:  # mirrored
        dark = rng.uniform(0.3, 0.8, 3)
    fade = np.linspace(-1, 1, size, dtype=np.float32)[:, None] * rng.uniform(-0.3, 0.6) * 3
    colour = (dark * (1 + fade[..., None]) * np.ones((size, size, 1))).astype(np.float32)
    colour += reflected * rng.uniform(0, 0.22)
    if rng.random() < 0.4:  # a highlight
        spot = centres[int(rng.integers(2))] + rng.uniform(-0.5, 0.5, 2) * (half_width, half_height)
        shine = outline(size, blob(rng, spot, rng.uniform(0.01, 0.04) * size, 0.4))
        colour += cv2.GaussianBlur(shine, (0, 0), 0.01 * size)[..., None] * rng.uniform(0.2, 0.8)
    rim_colour = any_colour(rng) * rng.uniform(0.1, 1)
    colour = colour * (1 - frame[..., None]) + rim_colour * frame[..., None]
    opacity = rng.uniform(0.0, 0.15) if clear else rng.uniform(0.66, 0.98)
    layer = Layer(colour.clip(0, 1).astype(np.float32), np.maximum(lenses * opacity, frame))
    return turned(rng, layer, 6)


def turned(rng: np.random.Generator, layer: Layer, degrees: float) -> Layer:
    """Turn, scale and shift a layer a little about the eyes."""
    size = len(layer.alpha)
    middle = (size * rng.uniform(0.47, 0.53), size * rng.uniform(0.46, 0.5))
    matrix = cv2.getRotationMatrix2D(middle, rng.uniform(-degrees, degrees), rng.uniform(0.92, 1.1))
    alpha = cv2.warpAffine(layer.alpha, matrix, (size, size))
    return Layer(np.asarray(cv2.warpAffine(layer.colour, matrix, (size, size)), np.float32), alpha)


def microphone(rng: np.random.Generator, size: int) -> Layer:
    """Draw a microphone: a ball or capsule of mesh, a collar and a tapered handle; most come from below."""
    radius = rng.uniform(0.045, 0.12) * size
    mouth = np.asarray((rng.normal(0.5, 0.08), rng.uniform(0.68, 0.93))) * size
    angle = rng.normal(np.pi / 2, 0.6)  # of the handle; downwards
    along = np.asarray((np.cos(angle), np.sin(angle)))
    across = np.asarray((-along[1], along[0]))
    long = rng.uniform(1.0, 1.9)
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ball = mouth + np.outer(np.cos(turns) * radius * long, along) + np.outer(np.sin(turns) * radius, across)
    neck, end = mouth + along * radius * long * 0.75, mouth + along * rng.uniform(4, 9) * radius
    wide, narrow = radius * rng.uniform(0.5, 0.85), radius * rng.uniform(0.3, 0.7)
    handle = np.asarray([neck + across * wide, neck - across * wide, end - across * narrow, end + across * narrow])
    head, bar = outline(size, ball), outline(size, handle)
    place = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=2) - mouth
    u, v = place @ along / radius, place @ across / radius
    tone = np.float32(rng.choice((0.08, 0.2, 0.45, 0.7)) * rng.uniform(0.7, 1.3))
    mesh = rng.uniform(3, 9)
    weave = 1 + rng.uniform(0.1, 0.5) * np.sign(np.sin(u * mesh * np.pi) * np.sin(v * mesh * np.pi))
    round_light = 1.1 - 0.6 * (v**2 + (u / long) ** 2).clip(0, 1) + 0.5 * np.exp(-((v + 0.4) ** 2 + (u + 0.3) ** 2) * 4)
    tint = np.ones(3) if rng.random() < 0.8 else any_colour(rng) * 1.6
    colour = (tone * weave * round_light)[..., None] * tint
    gloss = 0.7 + 0.6 * np.exp(-((v + 0.2) ** 2) * rng.uniform(4, 20)) - 0.3 * np.abs(v).clip(0, 1)
    stick = (np.float32(rng.uniform(0.03, 0.5)) * gloss)[..., None] * np.ones(3)
    if rng.random() < 0.5:  # the collar
        ring = (np.abs(u - long * 0.85) < rng.uniform(0.08, 0.2))[..., None]
        stick = np.where(ring, rng.uniform(0.2, 0.8), stick)
    colour = colour * head[..., None] + stick * (1 - head[..., None])
    return Layer(colour.clip(0, 1).astype(np.float32), np.maximum(head, bar))


def cloth(rng: np.random.Generator, size: int, textures: Sequence[NDArray[np.uint8]]) -> Layer:
    """Draw fabric over the lower face, down to the border or to the chin; or a band across the eyes."""
    filled = surface(rng, size, textures)
    middle = rng.normal(0.5, 0.05)
    if rng.random() < 0.15:  # a blindfold or bandage
        top, slope = rng.uniform(0.36, 0.44), rng.uniform(-0.25, 0.25)
        height = rng.uniform(0.1, 0.22)
        xs = np.linspace(-0.1, 1.1, 24)
        upper = top + (xs - 0.5) * slope + 0.05 * (xs - 0.5) ** 2 + rng.normal(0, 0.004, 24)
        lower = top + height + (xs - 0.5) * slope + rng.normal(0, 0.004, 24)
    else:
        top = rng.uniform(0.54, 0.84)
        xs = np.linspace(-0.1, 1.1, 24)
        nose = rng.uniform(-0.09, 0.02) * np.exp(-(((xs - middle) / rng.uniform(0.06, 0.15)) ** 2))
        sag = rng.uniform(-0.25, 0.6) * (xs - middle) ** 2
        upper = top + nose + sag + rng.uniform(-0.12, 0.12) * (xs - 0.5) + rng.normal(0, 0.005, 24)
        if rng.random() < 0.45:  # ends at the chin, and at the cheeks
            xs = np.linspace(middle - rng.uniform(0.2, 0.29), middle + rng.uniform(0.2, 0.29), 24)
            chin = rng.uniform(0.9, 0.99)
            lower = np.maximum(chin - (np.abs(xs - middle) / 0.32) ** rng.uniform(2, 4) * 0.25, upper + 0.06)
        else:
            lower = np.full(24, 1.1)
    points = np.concatenate([np.column_stack([xs, upper]), np.column_stack([xs, lower])[::-1]]) * size
    alpha = outline(size, points)
    if rng.random() < 0.5:  # pleats
        pleats = np.sin(np.linspace(0, rng.uniform(8, 26), size)[:, None] + smooth_noise(rng, size, 3) * 0.7)
        filled = (filled * (1 + rng.uniform(0.03, 0.14) * pleats[..., None])).clip(0, 1)
    place = (np.arange(size) / size - middle) / 0.3
    shade = 1 - rng.uniform(0, 0.45) * (place**2).clip(0, 1)  # the face is round
    return Layer((filled * shade[:, None]).astype(np.float32), alpha)


def shape(rng: np.random.Generator, size: int, textures: Sequence[NDArray[np.uint8]]) -> Layer:
    """Draw a patch of any surface: a smooth blob, a polygon or a strip; three in ten are translucent."""
    centre = np.asarray((rng.normal(0.504, 0.15), rng.normal(0.57, 0.17))) * size
    radius = rng.uniform(0.06, 0.2) * size
    kind = rng.random()
    if kind < 0.5:
        alpha = outline(size, blob(rng, centre, radius, rng.uniform(0.1, 0.6)))
    elif kind < 0.8:
        turn, aspect = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.8, 0.8))
        corners = np.asarray([(-aspect, -1), (aspect, -1), (aspect, 1), (-aspect, 1)]) * radius / max(1, aspect) * 1.2
        cos, sin = np.cos(turn), np.sin(turn)
        alpha = outline(size, centre + corners @ np.asarray([[cos, sin], [-sin, cos]]))
    else:
        alpha = np.zeros((size, size), np.float32)
        turn = rng.uniform(0, np.pi)
        far = np.asarray((np.cos(turn), np.sin(turn))) * size
        ends = [tuple(np.rint(centre + k * far).astype(int).tolist()) for k in (-1.5, 1.5)]
        cv2.line(alpha, ends[0], ends[1], 1.0, max(3, round(rng.uniform(0.03, 0.14) * size)), cv2.LINE_AA)
    if rng.random() < 0.3:
        alpha = alpha * np.float32(rng.uniform(0.4, 0.8))
    return Layer(surface(rng, size, textures), alpha)


def text_block(rng: np.random.Generator, size: int) -> Layer:
    """Draw words on an opaque block, as captions and logos are."""
    scale = rng.uniform(0.4, 1.2) * size / 256
    letters = string.ascii_letters + string.digits + "  "
    lines = ["".join(rng.choice(list(letters), int(rng.integers(3, 14)))) for _ in range(int(rng.integers(1, 4)))]
    thick = int(rng.integers(1, 3))
    sizes = [cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0] for line in lines]
    wide, high = max(w for w, _ in sizes) + 12, sum(h + 8 for _, h in sizes) + 8
    middle = np.asarray((rng.normal(0.5, 0.15), rng.normal(0.6, 0.18))) * size
    x, y = (middle - (wide / 2, high / 2)).round().astype(int)
    paper, ink = ((any_colour(rng) * 255).clip(0, 255).astype(np.uint8) for _ in range(2))
    page = np.broadcast_to(paper, (size, size, 3)).copy()  # OpenCV writes on 8 bits only
    alpha = np.zeros((size, size), np.float32)
    cv2.rectangle(alpha, (int(x), int(y)), (int(x) + wide, int(y) + high), 1.0, -1)
    below = int(y) + 6
    for line, (_, h) in zip(lines, sizes, strict=True):
        below += h + 6
        cv2.putText(page, line, (int(x) + 6, below), cv2.FONT_HERSHEY_SIMPLEX, scale, ink.tolist(), thick, cv2.LINE_AA)
    return Layer(page.astype(np.float32) / 255, alpha)
