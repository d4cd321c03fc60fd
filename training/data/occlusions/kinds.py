"""The kinds of occlusion: what is drawn or cut out, and where over the face it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import drawn
from .cutouts import Cutout, Cutouts
from .fabric import any_colour, surface
from .layers import FACE, HEAD, FloatPicture, Layer, Scene, ellipse, paste, placed, recoloured, skin_colour, warped


@dataclass(frozen=True, slots=True)
class Supply:
    """What the kinds draw from: cut-outs, textures, and another face, which lenses mirror."""

    cutouts: Cutouts
    textures: Sequence[NDArray[np.uint8]]
    other: Callable[[], FloatPicture]


def _in_face(rng: np.random.Generator, lowest: float = 1.0) -> NDArray[np.float64]:
    """Return a random point of the face, as parts of the side; ``lowest`` bounds how near its rim it is."""
    turn, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * lowest
    (x, y), (a, b) = FACE
    return np.asarray((x + a * radius * np.cos(turn), y + b * radius * np.sin(turn)))


def hand(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste a hand that reaches for the face, seldom two; own skin, another's, or a glove."""
    tips = rng.random() < 0.3
    twice = rng.random() < 0.15
    skin = skin_colour(scene)
    own, glove = rng.random() < 0.4, rng.random() < 0.07
    gloved = any_colour(rng)
    first = supply.cutouts.draw(rng, "hand")
    if first is None:
        raise ValueError("no cut-outs of hands")
    side = float(rng.choice((-1, 1)))
    for turn in range(2 if twice else 1):
        cutout = first if turn == 0 or rng.random() < 0.7 else supply.cutouts.draw(rng, "hand") or first
        layer = _reaching(rng, cutout, scene.size, tips, side if turn == 0 else -side, twice)
        if glove:
            lab = cv2.cvtColor(gloved.reshape(1, 1, 3).clip(0, 1), cv2.COLOR_RGB2LAB)[0, 0]
            layer = recoloured(layer, lab, None, np.ones(3, np.float32))
        else:
            # The hard case is the face's own colour; otherwise lightness stays, or "darker than the face" were a cue.
            light = rng.uniform(0.7, 1.0) if own else rng.uniform(0.0, 0.15)
            chroma = rng.uniform(0.6, 1.0) if own else rng.uniform(0.2, 0.7)
            layer = recoloured(layer, *skin, np.asarray((light, chroma, chroma), np.float32))
        paste(rng, scene, layer, shadow=0.45)


def _reaching(rng: np.random.Generator, cutout: Cutout, size: int, tips: bool, side: float, twice: bool) -> Layer:
    """Lay a hand so that it comes from outside and its fingers reach the face; its arm goes to the border."""
    rgba = cutout.rgba
    length = rng.uniform(0.42, 0.8) * size
    target = _in_face(rng, 0.95) * size
    target[1] += 0.05 * size
    draw = rng.random()
    if draw < 0.65:
        angle = rng.normal(0, 0.55)  # fingers up, leaning
    elif draw < 0.93:
        angle = side * -rng.uniform(0.8, 1.9)  # from the side: fingers towards the middle
    else:
        angle = np.pi + rng.normal(0, 0.5)  # from above
    if twice:
        target[0] = (0.504 + side * rng.uniform(0.05, 0.22)) * size
        angle = -side * rng.uniform(-0.1, 0.7)
    up = np.asarray((np.sin(angle), -np.cos(angle)))  # where the fingers point on the canvas
    if cutout.points == "any":
        back = rng.uniform(-0.1, 0.35)
        return placed(rgba, tuple(target - up * back * length), length, rng.uniform(0, 2 * np.pi), side > 0, size)
    if cutout.points == "down":
        rgba = rgba[::-1, ::-1]
    height, arm = rgba.shape[0], 0
    if cutout.points == "down":  # these end at the wrist: the last row goes on as a forearm
        arm = int(height * rng.uniform(0.5, 1.3))
        rgba = cv2.copyMakeBorder(np.ascontiguousarray(rgba), 0, arm, 0, 0, cv2.BORDER_REPLICATE)
        if rng.random() < 0.45:  # in a sleeve
            start = height + int(rng.uniform(-0.05, 0.5) * arm)
            sleeve = rgba[start:, :, :3]
            shade = (sleeve.mean(axis=2, keepdims=True) / 180).clip(0.3, 1.2)
            sleeve[:] = (any_colour(rng).clip(0, 1) * 255 * shade).clip(0, 255)
    scale = length / max(height, rgba.shape[1])
    reach = rng.uniform(0.02, 0.2) if tips else rng.uniform(0.15, 0.6)  # how much of the hand lies beyond the target
    if tips:  # only the rim of the face is touched
        outward = -up if rng.random() < 0.8 else np.asarray((side, 0.0))
        target = np.asarray(FACE[0]) * size + outward * np.asarray(FACE[1]) * size * rng.uniform(0.7, 1.0)
        target += np.asarray((up[1], up[0])) * rng.normal(0, 0.08) * size
    below_tip = (height + arm) / 2 * scale  # from the finger tips to the picture's centre
    centre = target + up * (reach * length) - up * below_tip
    return placed(rgba, tuple(centre), scale * max(rgba.shape[:2]), angle, rng.random() < 0.5, size)


