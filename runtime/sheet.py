"""One picture of many results: input | mask | result, a row a face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .images import Pixels, encode_photo, read_photo, write_file
from .masks import Hole, MaskSource, hole_of
from .results import Result

TILE = 160  # pixels
FACES_A_ROW = 2
HIDDEN = 127  # grey level of the hole in the input column


def _tile(pixels: Pixels) -> NDArray[np.uint8]:
    """Return ``pixels`` as an 8-bit RGB tile."""
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    eight = (rgb // (np.iinfo(rgb.dtype).max // 255)).astype(np.uint8)
    return np.asarray(cv2.resize(eight, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)


def _row(photo: Pixels, hole: Hole, result: Pixels) -> NDArray[np.uint8]:
    eight = _tile(photo).copy()
    mask = np.where(hole, 255, 0).astype(np.uint8)
    eight[_tile(mask)[..., 0] > HIDDEN] = HIDDEN
    return np.concatenate([eight, _tile(mask), _tile(result)], axis=1)


def write_sheet(path: Path, results: Sequence[Result], source: Path, masks: MaskSource) -> None:
    """Write the contact sheet of all results that have an output file.

    Args:
        path: of the picture; its suffix decides the format.
        results: of the run.
        source: the run's input, which the masks are paired by.
        masks: where the holes came from.
    """
    rows = []
    for result in results:
        if result.status == "failed" or result.output is None:
            continue
        photo = read_photo(Path(result.input))
        image = Path(result.input)
        relative = Path(image.name) if source.is_file() else image.relative_to(source)
        hole = hole_of(photo, masks, masks.find(relative), result.input)
        rows.append(_row(photo.pixels, hole, read_photo(Path(result.output)).pixels))
    if not rows:
        return
    rows.extend([np.full_like(rows[0], 255)] * (-len(rows) % FACES_A_ROW))
    lines = [np.concatenate(rows[i : i + FACES_A_ROW], axis=1) for i in range(0, len(rows), FACES_A_ROW)]
    write_file(path, encode_photo(np.concatenate(lines), path.suffix, lossy=True))
