"""Where the faces of a picture are: five landmarks each, from the YuNet detector or from a file."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..images.codec import Pixels
from ..untrusted.read import MAX_TEXT, file_digest, parse_json, read_file, shown

logger = logging.getLogger(__name__)

Landmarks = NDArray[np.float64]  # [5, 2]: x, y in pixels of the upright picture
FindFaces = Callable[[Pixels, str], list[Landmarks]]  # of a picture and its relative path

ORDER = ("right eye", "left eye", "nose", "right corner of the mouth", "left corner of the mouth")
DETECTOR_VARIABLE = "SHOWFACE_YUNET"
DETECTION_SIDE = 640  # pixels; the longer side of what the detector sees
CONFIDENCE, OVERLAP, MOST_FACES = 0.7, 0.3, 200
_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class GivenFaces:
    """Landmarks by the relative paths of the pictures, as :func:`read_landmarks` returns them."""

    faces: Mapping[str, list[Landmarks]]

    def digest(self, name: str) -> str:
        """Return a text that changes with what is found in the picture of this relative path."""
        found = self.faces.get(name, [])
        return hashlib.sha256(b"".join(np.ascontiguousarray(face).tobytes() for face in found)).hexdigest()

    def open(self) -> FindFaces:
        """Return the function that finds them."""
        return lambda _, name: self.faces.get(name, [])


class DetectedFaces:
    """What the YuNet detector of a model file finds.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, model: Path) -> None:
        self.model, self._digest = model, file_digest(model)

    def digest(self, name: str) -> str:
        """Return the digest of the model, whatever the picture."""
        return self._digest

    def open(self) -> FindFaces:
        """Return the function that finds them; it keeps state, so that each thread needs its own."""
        detect = yunet(self.model)
        return lambda pixels, _: detect(pixels)


def find_detector(path: Path | None) -> Path:
    """Return the YuNet model: ``path``, or what ``SHOWFACE_YUNET`` names.

    Raises:
        UsageError: neither is a file.
    """
    named = os.environ.get(DETECTOR_VARIABLE)
    chosen = path or (Path(named) if named else None)
    if chosen is None:
        raise UsageError(
            f"faces are found by the YuNet detector: name its file, set {DETECTOR_VARIABLE}, or give landmarks; "
            "docs/use/align.md tells where the model is to be had",
            "align",
        )
    if not chosen.is_file():
        raise UsageError(f"{chosen}: no such face detector file; docs/use/align.md tells where it is to be had")
    return chosen


def yunet(path: Path) -> Callable[[Pixels], list[Landmarks]]:
    """Return a function that finds the faces of a picture; it keeps state, so that each thread needs its own.

    Raises:
        UsageError: OpenCV cannot load the model.
    """
    data = np.frombuffer(read_file(path, error=UsageError), np.uint8)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of the model that it needs itself
    try:
        detector = cv2.FaceDetectorYN.create(
            "onnx", data, np.empty(0, np.uint8), (320, 320), CONFIDENCE, OVERLAP, MOST_FACES
        )
    except cv2.error as error:
        raise UsageError(f"{path}: OpenCV cannot load this face detector: {error.err}") from error

    def upright(pixels: Pixels) -> list[Landmarks]:
        height, width = pixels.shape[:2]
        scale = min(1.0, DETECTION_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        detector.setInputSize(size)
        faces = detector.detect(_eight_bit_bgr(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)))[1]
        if faces is None:
            return []
        ratio = width / size[0], height / size[1]
        # A row is a box, five landmarks in ORDER, and a score. From left to right, whatever the scores.
        found = [np.asarray(face[4:14], np.float64).reshape(5, 2) * ratio for face in faces]
        return sorted(found, key=lambda landmarks: tuple(landmarks.mean(axis=0)))

    def find(pixels: Pixels) -> list[Landmarks]:
        found = upright(pixels)
        if found:
            return found
        # A picture of people who lie, or one that lost its orientation: the detector knows upright faces only.
        height, width = pixels.shape[:2]
        turned: Mapping[int, Callable[[Any, Any], tuple[Any, Any]]] = {  # x and y back to upright, by quarter turns
            1: lambda x, y: (width - 1 - y, x),
            3: lambda x, y: (y, height - 1 - x),
            2: lambda x, y: (width - 1 - x, height - 1 - y),
        }
        for turns, turned_back in turned.items():
            found = upright(np.ascontiguousarray(np.rot90(pixels, turns)))
            if found:
                logger.info("faces were found after a turn by %d°: the picture lies on its side", 90 * turns)
                return [np.stack(turned_back(*landmarks.T), axis=1) for landmarks in found]
        return []

    return find


def _eight_bit_bgr(pixels: Any) -> Pixels:
    eight = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    if eight.ndim == 2:
        return np.asarray(cv2.cvtColor(eight, cv2.COLOR_GRAY2BGR))
    return np.ascontiguousarray(eight[..., 2::-1])


def read_landmarks(path: Path) -> Mapping[str, list[Landmarks]]:
    """Read the landmarks of many pictures by their path relative to INPUT.

    A CSV file has a row a face: the picture's name, then x and y of the five points in ``ORDER``; a first row without
    numbers is a heading. A JSON file is ``{"name": [[[x, y], …five], …faces]}``.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    # Names of files may hold any bytes.
    text = read_file(path, MAX_TEXT, UsageError).decode("utf-8-sig", errors="surrogateescape")
    try:
        faces = parse_json(text) if path.suffix.lower() == ".json" else _csv_faces(text)
        found: dict[str, list[Landmarks]] = {}
        for name, some in faces.items():
            found.setdefault(PurePosixPath(name).as_posix(), []).extend(np.asarray(face, np.float64) for face in some)
    except (ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        raise UsageError(f"{path}: no landmarks: {error}; docs/use/align.md shows the two formats") from error
    for name, some in found.items():
        for face in some:
            if face.shape != (5, 2) or not np.isfinite(face).all():
                raise UsageError(f"{path}: {shown(name)}: a face has five points x, y ({', '.join(ORDER)})")
    return found


def _csv_faces(text: str) -> dict[str, list[list[list[float]]]]:
    faces: dict[str, list[list[list[float]]]] = {}
    for number, row in enumerate(csv.reader(io.StringIO(text))):
        if not row or (number == 0 and not _is_number(row[-1])):
            continue
        if len(row) != 1 + _COLUMNS:
            raise ValueError(f"row {number + 1} has {len(row)} columns, not a name and {_COLUMNS} numbers")
        values = [float(cell) for cell in row[1:]]
        faces.setdefault(row[0], []).append([values[i : i + 2] for i in range(0, _COLUMNS, 2)])
    return faces


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