def mask(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste a face mask over nose, mouth and chin; some slipped below the nose, some of another fabric."""
    cutout = supply.cutouts.draw(rng, "mask")
    if cutout is None:
        raise ValueError("no cut-outs of masks")
    rgba, size = cutout.rgba, scene.size
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    height, width = rgba.shape[:2]
    top, bottom = rng.uniform(0.52, 0.64), rng.uniform(0.88, 1.0)
    if rng.random() < 0.12:
        top = rng.uniform(0.66, 0.78)
    middle, wide = 0.504 + rng.normal(0, 0.025), rng.uniform(0.21, 0.3)
    narrow = wide * rng.uniform(0.7, 1.0)
    corners = np.asarray([
        (middle - wide, top), (middle + wide, top), (middle + narrow, bottom), (middle - narrow, bottom)
    ])  # fmt: skip
    corners += rng.normal(0, 0.015, (4, 2))
    lean = rng.normal(0, 0.07)
    corners[:, 1] += (corners[:, 0] - middle) * lean
    source = np.asarray([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, (corners * size).astype(np.float32))
    layer = warped(np.ascontiguousarray(rgba), matrix, size)
    draw = rng.random()
    if draw < 0.3:
        grey = layer.colour.mean(axis=2, keepdims=True)
        level = max(0.15, float(grey[layer.alpha > 0.5].mean())) if (layer.alpha > 0.5).any() else 1.0
        layer = Layer((surface(rng, size, supply.textures) * (grey / level).clip(0.3, 1.4)).clip(0, 1), layer.alpha)
    elif draw < 0.6:
        lab = cv2.cvtColor(any_colour(rng).reshape(1, 1, 3).clip(0, 1), cv2.COLOR_RGB2LAB)[0, 0]
        layer = recoloured(layer, lab, None, np.full(3, rng.uniform(0.6, 1), np.float32))
    paste(rng, scene, layer)
    if rng.random() < 0.06:
        sunglasses(rng, scene, supply)


def sunglasses(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste sunglasses over the eyes, drawn ones half of the time."""
    size = scene.size
    cutout = supply.cutouts.draw(rng, "sunglasses") if rng.random() < 0.45 else None
    if cutout is None:
        paste(rng, scene, drawn.glasses(rng, size, supply.other()), shadow=0.3)
        return
    rgba = cutout.rgba.copy()
    keyed = (rgba[..., 2].astype(int) - rgba[..., :2].max(axis=2)) > 150  # lenses left for any colour
    if keyed.any():
        shade = np.linspace(0.6, 1.5, len(rgba))[:, None, None] if rng.random() < 0.6 else np.ones((1, 1, 1))
        rgba[..., :3] = np.where(keyed[..., None], (rng.uniform(5, 80, 3) * shade).clip(0, 255), rgba[..., :3])
    rgba[..., 3] = np.where(rgba[..., 3] > 60, np.maximum(rgba[..., 3], rng.integers(180, 250)), rgba[..., 3])
    centre = np.asarray((0.5 + rng.normal(0, 0.01), 0.485 + rng.uniform(-0.015, 0.035))) * size
    layer = placed(rgba, tuple(centre), rng.uniform(0.5, 0.66) * size, rng.normal(0, 0.06), rng.random() < 0.5, size)
    paste(rng, scene, layer, shadow=0.3)


def eyeglasses(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Draw a frame around clear lenses: no occlusion."""
    layer = drawn.glasses(rng, scene.size, supply.other(), clear=True)
    paste(rng, scene, layer, shadow=0.2, counts=False)


def hat(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste a hat, a cap or a helmet above the brows: no occlusion."""
    size = scene.size
    cutout = supply.cutouts.draw(rng, "hat")
    if cutout is None:
        raise ValueError("no cut-outs of hats")
    height, width = cutout.rgba.shape[:2]
    wide = rng.uniform(0.62, 0.95) * size
    high = wide * height / width
    brim = rng.uniform(0.2, 0.37) * size  # its lower edge: over the forehead, above the brows
    centre = ((0.505 + rng.normal(0, 0.02)) * size, brim - high / 2)
    layer = placed(cutout.rgba, centre, max(wide, high), rng.normal(0, 0.08), rng.random() < 0.5, size)
    if rng.random() < 0.6:
        lab = cv2.cvtColor(any_colour(rng).reshape(1, 1, 3).clip(0, 1), cv2.COLOR_RGB2LAB)[0, 0]
        layer = recoloured(layer, lab, None, np.full(3, rng.uniform(0.5, 1), np.float32))
    paste(rng, scene, layer, shadow=0.5, counts=False)


def thing(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste an object somewhere over the face; seldom flat, as a sticker is."""
    cutout = supply.cutouts.draw(rng, "object")
    if cutout is None:
        raise ValueError("no cut-outs of objects")
    size, length = scene.size, rng.uniform(0.18, 0.65)
    target = _in_face(rng)
    target[1] += rng.uniform(0, 0.15)
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else rng.normal(0, 0.4)
    layer = placed(cutout.rgba, tuple(target * size), length * size, angle, rng.random() < 0.5, size)
    tone = skin_colour(scene)[0]
    tone[1:] = 0  # objects are not of the colour of skin: towards grey
    light, chroma = rng.uniform(0, 0.3), rng.uniform(0, 0.7)
    layer = recoloured(layer, tone, None, np.asarray((light, chroma, chroma), np.float32))
    if rng.random() < 0.5:  # rendered things are too smooth to be photographed
        grain = rng.standard_normal((size, size, 1)).astype(np.float32) * rng.uniform(0, 0.08)
        layer = Layer((layer.colour * (1 + grain)).clip(0, 1), layer.alpha)
    if rng.random() < 0.3:
        other = any_colour(rng)
        mixed = layer.colour.mean(axis=2, keepdims=True) * other * 1.5
        layer = Layer((0.4 * layer.colour + 0.6 * mixed).clip(0, 1).astype(np.float32), layer.alpha)
    paste(rng, scene, layer, shadow=0.0 if rng.random() < 0.3 else 0.4)
    if rng.random() < 0.3 and supply.cutouts.kinds.get("hand"):  # a hand holds it
        hand(rng, scene, supply)


def microphone(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste a microphone before the mouth; half of the time a hand holds it."""
    layer = drawn.microphone(rng, scene.size)
    paste(rng, scene, layer, shadow=0.35)
    if rng.random() < 0.35 and supply.cutouts.kinds.get("hand"):
        hand(rng, scene, supply)


def cloth(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste fabric over a part of the face."""
    paste(rng, scene, drawn.cloth(rng, scene.size, supply.textures), shadow=0.3)


def shape(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste a textured shape, or a block of text."""
    if rng.random() < 0.2:
        paste(rng, scene, drawn.text_block(rng, scene.size), shadow=0.0)
    else:
        paste(rng, scene, drawn.shape(rng, scene.size, supply.textures), shadow=0.2)


def outside(rng: np.random.Generator, scene: Scene, supply: Supply) -> None:
    """Paste something that does not touch the head: no occlusion; where it comes near, it is not counted."""
    size = scene.size
    corner = np.asarray((rng.choice((0.04, 0.96)), rng.choice((0.06, 0.8, 0.97))))
    cutout = supply.cutouts.draw(rng, str(rng.choice(("hand", "object"))))
    if cutout is None:
        layer = drawn.shape(rng, size, supply.textures)
    else:
        where = tuple((corner + rng.normal(0, 0.04, 2)) * size)
        layer = placed(cutout.rgba, where, rng.uniform(0.2, 0.45) * size, rng.uniform(0, 2 * np.pi), True, size)
    near = ellipse(size, (HEAD[0], (HEAD[1][0] * 0.95, HEAD[1][1]))) | ellipse(size, FACE)
    paste(rng, scene, Layer(layer.colour, layer.alpha * ~near), shadow=0.2, counts=False)


KINDS: dict[str, Callable[[np.random.Generator, Scene, Supply], None]] = {
    "hand": hand, "mask": mask, "sunglasses": sunglasses, "object": thing, "microphone": microphone, "cloth": cloth,
    "shape": shape, "eyeglasses": eyeglasses, "hat": hat, "outside": outside,
}  # fmt: skip
