"""The second half of the work on one input: compose, encode, and give the output its name."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ..errors import DiskFullError, InputError, ShowfaceError
from ..faces.align import blend, owners
from ..files import write_errors
from ..images.codec import Pixels, encode_photo, write_file
from ..inpainter import Inpainter
from .item import Item
from .journal import Journal
from .options import Options
from .results_log import Result
from .saved_masks import save_mask


def write_output(item: Item, options: Options, journal: Journal | None) -> Result:
    """Write the output of one input, and its mask where that is asked for.

    Args:
        item: with its faces completed.
        options: what is done to each image.
        journal: of the output folder; None writes a single named output.

    Returns:
        Its final result.

    Raises:
        DiskFullError: nothing can be written any more.
    """
    started = time.monotonic()
    done = replace(item.result, status="done")
    try:
        data = item.copy if item.copy is not None else _encode(item, options)
        if options.save_masks is not None:
            assert item.hole is not None
            assert done.key is not None
            save_mask(item.hole, done.key, options.save_masks, item, options.overwrite)
        done = replace(done, seconds=round(done.seconds + time.monotonic() - started, 4))
        if journal is not None:
            journal.publish(item.output, data, done, item.replace)
        else:
            with write_errors(item.output.parent, item.output):
                item.output.parent.mkdir(parents=True, exist_ok=True)
                write_file(item.output, data)
    except DiskFullError:
        raise
    except ShowfaceError as error:
        return replace(done, status="failed", error=str(error))
    except Exception as error:  # whatever one file brings about, the others go on
        return replace(done, status="failed", error=f"{item.source}: {type(error).__name__}: {error}")
    return done


def _encode(item: Item, options: Options) -> bytes:
    pixels, photo = compose(item, options.masks.kind == "alpha"), item.photo
    assert photo is not None
    try:
        return encode_photo(pixels, item.output.suffix, photo.lossy, photo.profile, photo.exif, options.quality)
    except InputError as error:
        raise InputError(f"{item.output}: {error}") from error


def compose(item: Item, opaque: bool) -> Pixels:
    """Return the photo with all completed faces in its hole.

    Raises:
        InputError: the networks failed on one of them.
    """
    assert item.photo is not None
    assert item.hole is not None
    for face in item.completed:
        if isinstance(face, InputError):
            raise InputError(f"{item.source}: {face}")
    if not item.faces:
        return item.photo.pixels
    squares = [face.square for face in item.faces if face.square is not None]
    if not squares:
        return Inpainter.compose(item.photo.pixels, item.hole, np.asarray(item.completed[0]), opaque)
    picture = item.photo.pixels.copy()
    owner = owners(squares, item.hole)
    for index, (square, face) in enumerate(zip(squares, item.completed, strict=True)):
        blend(picture, item.hole, owner == index, square, face, opaque)
    return picture
