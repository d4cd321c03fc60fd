"""Between an image of any size and the square tensors of the networks."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..images.codec import Pixels
from .mask_picture import Hole, extremes

FloatArray = NDArray[np.float32]

GRAY_TOLERANCE = 4  # of 255: what conversions leave between the channels of a gray picture
ROWS = 256  # that are computed at a time, so that memory for intermediate values does not grow with the picture


def _resize(array: Any, side: int) -> Any:
    """Resize (H, W[, C]) to a square: by area when shrinking, bilinearly when growing."""
    if array.shape[0] == side:
        return array
    return cv2.resize(array, (side, side), interpolation=cv2.INTER_AREA if array.shape[0] > side else cv2.INTER_LINEAR)


def check_square(pixels: Pixels, name: str, remedy: str = "") -> None:
    """Refuse what is not square: squashing a face would change it.

    Raises:
        InputError: the image is not square; the message starts with ``name`` and ends with ``remedy``.
    """
    height, width = pixels.shape[:2]
    if height != width:
        raise InputError(f"{name}: {width}×{height} is not square; crop it to an aligned face{remedy}")


def prepare(pixels: Pixels, hole: Hole, size: int, name: str) -> tuple[FloatArray, FloatArray]:
    """Make the chain's inputs from an aligned square face.

    A pixel of the small image that any part of the hole touches counts as hole, so that nothing of
    the occluder bleeds into the known pixels.

    Args:
        pixels: (H, H), (H, H, 3) or (H, H, 4), uint8 or uint16.
        hole: (H, H), True = hole.
        size: side of the networks' input.
        name: name of the file, for the error.

    Returns:
        ``image`` [3, size, size] in [-1, 1], zero in the hole, and ``mask`` [1, size, size], 1 = hole.

    Raises:
        InputError: the image is none, such as a picture of Pillow's, or not square, or the hole is not bool of its
            height and width.

    >>> image, mask = prepare(np.full((64, 64, 3), 255, np.uint8), np.eye(64, dtype=bool), 64, "face")
    >>> float(image.max()), int(mask.sum())
    (1.0, 64)
    """
    for what, value in (("the picture", pixels), ("the hole", hole)):
        if not isinstance(value, np.ndarray):
            raise InputError(f"{name}: {what} is a {type(value).__name__}; give a numpy array, as by np.asarray(…)")
        if not value.size:
            raise InputError(f"{name}: {what} is empty, {value.shape}")
    shape = pixels.shape[2:]
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim < 2 or shape not in ((), (3,), (4,)):
        raise InputError(f"{name}: {pixels.dtype} {pixels.shape} is no image; give (H, H[, 3 or 4]), uint8 or uint16")
    check_square(pixels, name)
    if hole.dtype != np.bool_ or hole.shape != pixels.shape[:2]:
        raise InputError(f"{name}: the hole is {hole.dtype} {hole.shape}; give bool {pixels.shape[:2]}, True = hole")
    small_hole = _resize(hole.astype(np.float32), size) > 0
    channels = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]
    image = np.empty((3, size, size), np.float32)
    for index, channel in enumerate(channels):  # one at a time: a photograph's floats take 50 megabytes a channel
        # The occluder is blanked before the resize, or its brightness would ring over the hole's border.
        known = np.where(hole, 0, channel).astype(np.float32)
        image[index:] = _resize(known, size) * (2.0 / np.iinfo(pixels.dtype).max) - 1.0  # a gray one fills all three
    image[:, small_hole] = 0.0
    return image, small_hole[None].astype(np.float32)


def luma(values: FloatArray) -> FloatArray:
    """Return the gray [...] of red, green and blue [..., 3] (ITU-R BT.601).

    Not a matrix product, whose last bits depend on the processor and on how many pixels there are.
    """
    red, green, blue = (values[..., index] for index in range(3))
    gray: FloatArray = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return gray


def is_gray(pixels: Pixels, hole: Hole) -> bool:
    """Return whether a picture of three channels or more has no hue where it is known; then its fill has none."""
    if pixels.ndim == 2:
        return True
    tolerance = GRAY_TOLERANCE * (int(np.iinfo(pixels.dtype).max) // 255)
    for first in range(0, len(pixels), ROWS):
        least, greatest = extremes(pixels[first : first + ROWS])
        hued = greatest - least > tolerance
        if bool((hued & ~hole[first : first + ROWS]).any()):
            return False
    return not bool(hole.all())


def composite(pixels: Pixels, hole: Hole, completed: FloatArray, opaque: bool = False) -> Pixels:
    """Write the completed face into the hole; every value outside it is copied bit by bit.

    Args:
        pixels: the input, as for :func:`prepare`.
        hole: (H, H), True = hole.
        completed: [3, size, size] in [-1, 1].
        opaque: set the alpha channel to its maximum in the hole.

    Returns:
        An array of the input's shape and dtype.

    >>> face, hole = np.zeros((64, 64, 3), np.uint8), np.eye(64, dtype=bool)
    >>> int(composite(face, hole, np.ones((3, 64, 64), np.float32)).sum()) == 64 * 3 * 255
    True
    """
    top = int(np.iinfo(pixels.dtype).max)
    full = _resize(np.ascontiguousarray(completed.transpose(1, 2, 0)), pixels.shape[0])
    result, gray = pixels.copy(), is_gray(pixels, hole)
    for first in range(0, len(full), ROWS):
        rows = slice(first, first + ROWS)
        inside = hole[rows]
        values = np.rint((full[rows][inside] + 1.0) * (top / 2.0)).clip(0, top)
        if pixels.ndim == 2:
            result[rows][inside] = np.rint(luma(values)).astype(pixels.dtype)
        elif gray:
            result[rows][..., :3][inside] = np.rint(luma(values))[:, None].astype(pixels.dtype)
        else:
            result[rows][..., :3][inside] = values.astype(pixels.dtype)
    if opaque and pixels.ndim == 3 and pixels.shape[2] == 4:
        result[..., 3][hole] = top
    return result
