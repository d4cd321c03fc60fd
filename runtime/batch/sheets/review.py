"""Masks for people to look at before anything is completed: found, saved, and shown with the doubtful ones first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import DiskFullError, ShowfaceError
from ...faces.mask_picture import Hole
from ...files import write_flushed
from ...images.codec import Pixels, read_photo
from ...inpainter import Inpainter
from ..item import Item
from ..options import Options
from ..read_input import InputReaders
from ..results_log import Result
from ..run import unknown
from ..write_output import key_of_mask, save_mask
from .contact_sheet import TILE, tile, write_grid

COLUMNS = 6
CAPTION = 34  # pixels
HEIGHT = TILE + CAPTION
RED = (255, 40, 40)
INK = 30


def find_masks(
    items: Sequence[Item], inpainter: Inpainter, options: Options, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Result]:
    """Write the mask of every image, the PNG that is its item's output; an item that fails does not touch the others.

    Yields:
        Each result; ``done`` where the mask was written.

    Raises:
        DiskFullError: nothing can be written any more.
    """
    with InputReaders(options).open(inpainter) as reader:
        for item in items:
            if stopped():
                return
            # A mask that nobody has touched since it was found may be found anew; an edited one is the user's.
            mine = options.overwrite or key_of_mask(item.output) is not None
            found = reader.read(replace(item, result=unknown(item), replace=mine))
            yield found.result if found.final else _saved(found, options)


def _saved(item: Item, options: Options) -> Result:
    result = replace(item.result, status="done")
    assert options.save_masks is not None
    assert item.hole is not None
    assert result.key is not None
    try:
        save_mask(item.hole, result.key, options.save_masks, item, options.overwrite, write_flushed)
    except DiskFullError:
        raise
    except ShowfaceError as error:
        return replace(result, status="failed", error=str(error))
    return result


def doubt_of(result: Result) -> float:
    """Return how much a mask wants to be looked at: from 0; uncertain ones have at least 1."""
    note = result.mask or {}
    confidence = note.get("confidence")
    unsure = 1.0 - confidence if isinstance(confidence, float | int) else 0.0
    return float(bool(note.get("uncertain"))) + float(bool(note.get("too_large"))) + unsure


def write_review(path: Path, items: Sequence[Item], results: Sequence[Result], overwrite: bool = False) -> bool:
    """Write a contact sheet of the found masks, red over the photographs, the most doubtful first.

    Returns whether there was a mask to show.

    Raises:
        InputError: an image or a mask cannot be read any more.
        ShowfaceError: the picture cannot be written, or a file is there that no run wrote.
    """
    by_input = {item.relative.as_posix(): item for item in items}
    shown = sorted((r for r in results if r.status != "failed"), key=lambda r: (-doubt_of(r), r.input.split("/")))
    tiles = []
    for result in shown:
        item = by_input[result.input]
        hole = read_photo(item.output).pixels > 0
        tiles.append(_captioned(_overlay(read_photo(item.source).pixels, hole), result))
    if tiles:
        write_grid(path, tiles, COLUMNS, overwrite)
    return bool(tiles)


def _overlay(pixels: Pixels, hole: Hole) -> NDArray[np.uint8]:
    photo = tile(pixels).astype(np.float32)
    share = tile(np.where(hole, 255, 0).astype(np.uint8))[..., :1].astype(np.float32) / 255
    return np.asarray(photo + (np.asarray(RED, np.float32) - photo) * share * 0.55, np.float32).astype(np.uint8)


def _captioned(picture: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
    """Add two lines below a picture: the name, and what is known of the mask; OpenCV's letters are ASCII only."""
    note = result.mask or {}
    if note.get("too_large"):
        text = f"TOO LARGE {note.get('area', 0):.0%}"
    elif not result.hole_ratio:
        text = "nothing found"
    else:
        confidence = note.get("confidence")
        sure = "" if confidence is None else f", sure {confidence:.0%}"
        text = f"{note.get('area', result.hole_ratio):.0%}{sure}"
    if note.get("uncertain") and not note.get("too_large"):
        text += " UNCERTAIN"
    caption = np.full((CAPTION, TILE, 3), 255, np.uint8)
    name = result.input.encode("ascii", "replace").decode()
    for line, shown in enumerate((name[-24:], text)):
        place = (4, 13 + 15 * line)
        cv2.putText(caption, shown, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (INK,) * 3, 1, cv2.LINE_AA)
    return np.concatenate([picture, caption])
