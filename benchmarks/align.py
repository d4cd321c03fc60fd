"""Faces in a photograph of 12 megapixels: detection, warp and blend, against the same steps on whole pictures.

python benchmarks/align.py [--rounds 10] [--face-detector FILE] [--faces 3] [--side 700]

The naive run is what one writes first: the picture as floats, and hole, feather and completed face each as large
as the picture. It detects and warps by the same calls. Both sides write the same picture, up to rounding; the
networks' part is left out, and each face is taken as its own completion.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from showface.runtime.faces.align import (
    FEATHER,
    TEMPLATE,
    Square,
    blend,
    cut_out,
    depth,
    owners,
    picture_map,
    square_of,
)
from showface.runtime.faces.landmarks import DetectedFaces
from showface.runtime.faces.tensors import prepare
from showface.runtime.images.codec import read_photo

EXAMPLES = Path(__file__).parents[1] / "examples" / "faces"
SIZE = 256
HEIGHT, WIDTH = 3000, 4000


def make_picture(faces: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[NDArray[np.float64]]]:
    """Return a picture with ``faces`` example faces of ``side`` pixels, a hole in each, and their landmarks."""
    face = read_photo(sorted(EXAMPLES.iterdir())[0]).pixels[..., :3]
    face = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    picture = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    hole = np.zeros((HEIGHT, WIDTH), np.bool_)
    landmarks = []
    for k in range(faces):
        left, top = (k + 1) * WIDTH // (faces + 1) - side // 2, HEIGHT // 2 - side // 2
        picture[top : top + side, left : left + side] = face
        hole[top + side // 2 : top + side * 3 // 4, left + side // 3 : left + side * 2 // 3] = True
        landmarks.append(TEMPLATE * side + (left, top))
    return picture, hole, landmarks


def as_it_is(picture: Any, hole: Any, found: Any) -> Any:
    """Complete by the package's own steps."""
    squares = [square_of(landmarks, picture.shape[:2], "picture") for landmarks in found(picture)]
    owner = owners(squares, hole)
    tensors = [prepare(*cut_out(picture, hole, square, SIZE), SIZE, "face")[0] for square in squares]
    result = picture.copy()
    for k, (square, completed) in enumerate(zip(squares, tensors, strict=True)):
        blend(result, hole, owner == k, square, completed, False)
    return result


def naive(picture: Any, hole: Any, found: Any) -> Any:
    """Complete by the same steps, each on all of the picture."""
    squares: list[Square] = [square_of(landmarks, picture.shape[:2], "picture") for landmarks in found(picture)]
    everywhere = slice(0, HEIGHT), slice(0, WIDTH)
    depths = np.stack([depth(square, *everywhere) for square in squares])
    owner = np.where(hole & (depths.max(axis=0) > 0), depths.argmax(axis=0), -1)
    result = picture.astype(np.float32)
    for k, square in enumerate(squares):
        completed = prepare(*cut_out(picture, hole, square, SIZE), SIZE, "face")[0]
        matrix = picture_map(square, SIZE)
        face = cv2.warpAffine(
            np.ascontiguousarray(completed.transpose(1, 2, 0)), matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE
        )
        face = (face + 1.0) * 127.5
        radius = max(1, round(FEATHER * square.side))
        box = (2 * radius + 1,) * 2
        known = (~hole).astype(np.float32)
        weight = cv2.blur(known, box)
        continued = cv2.blur(picture.astype(np.float32) * known[..., None], box) / np.maximum(weight, 1e-6)[..., None]
        distance = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)
        alpha = np.where(weight > 0, np.clip(distance / (radius + 1), 0.0, 1.0), 1.0)[..., None]
        result = np.where((owner == k)[..., None], alpha * face + (1 - alpha) * continued, result)
    return np.rint(result).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--faces", type=int, default=3)
    parser.add_argument("--side", type=int, default=700)
    parser.add_argument("--face-detector", type=Path, default=None, help="YuNet; without it landmarks are given")
    given = parser.parse_args()
    picture, hole, landmarks = make_picture(given.faces, given.side)
    detect = None if given.face_detector is None else DetectedFaces(given.face_detector).open()

    def found(pixels: Any) -> Any:
        return landmarks if detect is None else detect(pixels, "picture")

    print(f"{len(found(picture))} faces found")
    difference = np.abs(as_it_is(picture, hole, found).astype(int) - naive(picture, hole, found))
    print(f"greatest difference {difference.max()} of 255, outside the hole {difference[~hole].max()}")
    seconds: dict[str, list[float]] = {"as it is": [], "naive": []}
    for k in range(given.rounds):
        for name, task in [("as it is", as_it_is), ("naive", naive)][:: 1 if k % 2 else -1]:
            started = time.perf_counter()
            task(picture, hole, found)
            seconds[name].append(time.perf_counter() - started)
    low, middle, high = np.percentile(np.divide(*seconds.values()), (10, 50, 90))
    medians = ", ".join(f"{name} {np.median(values) * 1e3:.0f} ms" for name, values in seconds.items())
    print(f"{medians}: {middle:.3f} ({low:.3f}–{high:.3f}) × the time of the naive run")


if __name__ == "__main__":
    main()
