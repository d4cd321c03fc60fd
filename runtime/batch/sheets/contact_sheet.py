"""One picture of many results: input | mask | result, a row a face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ...faces.mask_picture import Hole
from ...faces.masks import MaskSource, hole_of
from ...files import sealed, write_side
from ...images.codec import Pixels, encode_photo, read_photo
from ..item import Item
from ..results_log import Result
from ..write_output import saved_mask

TILE = 160  # pixels
FACES_A_ROW = 2
HIDDEN = 127  # grey level of the hole in the input column
SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}  # pixels that a picture of the format can have


def check_sheet(path: Path, faces: int, height: int = TILE, columns: int = FACES_A_ROW) -> None:
    """Refuse a sheet of more faces, ``columns`` a line of ``height`` pixels, than its format holds.

    Raises:
        UsageError: names the number it holds.
    """
    side = SIDES.get(path.suffix.lower())
    most = faces if side is None else side // height * columns
    if faces > most:
        raise UsageError(f"{path}: {path.suffix} holds {most} faces, not {faces}; choose .png", "sheet")


def write_grid(path: Path, tiles: list[NDArray[np.uint8]], columns: int, overwrite: bool) -> None:
    """Write one picture of tiles of one size, in lines of ``columns``, the last filled up with white.

    Raises:
        ShowfaceError: the picture cannot be written, or a file is there that no run wrote.
    """
    tiles.extend([np.full_like(tiles[0], 255)] * (-len(tiles) % columns))
    lines = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    write_side(path, sealed(encode_photo(np.concatenate(lines), path.suffix, lossy=True)), overwrite)


def tile(pixels: Pixels) -> NDArray[np.uint8]:
    """Return ``pixels`` as an 8-bit RGB tile, on black where they are no square."""
    height, width = pixels.shape[:2]
    if height != width:
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        border = top, side - height - top, left, side - width - left
        pixels = np.asarray(cv2.copyMakeBorder(pixels, *border, borderType=cv2.BORDER_CONSTANT, value=0))
    rgb = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
    eight = (rgb // (np.iinfo(rgb.dtype).max // 255)).astype(np.uint8)
    return np.asarray(cv2.resize(eight, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)


def _row(photo: Pixels, hole: Hole, result: Pixels) -> NDArray[np.uint8]:
    eight = tile(photo).copy()
    mask = np.where(hole, 255, 0).astype(np.uint8)
    eight[tile(mask)[..., 0] > HIDDEN] = HIDDEN
    return np.concatenate([eight, tile(mask), tile(result)], axis=1)


def write_sheet(
    path: Path,
    items: Sequence[Item],
    results: Sequence[Result],
    masks: MaskSource,
    saved: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the contact sheet of all results that have an output, in their order; found masks come from ``saved``.

    Raises:
        InputError: an input or a result cannot be read any more.
        ShowfaceError: the picture cannot be written, or a file is there that no run wrote.
    """
    by_input = {item.relative.as_posix(): item for item in items}
    rows = []
    for result in results:
        if result.status == "failed":
            continue
        item = by_input[result.input]
        photo = read_photo(item.source)
        if masks.found and saved is not None:
            hole = read_photo(saved_mask(saved, item)).pixels > 0
        else:
            hole = hole_of(photo, masks, masks.find(item.relative), str(item.source))
        rows.append(_row(photo.pixels, hole, read_photo(item.output).pixels))
    if rows:
        write_grid(path, rows, FACES_A_ROW, overwrite)
