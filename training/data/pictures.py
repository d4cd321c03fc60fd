"""Picture files of a data folder: decoded by OpenCV, whole and within bounds, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.errors import InputError, UsageError
from showface.runtime.images.codec import check_image, decode_errors
from showface.runtime.untrusted.read import read_file


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Keep OpenCV from printing what an error says."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def read_picture(path: Path, mode: int) -> NDArray[Any]:
    """Decode a picture file by one of OpenCV's modes, such as ``cv2.IMREAD_COLOR``.

    Returns:
        (H, W), or (H, W, C) in OpenCV's order of channels.

    Raises:
        UsageError: it is missing, no regular file, no image, cut off, or has too many pixels; the message names it.
    """
    name = str(path)
    try:
        data = read_file(path)
        check_image(data, name)
        with decode_errors(data, name), _silent_opencv():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except InputError as error:
        raise UsageError(f"{error}; replace the file or take it out") from error
    except MemoryError as error:
        raise UsageError(f"{name}: there is not enough memory to decode it") from error
    if pixels is None:
        raise UsageError(f"{name}: is damaged, or of a kind that OpenCV does not read; replace the file or take it out")
    return np.asarray(pixels)
