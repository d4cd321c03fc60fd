"""Faces as they come: warp each to the template of the networks, and blend what they return into the picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..images.codec import Pixels
from .landmarks import Landmarks
from .mask_picture import Hole
from .tensors import is_gray, luma

# Where an aligned face has its landmarks, as fractions of the side: the mean of CelebA-HQ's faces.
TEMPLATE = np.asarray([(0.3764, 0.4775), (0.6222, 0.4792), (0.4964, 0.6311), (0.3917, 0.7296), (0.6109, 0.7302)])
SMALLEST_FACE = 8.0  # pixels of a face's square; landmarks closer together are no face
# A face's square per longer side of the picture: eyes and mouth alone, which fill a picture, come to three.
LARGEST_FACE = 4.0
LARGEST_SIDE = 20000.0  # pixels; 1.2 GB of RGB, which is four times the largest picture
FEATHER = 2.5 / 256  # of the square's side: how far from the hole's rim the completed face fades in


@dataclass(frozen=True, slots=True)
class Square:
    """The aligned square around one face of a picture.

    Attributes:
        to_picture: [2, 3], maps fractions (u, v) of the square to pixels (x, y) of the picture: a similarity.
        side: length of a side, in pixels of the picture.
    """

    to_picture: NDArray[np.float64]
    side: float

    def corners(self) -> NDArray[np.float64]:
        """Return the corners [4, 2] in the picture."""
        unit = np.asarray([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
        return np.asarray(unit @ self.to_picture[:, :2].T + self.to_picture[:, 2])


def square_of(landmarks: Landmarks, shape: tuple[int, ...], name: str) -> Square:
    """Return the square whose template fits five landmarks best (least squares over similarities).

    Raises:
        InputError: the landmarks are so close together, or so far apart, that they are no face of a picture
            of this ``shape``.
    """
    # A similarity is z ↦ a·z + b over complex numbers: linear, so that its least squares are closed.
    source = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    target = landmarks[:, 0] + 1j * landmarks[:, 1]
    centred = source - source.mean()
    factor = (centred.conj() @ (target - target.mean())) / (centred.conj() @ centred)
    shift = target.mean() - factor * source.mean()
    if not abs(factor) >= SMALLEST_FACE:
        raise InputError(f"{name}: a face of {abs(factor):.0f} pixels is too small to be completed")
    if abs(factor) > min(LARGEST_FACE * max(shape), LARGEST_SIDE):
        raise InputError(
            f"{name}: its landmarks give a face of {abs(factor):.0f} pixels, which is too large for a picture of "
            f"{shape[1]}×{shape[0]}; correct them"
        )
    matrix = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return Square(np.asarray(matrix), float(abs(factor)))


def picture_map(square: Square, side: int) -> NDArray[np.float64]:
    """Return [2, 3], which maps pixels of a square of ``side`` to pixels of the picture; whole numbers are centres."""
    matrix = square.to_picture.copy()
    matrix[:, :2] /= side
    matrix[:, 2] += matrix[:, :2].sum(axis=1) * 0.5 - 0.5
    return matrix


def cut_out(pixels: Pixels, hole: Hole, square: Square, size: int) -> tuple[Pixels, Hole]:
    """Warp a face to an upright square; what lies outside the picture mirrors it, its hole included.

    Args:
        pixels: the picture, (H, W) or (H, W, C).
        hole: (H, W).
        square: where the face lies.
        size: side of the networks' input.

    Returns:
        Pixels and hole of a square whose side is a multiple of ``size`` and no smaller than the face in the picture,
        so that shrinking it by area aliases nothing. What the hole touches is hole.
    """
    side = size * max(1, int(np.ceil(square.side / size)))
    inverse = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    matrix = picture_map(square, side)
    warped = cv2.warpAffine(pixels, matrix, (side, side), flags=inverse, borderMode=cv2.BORDER_REFLECT_101)
    covered = cv2.warpAffine(
        hole.astype(np.uint8) * 255, matrix, (side, side), flags=inverse, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(warped), np.asarray(covered > 0)


def reach(square: Square, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Return the rows and columns of the picture (H, W) that a square touches; None where it lies outside."""
    low = np.floor(square.corners().min(axis=0)).astype(int)
    high = np.ceil(square.corners().max(axis=0)).astype(int) + 1
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(shape[1], int(high[0])), min(shape[0], int(high[1]))
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def depth(square: Square, rows: slice, columns: slice) -> NDArray[np.float32]:
    """Return how deep each pixel lies in a square: 0.5 in its centre, negative outside, as fractions of its side."""
    inverse = cv2.invertAffineTransform(square.to_picture)
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] + np.float32(0.5)  # centres, as in picture_map
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5)
    u, v = (np.float32(r[0]) * x + np.float32(r[1]) * y + np.float32(r[2]) - np.float32(0.5) for r in inverse)
    return np.asarray(0.5 - np.maximum(np.abs(u), np.abs(v)), np.float32)


