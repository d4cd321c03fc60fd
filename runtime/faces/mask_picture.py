"""A mask as people make it: black and white, strokes on a transparent layer, label colours, values 0 and 1.

What may mean two things is refused, with the way out. Nothing here looks at the photograph.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..images.codec import Pixels

Hole = NDArray[np.bool_]  # [H, W], True where the image is to be completed

THRESHOLD = 127  # of 255: a brighter pixel of a black and white mask is a hole; a less opaque one of an image too
FEW = 64  # colours that a drawing without soft edges has at most
DARK, BRIGHT = 40, 200  # black and white, as lossy files and scans hold them
BETWEEN = 0.35  # share of pixels neither black nor white that a mask with soft edges has at most
SOFT, CLEAR = 0.5, 0.9  # share of what counts as black that is black, and of white; of black under colours
ANY = 32  # grey levels by which two things that a mask tells apart differ at least
COLORFUL = 48  # grey levels between the channels from which on a soft or lossy pixel is coloured

_PLAIN = "a mask is black where the picture is kept and white where it is completed"


def read_hole(mask: Pixels, name: str, invert: bool = False) -> Hole:
    """Return the hole that a mask shows.

    Args:
        mask: (H, W), (H, W, 3) or (H, W, 4), uint8 or uint16.
        name: stands in the error.
        invert: complete what is black, and keep the rest.

    Raises:
        InputError: it may mean several things.
    """
    if mask.dtype == np.uint16:  # labels have small numbers, pictures use the whole range
        mask = (mask if mask.max() <= 255 else mask // 257).astype(np.uint8)
    seen = None
    if mask.ndim == 3 and mask.shape[2] == 4:
        seen = mask[..., 3] > THRESHOLD
        mask = mask[..., :3]
        if seen.all():
            seen = None
        elif not seen.any():
            raise InputError(f"{name}: is transparent everywhere; {_PLAIN}")
    hole = _bright(mask, name) if seen is None else _seen(mask, seen, name)
    return ~hole if invert else hole


def _seen(mask: Pixels, seen: Hole, name: str) -> Hole:
    """Return the hole of a mask with transparent parts: a layer of strokes, or a black and white one cut out."""
    visible = mask[seen].reshape(1, -1, 3)
    low, high = visible.min(axis=(0, 1)), visible.max(axis=(0, 1))
    if int((high.astype(int) - low).max()) <= ANY:  # of one colour: what was painted
        if high.max() < DARK:
            raise InputError(
                f"{name}: is black on transparent, which may mean either; paint in another colour, or {_PLAIN}"
            )
        return seen
    try:
        bright = _bright(visible, name)
    except InputError as error:
        raise InputError(
            f"{name}: is a picture with transparent parts, no mask; if these are to be completed, give it as the input "
            "and pass mask_from='alpha'"
        ) from error
    hole: Hole = np.zeros(seen.shape, np.bool_)
    hole[seen] = bright[0]
    return hole


def _bright(mask: Pixels, name: str) -> Hole:
    """Return the hole of a mask without transparent parts, (H, W) or (H, W, 3)."""
    if mask.ndim == 2:
        return _gray(mask, name)
    if _is_gray(mask):
        return _gray(mask[..., 0], name)
    darkest, brightest = extremes(mask)  # not luminance, of which a pure blue has hardly any
    if _colors(mask) <= FEW and int(brightest.min()) == 0:
        return np.asarray(brightest > 0)
    counts = np.bincount(brightest.reshape(-1), minlength=256)
    level = min(int(brightest.max()) // 2, THRESHOLD)
    if int(brightest.min()) < DARK and counts[:DARK].sum() >= CLEAR * counts[: level + 1].sum():
        return np.asarray(brightest > level)  # with soft edges, or lossy
    if int((brightest - darkest).max()) < COLORFUL:  # the noise of a lossy file
        return _gray(np.asarray(cv2.cvtColor(mask, cv2.COLOR_RGB2GRAY)), name)
    raise InputError(
        f"{name}: has colours, but not on black, so that it does not tell what is to be completed; {_PLAIN}, or any "
        "colour on black; for a key colour in the photograph pass mask_from='color:#RRGGBB'"
    )


def extremes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    """Return the least and the greatest of red, green and blue, each (H, W), of pixels (H, W, 3 or 4).

    Plane by plane: NumPy takes twenty times as long along an axis of three.
    """
    red, green, blue = cv2.split(pixels)[:3]
    return np.asarray(cv2.min(cv2.min(red, green), blue)), np.asarray(cv2.max(cv2.max(red, green), blue))


def _gray(gray: Pixels, name: str) -> Hole:
    counts = np.bincount(gray.reshape(-1), minlength=256)
    values = np.flatnonzero(counts)
    low, high = int(values[0]), int(values[-1])
    if low == high:
        if 0 < high < BRIGHT:
            raise InputError(f"{name}: has the value {high} everywhere; {_PLAIN}")
        return np.asarray(gray > THRESHOLD)
    if (
        low == 0 and high < BRIGHT and len(values) <= FEW and not _is_soft(gray, values)
    ):  # 0 and 1, labels, grey strokes
        return np.asarray(gray > 0)
    level = THRESHOLD if low < DARK and high >= BRIGHT else (low + high) // 2
    reach = min(DARK, (high - low) // 3)
    black, white = counts[low : low + reach + 1].sum(), counts[high - reach : high + 1].sum()
    clear = black >= SOFT * counts[: level + 1].sum() and white >= SOFT * counts[level + 1 :].sum()
    if high - low < ANY or not clear or black + white < (1 - BETWEEN) * gray.size:
        raise InputError(f"{name}: holds shades between black and white, or too little contrast; {_PLAIN}")
    return np.asarray(gray > level)


def _is_soft(gray: Pixels, values: NDArray[np.intp]) -> bool:
    """Return whether shades lead from one of the ``values`` of a picture to another, as no labels have them."""
    kernel = np.ones((3, 3), np.uint8)
    most, least = cv2.dilate(gray, kernel), cv2.erode(gray, kernel)
    if np.count_nonzero((gray > least) & (gray < most)) > 0.2 * np.count_nonzero(most > least):
        return True  # narrow edges
    ranks = np.zeros(256, np.int16)
    ranks[values] = np.arange(len(values))
    steps = np.concatenate([np.abs(np.diff(ranks[gray], axis=axis)).reshape(-1) for axis in (0, 1)])
    return bool(len(values) > 3 and np.count_nonzero(steps == 1) > 0.95 * np.count_nonzero(steps))


def _is_gray(mask: Pixels) -> bool:
    return bool((mask[..., 0] == mask[..., 1]).all() and (mask[..., 1] == mask[..., 2]).all())


def _colors(mask: Pixels) -> int:
    """Return how many colours a mask (H, W, 3) has."""
    packed = (mask[..., 0].astype(np.uint32) << 16) | (mask[..., 1].astype(np.uint32) << 8) | mask[..., 2]
    found: NDArray[np.bool_] = np.zeros(2**24, np.bool_)
    found[packed.reshape(-1)] = True
    return int(np.count_nonzero(found))