def owners(squares: list[Square], hole: Hole) -> NDArray[np.int16]:
    """Return which face completes each pixel of the hole: the one in whose square it lies deepest; -1 for none."""
    owner = np.full(hole.shape, -1, np.int16)
    deepest = np.zeros(hole.shape, np.float32)
    for index, square in enumerate(squares):
        area = reach(square, hole.shape)
        if area is None or not hole[area].any():
            continue
        area = _bounds(hole, area, margin=0)  # the depths of a whole photograph would need hundreds of megabytes
        inside = depth(square, *area)
        better = hole[area] & (inside > deepest[area])
        owner[area][better] = index
        deepest[area][better] = inside[better]
    return owner


def blend(picture: Pixels, hole: Hole, mine: Hole, square: Square, completed: Any, opaque: bool) -> None:
    """Write a completed face into the hole of ``picture``, in place; nothing outside ``mine`` is touched.

    At the hole's rim the face fades in over a few pixels, from what the known pixels around continue to. The occluder
    takes no part in it.

    Args:
        picture: (H, W) or (H, W, C), uint8 or uint16, the hole's own pixels still as they were.
        hole: (H, W), all that is unknown.
        mine: (H, W), the part of it that this face completes.
        square: where the face lies.
        completed: [3, size, size] in [-1, 1].
        opaque: set the alpha channel to its maximum.
    """
    area = reach(square, hole.shape)
    if area is None or not mine[area].any():
        return
    rows, columns = _bounds(mine, area, margin=_radius(square) * 2)
    top = int(np.iinfo(picture.dtype).max)
    matrix = picture_map(square, completed.shape[1])
    matrix[:, 2] -= (columns.start, rows.start)
    size = columns.stop - columns.start, rows.stop - rows.start
    region, inside, unknown = picture[rows, columns], mine[rows, columns], hole[rows, columns]
    radius = _radius(square)
    known = (~unknown).astype(np.float32)
    weight = _blur(known, radius)[inside]
    distance = np.asarray(cv2.distanceTransform(unknown.astype(np.uint8), cv2.DIST_L2, 3))[inside]
    alpha = np.where(weight > 0, np.clip(distance / (radius + 1), 0.0, 1.0), 1.0)

    def warped(plane: Any) -> Any:
        face = cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return (np.asarray(face)[inside] + 1.0) * (top / 2.0)

    # One channel at a time, and of it the hole alone: the floats of a whole photograph take hundreds of megabytes.
    faces: Iterator[Any] = map(warped, completed)
    if picture.ndim == 3 and is_gray(picture, hole):
        faces = iter([luma(np.stack(list(faces), axis=1))] * 3)
    if picture.ndim == 2:
        pairs: Iterable[tuple[Pixels, Any]] = [(region, luma(np.stack(list(faces), axis=1)))]
    else:
        pairs = zip([region[..., k] for k in range(3)], faces, strict=True)
    for channel, face in pairs:
        continued = _blur(channel.astype(np.float32) * known, radius)[inside] / np.maximum(weight, 1e-6)
        channel[inside] = np.rint(alpha * face + (1.0 - alpha) * continued).clip(0, top).astype(picture.dtype)
    if opaque and picture.ndim == 3 and picture.shape[2] == 4:
        region[..., 3][inside] = top


def _radius(square: Square) -> int:
    return max(1, round(FEATHER * square.side))


def _bounds(mine: Hole, area: tuple[slice, slice], margin: int) -> tuple[slice, slice]:
    """Return the smallest rows and columns with all of ``mine`` in ``area``, and a margin around them."""
    bounds = []
    for axis, part in zip((1, 0), area, strict=True):
        found = np.flatnonzero(mine[area].any(axis=axis))
        first, last = part.start + int(found[0]), part.start + int(found[-1])
        bounds.append(slice(max(0, first - margin), min(mine.shape[1 - axis], last + margin + 1)))
    return bounds[0], bounds[1]


def _blur(plane: Any, radius: int) -> Any:
    return np.asarray(cv2.blur(plane, (2 * radius + 1,) * 2))
